package bolt

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// child is one emitted tuple with its deliveries. Its root and trace are those of the delivery being handled, so they are not recorded.
type child struct {
	tuple tuple.Tuple
	hops  []hop
}

// arena hands out short slices of a long one: an allocation for many tuples instead of one each.
type arena[T any] []T

// chunk is how many values an arena allocates at once; room is how many it has left at least when a slice is opened.
const (
	chunk = 128
	room  = 8
)

// open returns an empty slice to append to; close takes it in when it is complete. A slice that outgrew the arena's room has moved elsewhere.
func (a *arena[T]) open() []T {
	if cap(*a)-len(*a) < room {
		*a = make([]T, 0, chunk)
	}
	return (*a)[len(*a):]
}

func (a *arena[T]) close(s []T) []T {
	if n := len(*a); len(s) <= cap(*a)-n {
		*a = (*a)[:n+len(s)]
	}
	return s[:len(s):len(s)]
}

// emit hands the children on along their hops, puts letters among them aside, and counts the item as handled.
func (r *run) emit(it *item, children []child) error {
	xor := it.ledger
	for i := range children {
		t := &children[i].tuple
		if t.Stream == epitaphStream {
			r.epitaphs = append(r.epitaphs, epitaph{t.Payload, it.Root.Attempt})
			continue
		}
		t.Root, t.Offset = it.Root, it.Offset
		t.Trace = tuple.Trace{}
		if it.Trace.Sampled() {
			t.Trace.TraceID = it.Trace.TraceID
			binary.BigEndian.PutUint64(t.Trace.SpanID[:], it.ledger)
		}
		for _, h := range children[i].hops {
			id, err := r.deliver(it, t, h)
			if err != nil {
				return err
			}
			xor ^= id
			it.out++
		}
		r.sum.Emitted++
	}
	it.count(xor)
	return nil
}

// children turns what the bolt has emitted for it into tuples with ids and hops, and empties the collector.
func (r *run) children(ctx context.Context, it *item) ([]child, error) {
	if len(r.c.emissions) == 0 {
		return nil, nil
	}
	who := tuple.Emitter{Node: r.name, By: r.by(it)}
	cs := r.kids.open()
	for i := range r.c.emissions {
		e := &r.c.emissions[i]
		if len(e.Payload) > tuple.MaxPayload || len(e.Key) > tuple.MaxKey {
			return nil, Reject(fmt.Errorf("emitted a payload of %d bytes with a key of %d: at most %d and %d", len(e.Payload), len(e.Key), tuple.MaxPayload, tuple.MaxKey))
		}
		cs = append(cs, child{})
		c := &cs[i]
		t := &c.tuple // filled in place: it is large
		t.ID = tuple.ChildID(it.ID, who, r.stream(e.Stream), r.ordinal(i))
		t.Root, t.Offset, t.Stream, t.Key, t.Time, t.Group, t.Payload = it.Root, it.Offset, e.Stream, e.Key, e.Time, r.c.group, e.Payload
		var err error
		if c.hops, err = r.hopsOf(ctx, t, e.to-1); err != nil {
			return nil, err
		}
	}
	r.c.emissions = r.c.emissions[:0]
	return r.kids.close(cs), nil
}

// hopsOf lists the deliveries of an emitted tuple, numbered where they lead to a gate. Along direct edges it goes to task.
func (r *run) hopsOf(ctx context.Context, t *tuple.Tuple, task int32) ([]hop, error) {
	hops := r.hops.open()
	for i := range r.Edges {
		from := len(hops)
		if e := &r.Edges[i]; e.Named && e.Stream == t.Stream {
			h, err := e.named(i, task)
			if err != nil {
				return nil, err
			}
			hops = append(hops, h)
		}
		hops = r.Edges[i].hops(hops, i, t)
		if r.Edges[i].Gated {
			if err := r.number(ctx, t, hops[from:]); err != nil {
				return nil, err
			}
		}
	}
	return r.hops.close(hops), nil
}

// by is what tells children of one parent apart that different emitters make: groups of a stateful node, tasks that all got the same tuple.
func (r *run) by(it *item) tuple.ID {
	switch {
	case r.state != nil:
		return tuple.ByGroup(it.group.name)
	case r.Copies:
		return tuple.ByTask(r.where.Task)
	default:
		return tuple.ID{}
	}
}

// ordinal counts the emissions before the i-th that went to the same stream.
func (r *run) ordinal(i int) (n uint32) {
	if i == 0 {
		clear(r.ordinals)
		return 0
	}
	es := r.c.emissions
	if i == 1 { // most tuples have one child, and need no map
		r.ordinals[es[0].Stream] = 1
	}
	n = r.ordinals[es[i].Stream]
	r.ordinals[es[i].Stream] = n + 1
	return n
}
