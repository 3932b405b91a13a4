// Package figures knows what the examples machine-health and air-quality must have stored: every reading, and what exact computation says of their statistics
// and alarms. The integration tests, the test of the compose files and that of `boltmesh dev` compare with it. It knows no testing.T, and nothing of how the services ran.
package figures

import (
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	gocmp "github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// series are the example's data files and the field that each holds.
var series = []struct{ file, field string }{{"machine_temperature", "temperature"}, {"ec2_cpu", "cpu"}}

// Totals is a document of a lifetime statistic, and what a truth file says of one field of one device.
type Totals struct {
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

// Alarm is a raise or a clear.
type Alarm struct {
	Device string
	Rule   string `bson:"alarm"`
	Event  string
	TS     int64
	Value  float64
}

// hour is a document of an hourly statistic.
type hour struct {
	Device string
	Count  int
	Window struct{ Start, End int64 }
}

// Check compares what is stored in db with the data files, which are in the directory data, and with the truth beside them. The error names every
// difference.
func Check(ctx context.Context, db *mongo.Database, data string) error {
	c := &check{db: db, data: data}
	c.readings(ctx)
	c.totals(ctx)
	c.hours(ctx)
	c.alarms(ctx)
	return errors.Join(c.wrong...)
}

// Rows is how many readings the data files hold.
func Rows(data string) (n int64, err error) {
	for _, s := range series {
		all, err := rows(filepath.Join(data, s.file+".csv"))
		if err != nil {
			return 0, err
		}
		n += int64(len(all))
	}
	return n, nil
}

// Stored reads a whole collection.
func Stored[T any](ctx context.Context, db *mongo.Database, collection string) ([]T, error) {
	cursor, err := db.Collection(collection).Find(ctx, bson.D{})
	if err != nil {
		return nil, fmt.Errorf("collection %s: %w", collection, err)
	}
	var out []T
	if err := cursor.All(ctx, &out); err != nil {
		return nil, fmt.Errorf("collection %s: %w", collection, err)
	}
	return out, nil
}

// Latest reads the last state of a lifetime statistic per device: that with the greatest count, since each flush emits it again.
func Latest(ctx context.Context, db *mongo.Database, collection string) (map[string]Totals, error) {
	all, err := Stored[Totals](ctx, db, collection)
	out := map[string]Totals{}
	for _, d := range all {
		if old, ok := out[d.Device]; !ok || d.Count > old.Count {
			out[d.Device] = d
		}
	}
	return out, err
}

// SameTotals compares the totals of one device; sums of floats may differ in the last digits, since addition is not associative.
func SameTotals(what string, got, want Totals) error {
	var wrong []error
	for name, pair := range map[string][2]float64{
		"count": {got.Count, want.Count}, "sum": {got.Sum, want.Sum}, "mean": {got.Mean, want.Mean},
		"min": {got.Min, want.Min}, "max": {got.Max, want.Max}, "stddev": {got.Stddev, want.Stddev},
	} {
		if math.Abs(pair[0]-pair[1]) > 1e-9*math.Abs(pair[1]) {
			wrong = append(wrong, fmt.Errorf("%s: %s of %s is %v, want %v", want.Device, name, what, pair[0], pair[1]))
		}
	}
	return errors.Join(wrong...)
}

// SameAlarms compares events, in whatever order they are; both are sorted.
func SameAlarms(got, want []Alarm) error {
	// An event and its opposite may have the same time where two readings do: then only their number is known.
	order := func(a, b Alarm) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.TS, b.TS), cmp.Compare(a.Event, b.Event), cmp.Compare(a.Value, b.Value))
	}
	slices.SortFunc(got, order)
	slices.SortFunc(want, order)
	if d := gocmp.Diff(want, got); d != "" {
		return fmt.Errorf("%d alarm events, want %d (-want +got):\n%.3000s", len(got), len(want), d)
	}
	return nil
}

// check collects what is wrong.
type check struct {
	db    *mongo.Database
	data  string
	wrong []error
}

func (c *check) fail(err error) {
	if err != nil {
		c.wrong = append(c.wrong, err)
	}
}

// truth reads what exact summation says of every device.
func (c *check) truth(file, field string) map[string]Totals {
	var whole struct {
		Devices map[string]struct{ Fields map[string]Totals } `json:"per_device"`
	}
	text, err := os.ReadFile(filepath.Join(c.data, file+".truth.json"))
	if err == nil {
		err = json.Unmarshal(text, &whole)
	}
	c.fail(err)
	out := map[string]Totals{}
	for device, d := range whole.Devices {
		want := d.Fields[field]
		want.Device, want.Stddev = device, want.Truth
		out[device] = want
	}
	return out
}

func rows(file string) ([][]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err := csv.NewReader(f).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return all[1:], nil
}

// readings compares every stored reading with its row; rows have no number, so equal ones are counted.
func (c *check) readings(ctx context.Context) {
	want := map[string]int{}
	for _, s := range series {
		all, err := rows(filepath.Join(c.data, s.file+".csv"))
		c.fail(err)
		for _, row := range all {
			v, err := strconv.ParseFloat(row[2], 64)
			c.fail(err)
			want[fmt.Sprintf("%s %s %s %v", row[0], row[1], s.field, v)]++
		}
	}
	all, err := Stored[struct {
		Device      string
		TS          int64
		Temperature *float64
		CPU         *float64
	}](ctx, c.db, "readings")
	c.fail(err)
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
		c.fail(fmt.Errorf("%d readings are stored (-want +got):\n%.2000s", len(all), d))
	}
}

func (c *check) totals(ctx context.Context) {
	for _, s := range series {
		got, err := Latest(ctx, c.db, s.field+"-totals")
		c.fail(err)
		want := c.truth(s.file, s.field)
		if len(got) != len(want) {
			c.fail(fmt.Errorf("totals of %s: %d devices, want %d", s.field, len(got), len(want)))
		}
		for device, w := range want {
			c.fail(SameTotals(s.field, got[device], w))
		}
	}
}

func (c *check) hours(ctx context.Context) {
	for _, s := range series {
		windows, sum := map[string]int{}, map[string]int{}
		seen := map[string]bool{}
		all, err := Stored[hour](ctx, c.db, s.field+"-hourly")
		c.fail(err)
		for _, h := range all {
			id := fmt.Sprintf("%s at %d", h.Device, h.Window.Start)
			if seen[id] || h.Window.Start%3_600_000 != 0 || h.Window.End != h.Window.Start+3_600_000 {
				c.fail(fmt.Errorf("window %s is there twice, or misplaced: %+v", id, h))
			}
			seen[id] = true
			windows[h.Device]++
			sum[h.Device] += h.Count
		}
		for device, w := range c.truth(s.file, s.field) {
			if windows[device] != w.Windows || sum[device] != int(w.Count) {
				c.fail(fmt.Errorf("%s of %s: %d hours of %d readings, want %d of %v", s.field, device, windows[device], sum[device], w.Windows, w.Count))
			}
		}
	}
}

func (c *check) alarms(ctx context.Context) {
	var want []Alarm
	for _, s := range series {
		all, err := rows(filepath.Join(c.data, s.file+".alarms.csv"))
		c.fail(err)
		for _, row := range all {
			ts, err1 := strconv.ParseInt(row[0], 10, 64)
			v, err2 := strconv.ParseFloat(row[4], 64)
			c.fail(errors.Join(err1, err2))
			rule := strings.ReplaceAll(row[2], "_", "-") // as ids of nodes are written
			want = append(want, Alarm{Device: row[1], Rule: rule, Event: row[3], TS: ts, Value: v})
		}
	}
	got, err := Stored[Alarm](ctx, c.db, "alarms")
	c.fail(err)
	c.fail(SameAlarms(got, want))
}
