package service

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
)

// input is an inbox as a loop holds it.
type input interface {
	bolt.Inbox
	Close()
}

// join opens the input that workers compete for. A worker that takes one frame at a time holds none back from the others.
func (h *host) join(ctx context.Context, batch int) (input, error) {
	name := h.plan.Topology.Name
	if batch == 1 {
		return h.Conn.JoinSingly(ctx, name, h.node.ID)
	}
	return h.Conn.Join(ctx, name, h.node.ID, batch)
}

// provided opens a task's input. One that is not there any more it makes first: somebody has removed its stream, or NATS has lost it. What was in it its roots send
// again. A worker of a revision that is not the applied one makes none: the input may have been removed with that.
func (h *host) provided(ctx context.Context, node string, task int32, open func() error) error {
	gone := open()
	if !errors.Is(gone, jetstream.ErrNoInput) {
		return gone
	}
	if now, err := h.look(ctx); err != nil || now.key == 0 {
		return errors.Join(gone, err)
	}
	if err := h.Conn.Provision(ctx, []jetstream.Input{{Topology: h.plan.Topology.Name, Node: node, Tasks: []int32{task}}}); err != nil {
		return errors.Join(gone, err)
	}
	h.failed(h.at(), "take the input of "+node, fmt.Errorf("%w: it was made anew", gone))
	return open()
}

// gentle is an inbox that stops fetching when told to stop; what was fetched before is finished. With a linger it waits so long for a batch to fill, except for
// the first one: the task may have waited for its owner.
type gentle struct {
	bolt.Inbox
	stop   context.Context
	linger time.Duration
	begun  bool
}

func (g *gentle) Fetch(ctx context.Context, most int) ([]bolt.Delivery, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(g.stop, cancel)()
	out, err := g.Inbox.Fetch(ctx, most)
	first := !g.begun
	g.begun = g.begun || len(out) > 0
	if err != nil || len(out) == 0 || g.linger <= 0 || first {
		return out, err
	}
	ctx, cancel = context.WithTimeout(ctx, g.linger)
	defer cancel()
	for len(out) < most {
		more, err := g.Inbox.Fetch(ctx, most-len(out))
		if err != nil || len(more) == 0 {
			break // the time is up; another error comes again with the next batch
		}
		out = append(out, more...)
	}
	return out, nil
}
