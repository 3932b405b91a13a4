package bolt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// try executes it until it succeeds, is rejected, or has failed as often as the node allows. It waits in place, so order per task is kept, and tells
// the broker that it is still working. Outages do not count.
func (r *run) try(ctx context.Context, it *item) (err error) {
	if it.Trace.Sampled() {
		it.begun = r.Clock.Now()
	}
	for {
		it.tries++
		r.c.emissions = r.c.emissions[:0]
		if err = r.protect(ctx, it.Tuple); err == nil {
			return nil
		}
		r.sum.Failed++
		if IsUnavailable(err) {
			it.tries--
			if err := r.pause(ctx, r.Retry.Ceiling/10, err); err != nil {
				return err
			}
			continue
		}
		if IsReject(err) || it.tries >= r.Retry.Attempts {
			return err
		}
		if stop := r.pause(ctx, r.backoff(it.tries, err), err); stop != nil {
			return stop
		}
	}
}

// protect turns a panic of a bolt into a rejection: one tuple must not take the worker down.
func (r *run) protect(ctx context.Context, t *tuple.Tuple) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = Reject(fmt.Errorf("the bolt panicked: %v", p))
		}
	}()
	if err := r.Bolt.Execute(ctx, t, &r.c); err != nil {
		return err
	}
	return r.c.declared()
}

// backoff is the pause after the n-th failure: exponential from Backoff to Ceiling, with a jitter of a fifth, never below what Retry asked for.
func (r *run) backoff(n int, err error) time.Duration {
	d := r.Retry.Ceiling
	if n < 20 {
		d = min(r.Retry.Backoff<<(n-1), r.Retry.Ceiling)
	}
	spread := uint64(tuple.NameOf(fmt.Sprint(r.where.Worker, r.where.Task, n))) // tells loops apart, and stays the same in a simulation
	d -= time.Duration(spread % uint64(d/5+1))
	var asked retry
	if errors.As(err, &asked) {
		d = max(d, asked.after)
	}
	return d
}

// outage repeats do for as long as it fails: what the engine itself depends on is waited for, never given up. It ends with ctx or a lost ownership.
func (r *run) outage(ctx context.Context, do func() error) error {
	for n := 1; ; n++ {
		err := do()
		if err == nil || errors.Is(err, state.ErrFenced) {
			return err
		}
		if err := r.pause(ctx, r.backoff(n, nil), err); err != nil {
			return err
		}
	}
}

// pause waits, having told the broker that the batch is still being worked on and the sink why.
func (r *run) pause(ctx context.Context, d time.Duration, why error) error {
	r.Sink.Emit(trace.Failed{Where: r.where, Doing: "execute", Err: why})
	if err := r.Inbox.Working(ctx, r.pending); err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return r.Clock.Sleep(ctx, d)
}

// bury puts a tuple that a bolt without state cannot handle among the dead letters, and counts it as handled: its root completes.
func (r *run) bury(ctx context.Context, it *item, why error) error {
	it.count(it.ledger)
	r.c.emissions = r.c.emissions[:0]
	return r.put(ctx, r.letter(it, why))
}

// letter is the dead letter of a tuple.
func (r *run) letter(it *item, why error) *tuple.Letter {
	l := r.blank(it)
	l.Error, l.FailedAt = tuple.CutError(why.Error()), r.Clock.Now().UnixMilli()
	r.tell1(it, trace.DeadLettered, why)
	return l
}

// blank is the tuple's part of its letter.
func (r *run) blank(it *item) *tuple.Letter {
	l := r.form()
	l.ID, l.Source, l.Stream, l.Key, l.Time, l.Group, l.N, l.Payload = r.letterID(it.ID), it.source, it.Stream, it.Key, it.Time, it.Group, it.N, it.Payload
	l.Origin, l.Offset, l.Generation, l.Count, l.Tries = it.Root.Origin, it.Offset, it.Root.Attempt.Generation, it.Root.Attempt.Count, it.tries
	if it.Trace.Sampled() {
		l.TraceID = tuple.ID(it.Trace.TraceID).String()
	}
	return l
}

// letterID is the id of a tuple's letter. What one task cannot handle others may: where all get the tuple, each has a letter of its own.
func (r *run) letterID(id tuple.ID) tuple.ID {
	if !r.Copies {
		return id
	}
	return tuple.ChildID(id, tuple.Emitter{Node: r.name, By: tuple.ByTask(r.where.Task)}, 0, 0)
}

func (r *run) put(ctx context.Context, l *tuple.Letter) error {
	if err := r.store(ctx, l); err != nil {
		return err
	}
	return r.announce(ctx, l)
}

func (r *run) store(ctx context.Context, l *tuple.Letter) error {
	return r.outage(ctx, func() error { return r.Letters.Put(ctx, l) })
}

func (r *run) announce(ctx context.Context, l *tuple.Letter) error {
	to, ok := r.Letters.(Announced)
	if !ok {
		return nil
	}
	return r.outage(ctx, func() error { return to.Announce(ctx, l) })
}

// epitaphStream is where a tuple's dead letter stands among what a stateful bolt emitted: recorded as that is, and delivered nowhere.
const epitaphStream = "$epitaph"

// epitaph is such a letter, and the attempt of the delivery that it stands for now.
type epitaph struct {
	letter  []byte
	attempt tuple.Attempt
}

// epitaph is the dead letter of a tuple that a stateful bolt cannot handle. Whether it can depends on the state, so only an owner may say so: the letter is committed
// like any other effect, and stored once the fence has let the commit pass.
func (r *run) epitaph(it *item, why error) (child, error) {
	r.c.emissions = r.c.emissions[:0]
	b, err := json.Marshal(r.letter(it, why))
	return child{tuple: tuple.Tuple{ID: it.ID, Stream: epitaphStream, Payload: b}}, err
}

// putAll stores the letters of what was committed, those that are not there already.
func (r *run) putAll(ctx context.Context) error {
	for _, e := range r.epitaphs {
		var l tuple.Letter
		if err := json.Unmarshal(e.letter, &l); err != nil {
			return fmt.Errorf("%w: %w", errRecord, err)
		}
		known, err := r.known(ctx, l.ID)
		if err != nil {
			return err
		}
		if !known {
			if err := r.store(ctx, &l); err != nil {
				return err
			}
		}
		told := l
		told.Generation, told.Count = e.attempt.Generation, e.attempt.Count
		if err := r.announce(ctx, &told); err != nil {
			return err
		}
	}
	r.epitaphs = r.epitaphs[:0]
	return nil
}

// known asks whether there is a letter of id already.
func (r *run) known(ctx context.Context, id tuple.ID) (known bool, err error) {
	if known, err = r.Letters.Known(ctx, id); err == nil {
		return known, nil
	}
	err = r.outage(ctx, func() (err error) {
		known, err = r.Letters.Known(ctx, id)
		return err
	})
	return known, err
}

// form is a letter with what is the same for all letters of this loop.
func (r *run) form() *tuple.Letter {
	w := r.where
	return &tuple.Letter{Topology: w.Topology, Node: w.Node, Task: w.Task, Worker: w.Worker, Revision: r.Revision}
}
