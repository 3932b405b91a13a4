package service

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// chained is what a host keeps for the nodes whose bolts run in its loops.
type chained struct {
	mu      sync.Mutex
	letters map[string]*jetstream.NodeLetters
}

// of returns the dead letters of a node, the same for all loops.
func (c *chained) of(h *host, node string) *jetstream.NodeLetters {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.letters == nil {
		c.letters = map[string]*jetstream.NodeLetters{}
	}
	if c.letters[node] == nil {
		c.letters[node] = h.letters.Of(h.plan.Topology.Name, node)
	}
	return c.letters[node]
}

func (c *chained) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.letters {
		l.Close()
	}
}

// inner builds the bolts of the nodes that one of this node's loops runs too: those behind local edges, as far as this worker runs them.
func (h *host) inner(ctx context.Context) (out []bolt.Inner, err error) {
	reached := map[string]bool{h.node.ID: true}
	for i := range h.plan.Nodes { // each stands after all that it receives from
		n := &h.plan.Nodes[i]
		from := func(e topology.Edge) bool { return e.Local && reached[e.From] }
		if !h.runs(n) || !slices.ContainsFunc(n.In, from) {
			continue
		}
		reached[n.ID] = true
		b, err := h.Build(ctx, Node{Node: *n, Plan: h.plan, Worker: h.Name, Task: tuple.Shared, asking: h.asks()})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", n.ID, err)
		}
		at := h.where(h.plan.Topology.Name, n.ID)
		at.Task = tuple.Shared
		in := bolt.Inner{Where: at, Bolt: b, Edges: edges(h.plan, n), Letters: h.lettersOf(h.chained.of(h, n.ID)), Sink: h.countFor(n.ID)}
		if n.Bolt != nil {
			in.Retry, in.Streams = n.Bolt.Retry, n.Bolt.Emits()
		}
		out = append(out, in)
	}
	return out, nil
}

// countFor counts what happens at another node of this worker, in that node's lease.
func (h *host) countFor(node string) trace.Sink {
	return func(e trace.Event) {
		if other, ok := h.is.hosts.Load(node); ok {
			other.(*host).count(e)
			return
		}
		h.Sink.Emit(e)
	}
}
