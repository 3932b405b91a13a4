package bolt

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// run is one batch on its way through a Step. Nothing in it outlives the Step except what commit hands back to the loop; its memory does, for the next
// batch.
type run struct {
	*Loop
	in      []delivery
	it      item // the tuple of a frame that is being handled
	c       Collector
	out     Packer
	batch   state.Batch
	fresh   map[tuple.ID]fresh // applied in this batch
	order   []tuple.ID         // of fresh, since the last commit
	kids    arena[child]
	hops    arena[hop]
	failed  []*item        // executed since the last Finish, for its failures
	nested  map[*Loop]*run // what goes on in the inner loops
	queue   []*item        // of an inner loop: what was emitted to it
	said    []trace.Handled
	fetched time.Time
	sum     trace.Stepped
}

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
		Loop: l, out: r.out, in: r.in[:0], kids: r.kids[:0], hops: r.hops[:0], failed: r.failed[:0], order: r.order[:0], queue: r.queue[:0], said: r.said[:0],
		c: Collector{emissions: r.c.emissions[:0]}, fresh: r.fresh, fetched: l.Clock.Now(), sum: trace.Stepped{Where: l.where},
	}
	if len(r.fresh) > 1024 { // a map does not shrink
		r.fresh = nil
	}
	clear(r.fresh)
	return r
}

// spare is how many decoded frames' memory a loop keeps.
const spare = 4

// release lets go of what the batch's tuples refer to.
func (r *run) release() {
	if len(r.in) > spare {
		clear(r.in[spare:])
		r.in = r.in[:spare:spare]
	}
	for i := range r.in {
		clear(r.in[i].frame.Tuples)
	}
	clear(r.kids[:cap(r.kids)])
	clear(r.c.emissions[:cap(r.c.emissions)])
	clear(r.failed)
	clear(r.queue)
	clear(r.said)
}

// begin decodes the pending frames and raises the floors by what they say.
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
	for i := range r.in {
		d := &r.in[i]
		d.sums, d.groups = d.sums[:0], d.groups[:0]
		if d.err = d.frame.Decode(l.pending[i].Data); d.err != nil {
			continue
		}
		d.ledger = slices.Grow(d.ledger[:0], len(d.frame.Tuples))[:len(d.frame.Tuples)]
		for k := range d.frame.Tuples {
			t := &d.frame.Tuples[k]
			d.ledger[k] = tuple.LedgerID(t.ID, l.name, l.where.Task, t.Root.Attempt)
			if n := len(held.Roots); n == 0 || held.Roots[n-1] != t.Root {
				held.Roots = append(held.Roots, t.Root)
				if t.Root.Floor > l.floors[t.Root.Origin] {
					l.floors[t.Root.Origin] = t.Root.Floor
				}
			}
		}
		d.id = tuple.FrameID(l.name, l.where.Task, d.ledger)
	}
	if old := l.holding.Load(); old != nil {
		held.Since = old.Since // taken up again after an error
	}
	l.holding.Store(held)
	return r
}

// execute has the bolt handle every tuple of the batch, in order.
func (r *run) execute(ctx context.Context) error {
	began := r.Clock.Now()
	defer func() { r.sum.Execute = r.Clock.Now().Sub(began) }()
	if err := r.preload(ctx); err != nil {
		return err
	}
	if p, ok := r.Bolt.(Preparer); ok {
		if err := r.outage(ctx, func() error { return p.Prepare(ctx, r.tuples) }); err != nil {
			return err
		}
	}
	for i := range r.in {
		d := &r.in[i]
		if d.err != nil {
			if err := r.unreadable(ctx, d.err, r.pending[i].Data); err != nil {
				return err
			}
			continue
		}
		if d.frame.Revision != r.Revision {
			r.sum.Held += len(d.frame.Tuples) // no delta: the root replays under the revision in force
			continue
		}
		r.c.source = d.frame.Source
		for k := range d.frame.Tuples {
			r.it = item{Tuple: &d.frame.Tuples[k], d: d, source: d.frame.Source, ledger: d.ledger[k]}
			if r.state != nil {
				r.it.group = d.groups[k]
			}
			if err := r.handle(ctx, &r.it); err != nil {
				return err
			}
		}
	}
	return r.finish(ctx)
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

// preload finds the groups of the batch and loads their keys in one round trip.
func (r *run) preload(ctx context.Context) error {
	if r.state == nil {
		return nil
	}
	var keys []string
	add := func(k string) { keys = append(keys, k) }
	for i := range r.in {
		d := &r.in[i]
		d.groups = slices.Grow(d.groups, len(d.frame.Tuples))[:len(d.frame.Tuples)]
		clear(d.groups)
		for k := range d.frame.Tuples {
			t := &d.frame.Tuples[k]
			if t.Stream == tuple.TickStream {
				continue
			}
			g := &d.groups[k]
			if g.name, g.ok = r.state.Group(t); !g.ok {
				continue
			}
			if k == 0 || d.groups[k-1] != *g {
				r.state.Keys(g.name, add)
			}
			if t.N > 0 {
				add(gateKey(d.frame.Source, t.Group, g.name))
			}
		}
	}
	return r.outage(ctx, func() error { return r.Own.View.Preload(ctx, keys) })
}

// handle takes one tuple through the rules: below the floor, applied before, ahead of its gate, or to be executed.
func (r *run) handle(ctx context.Context, it *item) error {
	r.sum.Tuples++
	if it.Offset < r.floors[it.Root.Origin] {
		it.count(it.ledger) // everything under it is done: a leftover, counted so that its attempt can end
		r.tell1(it, trace.Dropped, nil)
		return nil
	}
	if it.Stream == tuple.TickStream {
		return r.tick(ctx, it)
	}
	if r.state == nil {
		return r.stateless(ctx, it)
	}
	return r.stateful(ctx, it)
}

// lettered reports whether the tuple is among the dead letters already: it was handled, and its acknowledgement or its delta was lost.
func (r *run) lettered(ctx context.Context, it *item) (known bool, err error) {
	if known, err = r.known(ctx, it.ID); known {
		it.count(it.ledger)
		r.tell1(it, trace.Dropped, nil)
	}
	return known, err
}

func (r *run) stateless(ctx context.Context, it *item) error {
	if known, err := r.lettered(ctx, it); known || err != nil {
		return err
	}
	err := r.try(ctx, it)
	var children []child
	if err == nil {
		children, err = r.children(ctx, it)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return r.bury(ctx, it, err)
	}
	if _, batched := r.Bolt.(Finisher); batched {
		kept := *it
		r.failed = append(r.failed, &kept)
	}
	if err := r.emit(it, children); err != nil {
		return err
	}
	r.kids, r.hops = r.kids[:0], r.hops[:0] // all are in frames, and nobody asks for them again
	r.tell1(it, trace.Acked, nil)
	return nil
}

func (r *run) stateful(ctx context.Context, it *item) error {
	if a, again := r.applied.ids[it.ID]; again {
		return r.again(ctx, it, a)
	}
	if f, again := r.fresh[it.ID]; again {
		r.tell1(it, trace.Dropped, nil)
		return r.emit(it, f.children)
	}
	if !it.group.ok {
		it.count(it.ledger)
		r.tell1(it, trace.Acked, nil)
		return nil
	}
	gate, open, err := r.gate(ctx, it)
	if err != nil {
		return err
	}
	if !open {
		r.tell1(it, trace.Held, nil)
		return nil // no delta: its root replays until the gap before it is filled
	}
	f := fresh{Applied: state.Applied{Position: it.Position()}}
	known, err := r.lettered(ctx, it) // stored, but the commit that was to record it never happened
	if err != nil {
		return err
	}
	if known {
		if gate != nil {
			gate.n = max(gate.n, it.N)
		}
		r.note(it.ID, f, nil)
		return nil
	}
	r.c.group = it.group.name
	err = r.try(ctx, it)
	var children []child
	if err == nil {
		children, err = r.children(ctx, it)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if gate != nil {
		gate.n = max(gate.n, it.N)
	}
	if err != nil {
		if err := r.bury(ctx, it, err); err != nil {
			return err
		}
		r.note(it.ID, f, nil)
		return nil
	}
	f.children = children
	r.note(it.ID, f, children)
	defer r.tell1(it, trace.Acked, nil)
	return r.emit(it, children)
}

// note records that id was applied and what it emitted, for the next commit.
func (r *run) note(id tuple.ID, f fresh, children []child) {
	rec := state.Record{ID: id, Applied: f.Applied}
	if len(children) > 0 {
		rec.Slices++
		rec.Outputs = appendChildren(nil, children)
	}
	f.Applied = rec.Applied
	r.fresh[id] = f
	r.order = append(r.order, id)
	r.batch.Apply = append(r.batch.Apply, rec)
}

// again emits what an applied id emitted when it was applied, under the attempt of this delivery.
func (r *run) again(ctx context.Context, it *item, a state.Applied) error {
	r.tell1(it, trace.Dropped, nil)
	if a.Slices == 0 {
		it.count(it.ledger)
		return nil
	}
	children, err := r.recorded(ctx, it.ID)
	if err != nil {
		return err
	}
	return r.emit(it, children)
}

func (r *run) recorded(ctx context.Context, id tuple.ID) (all []child, err error) {
	var slices [][]byte
	err = r.outage(ctx, func() error {
		slices, err = r.Own.Store.Outputs(ctx, r.Own.Task, id)
		return err
	})
	for _, b := range slices {
		cs, bad := decodeChildren(b)
		if bad != nil {
			return nil, fmt.Errorf("tuple %s of task %s: %w", id, r.Own.Task, bad)
		}
		all = append(all, cs...)
	}
	return all, err
}

// finish lets a batching bolt do its work, and buries what it could not handle.
func (r *run) finish(ctx context.Context) error {
	f, ok := r.Bolt.(Finisher)
	if !ok || len(r.failed) == 0 {
		return nil
	}
	var failures []Failure
	err := r.outage(ctx, func() (err error) {
		failures, err = f.Finish(ctx, &r.c)
		return err
	})
	if err != nil {
		return err
	}
	for _, x := range failures {
		if x.Index < 0 || x.Index >= len(r.failed) {
			return fmt.Errorf("%s: failure of tuple %d of %d", r.where.Node, x.Index, len(r.failed))
		}
		it := r.failed[x.Index]
		r.sum.Acked--
		if err := r.letter(ctx, it, x.Err); err != nil {
			return err
		}
	}
	r.failed = r.failed[:0]
	return nil
}

// commit makes everything since the last commit durable in one transaction. A batch that applied nothing needs none.
func (r *run) commit(ctx context.Context) error {
	if r.Own == nil {
		return nil
	}
	began := r.Clock.Now()
	defer func() { r.sum.Commit += r.Clock.Now().Sub(began) }()
	for g, at := range r.c.agenda {
		if at == strike {
			r.batch.Strike = append(r.batch.Strike, g)
		} else {
			r.batch.Agenda = append(r.batch.Agenda, state.Due{Key: g, At: at})
		}
	}
	clear(r.c.agenda)
	if err := r.Own.View.Fill(&r.batch); err != nil {
		return err
	}
	if r.batch.Empty() {
		r.Own.View.Committed()
		return nil
	}
	r.batch.Floors = r.floors
	if err := r.Own.Store.Commit(ctx, r.Own.Task, r.Own.Epoch, &r.batch); err != nil {
		return fmt.Errorf("commit task %s: %w", r.Own.Task, err)
	}
	r.Own.View.Committed()
	for o, f := range r.floors { // as the store has done
		r.applied.forget(o, f)
	}
	for _, id := range r.order {
		r.applied.add(id, r.fresh[id].Applied)
	}
	r.order, r.batch = r.order[:0], state.Batch{}
	return nil
}

// publish stores what the batch emitted, after the commit that covers it.
func (r *run) publish(ctx context.Context) error {
	frames := r.take()
	if len(frames) == 0 {
		return nil
	}
	began := r.Clock.Now()
	defer func() { r.sum.Publish += r.Clock.Now().Sub(began) }()
	if err := r.Outbox.Publish(ctx, frames); err != nil {
		return fmt.Errorf("publish %d frames: %w", len(frames), err)
	}
	return nil
}

// report sends one whole delta per frame and root to the owners of their origins.
func (r *run) report(ctx context.Context) error {
	var origins []tuple.Origin
	deltas := map[tuple.Origin][]tuple.Delta{}
	for i := range r.in {
		d := &r.in[i]
		for _, s := range d.sums {
			o := s.root.Origin
			if deltas[o] == nil {
				origins = append(origins, o)
			}
			deltas[o] = append(deltas[o], tuple.Delta{Frame: d.id, First: s.root.First, Attempt: s.root.Attempt, XOR: s.xor})
		}
	}
	for _, o := range origins {
		if err := r.Deltas.Send(ctx, o, deltas[o]); err != nil {
			return fmt.Errorf("deltas of origin %x: %w", uint64(o), err)
		}
	}
	return nil
}

// unreadable deals with a frame that cannot be decoded: a corrupt one is buried, its roots replay; a newer one waits for the upgrade.
func (r *run) unreadable(ctx context.Context, err error, data []byte) error {
	if errors.Is(err, tuple.ErrVersion) {
		return err
	}
	l := r.blank(err)
	l.ID, l.Payload, l.Size = tuple.FrameID(r.name, r.where.Task, nil), data[:min(len(data), 4<<10)], len(data)
	r.sum.DeadLettered++
	return r.outage(ctx, func() error { return r.Letters.Put(ctx, l) })
}
