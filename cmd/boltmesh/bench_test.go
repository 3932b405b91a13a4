package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestMain lets the test binary be the brokers' process of a bench, which starts the program that it is part of again.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "bench" && os.Args[2] == "brokers" {
		os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

func TestHistogramAgainstSortedValues(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Int64Range(0, int64(time.Hour)), 1, 200).Draw(t, "values")
		h := &histogram{}
		for _, v := range values {
			h.add(time.Duration(v))
		}
		slices.Sort(values)
		for _, q := range []float64{0, 0.5, 0.9, 0.99, 1} {
			want := values[min(int(q*float64(len(values))), len(values)-1)]
			got := int64(h.quantile(q))
			if got < want || got > want+want>>(precision-1) {
				t.Fatalf("quantile %v is %d, of the sorted values %d", q, got, want)
			}
		}
	})
}

func TestHistogramOfNothing(t *testing.T) {
	if got := (&histogram{}).quantile(0.5); got != 0 {
		t.Errorf("quantile of an empty histogram: %s", got)
	}
}

func TestScenariosAreValid(t *testing.T) {
	for _, s := range scenarios() {
		top, err := parseBench(s.topology)
		if err != nil {
			t.Errorf("%s: %v", s.name, err)
			continue
		}
		if _, err := top.Plan(); err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
	}
}

func TestReadingHasTwelveFields(t *testing.T) {
	var fields map[string]any
	if err := json.Unmarshal(reading(1234, time.UnixMilli(1)).Value, &fields); err != nil || len(fields) != 12 {
		t.Errorf("%d fields, %v", len(fields), err)
	}
}

// TestTrials runs each kind of scenario for a moment: what it measures is not looked at, only that something was.
func TestTrials(t *testing.T) {
	f := &benchFlags{warm: 500 * time.Millisecond, measure: time.Second, compared: 100 * time.Millisecond, readings: 20_000}
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			r, err := f.try(t.Context(), s)
			for longer := *f; err == nil && r.TuplesPerS == 0 && !s.idle && longer.measure < 20*time.Second; { // a machine that has much else to do
				longer.measure *= 4
				r, err = longer.try(t.Context(), s)
			}
			if err != nil {
				t.Fatal(err)
			}
			if r.Reference <= 0 || r.RSS < 0 || r.CPUPercent <= 0 {
				t.Errorf("nothing was measured: %+v", r)
			}
			if moved := r.TuplesPerS > 0; moved == s.idle {
				t.Errorf("%.0f tuples/s", r.TuplesPerS)
			}
			if s.rate > 0 && (r.P50 <= 0 || r.ReferenceP50 <= 0) {
				t.Errorf("no latencies: %+v", r)
			}
		})
	}
}

// TestReplicasShareTheWork: two replicas of a bolt that waits do more than one, in both ways of sharing. How much more is said in docs/performance.md.
func TestReplicasShareTheWork(t *testing.T) {
	f := &benchFlags{warm: time.Second, measure: 3 * time.Second, replicas: []int{1, 2}}
	var out, said bytes.Buffer
	if err := f.scale(t.Context(), "json", &out, &said); err != nil {
		t.Fatal(err)
	}
	var all []scaled
	if err := json.Unmarshal(out.Bytes(), &all); err != nil || len(all) != 4 {
		t.Fatalf("%v, %s", err, out.String())
	}
	for _, s := range all {
		if s.TuplesPerS <= 0 || s.Replicas == 2 && s.Ratio < 1.4 {
			t.Errorf("%+v", s)
		}
	}
}

func TestMediansAreOfEachFigure(t *testing.T) {
	got := medians([]result{{Name: "x", TuplesPerS: 1, P50: 9, Replayed: 1}, {TuplesPerS: 3, P50: 8}, {TuplesPerS: 2, P50: 7, Replayed: 2}})
	if got.Name != "x" || got.TuplesPerS != 2 || got.P50 != 8 || got.Replayed != 3 {
		t.Errorf("%+v", got)
	}
}

func TestAgainstFailsAboveTheLimit(t *testing.T) {
	old := &results{Scenarios: []result{{Name: "transport", CPURatio: 1}}}
	for _, c := range []struct {
		ratio, limit float64
		fails        bool
	}{{1.09, 10, false}, {1.11, 10, true}, {0.5, 10, false}, {9, 0, false}} {
		now := results{Scenarios: []result{{Name: "transport", CPURatio: c.ratio}, {Name: "new"}}}
		var said bytes.Buffer
		if err := now.against(old, c.limit, &said); (err != nil) != c.fails {
			t.Errorf("%v: %v", c, err)
		}
	}
}

func TestBenchUsage(t *testing.T) {
	for _, args := range [][]string{
		{"bench", "--scenario", "nothing"}, {"bench", "--runs", "0"}, {"bench", "--compare", filepath.Join(t.TempDir(), "missing.json")}, {"bench", "more"},
		{"bench", "--replicas", "0,1"}, {"bench", "--replicas", "1,9"}, {"bench", "--replicas", "two"},
	} {
		var out, said bytes.Buffer
		if code := run(args, nil, &out, &said); code != exitUsage || said.Len() == 0 {
			t.Errorf("%v: exit code %d, %q", args, code, said.String())
		}
	}
}
