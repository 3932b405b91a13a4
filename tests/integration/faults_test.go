package integration

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/tests/integration/mesh"
	"github.com/boltmesh/boltmesh/tests/servers"
)

// TestDrain stops each service in turn while readings flow, as a deployment does.
func TestDrain(t *testing.T) {
	m := start(t, mesh.Options{})
	top := apply(t, m, loadTopology)
	const n = 8000
	l := feedLoad(t, m, top, n, 800)
	for i, kind := range mesh.Kinds {
		emitted(t, m, (i+1)*n/8)
		p := m.Services[kind][0]
		exitsClean(t, p)
		restart(t, p)
	}
	l.finish(t, m, top)
}

// TestReplicas kills one of three replicas of a spout, a stat and an alarm while readings flow: the others take over, tasks with state within 4 s.
func TestReplicas(t *testing.T) {
	replicas := map[string]int{}
	for _, kind := range mesh.Kinds {
		replicas[kind] = 3
	}
	m := start(t, mesh.Options{Replicas: replicas})
	top := apply(t, m, loadTopology)
	const n = 20_000
	l, owners := feedLoad(t, m, top, n, 1500), ownersOf(t, m, top)
	for i, kind := range []string{"stat", "alarm", "spout"} {
		emitted(t, m, (i+1)*n/6)
		p := m.Services[kind][1]
		if kind == "spout" { // its partitions are Kafka's to give to others
			p.Kill()
			t.Logf("killed %s", p.Name)
		} else {
			owners.kill(t, p.Name, p.Kill)
		}
		t.Cleanup(func() { restart(t, m.Services[kind][1]) }) // so that none counts as ended by itself
	}
	l.finish(t, m, top)
}

// TestOutages kills each server in turn while readings flow, and starts it again.
func TestOutages(t *testing.T) {
	m := start(t, mesh.Options{})
	top := apply(t, m, loadTopology)
	const n = 12_000
	l := feedLoad(t, m, top, n, 600)
	for i, p := range []*servers.Process{m.Redis, m.NATS, m.Kafka, m.Mongo} {
		emitted(t, m, (i+1)*n/8)
		p.Kill()
		t.Logf("killed %s", p.Name)
		restart(t, p)
	}
	l.finish(t, m, top)
}

// TestBackPressure freezes MongoDB while readings flow: the spout must stop, and nobody may fill the memory.
func TestBackPressure(t *testing.T) {
	t.Parallel() // with TestCompetingCalls: both mostly wait
	const n, rate, frozen = 42_000, 600, time.Minute
	m := start(t, mesh.Options{})
	top := apply(t, m, patient(t, loadTopology))
	l := feedLoad(t, m, top, n, rate)
	emitted(t, m, 1500)
	before := memory(t, m)
	m.Mongo.Pause()
	// A root is emitted whole when its first offset is within the span, so a partition may be ahead by one more root.
	limit := float64(mesh.Partitions * (top.Spout.MaxPending + mesh.Root))
	most, records := map[string]int64{}, 0.0
	err := looking(t, frozen, func() error {
		if pending := metric(t, m, "boltmesh_spout_pending"); pending > limit {
			return fmt.Errorf("%v offsets are pending, at most %v may be", pending, limit)
		}
		for name, bytes := range memory(t, m) {
			most[name] = max(most[name], bytes)
		}
		records = metric(t, m, "boltmesh_records_total")
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	ends, err := m.Ends(t.Context(), "load")
	if err != nil {
		t.Fatal(err)
	}
	written := 0.0
	for _, end := range ends {
		written += float64(end)
	}
	t.Logf("after %v: the spout has taken %v of %v records", frozen, records, written)
	if written-records < 5000 {
		t.Error("the spout was not held back")
	}
	m.Mongo.Resume()
	for _, name := range slices.Sorted(maps.Keys(before)) {
		t.Logf("%-10s %3d MiB before, at most %3d MiB while MongoDB was frozen", name, before[name]>>20, most[name]>>20)
		if most[name] > before[name]+64<<20 {
			t.Errorf("%s has grown from %d to %d MiB", name, before[name]>>20, most[name]>>20)
		}
	}
	l.finish(t, m, top)
}

// patient returns a copy of a topology that replays nothing for half a minute.
func patient(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), filepath.Base(file))
	if err := os.WriteFile(out, bytes.Replace(text, []byte("timeout: 10s"), []byte("timeout: 30s"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	return out
}

func restart(t *testing.T, p *servers.Process) {
	t.Helper()
	began := time.Now()
	if err := p.Restart(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
		return
	}
	t.Logf("%s is back after %v", p.Name, time.Since(began).Round(time.Millisecond))
}

// looking calls look twice a second for a while, or until it returns an error.
func looking(t *testing.T, length time.Duration, look func() error) error {
	t.Helper()
	end := time.NewTimer(length)
	defer end.Stop()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := look(); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-end.C:
			return nil
		}
	}
}

// metric is a number of the only spout, summed over the partitions.
func metric(t *testing.T, m *mesh.Mesh, name string) float64 {
	t.Helper()
	v, err := mesh.Metric(t.Context(), m.Services["spout"][0], name, `!task="-2"`, `!task="tick`)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// memory is what the services hold.
func memory(t *testing.T, m *mesh.Mesh) map[string]int64 {
	t.Helper()
	out := map[string]int64{}
	for _, kind := range mesh.Kinds {
		for _, p := range m.Services[kind] {
			bytes, err := mesh.Memory(p)
			if err != nil {
				t.Fatal(err)
			}
			out[p.Name] = bytes
		}
	}
	return out
}
