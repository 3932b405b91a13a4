package bolt

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// counter is a state value: the last n of an edge's emitter, or of a gate.
type counter struct{ n uint64 }

func (c *counter) Append(b []byte) ([]byte, error) { return strconv.AppendUint(b, c.n, 10), nil }

func decodeCounter(b []byte) (state.Value, error) {
	if b == nil {
		return &counter{}, nil
	}
	n, err := strconv.ParseUint(string(b), 10, 64)
	return &counter{n}, err
}

// number gives the hops of a gated edge the next n of (edge, emitting group, receiving key).
func (r *run) number(ctx context.Context, t *tuple.Tuple, hops []hop) error {
	for i := range hops {
		e := &r.Edges[hops[i].edge]
		var key string
		switch {
		case e.Group != nil:
			key, _ = e.Group(t)
		case e.Key != nil:
			key, _ = e.Key(t)
		}
		var v state.Value
		err := r.outage(ctx, func() (err error) {
			v, err = r.Own.View.Edit(ctx, numberKey(e.To, t.Group, key), decodeCounter)
			return err
		})
		if err != nil {
			return err
		}
		c := v.(*counter)
		c.n++
		hops[i].n = c.n
	}
	return nil
}

// gate finds the counter that a tuple with an n must follow on. It is open for tuples without one, for the next, and for those that it has seen.
func (r *run) gate(ctx context.Context, it *item) (*counter, bool, error) {
	if it.N == 0 {
		return nil, true, nil
	}
	key := gateKey(it.d.frame.Source, it.Group, it.group.name)
	v, err := r.Own.View.Read(ctx, key, decodeCounter)
	if err != nil || it.N > v.(*counter).n+1 {
		return nil, false, err
	}
	v, err = r.Own.View.Edit(ctx, key, decodeCounter)
	if err != nil {
		return nil, false, err
	}
	return v.(*counter), true, nil
}

// tick handles an entry of the tick log: every group whose time has come, in slices that each commit their outputs and how far they got, so that a
// tick over a million groups neither holds the task for long nor starts over after a crash. The delta covers all slices, those of earlier
// handlings included.
func (r *run) tick(ctx context.Context, it *item) error {
	if r.state == nil {
		it.count(it.ledger)
		return nil
	}
	done, known := r.applied.ids[it.ID]
	if known && !done.Unfinished {
		return r.again(ctx, it, done)
	}
	if f, again := r.fresh[it.ID]; again { // two attempts in one batch
		if err := r.commit(ctx); err != nil { // what it emitted is read from the store below
			return err
		}
		return r.again(ctx, it, f.Applied)
	}
	var tick Tick
	if err := json.Unmarshal(it.Payload, &tick); err != nil {
		return r.bury(ctx, it, Reject(fmt.Errorf("tick: %w", err)))
	}
	if f := tick.Follows; f != nil {
		tick.Time, tick.Last, tick.Watermark = f.Time, f.Last, f.Watermark
	}
	if it.Group != "" {
		return r.tickOne(ctx, it, tick)
	}
	until, concerned := r.state.Due(tick)
	if !concerned {
		it.count(it.ledger)
		return nil
	}
	if err := r.commit(ctx); err != nil { // the agenda below is read from the store
		return err
	}
	if known {
		children, err := r.recorded(ctx, it.ID)
		if err != nil {
			return err
		}
		it.count(it.ledger) // emit counts it once more: both cancel, and the last emit below counts it for good
		if err := r.emit(it, children); err != nil {
			return err
		}
	} else {
		done = state.Applied{Position: it.Position()}
	}
	return r.slices(ctx, it, tick, until, done)
}

// tickOne handles a tick for one group, due or not: a replayed dead letter of that group.
func (r *run) tickOne(ctx context.Context, it *item, tick Tick) error {
	if err := r.commit(ctx); err != nil {
		return err
	}
	children, err := r.slice(ctx, it, tick, []state.Due{{Key: it.Group}})
	if err != nil {
		return err
	}
	r.note(it.ID, fresh{Applied: state.Applied{Position: it.Position()}}, children)
	defer r.tell1(it, trace.Acked, nil)
	return r.emit(it, children)
}

func (r *run) slices(ctx context.Context, it *item, tick Tick, until int64, done state.Applied) error {
	for {
		var due []state.Due
		err := r.outage(ctx, func() (err error) {
			due, err = r.Own.Store.Due(ctx, r.Own.Task, until, done.Cursor, r.Slice)
			return err
		})
		if err != nil {
			return err
		}
		children, err := r.slice(ctx, it, tick, due)
		if err != nil {
			return err
		}
		done.Unfinished = len(due) == r.Slice
		if len(due) > 0 {
			done.Cursor = due[len(due)-1].Key
		}
		f := fresh{Applied: done}
		r.note(it.ID, f, children)
		done = r.fresh[it.ID].Applied
		if !done.Unfinished {
			defer r.tell1(it, trace.Acked, nil)
			return r.emit(it, children)
		}
		it.count(it.ledger)
		if err := r.emit(it, children); err != nil {
			return err
		}
		if err := r.commit(ctx); err != nil {
			return err
		}
		if err := r.emitted(ctx); err != nil {
			return err
		}
	}
}

// slice has the bolt handle some due groups and returns what they emitted.
func (r *run) slice(ctx context.Context, it *item, tick Tick, due []state.Due) (all []child, err error) {
	var keys []string
	for _, d := range due {
		r.state.Keys(d.Key, func(k string) { keys = append(keys, k) })
	}
	if err := r.outage(ctx, func() error { return r.Own.View.Preload(ctx, keys) }); err != nil {
		return nil, err
	}
	for _, d := range due {
		r.c.group = d.Key
		r.c.agenda[d.Key] = strike
		t := *it.Tuple // what a letter would say: the tick as it concerns this group
		t.ID, t.Key, t.Group = tuple.ChildID(it.ID, tuple.Emitter{Node: r.name, By: tuple.ByGroup(d.Key)}, 0, 0), d.Key, d.Key
		if known, err := r.known(ctx, r.letterID(t.ID)); err != nil {
			return nil, err
		} else if known { // stored, but the commit that was to record it never happened
			continue
		}
		g := *it
		g.group = grouped{d.Key, true}
		err := r.tryTick(ctx, &g, tick)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var cs []child
		if err == nil {
			cs, err = r.children(ctx, &g)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
		}
		if err != nil {
			g.Tuple = &t
			e, err := r.epitaph(&g, err)
			if err != nil {
				return nil, err
			}
			cs = []child{e}
		}
		all = append(all, cs...)
	}
	return all, nil
}

// tryTick is try for one group of a tick.
func (r *run) tryTick(ctx context.Context, it *item, tick Tick) error {
	bolt := r.Bolt
	defer func() { r.Bolt = bolt }()
	r.Bolt = ticking{r.state, tick}
	return r.try(ctx, it)
}

// ticking is a stateful bolt whose Execute handles a tick for the collector's group.
type ticking struct {
	Stateful
	tick Tick
}

func (b ticking) Execute(ctx context.Context, _ *tuple.Tuple, c *Collector) error {
	return b.Stateful.Tick(ctx, b.tick, c.group, c)
}
