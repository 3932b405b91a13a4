package window

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

func with(a topology.Aggregate, param float64) topology.Aggregate {
	a.Param = []float64{param}
	return a
}

// exactRank is what a quantile is held against: the value of rank floor(q (n-1)) of sorted values.
func exactRank(sorted []float64, q float64) float64 {
	return sorted[int(math.Floor(q*float64(len(sorted)-1)))]
}

func values() *rapid.Generator[[]float64] {
	x := rapid.OneOf(
		rapid.Float64Range(-100, 100), rapid.Float64Range(1e-3, 1e4), rapid.Map(rapid.IntRange(-5, 5), func(i int) float64 { return float64(i) }),
	)
	return rapid.SliceOfN(x, 1, 300)
}

// within reports whether a sketch may take the magnitude of want for that of got: 1 %, and what rounding adds at a bin's edge.
func within(got, want float64) bool {
	return math.Abs(got-want) <= quantileError*(1+1e-9)*math.Abs(want)
}

// However the values are cut and merged, a quantile is within 1 % of the exact one, and its encoding is the same.
func TestQuantileEqualsTheTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		xs := values().Draw(t, "values")
		for i, x := range xs {
			if math.Abs(x) < 1e-4 { // of the bins there are, all must have a place
				xs[i] = 0
			}
		}
		cut := rapid.IntRange(0, len(xs)).Draw(t, "cut")
		whole, left, right := newQuantile(), newQuantile(), newQuantile()
		for i, x := range xs {
			whole.add(x, "")
			if i < cut {
				left.add(x, "")
			} else {
				right.add(x, "")
			}
		}
		raw := right.append(nil)
		back, err := decodeQuantile(raw)
		if err != nil || string(back.append(nil)) != string(raw) {
			t.Fatal(err)
		}
		left.merge(back)
		if string(left.append(nil)) != string(whole.append(nil)) {
			t.Fatal("merged and whole differ")
		}
		slices.Sort(xs)
		for _, q := range []float64{0, 0.01, 0.25, 0.5, 0.9, 0.99, 1} {
			if got, want := left.value(q), exactRank(xs, q); !within(got, want) {
				t.Fatalf("quantile %v is %v, want %v", q, got, want)
			}
		}
	})
}

func TestQuantileOfAnyMagnitudeIsBounded(t *testing.T) {
	s := newQuantile()
	for e := -307; e <= 140; e++ {
		for m := 1.0; m < 10; m += 0.01 {
			x := m * math.Pow(10, float64(e))
			if x > MaxMagnitude {
				continue
			}
			s.add(x, "")
			s.add(-x, "")
		}
	}
	if got := s.value(1); !within(got, MaxMagnitude) {
		t.Errorf("the greatest is %v", got)
	}
	raw := s.append(nil)
	if len(raw) > 8<<10 {
		t.Errorf("%d bytes", len(raw))
	}
	back, err := decodeQuantile(raw)
	if err != nil || string(back.append(nil)) != string(raw) {
		t.Error(err)
	}
}

// However the values are cut, merged and encoded in between, a distinct has the same encoding; its error is what the sketch promises.
func TestDistinct(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 2, 10, 100, 1000, 1300, 1500, 2000, 5000, 20_000, 100_000} {
		whole := newDistinct()
		parts := []*distinct{newDistinct(), newDistinct(), newDistinct()}
		for i := range n {
			for range 1 + rng.IntN(2) {
				x := distinctBits([]byte(strconv.Itoa(i)))
				whole.add(x, "")
				part := rng.IntN(3)
				parts[part].add(x, "")
				if rng.IntN(1000) == 0 { // as a commit does
					back, err := decodeDistinct(parts[part].append(nil))
					if err != nil {
						t.Fatal(err)
					}
					parts[part] = back
				}
			}
		}
		parts[0].merge(parts[1])
		parts[0].merge(parts[2])
		raw := whole.append(nil)
		if string(parts[0].append(nil)) != string(raw) {
			t.Errorf("%d: merged and whole differ", n)
		}
		if len(raw) > 4120 {
			t.Errorf("%d: %d bytes", n, len(raw))
		}
		got, allowed := float64(whole.Estimate()), 3*0.01625*float64(n)
		if n <= 1000 {
			allowed = 0
		}
		if math.Abs(got-float64(n)) > allowed {
			t.Errorf("%v different values, want %d", got, n)
		}
		t.Logf("%d: %v, %+.2f %%, %d bytes", n, got, 100*(got/math.Max(float64(n), 1)-1), len(raw))
	}
}

// The bounds of a topk hold however skewed the values are, and however they were cut and merged.
func TestTopKHoldsItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.IntRange(1, 12).Draw(t, "counters")
		xs := rapid.SliceOfN(rapid.OneOf(rapid.IntRange(0, 3), rapid.IntRange(0, 30)), 0, 200).Draw(t, "values")
		parts := []*topk{{most: most}, {most: most}, {most: most}}
		exact := map[string]uint64{}
		for _, x := range xs {
			text := strconv.Itoa(x)
			exact[text]++
			parts[rapid.IntRange(0, 2).Draw(t, "part")].add(0, text)
		}
		for i, p := range parts {
			back, err := decodeTopK(p.append(nil), most)
			if err != nil || string(back.append(nil)) != string(p.append(nil)) {
				t.Fatal(err)
			}
			parts[i] = back
		}
		s := parts[0]
		s.merge(parts[1])
		s.merge(parts[2])
		bound := uint64(len(xs) / most)
		for _, c := range s.counts {
			if c.n < exact[c.text] || c.n > exact[c.text]+bound {
				t.Fatalf("%s counted %d times, want %d to %d", c.text, c.n, exact[c.text], exact[c.text]+bound)
			}
		}
		for text, n := range exact {
			_, there := slices.BinarySearchFunc(s.counts, text, byText)
			if !there && (n > bound || len(exact) <= most) {
				t.Fatalf("%s occurred %d of %d times and is not among %d", text, n, len(xs), most)
			}
		}
		if len(s.counts) > most {
			t.Fatalf("%d counters", len(s.counts))
		}
	})
}

func TestEWMAEqualsTheTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		xs := values().Draw(t, "values")
		weight := rapid.Float64Range(0, 1).Draw(t, "weight")
		var c Cell
		want, largest := xs[0], 0.0
		for _, x := range xs {
			c.Add(Function{EWMA, weight}, x, "", 0)
			want = weight*x + (1-weight)*want
			largest = math.Max(largest, math.Abs(x))
		}
		got, ok := c.Value(EWMA)
		const u = 1.0 / (1 << 53)
		if !ok || math.Abs(got-want) > 2*min(4+1/weight, 4*float64(len(xs)))*u*largest {
			t.Fatalf("%v, want %v", got, want)
		}
	})
}

// The sketches as a topology declares them, over every kind of window, with other owners in between: what is output is what the readings say.
func TestSketchesInWindows(t *testing.T) {
	as := []topology.Aggregate{
		aggregate("d", "distinct", "site"), with(aggregate("low", "quantile", "x"), 0), with(aggregate("mid", "quantile", "x"), 0.5), with(aggregate("high", "quantile", "x"), 1),
		with(aggregate("top", "topk", "site"), 2),
	}
	for name, tt := range map[string]struct {
		window topology.Window
		want   []string
		times  []int64 // of the outputs
	}{
		"interval": {topology.Window{}, []string{`{"kind":"interval","end":1000}`}, []int64{1000}},
		"lifetime": {topology.Window{Kind: topology.WindowLifetime}, []string{`{"kind":"lifetime"}`}, []int64{11}},
		"tumbling": {topology.Window{Kind: topology.WindowTumbling, Size: 100 * ms}, []string{`{"kind":"tumbling","start":0,"end":100}`}, []int64{100}},
		"sliding":  {topology.Window{Kind: topology.WindowSliding, Size: 100 * ms, Slide: 50 * ms}, []string{`{"kind":"sliding","start":0,"end":100}`, `{"kind":"sliding","start":-50,"end":50}`}, []int64{100, 50}},
		"session":  {topology.Window{Kind: topology.WindowSession, Gap: 10 * ms}, []string{`{"kind":"session","start":1,"end":21}`}, []int64{21}},
		"count":    {topology.Window{Kind: topology.WindowCount, Count: 4}, []string{`{"kind":"count","start":1,"end":11}`}, []int64{11}},
	} {
		t.Run(name, func(t *testing.T) {
			spec := stat(tt.window, as...)
			if tt.window.Kind == topology.WindowNone || tt.window.Kind == topology.WindowLifetime {
				spec.Every = time.Second
			}
			b := open(t, spec)
			h := bolttest.New(t, b, "default", "late")
			var out []tuple.Tuple
			for _, r := range []struct {
				at   int64
				site string
				x    int
			}{{1, `"a<b"`, 10}, {11, `7`, 30}, {6, `"a<b"`, 0}, {7, `{"b":[true,null],"a":1.50}`, 20}} {
				out = append(out, h.Feed(tuple.Tuple{Key: "m", Time: r.at, Payload: fmt.Appendf(nil, `{"site":%s,"x":%d}`, r.site, r.x)})...)
				takeover(h, b)
			}
			out = append(out, h.Tick(bolt.Tick{Time: 1000, Watermark: 1000})...)
			for _, l := range h.Letters {
				t.Error(l.Error)
			}
			if len(out) != len(tt.want) {
				t.Fatalf("%s", told(out))
			}
			number := func(x float64) string { raw, _ := json.Marshal(x); return string(raw) }
			var want []string
			for i, w := range tt.want {
				var p struct{ Low, Mid, High float64 }
				if err := json.Unmarshal(out[i].Payload, &p); err != nil || p.Low != 0 || !within(p.Mid, 10) || !within(p.High, 30) {
					t.Errorf("%+v, %v", p, err)
				}
				want = append(want, fmt.Sprintf(`default m@%d {"device":"m","group":"m","window":%s,"d":3,"low":0,"mid":%s,"high":%s,"top":[{"value":"a\u003cb","count":2},{"value":7,"count":1}]}`,
					tt.times[i], w, number(p.Mid), number(p.High)))
			}
			expect(t, out, want...)
		})
	}
}

func TestSketchesOfNothing(t *testing.T) {
	h := bolttest.New(t, open(t, stat(topology.Window{Kind: topology.WindowLifetime}, aggregate("n", "count", "y"), aggregate("d", "distinct", "x"),
		with(aggregate("q", "quantile", "x"), 0.5), with(aggregate("t", "topk", "x"), 3), with(aggregate("e", "ewma", "x"), 0.5))))
	h.Feed(tuple.Tuple{Key: "a", Time: 1, Payload: []byte(`{"y":1}`)}, tuple.Tuple{Key: "a", Time: 2, Payload: []byte(`{"y":1,"x":null}`)})
	expect(t, h.Tick(bolt.Tick{Flush: true}), `default a@2 {"device":"a","group":"a","window":{"kind":"lifetime"},"n":2,"d":0}`)
}

func TestEWMA(t *testing.T) {
	h := bolttest.New(t, open(t, stat(topology.Window{Kind: topology.WindowLifetime}, with(aggregate("half", "ewma", "x"), 0.5), with(aggregate("newest", "ewma", "x"), 1), with(aggregate("oldest", "ewma", "x"), 0))))
	h.Feed(at("a", 3, 8), at("a", 2, 4))
	h.Restart()
	h.Feed(at("a", 1, 2)) // in the order of arrival, whatever the times
	expect(t, h.Tick(bolt.Tick{Flush: true}), `default a@3 {"device":"a","group":"a","window":{"kind":"lifetime"},"half":4,"newest":2,"oldest":8}`)
}

func TestTopKRefusesLongValues(t *testing.T) {
	h := bolttest.New(t, open(t, stat(topology.Window{Kind: topology.WindowLifetime}, with(aggregate("t", "topk", "x"), 3), aggregate("d", "distinct", "y"))))
	long := fmt.Sprintf(`"%0127d"`, 1)
	h.Feed(at("a", 1, long), at("a", 1, long[1 : len(long)-1][:0]+`"`+long[3:]), tuple.Tuple{Key: "a", Time: 1, Payload: []byte(`{"y":` + long + `}`)})
	if len(h.Letters) != 1 || h.Letters[0].Tries != 1 {
		t.Errorf("letters %+v", h.Letters)
	}
	out := h.Tick(bolt.Tick{Flush: true})
	if len(out) != 1 {
		t.Fatal(told(out))
	}
}

// Aggregates of the same thing share a cell, so that a record that names cells by what they are about finds each again.
func TestEqualAggregatesShareACell(t *testing.T) {
	b := open(t, stat(topology.Window{Kind: topology.WindowLifetime}, aggregate("a", "sum", "x"), aggregate("b", "sum", " x"),
		with(aggregate("p50", "quantile", "x"), 0.5), with(aggregate("p99", "quantile", "x"), 0.99), with(aggregate("e1", "ewma", "x"), 0.1), with(aggregate("e2", "ewma", "x"), 0.2)))
	if n := len(b.layout.funcs); n != 4 {
		t.Errorf("%d cells", n)
	}
	h := bolttest.New(t, b)
	h.Feed(at("a", 1, 1))
	h.Restart()
	h.Feed(at("a", 1, 2))
	var p struct{ A, B float64 }
	if err := json.Unmarshal(h.Tick(bolt.Tick{Flush: true})[0].Payload, &p); err != nil || p.A != 3 || p.B != 3 {
		t.Errorf("%+v, %v", p, err)
	}
}

// What is read from the state and changed does not reach the bytes that it was read from, which the cache keeps: few values, many, and more than a distinct lists.
func TestDecodedIsOfItsOwn(t *testing.T) {
	l := layout{window: byte(lifetime), funcs: []Function{{Kind: Distinct}, {Kind: Quantile}, {TopK, 3}, {Kind: Sum}}, names: []uint64{1, 2, 3, 4}, texts: true}
	reading := func(i int) row {
		text := strconv.Itoa(i)
		return row{at: 1, present: 15, values: []float64{distinctBits([]byte(text)), float64(i), 0, 1}, texts: []string{"", "", text, ""}}
	}
	for _, n := range []int{1, 300, 5000} {
		r := &record{layout: &l, closed: never, rows: []row{reading(0)}, previous: []byte(`{"x":1}`)}
		for i := range n {
			r.pane(Bounds{1, 2}).add(l.funcs, reading(i))
		}
		raw, _ := r.Append(nil)
		before := slices.Clone(raw)
		for name, change := range map[string]func(r *record, w row){
			"add":  func(r *record, w row) { r.pane(Bounds{1, 2}).add(l.funcs, w) },
			"join": func(r *record, w row) { r.join(Bounds{0, 3}).add(l.funcs, w) }, // as a session does
			"row":  func(r *record, w row) { r.rows = append(r.rows[:0], w) },
		} {
			v, err := l.decode(raw)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 500 {
				change(v.(*record), reading(n+i))
			}
			if after, _ := v.Append(nil); slices.Equal(after, before) {
				t.Errorf("%s of %d values changed nothing", name, n)
			}
			if !slices.Equal(raw, before) {
				t.Fatalf("%s of %d values changed the bytes", name, n)
			}
		}
	}
}

// A record of the version before sketches is read as what it was.
func TestRecordBeforeSketches(t *testing.T) {
	l := layout{window: byte(counted), funcs: []Function{{Kind: Count}, {Kind: Sum}}, names: []uint64{1, 2}}
	r := &record{layout: &l, closed: 7, since: 1, rows: []row{{at: 3, present: 3, values: []float64{0, 4}}}}
	r.pane(Bounds{10, 20}).add(l.funcs, r.rows[0])
	raw, _ := r.Append(nil)
	at := 2 + 1 + 1 + 16 // version, window, closed, number of names, names
	old := append([]byte{versionPlain}, raw[1:at]...)
	v, err := l.decode(append(old, raw[at+1:]...))
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := v.Append(nil); string(again) != string(raw) {
		t.Errorf("%x became %x", raw, again)
	}
}

func FuzzDecodeSketches(f *testing.F) {
	l := layout{window: byte(counted), funcs: []Function{{Kind: Distinct}, {Kind: Quantile}, {TopK, 3}, {EWMA, 0.5}}, names: []uint64{1, 2, 3, 4}, texts: true}
	r := &record{layout: &l, closed: 7, since: 1}
	for i := range 20 {
		w := row{at: 12, present: 15, values: []float64{distinctBits([]byte{byte(i)}), float64(i*i - 7), 0, 2}, texts: []string{"", "", strconv.Itoa(i % 5), ""}}
		r.pane(Bounds{10, 20}).add(l.funcs, w)
		r.rows = append(r.rows, w)
	}
	raw, _ := r.Append(nil)
	f.Add(raw)
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := l.decode(b)
		if err != nil {
			return
		}
		for _, p := range v.(*record).open { // what is read can be output and written to
			for i, fn := range l.funcs {
				p.cells[i].result(fn.Kind, max(fn.Param, 0.5))
			}
		}
		once, err := v.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		again, err := l.decode(once)
		if err != nil {
			t.Fatal(err)
		}
		if twice, _ := again.Append(nil); string(once) != string(twice) {
			t.Fatalf("%x, then %x", once, twice)
		}
		c := again.(*record)
		for _, w := range r.rows[:3] {
			c.pane(Bounds{10, 20}).add(l.funcs, w)
		}
		for i := range c.open {
			c.join(c.open[min(i, len(c.open)-1)].Bounds)
		}
	})
}

// BenchmarkSketches is the cost of one reading for each aggregate: its argument evaluated, the cell updated, and with the engine, per tuple of a frame
// of 256 readings of 16 devices, the record decoded, encoded and committed.
func BenchmarkSketches(b *testing.B) {
	for _, a := range []topology.Aggregate{
		aggregate("mean", "mean", "x"), aggregate("distinct", "distinct", "x"), with(aggregate("quantile", "quantile", "x"), 0.95),
		with(aggregate("topk", "topk", "x"), 10), with(aggregate("topk100", "topk", "x"), 100), with(aggregate("ewma", "ewma", "x"), 0.1),
	} {
		spec := stat(topology.Window{Kind: topology.WindowLifetime}, a)
		rng := rand.New(rand.NewPCG(1, 2))
		payload := func() []byte { return fmt.Appendf(nil, `{"device":"m1","x":%.2f}`, 70+10*rng.NormFloat64()) }
		b.Run(a.Name+"/update", func(b *testing.B) {
			s := open(b, spec)
			v, _ := s.decoder(nil)
			r := v.(*record)
			ts := make([]tuple.Tuple, 4096)
			for i := range ts {
				ts[i] = tuple.Tuple{Key: "a", Time: 5, Payload: payload()}
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				t := &ts[i%len(ts)]
				if ok, err := s.measure(b.Context(), t); !ok || err != nil {
					b.Fatal(ok, err)
				}
				r.pane(s.windows(r, t.Time)[0]).add(s.layout.funcs, s.row)
			}
			raw, _ := r.Append(nil)
			b.ReportMetric(float64(len(raw)), "bytes/group")
		})
		b.Run(a.Name+"/frame", func(b *testing.B) {
			h := bolttest.New(b, open(b, spec))
			payloads := make([][]byte, 4096)
			for i := range payloads {
				payloads[i] = payload()
			}
			frame := make([]tuple.Tuple, 256)
			n := 0
			for b.Loop() {
				for i := range frame {
					frame[i] = tuple.Tuple{Key: "device-" + string(rune('a'+i%16)), Time: int64(i), Payload: payloads[n%len(payloads)]}
					n++
				}
				h.Feed(frame...)
				h.Floor += 256
				h.Deltas = h.Deltas[:0]
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/256, "ns/tuple")
		})
	}
}
