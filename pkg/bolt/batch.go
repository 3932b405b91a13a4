package bolt

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// delivery is one decoded frame of the batch.
type delivery struct {
	frame  tuple.Frame
	id     tuple.ID
	ledger []uint64 // of each tuple, as delivered here
	groups []grouped
	sums   []sum
	err    error // it could not be decoded
}

type grouped struct {
	name string
	ok   bool
}

// sum is what a delta will report for one root of one frame.
type sum struct {
	root tuple.Root
	xor  uint64
}

type fresh struct {
	state.Applied
	children []child
}

// item is one tuple of the batch with its place.
type item struct {
	*tuple.Tuple
	d      *delivery
	source string // the node that emitted it
	ledger uint64
	group  grouped
	tries  int
	begun  time.Time
	out    int
}

// count adds x to what the item's frame reports for the item's root.
func (it *item) count(x uint64) {
	for i := len(it.d.sums) - 1; i >= 0; i-- {
		if it.d.sums[i].root == it.Root {
			it.d.sums[i].xor ^= x
			return
		}
	}
	it.d.sums = append(it.d.sums, sum{it.Root, x})
}

// open returns the loop's run, empty.
func (l *Loop) open() *run {
	r := l.run
	if r == nil {
		r = &run{Loop: l, out: Packer{Revision: l.Revision, Source: l.where.Node, Edges: l.Edges}}
		l.run = r
	}
	r.out.Reset()
	*r = run{
		Loop: l, out: r.out, in: r.in[:0], kids: r.kids[:0], hops: r.hops[:0], failed: r.failed[:0], order: r.order[:0], queue: r.queue[:0], said: r.said[:0], epitaphs: r.epitaphs[:0],
		c: Collector{emissions: r.c.emissions[:0], streams: l.Streams}, fresh: r.fresh, lent: r.lent, fetched: l.Clock.Now(), sum: trace.Stepped{Where: l.where},
	}
	if len(r.fresh) > 1024 { // a map does not shrink
		r.fresh = nil
	}
	clear(r.fresh)
	return r
}

// spare is how many decoded frames' memory a loop keeps.
const spare = 2

// release lets go of what the batch's tuples refer to.
func (r *run) release() {
	if len(r.in) > spare {
		clear(r.in[spare:])
		r.in = r.in[:spare:spare]
	}
	for i := range r.in {
		clear(r.in[i].frame.Tuples)
	}
	clear(r.lent.tuples[:cap(r.lent.tuples)])
	clear(r.kids[:cap(r.kids)])
	clear(r.c.emissions[:cap(r.c.emissions)])
	clear(r.failed)
	clear(r.queue)
	clear(r.said)
	clear(r.epitaphs[:cap(r.epitaphs)])
}

// begin opens the pending frames, raises the floors by what they say, and decodes their tuples, unless that is better done one after the other.
func (l *Loop) begin() *run {
	r := l.open()
	r.sum.Frames = len(l.pending)
	r.in = slices.Grow(r.in[:cap(r.in)], max(len(l.pending)-cap(r.in), 0))[:len(l.pending)]
	r.nest()
	if l.state != nil {
		if r.fresh == nil {
			r.fresh = map[tuple.ID]fresh{}
		}
		r.c.state, r.c.agenda = l.Own.View, map[string]int64{}
	}
	held := &Held{Since: r.fetched}
	if len(l.tail.frames) > 0 {
		held.Roots = slices.Clone(l.holding.Load().Roots)
	}
	for i := range r.in {
		d := &r.in[i]
		d.sums, d.groups = d.sums[:0], d.groups[:0]
		d.frame.Keys = l.keys
		if d.err = d.frame.Open(l.pending[i].Data); d.err != nil {
			continue
		}
		for _, root := range d.frame.Roots() {
			if n := len(held.Roots); n == 0 || held.Roots[n-1] != root {
				held.Roots = append(held.Roots, root)
			}
			if root.Floor > l.floors[root.Origin] {
				l.floors[root.Origin] = root.Floor
			}
		}
		if !l.piecemeal {
			r.read(d)
		}
	}
	if old := l.holding.Load(); old != nil {
		held.Since = old.Since // taken up again after an error, or in the tail
	}
	l.holding.Store(held)
	return r
}

// read decodes the tuples of a frame that is open, and finds their ids in the ledger.
func (r *run) read(d *delivery) {
	if d.err = d.frame.Read(); d.err != nil {
		return
	}
	d.ledger = slices.Grow(d.ledger[:0], len(d.frame.Tuples))[:len(d.frame.Tuples)]
	for k := range d.frame.Tuples {
		t := &d.frame.Tuples[k]
		d.ledger[k] = tuple.LedgerID(t.ID, r.name, r.where.Task, t.Root.Attempt)
	}
	d.id = tuple.FrameID(r.name, r.where.Task, d.ledger)
}

// lent is the memory of decoded tuples that the frames of a batch have in turn, where nobody looks at those of one after it was handled.
type lent struct {
	tuples []tuple.Tuple
	ledger []uint64
}

// lend reads a frame into the lent memory, which it has until the returned function is called.
func (r *run) lend(d *delivery) (back func()) {
	d.frame.Tuples, d.ledger = r.lent.tuples[:0], r.lent.ledger[:0]
	r.read(d)
	r.lent = lent{d.frame.Tuples, d.ledger}
	return func() { d.frame.Tuples, d.ledger = nil, nil }
}

// tuples yields what the batch will execute, and perhaps some that turn out to be handled already.
func (r *run) tuples(yield func(*tuple.Tuple) bool) {
	for i := range r.in {
		d := &r.in[i]
		if d.err != nil || d.frame.Revision != r.Revision {
			continue
		}
		for k := range d.frame.Tuples {
			t := &d.frame.Tuples[k]
			if t.Stream == tuple.TickStream || t.Offset < r.floors[t.Root.Origin] {
				continue
			}
			if !yield(t) {
				return
			}
		}
	}
}

// unreadable deals with a frame that cannot be decoded: a corrupt one is buried, its roots replay; a newer one waits for the upgrade.
func (r *run) unreadable(ctx context.Context, err error, data []byte) error {
	if errors.Is(err, tuple.ErrVersion) {
		return err
	}
	l := r.form()
	l.Error, l.FailedAt = tuple.CutError(err.Error()), r.Clock.Now().UnixMilli()
	l.ID, l.Payload, l.Size = tuple.FrameID(r.name, r.where.Task, nil), data[:min(len(data), 4<<10)], len(data)
	r.sum.DeadLettered++
	return r.put(ctx, l)
}
