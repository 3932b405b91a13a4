package window

import (
	"encoding/json"
	"fmt"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

func correcting(size, keep time.Duration) topology.Bolt {
	return stat(topology.Window{Kind: topology.WindowTumbling, Size: size, Slide: size, Corrections: keep}, aggregate("n", "count", ""), aggregate("sum", "sum", "x"))
}

var correctStreams = []string{tuple.DefaultStream, topology.CorrectionStream, "late"}

func TestCorrections(t *testing.T) {
	b := open(t, correcting(10*ms, 20*ms))
	h := bolttest.New(t, b, correctStreams...)
	figures := func(stream string, start, n, sum, version int) string {
		return fmt.Sprintf(`%s a@%d {"device":"a","group":"a","window":{"kind":"tumbling","start":%d,"end":%d},"n":%d,"sum":%d,"version":%d}`, stream, start+10, start, start+10, n, sum, version)
	}
	h.Feed(at("a", 1, 1), at("a", 12, 5))
	expect(t, h.Tick(watermark(11)), figures("default", 0, 1, 1, 1))
	expect(t, h.Feed(at("a", 3, 2), at("a", 4, 3))) // late: told once at the next tick
	takeover(h, b)
	expect(t, h.Tick(watermark(12)), figures("corrections", 0, 3, 6, 2))
	expect(t, h.Tick(watermark(13)))
	expect(t, h.Feed(at("a", 5, 1)))
	expect(t, h.Tick(watermark(20)), figures("corrections", 0, 4, 7, 3), figures("default", 10, 1, 5, 1))
	takeover(h, b)
	expect(t, h.Tick(watermark(30)))
	expect(t, h.Feed(at("a", 5, 1)), `late a@5 {"x":1}`) // no longer kept
	takeover(h, b)
	expect(t, h.Feed(at("a", 5, 1)), `late a@5 {"x":1}`) // neither does a new owner, who knows no watermark, take it
	h.Tick(watermark(31))
	expect(t, h.Feed(at("a", 22, 4))) // nothing came in time: the first figures go where first figures go
	expect(t, h.Tick(watermark(32)), figures("default", 20, 1, 4, 1))
	expect(t, h.Feed(at("a", 35, 1)))
	expect(t, h.Tick(bolt.Tick{Flush: true, Watermark: 33}), figures("default", 30, 1, 1, 1))
	expect(t, h.Feed(at("a", 36, 1))) // a flush closes windows before their time
	expect(t, h.Tick(watermark(34)), figures("corrections", 30, 2, 2, 2))
	if shown, err := b.Show("a", stored(t, h)); err != nil || string(shown) != `{"windows":[{"start":10,"end":20,"readings":1,"version":1,"n":1,"sum":5},{"start":20,"end":30,"readings":1,"version":1,"n":1,"sum":4},{"start":30,"end":40,"readings":2,"version":2,"n":2,"sum":2}]}` {
		t.Errorf("%s, %v", shown, err)
	}
	h.Tick(watermark(1000))
	if shown, err := b.Show("a", stored(t, h)); err != nil || string(shown) != `{"windows":[]}` {
		t.Errorf("%s, %v: nothing is to be kept any more", shown, err)
	}
}

// TestTickThatWasNotCommitted has a bolt meet a tick whose commit fails, and then, since the batch is done again, the readings before it: their window is still
// open, so they are in it, not beside it.
func TestTickThatWasNotCommitted(t *testing.T) {
	for keep, want := range map[time.Duration]string{
		0:       `default a@10 {"device":"a","group":"a","window":{"kind":"tumbling","start":0,"end":10},"n":2,"sum":3}`,
		20 * ms: `default a@10 {"device":"a","group":"a","window":{"kind":"tumbling","start":0,"end":10},"n":2,"sum":3,"version":1}`,
	} {
		b := open(t, correcting(10*ms, keep))
		h := bolttest.New(t, b, correctStreams...)
		h.Feed(at("a", 1, 1))
		b.Due(watermark(11))
		expect(t, h.Feed(at("a", 3, 2)))
		expect(t, h.Tick(watermark(12)), want)
	}
}

// stored reads what the harness's store holds.
func stored(t *testing.T, h *bolttest.Harness) func(string) []byte {
	return func(key string) []byte {
		values, err := h.Loop.Own.Store.Load(t.Context(), h.Loop.Own.Task, []string{key})
		if err != nil {
			t.Fatal(err)
		}
		return values[0]
	}
}

// TestCorrectionsAddUp: however readings are late, owners change and readings come again, each reading is in the last figures of its window or on the late
// stream, once; versions count up by one; the first is on the default stream, the others are corrections; and what is late has been closed for as
// long as windows are kept.
func TestCorrectionsAddUp(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := open(t, correcting(10*ms, 30*ms))
		h := bolttest.New(t, b, correctStreams...)
		type window struct{ n, sum, version int }
		truth, last := map[int64]window{}, map[int64]window{}
		var late []int64
		take := func(out []tuple.Tuple, now int64) {
			for _, o := range out {
				if o.Stream == "late" {
					if o.Time >= 0 && Floor(o.Time, 10)+10+30 > now {
						rt.Fatalf("%d is late at watermark %d", o.Time, now)
					}
					late = append(late, o.Time)
					continue
				}
				var d struct {
					Window  struct{ Start int64 }
					N       int
					Sum     int
					Version int
				}
				if err := json.Unmarshal(o.Payload, &d); err != nil {
					rt.Fatal(err)
				}
				if before := last[d.Window.Start]; d.Version != before.version+1 || (o.Stream == topology.CorrectionStream) != (d.Version > 1) || d.N <= before.n {
					rt.Fatalf("%s %s after %+v", o.Stream, o.Payload, before)
				}
				last[d.Window.Start] = window{d.N, d.Sum, d.Version}
			}
		}
		now, offset := int64(0), int64(0)
		var fed []tuple.Tuple
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			switch rapid.SampledFrom([]string{"reading", "reading", "reading", "tick", "again", "takeover"}).Draw(rt, "step") {
			case "reading":
				x := rapid.IntRange(1, 9).Draw(rt, "x")
				r := at("a", max(0, now+int64(rapid.IntRange(-60, 25).Draw(rt, "at"))), x)
				r.Offset, r.ID = offset, tuple.RootID(tuple.Position{Origin: bolttest.Origin, Offset: offset})
				offset++
				w := truth[Floor(r.Time, 10)]
				truth[Floor(r.Time, 10)] = window{w.n + 1, w.sum + x, 0}
				fed = append(fed, r)
				take(h.Feed(r), now)
			case "tick":
				now += int64(rapid.IntRange(0, 25).Draw(rt, "advance"))
				take(h.Tick(watermark(now)), now)
			case "again": // recorded outputs come again, with what they said then
				if len(fed) > 0 {
					h.Feed(rapid.SampledFrom(fed).Draw(rt, "which"))
				}
			case "takeover":
				takeover(h, b)
			}
		}
		take(h.Tick(bolt.Tick{Flush: true, Watermark: now}), now)
		for _, at := range late {
			w := last[Floor(at, 10)]
			w.n++
			last[Floor(at, 10)] = w
		}
		for start, w := range truth {
			if last[start].n != w.n {
				rt.Fatalf("window %d has %d readings of %d: %v", start, last[start].n, w.n, last)
			}
		}
	})
}

func TestKeptRecord(t *testing.T) {
	b := open(t, correcting(10*ms, 20*ms))
	r := &record{layout: &b.keptLayout, closed: 7}
	p := r.pane(Bounds{10, 20})
	p.add(b.layout.funcs, row{at: 12, present: 3, values: []float64{0, 2}})
	p.version, p.dirty = 3, true
	raw, err := r.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	v, err := b.keptLayout.decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	if again := v.(*record); again.closed != 7 || again.open[0].version != 3 || !again.open[0].dirty || again.open[0].cells[1].A != 2 {
		t.Errorf("%+v", again)
	}
	if _, err := b.decoder(raw); err == nil {
		t.Error("closed windows are read as open ones")
	}
	if v, err := b.keptLayout.decode(nil); err != nil || v.(*record).closed != math.MinInt64 {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestKeptSize says what a device costs whose hours are kept for a day, with five aggregates.
func TestKeptSize(t *testing.T) {
	b := open(t, stat(topology.Window{Kind: topology.WindowTumbling, Size: time.Hour, Slide: time.Hour, Corrections: 24 * time.Hour},
		aggregate("n", "count", ""), aggregate("mean", "mean", "x"), aggregate("low", "min", "x"), aggregate("high", "max", "x"), aggregate("dev", "stddev", "x")))
	r := &record{layout: &b.keptLayout, closed: 1386018000000}
	for i := range int64(24) {
		p := r.pane(Bounds{1386018000000 + i*3600_000, 1386018000000 + (i+1)*3600_000})
		p.version = 1
		for k := range int64(60) {
			p.add(b.layout.funcs, row{at: p.Start + k*60_000, present: 31, values: []float64{0, 73.96, 73.96, 73.96 + float64(k), 73.96 - float64(k)}})
		}
	}
	raw, err := r.Append(nil)
	if err != nil || len(raw) > 3000 {
		t.Errorf("%d bytes, %v", len(raw), err)
	}
	t.Logf("24 windows of 5 aggregates: %d bytes, %d a window", len(raw), len(raw)/24)
}
