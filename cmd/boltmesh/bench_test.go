package main

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/boltmesh/boltmesh/pkg/document"
)

// TestMain lets the test binary be the brokers' process of a bench, which starts the program that it is part of again.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "bench" && (os.Args[2] == "brokers" || os.Args[2] == "service") {
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
	if err := json.Unmarshal(readings{}.at(1234, time.UnixMilli(1)).Value, &fields); err != nil || len(fields) != 12 {
		t.Errorf("%d fields, %v", len(fields), err)
	}
}

// TestStoredDocuments counts what a store has taken, and not what it refused.
func TestStoredDocuments(t *testing.T) {
	m := &meter{}
	s := m.storing(document.NewMemory())
	docs := []document.Document{bulkDocument(readings{}, 1, time.UnixMilli(1)), {Collection: "c", ID: "x", Body: []byte("no JSON")}, bulkDocument(readings{}, 2, time.UnixMilli(1))}
	if refused, err := s.Write(t.Context(), docs); err != nil || len(refused) != 1 || m.stored.Load() != 2 {
		t.Errorf("refused %v, %v; counted %d", refused, err, m.stored.Load())
	}
	m.stored.Store(0)
	r := moment{at: time.UnixMilli(2000), done: 10, stored: 30}.since(moment{at: time.UnixMilli(0)})
	if r.relate(measured{perSecond: 1, cpu: 1, stored: 20}); r.Documents != 15 || r.DocumentRatio != 0.75 || r.StoreRatio != 0.25 {
		t.Errorf("%+v", r)
	}
}

// TestTrials runs each kind of scenario for a moment: what it measures is not looked at, only that something was.
func TestTrials(t *testing.T) {
	f := &benchFlags{warm: 500 * time.Millisecond, measure: time.Second, compared: 100 * time.Millisecond, preloaded: 60_000}
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			if s.seen > 0 {
				s.seen, s.from.devices = 2000, 2000
			}
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
			if s.rate > 0 && (r.P50 <= 0 || r.ReferenceP50 <= 0) || s.half && r.P50 <= 0 || (s.rate > 0 || s.half) && (r.KafkaP50 <= 0 || r.KafkaP50 > r.P50) {
				t.Errorf("no latencies: %+v", r)
			}
			if s.store && r.StoreRatio <= 0 || s.half && r.Offered <= 0 || s.apart && len(r.RSSByService) != len(kinds) {
				t.Errorf("something is missing: %+v", r)
			}
		})
	}
}

// TestReplicasShareTheWork: two replicas of a bolt that waits do more than one, in both ways of sharing. How much more is said in docs/performance.md.
func TestReplicasShareTheWork(t *testing.T) {
	f := &benchFlags{warm: time.Second, measure: 3 * time.Second, replicas: []int{1, 2}}
	var out, said bytes.Buffer
	if err := f.scale(t.Context(), "json", &out, &said); err != nil && !errors.Is(err, errTooFew) { // three seconds beside other tests are no measurement
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

// TestWantedOfReplicas: of twice as many 1.9, of four times as many 3.6; below that the command fails, and the table says what was wanted.
func TestWantedOfReplicas(t *testing.T) {
	all := []scaled{{Consumers: "competing", Replicas: 1, Ratio: 1}, {Consumers: "competing", Replicas: 2, Ratio: 1.91}, {Consumers: "competing", Replicas: 4, Ratio: 3.61}}
	for i := range all {
		all[i].Wanted = wantedOf(float64(all[i].Replicas))
	}
	if err := tooFew(all); err != nil {
		t.Error(err)
	}
	all[1].Ratio, all[2].Ratio = 1.89, 3.59
	if err := tooFew(all); !errors.Is(err, errTooFew) || !strings.Contains(err.Error(), "2 replicas: 1.89 of 1.90; competing, 4 replicas: 3.59 of 3.60") {
		t.Error(err)
	}
	var out bytes.Buffer
	if err := printScaled(&out, all); err != nil || !strings.Contains(out.String(), "wanted") || !strings.Contains(out.String(), "3.60") {
		t.Errorf("%v: %s", err, out.String())
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
		if err := now.against(old, c.limit, &said); errors.Is(err, errSlower) != c.fails {
			t.Errorf("%v: %v", c, err)
		}
	}
}

// Runs are as far apart as on a busy machine: the median tells a slowdown from one run that was unlucky.
func TestTheLimitIsOfMedians(t *testing.T) {
	quiet := []float64{1.40, 1.44, 1.46, 1.38, 1.43}
	for _, c := range []struct {
		name  string
		runs  []float64
		fails bool
	}{
		{"as before", []float64{1.45, 1.41, 1.39, 1.47, 1.42}, false},
		{"two runs disturbed", []float64{1.45, 2.90, 1.39, 1.99, 1.42}, false},
		{"every tuple 15 % dearer", []float64{1.61, 1.656, 1.679, 1.587, 1.645}, true},
		{"dearer, one run lucky", []float64{1.61, 1.656, 1.30, 1.70, 1.645}, true},
	} {
		old := &results{Scenarios: []result{medians(ofRatios(quiet))}}
		now := results{Scenarios: []result{medians(ofRatios(c.runs))}}
		if got := now.slower(old, 10); (len(got) > 0) != c.fails {
			t.Errorf("%s: %v", c.name, got)
		}
		if r := now.Scenarios[0]; r.CPURatioLow != slices.Min(c.runs) || r.CPURatioHigh != slices.Max(c.runs) {
			t.Errorf("%s: runs from %v to %v", c.name, r.CPURatioLow, r.CPURatioHigh)
		}
	}
}

func ofRatios(ratios []float64) (runs []result) {
	for _, ratio := range ratios {
		r := result{Name: "transport", TuplesPerS: 50_000, CPU: ratio * 8}
		r.relate(measured{perSecond: 100_000, cpu: 8 * time.Microsecond})
		runs = append(runs, r)
	}
	return runs
}

// What is carried must not become smaller when somebody compresses it, in transport and in its reference.
func TestPayloadsAreOpaque(t *testing.T) {
	for _, size := range []int{64, referenceBytes, 64 << 10} {
		values := opaque(size, 1)
		packed := &bytes.Buffer{}
		w, _ := flate.NewWriter(packed, flate.BestCompression)
		for _, v := range values {
			if !json.Valid(v) || len(v) != size {
				t.Fatalf("%d bytes instead of %d: %.80s", len(v), size, v)
			}
			_, _ = w.Write(v)
		}
		_ = w.Close()
		if least := 0.72 * float64(size*len(values)); float64(packed.Len()) < least && size > 64 { // letters are 6 bits of 8; of 64 bytes 13 are the frame
			t.Errorf("%d bytes: %d of %d are left", size, packed.Len(), size*len(values))
		}
		if !bytes.Equal(values[0], opaque(size, 1)[0]) || bytes.Equal(values[0], opaque(size, 2)[0]) {
			t.Errorf("%d bytes: not by the seed", size)
		}
	}
}

func TestLeanReadingsHaveTheirFields(t *testing.T) {
	for _, n := range []int{4, 12, 100} {
		var fields map[string]any
		if err := json.Unmarshal(readings{fields: n}.at(1234, time.UnixMilli(1)).Value, &fields); err != nil || len(fields) != n {
			t.Errorf("%d fields, %v", len(fields), err)
		}
		if _, err := parseBench(leanJob(n)); err != nil {
			t.Error(err)
		}
	}
}

func TestBulkDocumentsCanBeStored(t *testing.T) {
	d := bulkDocument(readings{}, 7, time.UnixMilli(1_700_000_000_000))
	if err := d.Check(); err != nil {
		t.Errorf("%v: %s", err, d.Body)
	}
}

func TestCPUInStat(t *testing.T) {
	got, err := cpuInStat([]byte("77 (a b) c) S 1 77 77 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 1 0 1 1 1\n"))
	if err != nil || got != 2*time.Second {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := cpuInStat([]byte("77 (x) S 1")); err == nil {
		t.Error("no error")
	}
}

func TestBenchUsage(t *testing.T) {
	for _, args := range [][]string{
		{"bench", "--scenario", "nothing"},
		{"bench", "--runs", "0"},
		{"bench", "--compare", filepath.Join(t.TempDir(), "missing.json")},
		{"bench", "more"},
		{"bench", "--replicas", "0,1"},
		{"bench", "--replicas", "1,9"},
		{"bench", "--replicas", "two"},
	} {
		var out, said bytes.Buffer
		if code := run(args, nil, &out, &said); code != exitUsage || said.Len() == 0 {
			t.Errorf("%v: exit code %d, %q", args, code, said.String())
		}
	}
}
