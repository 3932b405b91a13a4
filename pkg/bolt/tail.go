package bolt

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// tail is what remains to be done for batches that a loop has handled. Tuples along edges with a Linger wait here for more to the same tasks, over several
// batches, and the batches' deltas and acknowledgements wait with them, since nothing is reported or acknowledged before all that came of it is stored. Where no
// edge has one it is empty after each batch.
type tail struct {
	out    Packer
	linger time.Duration // the least of the edges'; 0: nothing ever waits
	since  time.Time     // when the first of frames was fetched
	frames []Delivery    // that were handled

	origins []tuple.Origin // in the order in which they came
	deltas  map[tuple.Origin][]tuple.Delta
}

// newTail returns the tail of a loop with the options. A loop with state has none: what it emits is recorded, and the ticks that most of it comes with make
// batches by themselves.
func newTail(o *Options, stateful bool) tail {
	t := tail{out: Packer{Revision: o.Revision, Source: o.Where.Node, Edges: o.Edges}, deltas: map[tuple.Origin][]tuple.Delta{}}
	for _, e := range o.Edges {
		if e.Linger > 0 && !stateful && (t.linger == 0 || e.Linger < t.linger) {
			t.linger = e.Linger
		}
	}
	return t
}

// takes reports whether what goes along an edge waits.
func (t *tail) takes(e *Edge) bool { return t.linger > 0 && e.Linger > 0 }

// add takes over a batch that was handled, with one whole delta for each frame and root.
func (t *tail) add(r *run) {
	if len(t.frames) == 0 {
		t.since = r.fetched
	}
	t.frames = append(t.frames, r.pending...)
	for i := range r.in {
		d := &r.in[i]
		for _, s := range d.sums {
			o := s.root.Origin
			if len(t.deltas[o]) == 0 {
				t.origins = append(t.origins, o)
			}
			t.deltas[o] = append(t.deltas[o], tuple.Delta{Frame: d.id, First: s.root.First, Attempt: s.root.Attempt, XOR: s.xor})
		}
	}
}

// due reports whether waiting on would be of no use once the batch of r is added: a frame is full, the time is up, or so many frames are held that the broker
// would soon send no more. A loop of most frames a batch may hold half as many.
func (t *tail) due(r *run, most int) bool {
	since := t.since
	if len(t.frames) == 0 {
		since = r.fetched
	}
	return t.out.full() || len(t.frames)+len(r.pending) >= max(1, most/2) || r.Clock.Now().Sub(since) >= t.linger
}

// reset forgets everything, but not the memory.
func (t *tail) reset() {
	t.out.Reset()
	clear(t.frames)
	clear(t.deltas)
	t.frames, t.origins = t.frames[:0], t.origins[:0]
}

// Settle ends the batches in the tail: it stores what has waited, sends the deltas of each origin to its owner, and acknowledges the frames. Step does so when it
// is time; whoever stops stepping does so once more. After an error all of them are to be handled again.
func (l *Loop) Settle(ctx context.Context) error {
	t := &l.tail
	if len(t.frames) == 0 {
		return nil
	}
	if err := l.publish(ctx, t.out.Take()); err != nil {
		return l.takeBack(err)
	}
	for _, o := range t.origins {
		if err := l.Deltas.Send(ctx, o, t.deltas[o]); err != nil {
			return l.takeBack(fmt.Errorf("deltas of origin %x: %w", uint64(o), err))
		}
	}
	if err := l.Inbox.Ack(ctx, t.frames); err != nil {
		return l.takeBack(err)
	}
	t.reset()
	l.holding.Store(nil)
	return nil
}

// takeBack has the next Step handle everything that is not acknowledged, those batches included that wait in the tail: their tuples share frames with ones that
// are not to be stored as they are.
func (l *Loop) takeBack(err error) error {
	l.pending = append(slices.Clone(l.tail.frames), l.pending...)
	l.tail.reset()
	return err
}

// fetch gets the next batch, unless the last one is to be handled again. When none comes while something waits in the tail, that is settled.
func (l *Loop) fetch(ctx context.Context) (err error) {
	switch {
	case len(l.pending) > 0:
		return nil
	case len(l.tail.frames) == 0:
		l.pending, err = l.Inbox.Fetch(ctx, l.most)
		return err
	}
	within, cancel := context.WithTimeout(ctx, l.tail.linger-l.Clock.Now().Sub(l.tail.since))
	defer cancel()
	l.pending, err = l.Inbox.Fetch(within, l.most)
	if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		err = nil
	}
	if err != nil || len(l.pending) > 0 {
		return err
	}
	return l.Settle(ctx)
}
