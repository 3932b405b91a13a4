package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/tests/integration/mesh"
)

const loadTopology = "testdata/load.yaml"

// reading is one that the tests make up; Seq tells it from all others.
type reading struct {
	Device string  `json:"device"`
	TS     int64   `json:"ts"`
	Value  float64 `json:"value"`
	Seq    int     `json:"seq"`
}

// load is a made-up data set, being fed.
type load struct {
	readings []reading
	fed      chan error
}

// generate makes n readings of some devices, in turn: values that wander between 0 and 100.
func generate(n, devices int) []reading {
	random := rand.New(rand.NewPCG(1, uint64(n)))
	level := make([]float64, devices)
	for i := range level {
		level[i] = 100 * random.Float64()
	}
	out := make([]reading, n)
	for i := range out {
		d := i % devices
		level[d] = math.Abs(level[d] + 30*(random.Float64()-0.5))
		if level[d] > 100 {
			level[d] = 200 - level[d]
		}
		out[i] = reading{fmt.Sprintf("device-%02d", d), 1_700_000_000_000 + int64(i/devices)*1000, level[d], i}
	}
	return out
}

// feedLoad begins to feed n readings of 50 devices, rate per second.
func feedLoad(t *testing.T, m *mesh.Mesh, top *topology.Topology, n, rate int) *load {
	t.Helper()
	l := &load{readings: generate(n, 50), fed: make(chan error, 1)}
	var lines strings.Builder
	for _, r := range l.readings {
		line, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		lines.Write(line)
		lines.WriteByte('\n')
	}
	file := filepath.Join(t.TempDir(), "load.jsonl")
	if err := os.WriteFile(file, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := m.Feed(t.Context(), top, rate, file)
		l.fed <- err
	}()
	return l
}

// emitted waits until the spouts have taken at least n records of the load from Kafka: so far is the stream.
func emitted(t *testing.T, m *mesh.Mesh, n int) {
	t.Helper()
	reached(t, m, "load", n)
}

// reached waits until the spout of a topology has emitted n records.
func reached(t *testing.T, m *mesh.Mesh, topology string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := mesh.Until(ctx, func(ctx context.Context) error {
		p, err := m.Control.Progress(ctx, topology)
		if err != nil {
			return err
		}
		next := int64(0)
		for _, mark := range p.Partitions {
			next += mark.Next
		}
		if next < int64(n) {
			return fmt.Errorf("%d of %d records were emitted", next, n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// finish waits until everything was fed and processed, and compares all of it with what a slow look at the readings says.
func (l *load) finish(t *testing.T, m *mesh.Mesh, top *topology.Topology) {
	t.Helper()
	if err := <-l.fed; err != nil {
		t.Fatal(err)
	}
	settle(t, m, top)
	db := database(t, m, "load")
	seen := map[int]int{}
	for _, r := range stored[reading](t, db, "readings") {
		seen[r.Seq]++
		if w := l.readings[r.Seq]; r != w {
			t.Errorf("stored %+v, want %+v", r, w)
		}
	}
	for _, r := range l.readings {
		if seen[r.Seq] != 1 {
			t.Errorf("reading %d is stored %d times", r.Seq, seen[r.Seq])
		}
	}
	got, counted := latest(t, db, "totals"), map[string]float64{}
	for _, i := range stored[totals](t, db, "intervals") {
		counted[i.Device] += i.Count
	}
	want, alarms := l.slowly()
	for device, w := range want {
		sameTotals(t, "value", got[device], w)
		if counted[device] != w.Count {
			t.Errorf("%s: the intervals count %v readings, want %v", device, counted[device], w.Count)
		}
	}
	sameAlarms(t, stored[alarm](t, db, "alarms"), alarms)
	noLetters(t, m, top.Name)
}

// slowly computes totals and alarms device by device, with every reading at hand: nothing is carried along as a bolt would.
func (l *load) slowly() (map[string]totals, []alarm) {
	byDevice := map[string][]reading{}
	for _, r := range l.readings {
		byDevice[r.Device] = append(byDevice[r.Device], r)
	}
	sums, alarms := map[string]totals{}, []alarm(nil)
	for device, all := range byDevice {
		w := totals{Device: device, Count: float64(len(all)), Min: math.Inf(1), Max: math.Inf(-1)}
		for _, r := range all {
			w.Sum += r.Value
			w.Min, w.Max = min(w.Min, r.Value), max(w.Max, r.Value)
		}
		w.Mean = w.Sum / w.Count
		for _, r := range all {
			w.Stddev += (r.Value - w.Mean) * (r.Value - w.Mean) / w.Count
		}
		w.Stddev = math.Sqrt(w.Stddev)
		sums[device] = w
		alarms = append(alarms, episodes(device, all)...)
	}
	return sums, alarms
}

// episodes looks back from every reading: three high ones in a row raise, two others clear.
func episodes(device string, all []reading) (out []alarm) {
	row := func(i, n int, high bool) bool {
		for k := i; k > i-n; k-- {
			if k < 0 || (all[k].Value > 80) != high {
				return false
			}
		}
		return true
	}
	open := false
	for i, r := range all {
		event := ""
		if !open && row(i, 3, true) {
			event = "raise"
		} else if open && row(i, 2, false) {
			event = "clear"
		}
		if event != "" {
			open = !open
			out = append(out, alarm{Device: device, Rule: "high", Event: event, TS: r.TS, Value: r.Value})
		}
	}
	return out
}
