package service

import (
	"context"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
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
