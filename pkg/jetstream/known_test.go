package jetstream

import (
	"testing"

	"github.com/boltmesh/boltmesh/pkg/devstack"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// TestKnownAfterAReconnect: what was stored while the connection was away is known at the first question after it.
func TestKnownAfterAReconnect(t *testing.T) {
	stack, err := devstack.Start(t.Context(), devstack.Options{Dir: t.TempDir(), NoKafka: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stack.Close() })
	broken := make(chan error, 16)
	conns := [2]*Conn{}
	for i := range conns {
		o := Options{URL: stack.NATSURL()}
		if i == 0 {
			o.Changed = func(c Change) { broken <- c.Err }
		}
		if conns[i], err = Connect(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(conns[i].Close)
	}
	mine, err := conns[0].Letters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := conns[1].Letters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	x := mine.Of("a", "x")
	defer x.Close()
	for n := range byte(5) {
		if known, err := x.Known(t.Context(), tuple.ID{n}); known || err != nil {
			t.Fatalf("letter %d: %v, %v", n, known, err)
		}
		if err := conns[0].nc.ForceReconnect(); err != nil {
			t.Fatal(err)
		}
		if err := theirs.Put(t.Context(), &tuple.Letter{ID: tuple.ID{n}, Topology: "a", Node: "x"}); err != nil {
			t.Fatal(err)
		}
		for err := range broken {
			if err == nil { // it is back
				break
			}
		}
		if known, err := x.Known(t.Context(), tuple.ID{n}); !known || err != nil {
			t.Errorf("letter %d after a reconnect: %v, %v", n, known, err)
		}
	}
}

// TestRememberedIDsAreBounded: the oldest are forgotten.
func TestRememberedIDsAreBounded(t *testing.T) {
	n := (&Letters{}).Of("a", "x")
	id := func(i int) tuple.ID { return tuple.ID{byte(i), byte(i >> 8), byte(i >> 16), 1} }
	for i := range knownMost + 10 {
		n.remember(id(i))
		n.remember(id(i))
	}
	if len(n.ids) != knownMost || len(n.order) != knownMost {
		t.Fatalf("%d ids, %d in order", len(n.ids), len(n.order))
	}
	if _, there := n.ids[id(9)]; there {
		t.Error("the tenth is still there")
	}
	if _, there := n.ids[id(10)]; !there {
		t.Error("the eleventh is gone")
	}
}
