package service

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	doc "github.com/boltmesh/boltmesh/pkg/document"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/trace"
)

// A store without a TTL keeps documents for ever, and says so once; its other indexes are made.
func TestStoreWithoutTTL(t *testing.T) {
	memory := doc.NewMemory()
	var said []string
	save := &topology.Save{Collection: "hourly", Indexes: [][]string{{"device", "-time"}}, TTL: time.Hour}
	h := &host{
		Worker: &Worker{
			Documents: func(context.Context, string) (doc.Store, error) { return memory, nil },
			Sink:      func(e trace.Event) { said = append(said, e.(trace.Failed).Err.Error()) },
		},
		plan: &topology.Plan{Topology: &topology.Topology{Name: "t"}, Nodes: []topology.Node{{ID: "hourly", Bolt: &topology.Bolt{Save: save}}}},
	}
	for range 2 {
		if s, err := h.docs.open(t.Context(), h); s != doc.Store(memory) || err != nil {
			t.Fatal(s, err)
		}
	}
	if len(said) != 1 || !strings.Contains(said[0], "no TTL") {
		t.Errorf("told %q", said)
	}
}

// MongoDB refuses a second index on time: where documents vanish, that index is the one that was asked for as well.
func TestIndexes(t *testing.T) {
	saved := func(s topology.Save) topology.Node { return topology.Node{Bolt: &topology.Bolt{Save: &s}} }
	plan := &topology.Plan{Nodes: []topology.Node{
		{},
		saved(topology.Save{Collection: "a", Indexes: [][]string{{"time"}, {"-time"}, {"device", "time"}}}),
		saved(topology.Save{Collection: "a", TTL: time.Hour}),
		saved(topology.Save{Collection: "a", TTL: time.Hour}),
		saved(topology.Save{Collection: "b", Indexes: [][]string{{"time"}}}),
	}}
	want := []doc.Index{
		{Collection: "a", Fields: []string{"time"}, TTL: 3600},
		{Collection: "a", Fields: []string{"-time"}},
		{Collection: "a", Fields: []string{"device", "time"}},
		{Collection: "b", Fields: []string{"time"}},
	}
	if d := cmp.Diff(want, indexes(plan)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}
