package rule

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// clockwork gives ticks to a bolt as the tick log does, each with the time of the one before.
type clockwork struct {
	*bolttest.Harness
	last int64
}

func (c *clockwork) tick(seconds int64) []tuple.Tuple {
	at := seconds * 1000
	last := c.last
	c.last = at
	return c.Harness.Tick(bolt.Tick{Time: at, Last: last, Watermark: math.MinInt64})
}

// takeover gives the task to a new owner, whose bolt knows nothing but the state.
func (c *clockwork) takeover(b *Bolt) {
	c.Restart()
	b.clock = clock{silence: b.clock.silence, patience: b.clock.patience, every: b.clock.every}
}

func payloads(out []tuple.Tuple) (lines []string) {
	for _, o := range out {
		lines = append(lines, fmt.Sprintf("%s@%d %s", o.Key, o.Time, o.Payload))
	}
	slices.Sort(lines)
	return lines
}

func expect(t *testing.T, got []tuple.Tuple, want ...string) {
	t.Helper()
	if lines := payloads(got); !slices.Equal(lines, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}

// With no_data: 100s there is a tick every 10 s.
func TestNoData(t *testing.T) {
	b := open(t, topology.Bolt{ID: "quiet", Kind: topology.KindAlarm, NoData: 100 * time.Second, Severity: "minor"})
	h := &clockwork{Harness: bolttest.New(t, b)}
	first, second := (&Episode{Number: 1}).ID("quiet", "a"), (&Episode{Number: 2}).ID("quiet", "a")
	expect(t, h.tick(1000))
	expect(t, h.Feed(reading("a", 5, `{}`), reading("b", 5, `{}`))) // heard by 1010 at the latest
	for s := int64(1010); s < 1110; s += 10 {
		expect(t, h.tick(s))
		expect(t, h.Feed(reading("b", s, `{}`)))
		if s == 1050 {
			h.takeover(b)
		}
	}
	expect(t, h.tick(1110), `a@1110000 {"event":"raise","alarm":"quiet","device":"a","group":"a","severity":"minor","reason":"no_data","ts":1110000,"readings":0,"notify":true,`+
		`"episode":{"id":"`+first+`","number":1,"version":1,"state":"open","reason":"no_data","raised_at":1110000,"history":[{"what":"raise","at":1110000,"severity":"minor"}]}}`)
	h.takeover(b)
	for s := int64(1120); s < 1190; s += 10 { // open: told once
		expect(t, h.tick(s))
		expect(t, h.Feed(reading("b", s, `{}`)))
	}
	h.takeover(b)
	expect(t, h.Feed(reading("a", 77, `{}`), reading("a", 78, `{}`)),
		`a@77 {"event":"clear","alarm":"quiet","device":"a","group":"a","severity":"minor","reason":"no_data","ts":77,"readings":1,"notify":true,`+
			`"episode":{"id":"`+first+`","number":1,"version":2,"state":"cleared","reason":"no_data","raised_at":1110000,"cleared_at":77,"history":[{"what":"raise","at":1110000,"severity":"minor"},{"what":"clear","at":77,"severity":"minor"}]}}`)
	var out []tuple.Tuple
	raised := int64(0)
	for s := int64(1190); s < 1400 && len(out) == 0; s += 10 {
		out, raised = h.tick(s), s
		h.Feed(reading("b", s, `{}`))
	}
	// The new owner knows only that the reading came before its first tick, at 1190.
	expect(t, out, fmt.Sprintf(`a@%d000 {"event":"raise","alarm":"quiet","device":"a","group":"a","severity":"minor","reason":"no_data","ts":%d000,"readings":0,"notify":true,`+
		`"episode":{"id":"%s","number":2,"version":1,"state":"open","reason":"no_data","raised_at":%d000,"history":[{"what":"raise","at":%d000,"severity":"minor"}]}}`, raised, raised, second, raised, raised))
	if raised != 1300 {
		t.Errorf("raised at %d", raised)
	}
	if len(h.Letters) > 0 {
		t.Error(h.Letters[0].Error)
	}
}

// A condition and silence share one episode at a time.
func TestNoDataBesideACondition(t *testing.T) {
	b := open(t, topology.Bolt{ID: "hot", Kind: topology.KindAlarm, When: expr("x > 100"), NoData: 100 * time.Second})
	h := &clockwork{Harness: bolttest.New(t, b)}
	told := func(out []tuple.Tuple) string {
		var s []string
		for _, o := range out {
			text := string(o.Payload)
			kind := "condition"
			if strings.Contains(text, `"reason":"no_data"`) {
				kind = "silence"
			}
			event := "raise"
			if strings.Contains(text, `"event":"clear"`) {
				event = "clear"
			}
			_, number, _ := strings.Cut(text, `"number":`)
			s = append(s, fmt.Sprint(event, " ", kind, " ", number[:1]))
		}
		return strings.Join(s, ", ")
	}
	check := func(out []tuple.Tuple, want string) {
		t.Helper()
		if got := told(out); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	h.tick(1000)
	check(h.Feed(reading("a", 1, `{"x":101}`)), "raise condition 1")
	for s := int64(1010); s < 1300; s += 10 {
		check(h.tick(s), "") // silent, but raised already
	}
	check(h.Feed(reading("a", 2, `{"x":101}`)), "")
	check(h.Feed(reading("a", 3, `{"x":1}`)), "clear condition 1")
	for s := int64(1300); s < 1400; s += 10 {
		check(h.tick(s), "")
	}
	check(h.tick(1400), "raise silence 2")
	check(h.Feed(reading("a", 4, `{"x":101}`)), "clear silence 2, raise condition 3")
	check(h.Feed(reading("a", 5, `{"y":1}`)), "") // heard, though the condition has nothing to look at
	check(h.Feed(reading("a", 6, `{"x":1}`)), "clear condition 3")
	for s := int64(1410); s < 1510; s += 10 {
		check(h.tick(s), "")
	}
	check(h.tick(1510), "raise silence 4")
	check(h.Feed(reading("a", 7, `{"y":1}`)), "clear silence 4")
}

// A time without ticks is nobody's silence.
func TestNoDataWhileTheMeshStoodStill(t *testing.T) {
	b := open(t, topology.Bolt{ID: "quiet", Kind: topology.KindAlarm, NoData: 100 * time.Second})
	h := &clockwork{Harness: bolttest.New(t, b)}
	h.tick(1000)
	h.Feed(reading("a", 1, `{}`))
	h.tick(1010)
	h.takeover(b)
	expect(t, h.tick(9010)) // one entry for all the time: 8000 s, of which 10 s count
	for s := int64(9020); s < 9100; s += 10 {
		expect(t, h.tick(s))
	}
	if out := h.tick(9100); len(out) != 1 {
		t.Errorf("%v", payloads(out))
	}
	if len(b.clock.gaps) != 1 {
		t.Error(b.clock.gaps)
	}
	h.tick(9300)
	h.tick(9310)
	h.tick(9430)
	h.tick(9440)
	for s := int64(9450); s < 9600; s += 10 {
		h.tick(s)
	}
	if len(b.clock.gaps) > 0 {
		t.Error(b.clock.gaps)
	}
}

// Suppression of raises for silence goes by processing time, whatever event times the readings have.
func TestNoDataSuppressed(t *testing.T) {
	b := open(t, topology.Bolt{ID: "hot", Kind: topology.KindAlarm, When: expr("x > 100"), NoData: 10 * time.Second, Suppress: time.Minute})
	h := &clockwork{Harness: bolttest.New(t, b)}
	var got []string
	for s := int64(1000); s < 1100; s++ {
		for _, o := range h.tick(s) {
			got = append(got, fmt.Sprint(o.Time/1000, strings.Contains(string(o.Payload), `"notify":true`)))
		}
		if s%20 == 0 {
			h.Feed(reading("a", 1, `{"x":1}`))
		}
	}
	if fmt.Sprint(got) != "[1011 true 1031 false 1051 false 1071 true 1091 false]" {
		t.Error(got)
	}
}

// Whatever comes when, and however often the owner changes: an alarm is never raised before the limit, at most two periods after it while the owner
// stays, and has one episode at a time.
func TestNoDataEqualsTheTwin(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const limit, every = 20_000, 2_000
		b := open(t, topology.Bolt{ID: "quiet", Kind: topology.KindAlarm, NoData: limit * time.Millisecond})
		h := &clockwork{Harness: bolttest.New(t, b)}
		heard := map[string]int64{} // by second of processing time
		owner := int64(0)           // since when
		open := map[string]bool{}
		now := int64(1_000_000)
		h.tick(now / 1000)
		for range rapid.IntRange(1, 80).Draw(rt, "steps") {
			now += 1000
			for _, d := range []string{"a", "b"} {
				if rapid.IntRange(0, 12).Draw(rt, d) > 0 {
					continue
				}
				out := h.Feed(reading(d, now, `{}`))
				if (len(out) == 1) != open[d] || len(out) > 1 {
					rt.Fatalf("%s at %d: %v while open is %v", d, now, payloads(out), open[d])
				}
				open[d], heard[d] = false, now
			}
			if rapid.IntRange(0, 30).Draw(rt, "takeover") == 0 {
				h.takeover(b)
				owner = now
			}
			if now%every != 0 {
				continue
			}
			for _, o := range h.tick(now / 1000) {
				if open[o.Key] || now-heard[o.Key] < limit {
					rt.Fatalf("%s raised at %d, heard at %d, open %v", o.Key, now, heard[o.Key], open[o.Key])
				}
				open[o.Key] = true
			}
			for d, at := range heard {
				if !open[d] && now-max(at, owner) > limit+2*every {
					rt.Fatalf("%s not raised at %d, heard at %d", d, now, at)
				}
			}
		}
	})
}

// Durations are judged at readings, whatever ticks say: the same readings raise and clear the same episodes however ticks fall between them.
func TestDurationsAreJudgedAtReadings(t *testing.T) {
	b := open(t, topology.Bolt{ID: "hot", Kind: topology.KindAlarm, When: expr("x > 100"), RaiseFor: 3 * time.Millisecond, ClearFor: 2 * time.Millisecond})
	h := bolttest.New(t, b)
	var out []tuple.Tuple
	for i, x := range []int{101, 101, 1, 101, 101, 101, 101, 1, 1, 1} {
		out = append(out, h.Feed(reading("a", int64(i), fmt.Sprintf(`{"x":%d}`, x)))...)
		out = append(out, h.Tick(bolt.Tick{Time: int64(1+i) * 1000, Watermark: int64(i) + 1000, Flush: i%2 == 0})...)
	}
	if got := happened(t, out); got != "R6 C9" {
		t.Error(got)
	}
	if wants, _ := (&topology.Bolt{Kind: topology.KindAlarm, RaiseFor: time.Minute, ClearFor: time.Minute}).Ticks(); wants {
		t.Error("it has no use for ticks")
	}
}

// Only groups that may be silent are visited: those that are heard all the time are put off once in a limit.
func TestNoDataVisitsFew(t *testing.T) {
	b := open(t, topology.Bolt{ID: "quiet", Kind: topology.KindAlarm, NoData: 100 * time.Second})
	counting := &visits{Bolt: b}
	h := &clockwork{Harness: bolttest.New(t, counting)}
	for s := int64(0); s < 1000; s += 10 {
		h.tick(5000 + s)
		for d := range 100 {
			h.Feed(reading(fmt.Sprint("d", d), s, `{}`))
		}
	}
	if per := float64(counting.n) / 100 / 100; per > 0.12 { // a group is visited every 110 s, not at each of the 100 ticks
		t.Errorf("%v visits for each tick and group", per)
	}
}

type visits struct {
	*Bolt
	n int
}

func (v *visits) Tick(ctx context.Context, t bolt.Tick, group string, c *bolt.Collector) error {
	v.n++
	return v.Bolt.Tick(ctx, t, group, c)
}

func BenchmarkHeard(b *testing.B) {
	for name, spec := range map[string]topology.Bolt{
		"condition": {When: expr("x > 100")}, "no_data": {NoData: 10 * time.Minute}, "both": {When: expr("x > 100"), NoData: 10 * time.Minute},
	} {
		b.Run(name, func(b *testing.B) {
			spec.ID, spec.Kind = "hot", topology.KindAlarm
			h := bolttest.New(b, open(b, spec))
			h.Tick(bolt.Tick{Time: 1000})
			frame := make([]tuple.Tuple, 256)
			b.ReportAllocs()
			for b.Loop() {
				for i := range frame {
					frame[i] = reading(string(rune('a'+i%16)), int64(i), `{"device":"m1","x":73.96732207}`)
				}
				h.Feed(frame...)
				h.Floor += 256
				h.Deltas = h.Deltas[:0]
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/256, "ns/tuple")
		})
	}
}
