package window

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// data holds readings of real machines, and what exact summation says of them.
const data = "../../../examples/machine-health/data"

// truth is what a *.truth.json says of one field of one device.
type truth struct {
	Count, Sum, Mean, Min, Max float64
	Stddev                     float64 `json:"stddev_pop"`
	Windows                    int     `json:"tumbling_windows"`
	Top                        struct {
		Start float64 `json:"start_ts"`
		Count float64
		Mean  float64
	} `json:"max_mean_window"`
}

func TestRealReadings(t *testing.T) {
	for file, field := range map[string]string{"machine_temperature": "temperature", "ec2_cpu": "cpu"} {
		t.Run(file, func(t *testing.T) {
			raw, err := os.ReadFile(filepath.Join(data, file+".truth.json"))
			if err != nil {
				t.Fatal(err)
			}
			var want struct {
				Rows    int
				Devices map[string]struct{ Fields map[string]truth } `json:"per_device"`
			}
			if err := json.Unmarshal(raw, &want); err != nil {
				t.Fatal(err)
			}
			readings := load(t, file, field)
			if len(readings) != want.Rows {
				t.Fatalf("%d readings, want %d", len(readings), want.Rows)
			}
			lives := run(t, topology.Window{Kind: topology.WindowLifetime}, field, readings)
			hours := run(t, topology.Window{Kind: topology.WindowTumbling, Size: time.Hour}, field, readings)
			for device, fields := range want.Devices {
				w := fields.Fields[field]
				if n := len(lives[device]); n == 0 {
					t.Fatalf("%s: nothing", device)
				}
				got := lives[device][len(lives[device])-1]
				for name, pair := range map[string][2]float64{
					"count": {got.N, w.Count}, "sum": {got.Total, w.Sum}, "mean": {got.Mean, w.Mean}, "min": {got.Low, w.Min}, "max": {got.High, w.Max}, "stddev": {got.Dev, w.Stddev},
				} {
					if relative(pair[0], pair[1]) > 1e-9 {
						t.Errorf("%s of %s: %v, want %v", name, device, pair[0], pair[1])
					}
				}
				if len(hours[device]) != w.Windows {
					t.Errorf("%s: %d windows, want %d", device, len(hours[device]), w.Windows)
				}
				top, total := output{}, 0.0
				for _, h := range hours[device] {
					total += h.N
					if h.Mean > top.Mean {
						top = h
					}
				}
				if total != w.Count || top.Window.Start != w.Top.Start || top.N != w.Top.Count || relative(top.Mean, w.Top.Mean) > 1e-9 {
					t.Errorf("%s: %v readings, the greatest mean in %+v, want %+v", device, total, top, w.Top)
				}
			}
		})
	}
}

func relative(got, want float64) float64 {
	return math.Abs(got-want) / math.Max(math.Abs(want), 1e-300)
}

// load reads rows of device,ts,value.
func load(t *testing.T, file, field string) (readings []tuple.Tuple) {
	t.Helper()
	f, err := os.Open(filepath.Join(data, file+".csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows[1:] {
		ts, err := strconv.ParseInt(row[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		payload := fmt.Sprintf(`{"ts":%d}`, ts)
		if row[2] != "" {
			payload = fmt.Sprintf(`{"ts":%d,%q:%s}`, ts, field, row[2])
		}
		readings = append(readings, tuple.Tuple{Key: row[0], Time: ts, Payload: []byte(payload)})
	}
	return readings
}

type output struct {
	N, Total, Mean, Low, High, Dev float64
	Window                         struct{ Start float64 }
}

// run feeds the readings in frames, with the true watermark now and then and a takeover in the middle, and returns the outputs per device.
func run(t *testing.T, w topology.Window, field string, readings []tuple.Tuple) map[string][]output {
	t.Helper()
	h := bolttest.New(t, open(t, stat(w,
		aggregate("n", "count", field), aggregate("total", "sum", field), aggregate("mean", "mean", field),
		aggregate("low", "min", field), aggregate("high", "max", field), aggregate("dev", "stddev", field))), "default", "late")
	all := map[string][]output{}
	take := func(out []tuple.Tuple) {
		for _, o := range out {
			if o.Stream == "late" {
				continue
			}
			var p output
			if err := json.Unmarshal(o.Payload, &p); err != nil {
				t.Fatal(err)
			}
			all[o.Key] = append(all[o.Key], p)
		}
	}
	for from := 0; from < len(readings); from += 256 {
		batch := readings[from:min(from+256, len(readings))]
		take(h.Feed(batch...))
		h.Floor += int64(len(batch))
		if from/256%10 == 9 && w.Kind == topology.WindowTumbling {
			least := int64(math.MaxInt64)
			for _, r := range readings[min(from+256, len(readings)):] {
				least = min(least, r.Time)
			}
			if least < math.MaxInt64 {
				take(h.Tick(bolt.Tick{Watermark: least}))
			}
		}
		if from/256 == 40 {
			h.Restart()
		}
	}
	take(h.Tick(bolt.Tick{Flush: true, Watermark: math.MinInt64}))
	if len(h.Letters) > 0 {
		t.Fatalf("dead letter: %s", h.Letters[0].Error)
	}
	return all
}
