package integration

import (
	"cmp"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/boltmesh/boltmesh/tests/integration/mesh"
)

// series are the example's data files and the field that each holds.
var series = []struct{ file, field string }{{"machine_temperature", "temperature"}, {"ec2_cpu", "cpu"}}

// totals is a document of a lifetime statistic, and what a truth file says of one field of one device.
type totals struct {
	Device  string
	Count   float64
	Sum     float64
	Mean    float64
	Min     float64
	Max     float64
	Stddev  float64
	Truth   float64 `bson:"-" json:"stddev_pop"`
	Windows int     `bson:"-" json:"tumbling_windows"`
}

// hour is a document of an hourly statistic.
type hour struct {
	Device string
	Count  int
	Window struct{ Start, End int64 }
}

// alarm is a raise or a clear.
type alarm struct {
	Device string
	Rule   string `bson:"alarm"`
	Event  string
	TS     int64
	Value  float64
}

func TestExample(t *testing.T) {
	m := start(t, mesh.Options{})
	top := apply(t, m, example("topology.yaml"))
	files := []string{example("data/machine_temperature.csv"), example("data/ec2_cpu.csv")}
	fed, err := m.Feed(t.Context(), top, 0, files...)
	if err != nil {
		t.Fatal(err)
	}
	settle(t, m, top)
	db := database(t, m, "machines")
	check := func(t *testing.T) {
		checkReadings(t, db, fed)
		checkTotals(t, db)
		checkHours(t, db)
		checkAlarms(t, db)
		noLetters(t, m, top.Name)
	}
	t.Run("figures", check)
	again, err := m.Feed(t.Context(), top, 0, files...)
	if err != nil || again != 0 {
		t.Errorf("fed again: %d rows sent, %v", again, err)
	}
	settle(t, m, top)
	t.Run("fed again", check)
}

// truth reads what exact summation says of every device.
func truth(t *testing.T, file, field string) map[string]totals {
	t.Helper()
	var whole struct {
		Devices map[string]struct{ Fields map[string]totals } `json:"per_device"`
	}
	text, err := os.ReadFile(example("data/" + file + ".truth.json"))
	if err == nil {
		err = json.Unmarshal(text, &whole)
	}
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]totals{}
	for device, d := range whole.Devices {
		want := d.Fields[field]
		want.Device, want.Stddev = device, want.Truth
		out[device] = want
	}
	return out
}

func rows(t *testing.T, file string) [][]string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return all[1:]
}

// checkReadings compares every stored reading with its row; rows have no number, so equal ones are counted.
func checkReadings(t *testing.T, db *mongo.Database, fed int64) {
	t.Helper()
	want := map[string]int{}
	for _, s := range series {
		for _, row := range rows(t, example("data/"+s.file+".csv")) {
			v, err := strconv.ParseFloat(row[2], 64)
			if err != nil {
				t.Fatal(err)
			}
			want[fmt.Sprintf("%s %s %s %v", row[0], row[1], s.field, v)]++
		}
	}
	all := stored[struct {
		Device      string
		TS          int64
		Temperature *float64
		CPU         *float64
	}](t, db, "readings")
	if int64(len(all)) != fed {
		t.Errorf("%d readings are stored, %d were fed", len(all), fed)
	}
	got := map[string]int{}
	for _, r := range all {
		if r.Temperature != nil {
			got[fmt.Sprintf("%s %d temperature %v", r.Device, r.TS, *r.Temperature)]++
		}
		if r.CPU != nil {
			got[fmt.Sprintf("%s %d cpu %v", r.Device, r.TS, *r.CPU)]++
		}
	}
	if d := gocmp.Diff(want, got); d != "" {
		t.Errorf("readings (-want +got):\n%.2000s", d)
	}
}

func checkTotals(t *testing.T, db *mongo.Database) {
	t.Helper()
	for _, s := range series {
		got := latest(t, db, s.field+"-totals")
		want := truth(t, s.file, s.field)
		if len(got) != len(want) {
			t.Errorf("totals of %s: %d devices, want %d", s.field, len(got), len(want))
		}
		for device, w := range want {
			sameTotals(t, s.field, got[device], w)
		}
	}
}

// latest reads the last state of a lifetime statistic per device: that with the greatest count, since each flush emits it again.
func latest(t *testing.T, db *mongo.Database, collection string) map[string]totals {
	t.Helper()
	out := map[string]totals{}
	for _, d := range stored[totals](t, db, collection) {
		if old, ok := out[d.Device]; !ok || d.Count > old.Count {
			out[d.Device] = d
		}
	}
	return out
}

func sameTotals(t *testing.T, what string, got, want totals) {
	t.Helper()
	for name, pair := range map[string][2]float64{
		"count": {got.Count, want.Count}, "sum": {got.Sum, want.Sum}, "mean": {got.Mean, want.Mean},
		"min": {got.Min, want.Min}, "max": {got.Max, want.Max}, "stddev": {got.Stddev, want.Stddev},
	} {
		if math.Abs(pair[0]-pair[1]) > 1e-9*math.Abs(pair[1]) {
			t.Errorf("%s: %s of %s is %v, want %v", want.Device, name, what, pair[0], pair[1])
		}
	}
}

func checkHours(t *testing.T, db *mongo.Database) {
	t.Helper()
	for _, s := range series {
		windows, sum := map[string]int{}, map[string]int{}
		seen := map[string]bool{}
		for _, h := range stored[hour](t, db, s.field+"-hourly") {
			id := fmt.Sprintf("%s at %d", h.Device, h.Window.Start)
			if seen[id] || h.Window.Start%3_600_000 != 0 || h.Window.End != h.Window.Start+3_600_000 {
				t.Errorf("window %s is there twice, or misplaced: %+v", id, h)
			}
			seen[id] = true
			windows[h.Device]++
			sum[h.Device] += h.Count
		}
		for device, w := range truth(t, s.file, s.field) {
			if windows[device] != w.Windows || sum[device] != int(w.Count) {
				t.Errorf("%s of %s: %d hours of %d readings, want %d of %v", s.field, device, windows[device], sum[device], w.Windows, w.Count)
			}
		}
	}
}

func checkAlarms(t *testing.T, db *mongo.Database) {
	t.Helper()
	var want []alarm
	for _, s := range series {
		for _, row := range rows(t, example("data/"+s.file+".alarms.csv")) {
			ts, err1 := strconv.ParseInt(row[0], 10, 64)
			v, err2 := strconv.ParseFloat(row[4], 64)
			if err1 != nil || err2 != nil {
				t.Fatal(err1, err2)
			}
			rule := strings.ReplaceAll(row[2], "_", "-") // as ids of nodes are written
			want = append(want, alarm{Device: row[1], Rule: rule, Event: row[3], TS: ts, Value: v})
		}
	}
	sameAlarms(t, stored[alarm](t, db, "alarms"), want)
}

func sameAlarms(t *testing.T, got, want []alarm) {
	t.Helper()
	// An event and its opposite may have the same time where two readings do: then only their number is known.
	order := func(a, b alarm) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.TS, b.TS), cmp.Compare(a.Event, b.Event), cmp.Compare(a.Value, b.Value))
	}
	slices.SortFunc(got, order)
	slices.SortFunc(want, order)
	if d := gocmp.Diff(want, got); d != "" {
		t.Errorf("%d alarm events, want %d (-want +got):\n%.3000s", len(got), len(want), d)
	}
}
