package main

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const exampleData = "../../examples/machine-health/data/"

// devOnce runs `boltmesh dev --once -o json` with more arguments and returns its summary and exit code.
func devOnce(t *testing.T, stdin string, args ...string) (summary, int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(append([]string{"dev", "--once", "-o", "json"}, args...), strings.NewReader(stdin), &stdout, &stderr)
	var s summary
	if err := json.Unmarshal(stdout.Bytes(), &s); err != nil {
		t.Fatalf("exit %d, %v\n%s\n%s", code, err, stdout.String(), stderr.String())
	}
	return s, code
}

// lines reads an exported collection.
func lines[T any](t *testing.T, file string) (out []T) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var v T
		if err := json.Unmarshal(in.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
	return out
}

// TestDevExample runs the example and compares every figure with the truth beside its data; a second run on the same directory changes nothing.
func TestDevExample(t *testing.T) {
	dir, export := t.TempDir(), t.TempDir()
	s, code := devOnce(t, "", "--data-dir", dir, "--export", export)
	if code != exitOK || s.Readings != 22_695+32_256 || s.DeadLetters != 0 {
		t.Fatalf("exit %d, %+v", code, s)
	}
	want := map[string]alarmCounts{
		"high": {239, 239, 0}, "high3": {37, 37, 0}, "low": {53, 53, 0}, "low3": {16, 16, 0}, "cpu50": {449, 447, 2}, "cpu90-3": {78, 76, 2},
	}
	for node, w := range want {
		if s.Alarms[node] != w {
			t.Errorf("alarm %s: %+v, want %+v", node, s.Alarms[node], w)
		}
	}
	compareEvents(t, filepath.Join(export, "alarms.jsonl"))
	compareTotals(t, filepath.Join(export, "temperature-totals.jsonl"), "machine_temperature", "temperature")
	compareTotals(t, filepath.Join(export, "cpu-totals.jsonl"), "ec2_cpu", "cpu")
	compareHours(t, filepath.Join(export, "temperature-hourly.jsonl"), "machine_temperature", "temperature")
	compareHours(t, filepath.Join(export, "cpu-hourly.jsonl"), "ec2_cpu", "cpu")

	again, code := devOnce(t, "", "--data-dir", dir)
	if code != exitOK || again.Readings != s.Readings || !maps.Equal(again.Documents, s.Documents) || !maps.Equal(again.Alarms, s.Alarms) {
		t.Errorf("the second run: exit %d, %+v", code, again)
	}
}

func compareEvents(t *testing.T, file string) {
	t.Helper()
	var got, want []string
	for _, e := range lines[struct {
		TS                   int64
		Device, Alarm, Event string
		Value                float64
	}](t, file) {
		got = append(got, fmt.Sprint(e.Device, " ", e.Alarm, " ", e.TS, " ", e.Event, " ", e.Value))
	}
	for _, name := range []string{"machine_temperature", "ec2_cpu"} {
		f, err := os.Open(exampleData + name + ".alarms.csv")
		if err != nil {
			t.Fatal(err)
		}
		rows, err := csv.NewReader(f).ReadAll()
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows[1:] {
			var value float64
			if _, err := fmt.Sscan(r[4], &value); err != nil {
				t.Fatal(err)
			}
			want = append(want, fmt.Sprint(r[1], " ", strings.ReplaceAll(r[2], "_", "-"), " ", r[0], " ", r[3], " ", value))
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%d events, want the %d of the truth; the first that differ: %v", len(got), len(want), firstDifference(got, want))
	}
}

func firstDifference(a, b []string) [2]string {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return [2]string{a[i], b[i]}
		}
	}
	return [2]string{"one is longer"}
}

// truth is what is known of a file.
type truth struct {
	Devices map[string]struct {
		Fields map[string]struct {
			Count               int64
			Sum, Mean, Min, Max float64
			Stddev              float64 `json:"stddev_pop"`
			Windows             int     `json:"tumbling_windows"`
		}
	} `json:"per_device"`
}

func readTruth(t *testing.T, name string) (out truth) {
	t.Helper()
	b, err := os.ReadFile(exampleData + name + ".truth.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func compareTotals(t *testing.T, file, name, field string) {
	t.Helper()
	known := readTruth(t, name)
	docs := lines[struct {
		Device                      string
		Count                       int64
		Sum, Mean, Min, Max, Stddev float64
	}](t, file)
	if len(docs) != len(known.Devices) {
		t.Errorf("%s: %d documents for %d devices", file, len(docs), len(known.Devices))
	}
	for _, d := range docs {
		k := known.Devices[d.Device].Fields[field]
		for what, v := range map[string][2]float64{
			"count": {float64(d.Count), float64(k.Count)}, "sum": {d.Sum, k.Sum}, "mean": {d.Mean, k.Mean}, "min": {d.Min, k.Min}, "max": {d.Max, k.Max},
			"stddev": {d.Stddev, k.Stddev},
		} {
			if math.Abs(v[0]-v[1]) > 1e-9*math.Abs(v[1]) {
				t.Errorf("%s of %s: %v, want %v", what, d.Device, v[0], v[1])
			}
		}
	}
}

func compareHours(t *testing.T, file, name, field string) {
	t.Helper()
	hours, readings := map[string]int{}, map[string]int64{}
	for _, d := range lines[struct {
		Device string
		Count  int64
	}](t, file) {
		hours[d.Device]++
		readings[d.Device] += d.Count
	}
	for device, k := range readTruth(t, name).Devices {
		if f := k.Fields[field]; hours[device] != f.Windows || readings[device] != f.Count {
			t.Errorf("%s: %d hours with %d readings, want %d with %d", device, hours[device], readings[device], f.Windows, f.Count)
		}
	}
}

// TestDevBadInput feeds what cannot be decoded: every row is counted, the good ones are processed, the exit code says that not all was clean.
func TestDevBadInput(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "t.yaml")
	err := os.WriteFile(file, []byte(`
topology: bad
spout: {id: in, kafka: {topics: [in]}, key: device, time: {field: ts}}
bolts:
  - {id: pass, kind: convert, from: in, set: {half: v / 2}, save: out}
`), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	s, code := devOnce(t, strings.Join([]string{
		`{"device":"a","ts":1,"v":4}`, `{"device":"a","ts":1,"v":6}`, // a duplicate timestamp is a reading like any other
		`{"device":"","ts":1,"v":1}`, `{"device":"a","ts":"soon","v":1}`, `{"device":"a","v":1}`, `not json`, `[1]`, `{"device":"a","ts":1,"v":NaN}`,
		`{"device":"b","ts":2}`,
	}, "\n"), "--topology", file, "--feed", "-", "--export", dir)
	if code != exitFailed || s.Readings != 9 || s.DeadLetters != 6 || s.Documents["out"] != 3 {
		t.Errorf("exit %d, %+v", code, s)
	}
	halves := map[string]float64{}
	for _, d := range lines[map[string]any](t, filepath.Join(dir, "out.jsonl")) {
		h, _ := d["half"].(float64)
		halves[d["device"].(string)] += h
	}
	if halves["a"] != 5 || halves["b"] != 0 {
		t.Errorf("halves: %v", halves)
	}
}
