package window

import (
	"testing"

	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

func TestRecordSurvivesAnotherLayout(t *testing.T) {
	old := open(t, stat(topology.Window{Kind: topology.WindowLifetime}, aggregate("n", "count", ""), aggregate("s", "sum", "x"), aggregate("m", "max", "x")))
	r := &record{layout: &old.layout, closed: never}
	p := r.pane(Bounds{})
	p.add(old.layout.funcs, row{at: 5, present: 7, values: []float64{0, 2, 3}})
	raw, err := r.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	changed := open(t, stat(topology.Window{Kind: topology.WindowLifetime}, aggregate("low", "min", "x"), aggregate("total", "sum", " x "), aggregate("n", "count", "")))
	v, err := changed.decoder(raw)
	if err != nil {
		t.Fatal(err)
	}
	cells := v.(*record).open[0].cells
	if cells[0] != (Cell{}) || cells[1].A != 2 || cells[2].N != 1 {
		t.Errorf("%+v", cells)
	}
	other := open(t, stat(topology.Window{Kind: topology.WindowTumbling, Size: ms}, aggregate("n", "count", "")))
	if v, err := other.decoder(raw); err != nil || len(v.(*record).open) != 0 {
		t.Errorf("%+v, %v", v, err)
	}
}

func FuzzDecodeRecord(f *testing.F) {
	l := layout{window: byte(counted), funcs: []Function{{Kind: Count}, {Kind: Sum}, {Kind: Rate}}, names: []uint64{1, 2, 3}}
	r := &record{layout: &l, closed: 7, since: 1}
	r.pane(Bounds{10, 20}).add(l.funcs, row{at: 12, present: 7, values: []float64{0, 1, 2}})
	r.rows = []row{{at: 3, present: 5, values: []float64{0, 0, 4}}}
	raw, _ := r.Append(nil)
	f.Add(raw)
	f.Add([]byte{version, byte(sliding), 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := l.decode(b)
		if err != nil {
			return
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
	})
}

func BenchmarkUpdate(b *testing.B) {
	s := open(b, stat(topology.Window{Kind: topology.WindowLifetime},
		aggregate("n", "count", ""), aggregate("mean", "mean", "x"), aggregate("low", "min", "x"), aggregate("high", "max", "x"), aggregate("dev", "stddev", "x")))
	t := at("a", 5, 73.96732207)
	v, _ := s.decoder(nil)
	r := v.(*record)
	b.ReportAllocs()
	for b.Loop() {
		if ok, err := s.measure(b.Context(), &t); !ok || err != nil {
			b.Fatal(ok, err)
		}
		r.pane(s.windows(r, t.Time)[0]).add(s.layout.funcs, s.row)
	}
}

func BenchmarkDecodeAndEncode(b *testing.B) {
	s := open(b, stat(topology.Window{Kind: topology.WindowLifetime},
		aggregate("n", "count", ""), aggregate("mean", "mean", "x"), aggregate("low", "min", "x"), aggregate("high", "max", "x"), aggregate("dev", "stddev", "x")))
	r := &record{layout: &s.layout, closed: never}
	r.pane(Bounds{}).add(s.layout.funcs, row{at: 5, present: 31, values: []float64{0, 1, 2, 3, 4}})
	raw, _ := r.Append(nil)
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		v, err := s.decoder(raw)
		if err != nil {
			b.Fatal(err)
		}
		out, _ = v.Append(out[:0])
	}
	b.ReportMetric(float64(len(out)), "bytes")
}

// BenchmarkFrame is a frame of 256 readings of 16 devices through the engine on a store in memory: load, update, commit.
func BenchmarkFrame(b *testing.B) {
	h := bolttest.New(b, open(b, stat(topology.Window{Kind: topology.WindowLifetime},
		aggregate("n", "count", ""), aggregate("mean", "mean", "x"), aggregate("low", "min", "x"), aggregate("high", "max", "x"), aggregate("dev", "stddev", "x"))))
	frame := make([]tuple.Tuple, 256)
	b.ReportAllocs()
	for b.Loop() {
		for i := range frame {
			frame[i] = tuple.Tuple{Key: "device-" + string(rune('a'+i%16)), Time: int64(i), Payload: []byte(`{"device":"m1","x":73.96732207}`)}
		}
		h.Feed(frame...)
		h.Floor += 256
		h.Deltas = h.Deltas[:0]
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/256, "ns/tuple")
}
