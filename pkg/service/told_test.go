package service

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// TestNewOwnerWaitsWhileClosed lets a spout come when everything was found at rest and is looked at once more: its lease tells of its partitions and its logs, which
// do not rest, and it emits what its predecessor may have emitted when the topology is open again, not before; then it rests.
func TestNewOwnerWaitsWhileClosed(t *testing.T) {
	m := newMesh(t)
	m.worker("tally", "w1", func(context.Context, Node) (bolt.Bolt, error) { return &tally{}, nil })
	m.apply(fmt.Sprintf(tallyYAML, "2s"))
	c := m.operate()
	m.tell(func(a *control.Applied) { a.Paused, a.Closed = true, true })
	for d := range 4 {
		m.source.add(d, `{}`)
	}
	m.worker(topology.KindSpout, "s1", nil)
	lease := func() (l member.Member) {
		members, err := c.Members(t.Context(), "tally")
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range members {
			if x.Worker == "s1" {
				l = x
			}
		}
		return l
	}
	m.until("the spout tells of all that it is about to emit from", func() bool { l := lease(); return len(l.Marks) == 2 && len(l.Logs) == 2 })
	if missing := member.Unrest([]member.Member{lease()}, 2, []string{"tick", "replay"}, 1); len(missing) != 4 {
		t.Errorf("does not rest: %q, want both partitions and both logs", missing)
	}
	if got := m.total(); got != 0 {
		t.Errorf("counted %d readings while the topology is closed", got)
	}
	pause := m.tell(func(a *control.Applied) { a.Closed = false })
	m.until("it rests", func() bool {
		return len(member.Unrest([]member.Member{lease()}, 2, []string{"tick", "replay"}, pause)) == 0
	})
	if got := m.total(); got != 4 {
		t.Errorf("counted %d readings, want the 4 that a predecessor may have emitted", got)
	}
	m.source.add(1, `{}`)
	m.tell(func(a *control.Applied) { a.Paused = false })
	m.until("it goes on", m.source.done)
	if got := m.total(); got != 5 {
		t.Errorf("counted %d readings, want 5", got)
	}
}

// tell changes what the topology is told, and returns the revision of its key.
func (m *mesh) tell(f func(*control.Applied)) uint64 {
	m.t.Helper()
	b, err := m.connect().Topologies(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	e, err := b.Load(m.t.Context(), "tally")
	if err != nil {
		m.t.Fatal(err)
	}
	var a control.Applied
	if err := json.Unmarshal(e.Value, &a); err != nil {
		m.t.Fatal(err)
	}
	f(&a)
	value, err := json.Marshal(a)
	if err != nil {
		m.t.Fatal(err)
	}
	revision, err := b.Store(m.t.Context(), "tally", value, e.Revision, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	return revision
}

// TestNewsOvertakeEachOther: of what comes by a watch and by looking, the most recent counts.
func TestNewsOvertakeEachOther(t *testing.T) {
	var r running
	for _, x := range []struct{ comes, counts uint64 }{{3, 3}, {5, 5}, {4, 5}, {5, 5}, {6, 6}} {
		r.tell(told{key: x.comes, paused: true})
		if got := r.told.Load().pause(); got != x.counts {
			t.Errorf("after %d: paused by %d, want %d", x.comes, got, x.counts)
		}
	}
	r.tell(told{key: 7})
	if got := r.told.Load().pause(); got != 0 {
		t.Errorf("paused by %d, though it goes on", got)
	}
}
