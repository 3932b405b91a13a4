package bolt

import (
	"context"
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
	in     []delivery
	it     item // the tuple of a frame that is being handled
	c      Collector
	out    Packer
	batch  state.Batch
	fresh  map[tuple.ID]fresh // applied in this batch
	order  []tuple.ID         // of fresh, since the last commit
	kids   arena[child]
	hops   arena[hop]
	failed []*item        // executed since the last Finish, for its failures
	nested map[*Loop]*run // what goes on in the inner loops
	queue  []*item        // of an inner loop: what was emitted to it
	said   []trace.Handled

	epitaphs []epitaph // dead letters of what is committed with the batch, or was: stored before anything is reported
	lent     lent
	fetched  time.Time
	sum      trace.Stepped
}

// execute has the bolt handle every tuple of the batch, in order.
func (r *run) execute(ctx context.Context) error {
	began := r.Clock.Now()
	defer func() { r.sum.Execute = r.Clock.Now().Sub(began) }()
	if err := r.preload(ctx); err != nil {
		return err
	}
	r.adapt()
	if p, ok := r.Bolt.(Preparer); ok {
		if err := r.outage(ctx, func() error { return p.Prepare(ctx, r.tuples) }); err != nil {
			return err
		}
	}
	for i := range r.in {
		if err := r.frame(ctx, i); err != nil {
			return err
		}
	}
	return r.finish(ctx)
}

// frame has the bolt handle the tuples of one frame.
func (r *run) frame(ctx context.Context, i int) error {
	d := &r.in[i]
	if r.piecemeal && d.err == nil {
		defer r.lend(d)()
	}
	if d.err != nil {
		return r.unreadable(ctx, d.err, r.pending[i].Data)
	}
	if d.frame.Revision != r.Revision {
		r.sum.Held += len(d.frame.Tuples) // no delta: the root replays under the revision in force
		return nil
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
	return nil
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

// A batch of many frames pays by writing once what many of them change, and by filling the frames that it sends on. Where every tuple is another group's there is
// nothing to be written once, and a batch only takes memory: so it may have as many frames as meet about mostKeys keys, and half of that once the worker's memory
// is full of values. The first batch is careful.
const (
	mostKeys  = 4096
	firstMost = 4
)

// adapt decides by this batch, whose keys have been loaded, how many frames the next one may have.
func (r *run) adapt() {
	most := r.Fetch
	if r.state != nil {
		keys := mostKeys
		if !r.Own.View.Ample() {
			keys /= 2
		}
		most = min(most, len(r.in)*keys/max(r.Own.View.Met(), 1))
	}
	if b, ok := r.Bolt.(Bulky); ok {
		tuples := 0
		for i := range r.in {
			tuples += len(r.in[i].frame.Tuples)
		}
		most = min(most, len(r.in)*b.Enough()/max(tuples, 1))
	}
	r.most = max(most, 1)
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
	if known, err = r.known(ctx, r.letterID(it.ID)); known {
		it.count(it.ledger)
		r.tell1(it, trace.Dropped, nil)
		err = r.announce(ctx, r.blank(it))
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
	if err == nil {
		f.children, err = r.children(ctx, it)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if gate != nil {
		gate.n = max(gate.n, it.N)
	}
	if err != nil {
		e, err := r.epitaph(it, err)
		if err != nil {
			return err
		}
		f.children = []child{e}
	} else {
		defer r.tell1(it, trace.Acked, nil)
	}
	r.note(it.ID, f, f.children)
	return r.emit(it, f.children)
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
		if err := r.put(ctx, r.letter(it, x.Err)); err != nil {
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
		} else if was, there := r.woken[g]; !there || was != at {
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
	r.batch.Floors = r.raised()
	if err := r.Own.Store.Commit(ctx, r.Own.Task, r.Own.Epoch, &r.batch); err != nil {
		return fmt.Errorf("commit task %s: %w", r.Own.Task, err)
	}
	r.Own.View.Committed()
	r.remember()
	for _, id := range r.order {
		r.applied.add(id, r.fresh[id].Applied)
	}
	r.order, r.batch = r.order[:0], state.Batch{}
	return nil
}

// raised returns the floors that the store does not have yet.
func (l *Loop) raised() map[tuple.Origin]int64 {
	raised := map[tuple.Origin]int64{}
	for o, f := range l.floors {
		if was, there := l.stored[o]; !there || was < f {
			raised[o] = f
		}
	}
	return raised
}

// mostWoken bounds how many entries of the agenda a loop remembers, to write none twice: a group of a statistic is put on it with every reading.
const mostWoken = 4096

// remember notes what the commit of the batch has done to the store.
func (r *run) remember() {
	for o, f := range r.batch.Floors {
		r.stored[o] = f
		r.applied.forget(o, f)
	}
	for _, d := range r.batch.Agenda {
		if len(r.woken) >= mostWoken {
			clear(r.woken)
		}
		r.woken[d.Key] = d.At
	}
	for _, g := range r.batch.Strike {
		delete(r.woken, g)
	}
}

// emitted stores what the batch emitted, and the letters of what it could not handle, after the commit that covers them. What waits in the tail goes with it if it
// is due.
func (r *run) emitted(ctx context.Context) error {
	if err := r.putAll(ctx); err != nil {
		return err
	}
	frames := r.take()
	if r.tail.out.waiting() && r.tail.due(r, r.Fetch) {
		frames = append(frames, r.tail.out.Take()...)
	}
	if len(frames) == 0 {
		return nil
	}
	began := r.Clock.Now()
	defer func() { r.sum.Publish += r.Clock.Now().Sub(began) }()
	return r.publish(ctx, frames)
}

// publish stores frames.
func (l *Loop) publish(ctx context.Context, frames []Outgoing) error {
	if len(frames) == 0 {
		return nil
	}
	if err := l.Outbox.Publish(ctx, frames); err != nil {
		return fmt.Errorf("publish %d frames: %w", len(frames), err)
	}
	Spend(l.Outbox, frames)
	return nil
}
