package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/tests/integration/mesh"
)

// TestDivide gives a statistic 4, 6 and 3 tasks, and an alarm 5, while readings flow. One command is killed as soon as it has paused the topology, and given
// again: totals, intervals and alarms are exact.
func TestDivide(t *testing.T) {
	m := start(t, mesh.Options{Replicas: map[string]int{"stat": 2}})
	top := apply(t, m, loadTopology)
	const n = 18_000
	l := feedLoad(t, m, top, n, 1000)
	emitted(t, m, n/12)
	divide(t, m, "totals", 4)
	emitted(t, m, 3*n/12)
	killedDivision(t, m, "totals", 6)
	divide(t, m, "totals", 6)
	emitted(t, m, 5*n/12)
	divide(t, m, "totals", 3)
	divide(t, m, "high", 5)
	l.finish(t, m, top)
}

// divide gives a node another number of tasks by the command, and looks what is applied.
func divide(t *testing.T, m *mesh.Mesh, node string, tasks int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	began := time.Now()
	out, err := m.CLI(ctx, "rebalance", "load", node, "--tasks", fmt.Sprint(tasks), "--timeout", patience.String(), "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var r control.Report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if r.Warning != "" || len(r.Silent) > 0 || r.Paused {
		t.Errorf("%s in %d tasks: %s", node, tasks, out)
	}
	a, err := m.Control.Get(ctx, "load")
	if err != nil {
		t.Fatal(err)
	}
	if got := tasksOf(t, a, node); got != tasks || a.Paused {
		t.Errorf("%s has %d tasks, not %d; paused: %v", node, got, tasks, a.Paused)
	}
	t.Logf("%s has %d tasks after %v, emission paused for %v: %+v", node, tasks, time.Since(began).Round(time.Millisecond), r.Pause.Round(time.Millisecond), r.Divided)
}

func tasksOf(t *testing.T, a *control.Applied, node string) int {
	t.Helper()
	plan, err := a.Plan()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range plan.Nodes {
		if n.ID == node {
			return n.Tasks
		}
	}
	t.Fatalf("no node %s", node)
	return 0
}

// killedDivision gives the command and kills it when it has paused the topology: what it has done by then is left to the next.
func killedDivision(t *testing.T, m *mesh.Mesh, node string, tasks int) {
	t.Helper()
	ctx, kill := context.WithCancel(t.Context())
	defer kill()
	ended := make(chan error, 1)
	go func() {
		_, err := m.CLI(ctx, "rebalance", "load", node, "--tasks", fmt.Sprint(tasks))
		ended <- err
	}()
	wait, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := mesh.Until(wait, func(ctx context.Context) error {
		a, err := m.Control.Get(ctx, "load")
		if err == nil && a.Change == "" {
			err = fmt.Errorf("it has not been paused")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	kill()
	<-ended
	a, err := m.Control.Get(wait, "load")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("killed: %d tasks, revision %d, paused: %v", tasksOf(t, a, node), a.Revision, a.Paused)
	if !a.Paused || a.Change == "" {
		t.Errorf("a command that was killed has left %+v", a)
	}
}
