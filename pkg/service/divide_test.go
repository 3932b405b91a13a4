package service

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// TestDivide gives nodes with state other numbers of tasks under load: totals and intervals are exact, alarms go on with their episodes.
func TestDivide(t *testing.T) {
	h := newHall(t)
	h.under(func() {
		for _, tasks := range []int{12, 3} {
			for _, node := range []string{"recent", "busy"} {
				r := h.divide(node, tasks)
				if len(r.Divided) != 1 || r.Divided[0].To != tasks || node == "recent" && r.Divided[0].Keys < hallDevices { // busy sees the first interval later
					t.Errorf("%s: %+v", node, r.Divided)
				}
				t.Logf("%s: %d keys into %d tasks, emission paused for %s", node, r.Divided[0].Keys, tasks, r.Pause.Round(time.Millisecond))
			}
			a, err := h.control.Get(t.Context(), "halls")
			if err != nil {
				t.Fatal(err)
			}
			for _, node := range []string{"total", "hot"} {
				if a.Topology, err = a.Topology.WithTasks(node, tasks); err != nil {
					t.Fatal(err)
				}
			}
			r, err := h.control.Apply(t.Context(), a.Topology, h.options())
			if err != nil || len(r.Divided) != 2 {
				t.Fatalf("%+v, %v", r, err)
			}
		}
	})
	h.check()
	for _, node := range []string{"total", "recent", "hot", "busy"} {
		if kept := h.kept(node); !slices.Equal(kept, []string{"3"}) {
			t.Errorf("%s keeps state in divisions into %v", node, kept)
		}
	}
}

// TestDivideInterrupted copies the state and stops there, as a command does that is killed: the topology goes on as it was. A command that is given again
// completes it, and removes what an earlier one has left.
func TestDivideInterrupted(t *testing.T) {
	h := newHall(t)
	h.feed(7)
	h.await("everything is processed", h.source.done)
	ask := func(q control.DivideRequest) (a control.DivideAnswer) {
		request, err := json.Marshal(q)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := h.conn.Request(t.Context(), control.DivideSubject("halls", "total", "stat1"), request)
		if err == nil {
			err = json.Unmarshal(answer, &a)
		}
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	if a := ask(control.DivideRequest{Tasks: 12}); a.Error == "" {
		t.Error("a topology that emits was divided")
	}
	if _, err := h.control.Pause(t.Context(), "halls"); err != nil {
		t.Fatal(err)
	}
	h.await("the spout rests", func() bool {
		seen, err := h.control.Members(t.Context(), "halls")
		if err != nil {
			t.Fatal(err)
		}
		return len(member.Unrest(seen, 2, nil, 1)) == 0
	})
	bucket, err := h.conn.Topologies(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	entry, err := bucket.Load(t.Context(), "halls")
	if err != nil {
		t.Fatal(err)
	}
	h.await("it is copied", func() bool {
		a := ask(control.DivideRequest{Tasks: 12, Entry: entry.Revision})
		return a.Error == "" && a.Keys == hallDevices
	})
	if a := ask(control.DivideRequest{Tasks: 12, Entry: entry.Revision - 1}); !strings.Contains(a.Error, "changed meanwhile") {
		t.Errorf("a request from before the pause: %+v", a)
	}
	if _, err := h.control.Resume(t.Context(), "halls"); err != nil {
		t.Fatal(err)
	}
	h.feed(11)
	h.await("everything is processed in the old tasks", h.source.done)
	h.divide("total", 12)
	h.feed(5)
	h.await("everything is processed in the new tasks", h.source.done)
	left := state.TaskOf("halls", "total", 5, 2)
	epoch, err := h.store.Claim(t.Context(), left)
	if err == nil {
		err = h.store.Commit(t.Context(), left, epoch, &state.Batch{Set: []state.Entry{{Key: "left"}}, Floors: map[tuple.Origin]int64{1: 1}})
	}
	if err != nil {
		t.Fatal(err)
	}
	if r := h.divide("total", 12); !r.Unchanged {
		t.Errorf("%+v", r)
	}
	if kept := h.kept("total"); !slices.Equal(kept, []string{"12"}) {
		t.Errorf("state in divisions into %v", kept)
	}
	h.check()
}

// TestInputsAreLost removes the inputs of two nodes under load, one of them of tasks, the other one competed for: they are made anew, and what was in them comes again.
func TestInputsAreLost(t *testing.T) {
	h := newHall(t)
	h.under(func() {
		h.await("readings pass", func() bool { h.outcome.mu.Lock(); defer h.outcome.mu.Unlock(); return len(h.totals) == hallDevices })
		if err := h.conn.Remove(t.Context(), "halls", []string{"total", "seen"}); err != nil {
			t.Fatal(err)
		}
		h.await("the inputs are there again", func() bool {
			inputs, err := h.conn.Inputs(t.Context(), "halls")
			if err != nil {
				t.Fatal(err)
			}
			return slices.Contains(inputs, "total") && slices.Contains(inputs, "seen")
		})
	})
	h.check()
}
