package bolt

import (
	"context"
	"fmt"

	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Inner is a node without state whose bolt runs in the loop of a node before it: what comes to it along Local edges is executed in the same Step, is
// never a frame, and is acknowledged with the frame that it came from. Tuples have the same ids as if they had travelled, and the node's letters and
// events are its own.
type Inner struct {
	Where   trace.Where // Task is tuple.Shared
	Bolt    Bolt
	Edges   []Edge
	Streams []string // as in Options
	Retry   topology.Retry
	Letters Letters
	Sink    trace.Sink
}

// enclose builds the inner loops and leads Local edges to them.
func (l *Loop) enclose() error {
	for _, in := range l.Inner {
		if _, stateful := in.Bolt.(Stateful); stateful {
			return fmt.Errorf("node %s is stateful and needs a loop of its own", in.Where.Node)
		}
		o := l.Options
		o.Where, o.Bolt, o.Edges, o.Streams, o.Retry, o.Letters, o.Sink = in.Where, in.Bolt, in.Edges, in.Streams, in.Retry, in.Letters, in.Sink
		o.Inner, o.Copies = nil, false
		inner, err := newLoop(o)
		if err != nil {
			return err
		}
		l.inner = append(l.inner, inner)
	}
	for i, inner := range l.inner {
		inner.lead(l.inner[i+1:])
	}
	l.lead(l.inner)
	return nil
}

// lead points the Local edges to inner loops.
func (l *Loop) lead(to []*Loop) {
	for i, e := range l.Edges {
		for _, inner := range to {
			if e.Local && inner.where.Node == e.To {
				l.within[i] = inner
			}
		}
	}
}

// nest opens a run for each inner loop. They share this one's frames, which an inner bolt's retries keep the broker informed about.
func (r *run) nest() {
	if len(r.Loop.inner) == 0 {
		return
	}
	r.nested = make(map[*Loop]*run, len(r.Loop.inner))
	for _, l := range r.Loop.inner {
		l.pending = r.pending
		in := l.open()
		in.nested, in.fetched = r.nested, r.fetched
		r.nested[l] = in
	}
}

// deliver hands t on along a hop, into a frame or to an inner loop, and returns the delivery's ledger id.
func (r *run) deliver(it *item, t *tuple.Tuple, h hop) (uint64, error) {
	inner := r.within[h.edge]
	if inner == nil {
		out := &r.out
		if r.tail.takes(&r.Edges[h.edge]) {
			out = &r.tail.out
		}
		return out.add(t, h)
	}
	in, own := r.nested[inner], *t
	id := tuple.LedgerID(t.ID, inner.name, tuple.Shared, t.Root.Attempt)
	in.queue = append(in.queue, &item{Tuple: &own, d: it.d, source: r.where.Node, ledger: id})
	return id, nil
}

// chain has the inner loops execute what was emitted to them, the ones that emit before those that receive. Emission and handling of an inner
// delivery are both counted, and cancel each other within the delta of the frame.
func (r *run) chain(ctx context.Context) error {
	for _, l := range r.Loop.inner {
		if in := r.nested[l]; len(in.queue) > 0 {
			if err := in.drain(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// drain executes an inner loop's queue.
func (r *run) drain(ctx context.Context) error {
	began := r.Clock.Now()
	defer func() { r.sum.Execute = r.Clock.Now().Sub(began) }()
	if p, ok := r.Bolt.(Preparer); ok {
		if err := r.outage(ctx, func() error { return p.Prepare(ctx, r.queued) }); err != nil {
			return err
		}
	}
	for _, it := range r.queue {
		r.sum.Tuples++
		r.c.source = it.source
		if err := r.stateless(ctx, it); err != nil {
			return err
		}
	}
	return r.finish(ctx)
}

// queued yields what came to an inner loop.
func (r *run) queued(yield func(*tuple.Tuple) bool) {
	for _, it := range r.queue {
		if !yield(it.Tuple) {
			return
		}
	}
}

// take closes the frames of the loop and of its inner ones.
func (r *run) take() []Outgoing {
	frames := r.out.Take()
	for _, l := range r.Loop.inner {
		frames = append(frames, r.nested[l].out.Take()...)
	}
	return frames
}

// tellAll reports the batch at every node that it has been at.
func (r *run) tellAll() {
	now := r.Clock.Now()
	r.tell(now, r.sum.Publish)
	for _, l := range r.Loop.inner {
		if in := r.nested[l]; len(in.queue) > 0 {
			in.tell(now, r.sum.Publish)
		}
		l.pending = nil
		r.nested[l].release()
	}
	r.release()
}
