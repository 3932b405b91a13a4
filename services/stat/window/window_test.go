package window

import (
	"encoding/json"
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

func byDevice(t *tuple.Tuple) (string, bool) { return t.Key, t.Key != "" }

func aggregate(name, fn, arg string) topology.Aggregate {
	a := topology.Aggregate{Name: name, Func: fn, At: topology.Place{Line: 9, Column: 5}}
	if arg != "" {
		a.Arg = &topology.Expr{Source: arg, At: a.At}
	}
	return a
}

func stat(w topology.Window, as ...topology.Aggregate) topology.Bolt {
	return topology.Bolt{ID: "s", Window: w, Aggregates: as}
}

func open(t testing.TB, spec topology.Bolt) *Bolt {
	t.Helper()
	b, err := New(spec, byDevice, map[string]any{"limit": 2})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// takeover gives the task to a new owner, whose bolt knows nothing but the state.
func takeover(h *bolttest.Harness, b *Bolt) {
	h.Restart()
	b.watermark = math.MinInt64
}

// at is a reading of device d with event time ts and value x.
func at(d string, ts int64, x any) tuple.Tuple {
	return tuple.Tuple{Key: d, Time: ts, Payload: fmt.Appendf(nil, `{"x":%v}`, x)}
}

func told(out []tuple.Tuple) string {
	var lines []string
	for _, o := range out {
		lines = append(lines, fmt.Sprintf("%s %s@%d %s", o.Stream, o.Key, o.Time, o.Payload))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func expect(t *testing.T, got []tuple.Tuple, want ...string) {
	t.Helper()
	if told(got) != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", told(got), strings.Join(want, "\n"))
	}
}

const ms = time.Millisecond

func watermark(w int64) bolt.Tick { return bolt.Tick{Time: 1, Watermark: w} }

func TestInterval(t *testing.T) {
	spec := stat(topology.Window{}, aggregate("n", "count", ""), aggregate("mean", "mean", "x"))
	spec.Every = time.Minute
	h := bolttest.New(t, open(t, spec))
	tick := func(ts int64) []tuple.Tuple { return h.Tick(bolt.Tick{Time: ts, Watermark: math.MinInt64}) }
	expect(t, h.Feed(at("a", 1, 1), at("a", 2, 2), at("b", 3, 5)))
	expect(t, tick(60_000),
		`default a@60000 {"device":"a","group":"a","window":{"kind":"interval","end":60000},"n":2,"mean":1.5}`,
		`default b@60000 {"device":"b","group":"b","window":{"kind":"interval","end":60000},"n":1,"mean":5}`)
	expect(t, h.Feed(at("a", 60_000, 7))) // on the boundary: of the next interval
	h.Restart()
	expect(t, tick(120_000), `default a@120000 {"device":"a","group":"a","window":{"kind":"interval","start":60000,"end":120000},"n":1,"mean":7}`)
	expect(t, tick(180_000))
	expect(t, h.Feed(tuple.Tuple{Key: "a", Payload: []byte(`{"y":1}`)}))
	expect(t, tick(240_000)) // a statistic of x has nothing to say about readings without
	expect(t, h.Feed(at("a", 1, 3)))
	expect(t, tick(300_000), `default a@300000 {"device":"a","group":"a","window":{"kind":"interval","start":240000,"end":300000},"n":1,"mean":3}`)
}

func TestProcessingTimeTumbling(t *testing.T) {
	h := bolttest.New(t, open(t, stat(topology.Window{Kind: topology.WindowTumbling, Size: time.Minute, Time: "processing"}, aggregate("n", "count", "x"))))
	tick := func(last, now int64) []tuple.Tuple {
		return h.Tick(bolt.Tick{Last: last, Time: now, Watermark: math.MinInt64})
	}
	h.Feed(at("a", 1, 1))
	expect(t, tick(70_000, 71_000)) // ticks come more often than windows end
	h.Restart()
	h.Feed(at("a", 1, 1))
	expect(t, tick(71_000, 119_999))
	expect(t, tick(119_999, 120_030), `default a@120000 {"device":"a","group":"a","window":{"kind":"tumbling","start":60000,"end":120000},"n":2}`)
	h.Feed(at("a", 1, 1))
	expect(t, tick(179_000, 180_000), `default a@180000 {"device":"a","group":"a","window":{"kind":"tumbling","start":120000,"end":180000},"n":1}`)
	h.Feed(at("a", 1, 1))
	expect(t, tick(180_000, 600_010), `default a@600000 {"device":"a","group":"a","window":{"kind":"tumbling","start":540000,"end":600000},"n":1}`)
	h.Feed(at("a", 1, 1))
	expect(t, h.Tick(bolt.Tick{Last: 600_010, Time: 610_000, Flush: true}), `default a@660000 {"device":"a","group":"a","window":{"kind":"tumbling","start":600000,"end":660000},"n":1}`)
	expect(t, tick(610_000, 700_000))
}

func TestCountTakesAnyValue(t *testing.T) {
	h := bolttest.New(t, open(t, stat(topology.Window{Kind: topology.WindowLifetime}, aggregate("n", "count", ""), aggregate("x", "count", "x"), aggregate("y", "count", "x.y"))))
	h.Feed(at("a", 1, `"text"`), at("a", 1, `{"y":false}`), at("a", 1, `null`), at("a", 1, 7))
	expect(t, h.Tick(bolt.Tick{Flush: true}), `default a@1 {"device":"a","group":"a","window":{"kind":"lifetime"},"n":4,"x":3,"y":1}`)
}

func TestTumblingByEventTime(t *testing.T) {
	b := open(t, stat(topology.Window{Kind: topology.WindowTumbling, Size: 10 * ms}, aggregate("n", "count", ""), aggregate("last", "last", "x")))
	h := bolttest.New(t, b, "default", "late")
	expect(t, h.Feed(at("a", 3, 1), at("a", 15, 2), at("a", 9, 3), at("b", 9, 4), at("a", 10, 5)))
	expect(t, h.Tick(watermark(9)))
	expect(t, h.Tick(watermark(10)),
		`default a@10 {"device":"a","group":"a","window":{"kind":"tumbling","start":0,"end":10},"n":2,"last":3}`,
		`default b@10 {"device":"b","group":"b","window":{"kind":"tumbling","start":0,"end":10},"n":1,"last":4}`)
	expect(t, h.Feed(at("a", 9, 6), at("c", 9, 7), at("a", 14, 8)), `late a@9 {"x":6}`, `late c@9 {"x":7}`)
	takeover(h, b) // what has been output stays closed, though the new owner knows no watermark
	expect(t, h.Feed(at("a", 9, 9)), `late a@9 {"x":9}`)
	expect(t, h.Tick(bolt.Tick{Flush: true, Watermark: math.MinInt64}), `default a@20 {"device":"a","group":"a","window":{"kind":"tumbling","start":10,"end":20},"n":3,"last":2}`)
	expect(t, h.Feed(at("a", 19, 9), at("a", 20, 10)), `late a@19 {"x":9}`)
	expect(t, h.Tick(watermark(30)), `default a@30 {"device":"a","group":"a","window":{"kind":"tumbling","start":20,"end":30},"n":1,"last":10}`)
}

// The windows of Storm's sliding-window tests, as sums of powers so that each sum names its members.
func TestSlidingByEventTime(t *testing.T) {
	spec := stat(topology.Window{Kind: topology.WindowSliding, Size: 20 * ms, Slide: 10 * ms, Late: "behind"}, aggregate("s", "sum", "x"))
	h := bolttest.New(t, open(t, spec), "default", "behind")
	sums := func(out []tuple.Tuple) (got []string) {
		for _, o := range out {
			var p struct{ S float64 }
			if err := json.Unmarshal(o.Payload, &p); err != nil {
				t.Fatal(err)
			}
			var members []string
			for i := range 10 {
				if int(p.S)&(1<<i) != 0 {
					members = append(members, fmt.Sprint(i))
				}
			}
			got = append(got, "{"+strings.Join(members, ",")+"}")
		}
		return got
	}
	for i, ts := range []int64{603, 605, 607, 618, 626, 636} {
		expect(t, h.Feed(at("a", ts, 1<<(i+1))))
	}
	if got := fmt.Sprint(sums(h.Tick(watermark(631)))); got != "[{1,2,3} {1,2,3,4} {4,5}]" {
		t.Error(got)
	}
	for i, ts := range []int64{825, 826, 827, 839} {
		h.Feed(at("a", ts, 1<<(i+7)))
	}
	if got := fmt.Sprint(sums(h.Tick(watermark(834)))); got != "[{5,6} {6} {7,8,9}]" {
		t.Error(got)
	}
	expect(t, h.Feed(at("a", 805, 1)), `behind a@805 {"x":1}`)
}

func TestSlidingWithLag(t *testing.T) {
	h := bolttest.New(t, open(t, stat(topology.Window{Kind: topology.WindowSliding, Size: 20 * ms, Slide: 10 * ms}, aggregate("s", "sum", "x"))), "default", "late")
	for i, ts := range []int64{603, 605, 607, 618, 626, 632, 629, 636} { // the sixth moves the watermark to 627, the last to 631
		h.Feed(at("a", ts, 1<<(i+1)))
		if ts == 632 {
			expect(t, h.Tick(watermark(627)),
				`default a@610 {"device":"a","group":"a","window":{"kind":"sliding","start":590,"end":610},"s":14}`,
				`default a@620 {"device":"a","group":"a","window":{"kind":"sliding","start":600,"end":620},"s":30}`)
		}
	}
	expect(t, h.Tick(watermark(631)), fmt.Sprintf(`default a@630 {"device":"a","group":"a","window":{"kind":"sliding","start":610,"end":630},"s":%d}`, 1<<4|1<<5|1<<7))
}

func TestSession(t *testing.T) {
	h := bolttest.New(t, open(t, stat(topology.Window{Kind: topology.WindowSession, Gap: 10 * ms}, aggregate("n", "count", ""), aggregate("first", "first", "x"))), "default", "late")
	h.Feed(at("a", 100, 1), at("a", 115, 2))
	h.Feed(at("a", 108, 3), at("a", 140, 4)) // 108 joins the first two sessions
	expect(t, h.Tick(watermark(130)), `default a@125 {"device":"a","group":"a","window":{"kind":"session","start":100,"end":125},"n":3,"first":1}`)
	expect(t, h.Feed(at("a", 110, 5)), `late a@110 {"x":5}`)
	expect(t, h.Tick(bolt.Tick{Flush: true}), `default a@150 {"device":"a","group":"a","window":{"kind":"session","start":140,"end":150},"n":1,"first":4}`)
}

func TestCountWindow(t *testing.T) {
	spec := stat(topology.Window{Kind: topology.WindowCount, Count: 5, CountSlide: 1}, aggregate("s", "sum", "x"))
	h := bolttest.New(t, open(t, spec))
	want := []int{3, 14, 19, 32, 39, 53, 42, 40, 77, 670, 7653} // Storm's rolling counter
	for i, x := range []int{3, 11, 5, 13, 7, 17, 0, 3, 50, 600, 7000} {
		if i == 6 {
			h.Restart()
		}
		ts := int64(10 + i)
		expect(t, h.Feed(at("a", ts, x)), fmt.Sprintf(`default a@%d {"device":"a","group":"a","window":{"kind":"count","start":%d,"end":%d},"s":%d}`, ts, max(10, ts-4), ts, want[i]))
	}
	expect(t, h.Tick(bolt.Tick{Flush: true}))
	spec.Window.CountSlide = 2
	h = bolttest.New(t, open(t, spec))
	for i := range 7 {
		h.Feed(at("a", int64(i), i))
	}
	expect(t, h.Tick(watermark(1000)))
	expect(t, h.Tick(bolt.Tick{Flush: true}), `default a@6 {"device":"a","group":"a","window":{"kind":"count","start":3,"end":6},"s":18}`)
	expect(t, h.Tick(bolt.Tick{Flush: true}))
}

func TestLifetime(t *testing.T) {
	spec := stat(topology.Window{Kind: topology.WindowLifetime}, aggregate("n", "count", ""), aggregate("total", "sum", "x"), aggregate("rate", "rate", "x"))
	spec.Every = time.Minute
	spec.Where = &topology.Expr{Source: "x != 99"}
	h := bolttest.New(t, open(t, spec))
	h.Feed(at("a", 1000, 1), at("b", 5, 1), at("a", 3000, 2), at("a", 3000, 99))
	expect(t, h.Tick(bolt.Tick{Time: 60_000}),
		`default a@3000 {"device":"a","group":"a","window":{"kind":"lifetime"},"n":2,"total":3,"rate":0.5}`,
		`default b@5 {"device":"b","group":"b","window":{"kind":"lifetime"},"n":1,"total":1}`)
	h.Restart()
	h.Feed(at("a", 2000, 4))
	expect(t, h.Tick(bolt.Tick{Time: 120_000}), `default a@3000 {"device":"a","group":"a","window":{"kind":"lifetime"},"n":3,"total":7,"rate":0.5}`)
	expect(t, h.Tick(bolt.Tick{Time: 180_000, Flush: true})) // nothing new: nobody touched since
	spec.Every = 0
	h = bolttest.New(t, open(t, spec))
	h.Feed(at("a", 1000, 1))
	expect(t, h.Tick(bolt.Tick{Time: 60_000, Watermark: 5000}))
	expect(t, h.Tick(bolt.Tick{Time: 60_001, Flush: true}), `default a@1000 {"device":"a","group":"a","window":{"kind":"lifetime"},"n":1,"total":1}`)
}

const counting = `
function compute(t, state) {
  if (t.x > 9) throw new Error("too large")
  state.n = (state.n || 0) + 1
  state.sum = (state.sum || 0) + t.x
}
function output(state, window) {
  if (state.n < 0) throw new Error("no")
  if (state.n < 2) return
  return {kind: window.kind, start: window.start, who: window.group, sum: state.sum}
}`

func TestScript(t *testing.T) {
	for _, tt := range []struct {
		name   string
		window topology.Window
		want   []string // after two readings, tick, one more reading, flush
	}{
		{"interval", topology.Window{}, []string{`default a@1000 {"kind":"interval","who":"a","sum":3}`, ``}},
		{"lifetime", topology.Window{Kind: topology.WindowLifetime}, []string{`default a@11 {"kind":"lifetime","who":"a","sum":3}`, `default a@12 {"kind":"lifetime","who":"a","sum":7}`}},
		{"tumbling", topology.Window{Kind: topology.WindowTumbling, Size: 10 * ms}, []string{``, `default a@20 {"kind":"tumbling","start":10,"who":"a","sum":7}`}},
		{
			"sliding",
			topology.Window{Kind: topology.WindowSliding, Size: 10 * ms, Slide: 5 * ms},
			[]string{``, "default a@15 {\"kind\":\"sliding\",\"start\":5,\"who\":\"a\",\"sum\":7}\ndefault a@20 {\"kind\":\"sliding\",\"start\":10,\"who\":\"a\",\"sum\":7}"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := bolttest.New(t, open(t, topology.Bolt{ID: "s", Window: tt.window, Every: time.Second, Script: &topology.Script{File: "s.js", Text: counting}}))
			expect(t, h.Feed(at("a", 10, 1), at("a", 11, 2), at("a", 11, 10)))
			if len(h.Letters) != 1 || !strings.Contains(h.Letters[0].Error, "s.js:3:") {
				t.Fatalf("letters %+v", h.Letters)
			}
			if got := told(h.Tick(bolt.Tick{Time: 1000, Watermark: 12})); got != tt.want[0] {
				t.Errorf("got %s\nwant %s", got, tt.want[0])
			}
			h.Restart()
			h.Feed(at("a", 12, 4))
			if got := told(h.Tick(bolt.Tick{Time: 2000, Flush: true})); got != tt.want[1] {
				t.Errorf("got %s\nwant %s", got, tt.want[1])
			}
		})
	}
}

// A script that cannot output a window costs a dead letter per attempt, never the window: a script put right outputs it.
func TestScriptThatFailsToOutput(t *testing.T) {
	spec := topology.Bolt{ID: "s", Window: topology.Window{Kind: topology.WindowTumbling, Size: 10 * ms}, Script: &topology.Script{File: "s.js", Text: `
		function compute(t, state) { state.n = (state.n || 0) + t.x }
		function output(state, window) { if (state.n == 3) throw new Error("three"); return {n: state.n} }`}}
	b := open(t, spec)
	h := bolttest.New(t, b)
	h.Feed(at("a", 1, 3), at("b", 1, 2), at("a", 11, 1))
	expect(t, h.Tick(watermark(30)), `default b@10 {"n":2}`)
	if len(h.Letters) != 1 || !strings.Contains(h.Letters[0].Error, "s.js:3:") || h.Letters[0].Key != "a" {
		t.Fatalf("letters %+v", h.Letters)
	}
	takeover(h, b)
	h.Feed(at("a", 5, 1))
	expect(t, h.Tick(watermark(31)), `default a@10 {"n":4}`, `default a@20 {"n":1}`)
}

func TestRejected(t *testing.T) {
	h := bolttest.New(t, open(t, stat(topology.Window{Kind: topology.WindowLifetime}, aggregate("s", "sum", "1 / x"), aggregate("n", "count", ""))))
	h.Feed(at("a", 1, 1))
	for _, bad := range []tuple.Tuple{at("a", 1, 0), at("a", 1, `"y"`), at("a", 1<<60, 1), {Key: "a", Payload: []byte(`7`)}} {
		h.Letters = nil
		h.Feed(bad)
		if len(h.Letters) != 1 || h.Letters[0].Tries != 1 {
			t.Errorf("%s: letters %+v", bad.Payload, h.Letters)
		}
	}
	expect(t, h.Tick(bolt.Tick{Flush: true}), `default a@1 {"device":"a","group":"a","window":{"kind":"lifetime"},"s":1,"n":1}`)
}

func TestNewRefuses(t *testing.T) {
	sum := aggregate("s", "sum", "x")
	for _, tt := range []struct {
		spec topology.Bolt
		want string
	}{
		{stat(topology.Window{}, sum), "every must be at least 1ms"},
		{stat(topology.Window{Kind: topology.WindowTumbling}, sum), "size must be"},
		{stat(topology.Window{Kind: topology.WindowSliding, Size: 10 * ms}, sum), "slide must be"},
		{stat(topology.Window{Kind: topology.WindowSliding, Size: 10 * ms, Slide: 20 * ms}, sum), "at most the size"},
		{stat(topology.Window{Kind: topology.WindowSession, Gap: -1}, sum), "gap must be"},
		{stat(topology.Window{Kind: topology.WindowSession, Gap: 1, Time: "processing"}, sum), "only tumbling"},
		{stat(topology.Window{Kind: topology.WindowCount}, sum), "a count window has"},
		{stat(topology.Window{Kind: "hopping"}, sum), "unknown window"},
		{stat(topology.Window{Kind: topology.WindowLifetime}), "0 aggregates"},
		{stat(topology.Window{Kind: topology.WindowLifetime}, aggregate("a", "median", "x")), "9:5: unknown aggregate"},
		{stat(topology.Window{Kind: topology.WindowLifetime}, aggregate("a", "sum", "")), "9:5: sum needs an argument"},
		{stat(topology.Window{Kind: topology.WindowLifetime}, aggregate("device", "sum", "x")), "field device already"},
		{stat(topology.Window{Kind: topology.WindowLifetime}, sum, sum), "field s already"},
		{stat(topology.Window{Kind: topology.WindowLifetime}, aggregate("a", "sum", "x +")), "9:"},
		{topology.Bolt{Window: topology.Window{Kind: topology.WindowSession, Gap: time.Second}, Script: &topology.Script{Text: counting}}, "cannot be merged"},
		{topology.Bolt{Window: topology.Window{Kind: topology.WindowLifetime}, Script: &topology.Script{File: "s.js", Text: "let a"}}, "no function compute"},
	} {
		if _, err := New(tt.spec, byDevice, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, want %q", err, tt.want)
		}
	}
}

// Whatever the order of readings, watermarks, restarts and the final flush, each reading is in each of its windows exactly once, or late.
func TestEveryReadingOnce(t *testing.T) {
	windows := []topology.Window{
		{Kind: topology.WindowTumbling, Size: 10 * ms},
		{Kind: topology.WindowSession, Gap: 5 * ms},
		{Kind: topology.WindowLifetime},
		{},
		{Kind: topology.WindowTumbling, Size: 10 * ms, Time: "processing"},
		{Kind: topology.WindowCount, Count: 3},
	}
	rapid.Check(t, func(rt *rapid.T) {
		spec := stat(rapid.SampledFrom(windows).Draw(rt, "window"), aggregate("n", "count", "x"), aggregate("s", "sum", "x"))
		spec.Every = time.Second
		b := open(t, spec)
		h := bolttest.New(t, b, "default", "late")
		var fed, late, out, lives float64
		seen := map[string]bool{}
		take := func(ts []tuple.Tuple) {
			for _, o := range ts {
				var p struct {
					X, S   float64
					Window struct{ Start, End int64 }
				}
				if err := json.Unmarshal(o.Payload, &p); err != nil {
					rt.Fatal(err)
				}
				if o.Stream == "late" {
					late += p.X
					continue
				}
				out, lives = out+p.S, p.S
				if name := fmt.Sprint(o.Key, p.Window); spec.Window.Kind == topology.WindowTumbling && spec.Window.Time == "" {
					if seen[name] {
						rt.Fatalf("window %s was output twice", name)
					}
					seen[name] = true
				}
			}
		}
		steps := rapid.SliceOfN(rapid.IntRange(0, 9), 1, 60).Draw(rt, "steps")
		mark := int64(0)
		for i, s := range steps {
			switch s {
			case 0:
				mark += rapid.Int64Range(0, 20).Draw(rt, "advance")
				take(h.Tick(bolt.Tick{Time: int64(i) * 1000, Watermark: mark}))
			case 1:
				takeover(h, b)
			default:
				x := float64(int(1) << (i % 50))
				fed += x
				take(h.Feed(at("a", mark+rapid.Int64Range(-15, 30).Draw(rt, "ts"), int(x))))
			}
		}
		take(h.Tick(bolt.Tick{Time: 100_000, Flush: true, Watermark: mark}))
		if spec.Window.Kind == topology.WindowLifetime {
			out = lives
		}
		if late+out != fed || len(h.Letters) > 0 {
			rt.Fatalf("fed %v, late %v, output %v, letters %d", fed, late, out, len(h.Letters))
		}
	})
}

// TestPatience checks that whatever a statistic is planned as, one bolt or a stage of two, waits as its plan says.
func TestPatience(t *testing.T) {
	count := []topology.Aggregate{{Name: "n", Func: "count"}}
	ewma := []topology.Aggregate{{Name: "x", Func: "ewma"}}
	for _, c := range []struct {
		stage      topology.Stage
		aggregates []topology.Aggregate
		want       time.Duration
	}{
		{0, count, patience}, {topology.StageFirst, count, patience}, {topology.StageFirst, ewma, 0}, {topology.StageSecond, count, 0}, {topology.StageSecond, ewma, patience},
	} {
		b := &Bolt{spec: topology.Bolt{Kind: topology.KindStat, Stage: c.stage, Aggregates: c.aggregates, Every: time.Second}}
		for _, p := range []bolt.Patient{b, &FirstStage{stat: b}, &SecondStage{b}, &Forwarded{b}} {
			if got := p.Patience(); got != c.want {
				t.Errorf("stage %d with %v, %T, waits for %v, want %v", c.stage, c.aggregates, p, got, c.want)
			}
		}
	}
}
