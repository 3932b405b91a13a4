package window

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/tidwall/gjson"
	"pgregory.net/rapid"

	"github.com/boltmesh/boltmesh/pkg/archive"
	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/partition"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// pair is a statistic in two stages, the first with two tasks.
type pair struct {
	t      testing.TB
	first  [2]*bolttest.Harness
	second *bolttest.Harness
	stages []Statistic
	store  *archive.Memory
	cache  *archive.Cache
	late   []tuple.Tuple
}

const shares = 2

func share(t *tuple.Tuple) (string, bool) {
	return fmt.Sprint(partition.Task(t.Key, shares)), t.Key != ""
}

func byGroup(t *tuple.Tuple) (string, bool) {
	g := gjson.GetBytes(t.Payload, "group").Str
	return g, g != ""
}

// stages makes both stages of spec, which has no id.
func stages(t testing.TB, spec topology.Bolt) *pair {
	t.Helper()
	p := &pair{t: t, store: &archive.Memory{}}
	p.cache = archive.NewCache(p.store, archive.CacheOptions{})
	build := func(stage topology.Stage, id string, group func(*tuple.Tuple) (string, bool)) Statistic {
		s := spec
		s.ID, s.Kind, s.Stage = id, topology.KindStat, stage
		if stage == topology.StageSecond {
			s.Group, s.Where = []string{"group"}, nil
		}
		b, err := Make(s, group, nil)
		if err != nil {
			t.Fatal(err)
		}
		b.SetArchive(&archive.Reader{Cache: p.cache, Archive: "devices"})
		p.stages = append(p.stages, b)
		return b
	}
	for i := range p.first {
		p.first[i] = bolttest.New(t, build(topology.StageFirst, "s-part", share), "default", "late")
	}
	p.second = bolttest.New(t, build(topology.StageSecond, "s", byGroup))
	return p
}

// site says where devices are.
func (p *pair) site(devices map[string]string) {
	p.t.Helper()
	for _, d := range slices.Sorted(maps.Keys(devices)) {
		profile, err := archive.New(d, fmt.Appendf(nil, `{"site":%q}`, devices[d]))
		if err == nil {
			err = p.store.Write(context.Background(), "devices", []archive.Profile{profile})
		}
		if err != nil {
			p.t.Fatal(err)
		}
		p.cache.Changed("devices", []string{d})
	}
}

// feed hands readings to the first stage and what it emits to the second; what that emits is returned.
func (p *pair) feed(readings ...tuple.Tuple) []tuple.Tuple {
	var out []tuple.Tuple
	for _, r := range readings {
		out = append(out, p.pass(p.first[partition.Task(r.Key, shares)].Feed(r))...)
	}
	return out
}

func (p *pair) pass(told []tuple.Tuple) (out []tuple.Tuple) {
	for _, t := range told {
		if t.Stream == "late" {
			p.late = append(p.late, t)
			continue
		}
		t.ID, t.Offset = tuple.ID{}, 0 // the harness gives it one of its own
		out = append(out, p.second.Feed(t)...)
	}
	return out
}

// tick has the first stage handle a tick, and then the second.
func (p *pair) tick(tick bolt.Tick) (out []tuple.Tuple) {
	for _, h := range p.first {
		out = append(out, p.pass(h.Tick(tick))...)
	}
	return append(out, p.second.Tick(tick)...)
}

func grouped(w topology.Window, as ...topology.Aggregate) topology.Bolt {
	b := stat(w, as...)
	b.Group = []string{"archive.site"}
	return b
}

func TestIntervalInStages(t *testing.T) {
	spec := grouped(topology.Window{}, aggregate("n", "count", ""), aggregate("mean", "mean", "x"))
	spec.Every = time.Minute
	p := stages(t, spec)
	p.site(map[string]string{"a": "north", "b": "north", "c": "south"})
	tick := func(ts int64) []tuple.Tuple { return p.tick(bolt.Tick{Time: ts, Watermark: math.MinInt64}) }
	expect(t, p.feed(at("a", 1, 1), at("b", 2, 3), at("c", 2, 5), at("unknown", 3, 7)))
	expect(t, tick(60_000),
		`default north@60000 {"group":"north","window":{"kind":"interval","end":60000},"n":2,"mean":2}`,
		`default south@60000 {"group":"south","window":{"kind":"interval","end":60000},"n":1,"mean":5}`)
	p.site(map[string]string{"a": "south"})
	expect(t, p.feed(at("a", 4, 9)))
	expect(t, tick(120_000), // also the silent one
		`default north@120000 {"group":"north","window":{"kind":"interval","start":60000,"end":120000},"n":0}`,
		`default south@120000 {"group":"south","window":{"kind":"interval","start":60000,"end":120000},"n":1,"mean":9}`)
	expect(t, p.feed(at("b", 5, 1)))
	expect(t, p.tick(bolt.Tick{Time: 130_000, Flush: true}), // only what is open
		`default north@130000 {"group":"north","window":{"kind":"interval","start":120000,"end":130000},"n":1,"mean":1}`)
}

func TestAlignedInStages(t *testing.T) {
	p := stages(t, grouped(topology.Window{Kind: topology.WindowTumbling, Size: time.Minute, Time: "processing"}, aggregate("n", "count", "")))
	p.site(map[string]string{"a": "north", "b": "north"})
	tick := func(last, ts int64) []tuple.Tuple {
		return p.tick(bolt.Tick{Time: ts, Last: last, Watermark: math.MinInt64})
	}
	expect(t, p.feed(at("a", 1, 1), at("b", 2, 3)))
	expect(t, tick(60_000, 61_000))
	expect(t, tick(61_000, 120_100), `default north@120000 {"group":"north","window":{"kind":"tumbling","start":60000,"end":120000},"n":2}`)
	expect(t, tick(120_100, 180_100), `default north@180000 {"group":"north","window":{"kind":"tumbling","start":120000,"end":180000},"n":0}`)
}

func TestLifetimeInStages(t *testing.T) {
	spec := grouped(topology.Window{Kind: topology.WindowLifetime}, aggregate("total", "sum", "x"))
	spec.Every = time.Minute
	p := stages(t, spec)
	p.site(map[string]string{"a": "north", "b": "north"})
	p.feed(at("a", 1, 1), at("b", 2, 3))
	expect(t, p.tick(bolt.Tick{Time: 60_000}), `default north@2 {"group":"north","window":{"kind":"lifetime"},"total":4}`)
	p.feed(at("b", 3, 3))
	expect(t, p.tick(bolt.Tick{Time: 120_000}), `default north@3 {"group":"north","window":{"kind":"lifetime"},"total":7}`)
	expect(t, p.tick(bolt.Tick{Time: 180_000}), `default north@3 {"group":"north","window":{"kind":"lifetime"},"total":7}`)
	expect(t, p.tick(bolt.Tick{Time: 190_000, Flush: true}))
}

// Readings of two devices, whose sessions are one only together.
func TestSessionAcrossTasks(t *testing.T) {
	p := stages(t, grouped(topology.Window{Kind: topology.WindowSession, Gap: 20 * ms}, aggregate("n", "count", "")))
	devices := map[string]string{}
	var one, two string
	for i := 0; one == "" || two == ""; i++ {
		d := fmt.Sprint("d", i)
		devices[d] = "north"
		if partition.Task(d, shares) == 0 {
			one = d
		} else {
			two = d
		}
	}
	p.site(devices)
	p.feed(at(one, 0, 1), at(one, 10, 1), at(two, 25, 1), at(two, 44, 1))
	expect(t, p.tick(watermark(40)))
	p.feed(at(one, 70, 1))
	expect(t, p.tick(watermark(65)), `default north@64 {"group":"north","window":{"kind":"session","start":0,"end":64},"n":4}`)
	p.feed(at(one, 30, 1)) // its session would have ended at 50
	if len(p.late) != 1 || p.late[0].Key != one {
		t.Errorf("late: %v", p.late)
	}
}

func TestScriptNamesTheGroup(t *testing.T) {
	spec := stat(topology.Window{Kind: topology.WindowLifetime}, aggregate("n", "count", ""))
	spec.Group = []string{topology.GroupScript}
	spec.Script = &topology.Script{Text: "function group(t, ctx) { if (t.x > 100) throw new Error('too much'); return t.x > 5 ? 'high' : t.x > 0 ? ctx.archive.site : null }"}
	p := stages(t, spec)
	p.site(map[string]string{"a": "north"})
	p.feed(at("a", 1, 1), at("a", 2, 9), at("a", 3, -1), at("a", 4, 101))
	expect(t, p.tick(bolt.Tick{Time: 60_000, Flush: true}),
		`default high@2 {"group":"high","window":{"kind":"lifetime"},"n":1}`, `default north@1 {"group":"north","window":{"kind":"lifetime"},"n":1}`)
	if n := len(p.first[0].Letters) + len(p.first[1].Letters); n != 1 {
		t.Errorf("%d letters, want that of the reading the script failed for", n)
	}
}

// What cannot be merged is computed from the readings themselves.
func TestForwarded(t *testing.T) {
	spec := grouped(topology.Window{Kind: topology.WindowCount, Count: 2}, aggregate("last", "last", "x"))
	spec.Where = &topology.Expr{Source: "x > 0"}
	p := stages(t, spec)
	p.site(map[string]string{"a": "north", "b": "north"})
	expect(t, p.feed(at("a", 1, 1), at("a", 2, -5), at("b", 3, 2)), `default north@3 {"group":"north","window":{"kind":"count","start":1,"end":3},"last":2}`)

	spec = grouped(topology.Window{Kind: topology.WindowLifetime})
	spec.Script = &topology.Script{Text: "function compute(t, state, ctx) { state.seen = (state.seen || '') + ctx.device + t.x + ctx.archive.site }\nfunction output(state) { return state }"}
	p = stages(t, spec)
	p.site(map[string]string{"a": "north", "b": "north"})
	p.feed(at("a", 1, 1), at("b", 3, 2))
	expect(t, p.tick(bolt.Tick{Time: 60_000, Flush: true}), `default north@3 {"seen":"a1northb2north"}`)
}

// However readings are cut into ticks, and wherever the archive sends them, what is output adds up to what was fed, or was late.
func TestStagesAddUp(t *testing.T) {
	kinds := []topology.Window{
		{Kind: topology.WindowTumbling, Size: 10 * ms, Slide: 10 * ms}, {Kind: topology.WindowSession, Gap: 5 * ms}, {}, {Kind: topology.WindowTumbling, Size: 10 * ms, Time: "processing"},
	}
	rapid.Check(t, func(rt *rapid.T) {
		spec := grouped(rapid.SampledFrom(kinds).Draw(rt, "window"), aggregate("n", "count", ""), aggregate("sum", "sum", "x"))
		spec.Every = time.Minute
		p := stages(t, spec)
		fed, sum, counted, total := 0, 0, 0, 0
		take := func(out []tuple.Tuple) {
			for _, o := range out {
				var d struct{ N, Sum int }
				if err := json.Unmarshal(o.Payload, &d); err != nil {
					t.Fatal(err)
				}
				counted, total = counted+d.N, total+d.Sum
			}
		}
		now := int64(0)
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			d := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(rt, "device")
			switch rapid.IntRange(0, 5).Draw(rt, "step") {
			case 0:
				now += rapid.Int64Range(0, 12).Draw(rt, "later")
				take(p.tick(bolt.Tick{Time: 1_000_000 + now, Last: 1_000_000 + now - 1, Watermark: now}))
			case 1:
				p.site(map[string]string{d: rapid.SampledFrom([]string{"x", "y"}).Draw(rt, "site")})
			case 2:
				h := p.first[rapid.IntRange(0, 1).Draw(rt, "task")]
				h.Restart()
			default:
				p.site(map[string]string{d: rapid.SampledFrom([]string{"x", "y"}).Draw(rt, "site")})
				x := rapid.IntRange(1, 9).Draw(rt, "x")
				fed, sum = fed+1, sum+x
				take(p.feed(at(d, max(0, now+rapid.Int64Range(-15, 15).Draw(rt, "time")), x)))
			}
		}
		take(p.tick(bolt.Tick{Time: 1_000_000 + now, Flush: true}))
		for _, l := range p.late {
			counted, total = counted+1, total+int(gjson.GetBytes(l.Payload, "x").Int())
		}
		if counted != fed || total != sum {
			rt.Fatalf("%d readings, sum %d; fed %d, sum %d", counted, total, fed, sum)
		}
	})
}
