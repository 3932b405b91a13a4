package jetstream_test

import (
	"errors"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// TestMissingInput removes inputs that are in use. Their owners are told which error it is, and Provision makes them anew.
func TestMissingInput(t *testing.T) {
	c := connect(t)
	inputs := []jetstream.Input{{Topology: "a", Node: "stat", Tasks: []int32{3}}, {Topology: "a", Node: "any", Tasks: tuple.Tasks(1, true)}}
	take := map[string]func() (*jetstream.Inbox, error){
		"stat": func() (*jetstream.Inbox, error) { return c.Take(t.Context(), "a", "stat", 3, 1, 8) },
		"any":  func() (*jetstream.Inbox, error) { return c.Join(t.Context(), "a", "any", 8) },
	}
	tasks := map[string]int32{"stat": 3, "any": tuple.Shared}
	ends := map[string]error{"stat": jetstream.ErrReplaced, "any": jetstream.ErrNoInput}
	for range 2 {
		if err := c.Provision(t.Context(), inputs); err != nil {
			t.Fatal(err)
		}
		open := map[string]*jetstream.Inbox{}
		for node, f := range take {
			in, err := f()
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			open[node] = in
			if err := c.Outbox("a").Publish(t.Context(), []bolt.Outgoing{frame(node, tasks[node], 1)}); err != nil {
				t.Fatal(err)
			}
			receive(t, in, 1)
		}
		if err := c.Remove(t.Context(), "a", []string{"stat", "any"}); err != nil {
			t.Fatal(err)
		}
		for node, in := range open {
			err := error(nil)
			for err == nil {
				_, err = in.Fetch(t.Context(), 8)
			}
			if !errors.Is(err, ends[node]) {
				t.Errorf("%s ends with %v", node, err)
			}
			if _, err := take[node](); !errors.Is(err, jetstream.ErrNoInput) {
				t.Errorf("%s is taken again: %v", node, err)
			}
		}
		if _, err := c.JoinSingly(t.Context(), "a", "any"); !errors.Is(err, jetstream.ErrNoInput) {
			t.Errorf("joined: %v", err)
		}
	}
}
