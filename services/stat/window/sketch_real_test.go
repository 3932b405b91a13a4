package window

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// sketched is what the statistic below says of a device.
type sketched struct {
	Device                            string
	P0, P10, P50, P95, P99, P100, Ewm float64
	Values, Whole                     int64
	Top                               []struct {
		Value float64
		Count uint64
	}
}

// The sketches of the readings of real machines, with commits and takeovers, against sorting and counting them.
func TestSketchesOfRealReadings(t *testing.T) {
	for file, field := range map[string]string{"machine_temperature": "temperature", "ec2_cpu": "cpu"} {
		t.Run(file, func(t *testing.T) {
			readings := load(t, file, field)
			whole := "int(" + field + ")"
			b := open(t, stat(topology.Window{Kind: topology.WindowLifetime},
				with(aggregate("p0", "quantile", field), 0), with(aggregate("p10", "quantile", field), 0.1), with(aggregate("p50", "quantile", field), 0.5),
				with(aggregate("p95", "quantile", field), 0.95), with(aggregate("p99", "quantile", field), 0.99), with(aggregate("p100", "quantile", field), 1),
				with(aggregate("ewm", "ewma", field), 0.1), aggregate("values", "distinct", field), aggregate("whole", "distinct", whole), with(aggregate("top", "topk", whole), 5)))
			h := bolttest.New(t, b)
			exact := map[string][]float64{}
			for from := 0; from < len(readings); from += 256 {
				batch := readings[from:min(from+256, len(readings))]
				h.Feed(batch...)
				h.Floor += int64(len(batch))
				if from/256%10 == 3 {
					takeover(h, b)
				}
			}
			for _, r := range readings {
				var p map[string]float64
				if err := json.Unmarshal(r.Payload, &p); err != nil {
					t.Fatal(err)
				}
				if x, ok := p[field]; ok {
					exact[r.Key] = append(exact[r.Key], x)
				}
			}
			out := h.Tick(bolt.Tick{Flush: true})
			if len(out) != len(exact) || len(h.Letters) > 0 {
				t.Fatalf("%d devices, want %d; %d letters", len(out), len(exact), len(h.Letters))
			}
			worst := map[string]float64{}
			for _, o := range out {
				checkSketches(t, o, exact[o.Key], worst)
			}
			t.Logf("%d devices, greatest errors: quantile %.3f %%, distinct %.2f %%, topk %v of n/64", len(out), 100*worst["quantile"], 100*worst["distinct"], worst["topk"])
		})
	}
}

func checkSketches(t *testing.T, o tuple.Tuple, xs []float64, worst map[string]float64) {
	t.Helper()
	var got sketched
	if err := json.Unmarshal(o.Payload, &got); err != nil {
		t.Fatal(err)
	}
	ewma, values, whole := xs[0], map[float64]bool{}, map[float64]uint64{}
	for _, x := range xs {
		ewma += 0.1 * (x - ewma)
		values[x] = true
		whole[math.Trunc(x)]++
	}
	if relative(got.Ewm, ewma) > 1e-12 {
		t.Errorf("%s: ewma %v, want %v", o.Key, got.Ewm, ewma)
	}
	slices.Sort(xs)
	for q, v := range map[float64]float64{0: got.P0, 0.1: got.P10, 0.5: got.P50, 0.95: got.P95, 0.99: got.P99, 1: got.P100} {
		want := exactRank(xs, q)
		if !within(v, want) {
			t.Errorf("%s: quantile %v is %v, want %v", o.Key, q, v, want)
		}
		if want != 0 {
			worst["quantile"] = math.Max(worst["quantile"], relative(v, want))
		}
	}
	for want, v := range map[int]int64{len(values): got.Values, len(whole): got.Whole} {
		off := math.Abs(float64(v)-float64(want)) / float64(want)
		if off > 3*0.01625 {
			t.Errorf("%s: %d different values, want %d", o.Key, v, want)
		}
		worst["distinct"] = math.Max(worst["distinct"], off)
	}
	var counts []uint64
	for _, n := range whole {
		counts = append(counts, n)
	}
	slices.Sort(counts)
	slices.Reverse(counts)
	bound := uint64(len(xs) / 64)
	if len(whole) <= 64 {
		bound = 0
	}
	if len(got.Top) != min(5, len(whole)) {
		t.Fatalf("%s: %+v", o.Key, got.Top)
	}
	for i, top := range got.Top {
		if n := whole[top.Value]; top.Count < n || top.Count > n+bound || top.Count < counts[i] {
			t.Errorf("%s: %s %d times, want %d", o.Key, strconv.FormatFloat(top.Value, 'g', -1, 64), top.Count, n)
		} else if bound > 0 {
			worst["topk"] = math.Max(worst["topk"], float64(top.Count-n)/float64(bound))
		}
	}
}
