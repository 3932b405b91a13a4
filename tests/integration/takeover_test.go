package integration

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/tests/integration/mesh"
)

// takeover is how long nobody may have a task after its owner was killed: its lease lasts 3 s, and somebody has to see that it has expired. What a living
// worker leaves between two renewals comes on top: on a machine that is short of processors everybody is late.
const takeover = 4 * time.Second

// owners says who has which tasks, and remembers in at when each living worker has renewed last, in gap how long one left between two of these.
type owners struct {
	m    *mesh.Mesh
	plan *topology.Plan
	at   map[string]int64 // ms
	gap  time.Duration
}

func ownersOf(t *testing.T, m *mesh.Mesh, top *topology.Topology) *owners {
	t.Helper()
	plan, err := top.Plan()
	if err != nil {
		t.Fatal(err)
	}
	return &owners{m: m, plan: plan, at: map[string]int64{}}
}

func (o *owners) look(ctx context.Context) ([]control.Ownership, error) {
	alive, err := o.m.Control.Members(ctx, o.plan.Topology.Name)
	if err != nil {
		return nil, err
	}
	for _, l := range alive {
		key := l.Node + " " + l.Worker
		if last, known := o.at[key]; known {
			o.gap = max(o.gap, time.Duration(l.At-last)*time.Millisecond)
		}
		o.at[key] = l.At
	}
	return slices.DeleteFunc(control.Owners(o.plan, alive), func(x control.Ownership) bool { return x.Epoch == 0 }), nil
}

// kill kills a worker and waits until others have all of its tasks; how long these had no owner is what the new ones say.
func (o *owners) kill(t *testing.T, name string, kill func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	had := map[string]bool{}
	err := mesh.Until(ctx, func(ctx context.Context) error {
		now, err := o.look(ctx)
		for _, x := range now {
			if x.Worker == name {
				had[x.Node+"/"+x.Task] = true
			}
		}
		if err == nil && len(had) == 0 {
			err = fmt.Errorf("%s has no task", name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	kill()
	killed := time.Now()
	worst := time.Duration(0)
	err = mesh.Until(ctx, func(ctx context.Context) error {
		now, err := o.look(ctx)
		if err != nil {
			return err
		}
		left := len(had)
		for _, x := range now {
			if had[x.Node+"/"+x.Task] && x.Worker != name {
				left--
				worst = max(worst, time.UnixMilli(x.Since).Sub(killed))
			}
		}
		if left > 0 {
			return fmt.Errorf("%d of %d tasks of %s have no other owner", left, len(had), name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("killed %s: others have its %d tasks after %v; living workers left up to %v between two renewals", name, len(had), worst.Round(time.Millisecond), o.gap)
	if worst > takeover+o.gap {
		t.Errorf("the tasks of %s had no owner for %v", name, worst)
	}
}
