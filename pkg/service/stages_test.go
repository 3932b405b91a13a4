package service

import (
	"testing"

	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// What a first stage keeps moves to a task that exists; where the number stays, to where its own readings go.
func TestSharesMove(t *testing.T) {
	n := &topology.Node{
		Stateful: true, Tasks: 8, In: []topology.Edge{{Grouping: topology.Fields, By: []string{"device"}}},
		Bolt: &topology.Bolt{Kind: topology.KindStat, Group: []string{"archive.site"}, Stage: topology.StageFirst, Tasks: 16},
	}
	place, err := placeOf(n, 4)
	if err != nil {
		t.Fatal(err)
	}
	for share, want := range map[string]int{"3": 3, "3\x1fnorth": 3, "7\x1fnorth\x1fx": 3} {
		if got, err := place(share); err != nil || got != want {
			t.Errorf("%q goes to %d, %v; want %d", share, got, err, want)
		}
	}
	if _, err := place("north"); err == nil {
		t.Error("a group without a number has a place")
	}
	if g, ok := groupOf(n.Bolt)(&tuple.Tuple{Key: "device-1"}); !ok || len(g) > 2 {
		t.Errorf("group %q, %v", g, ok)
	}
}
