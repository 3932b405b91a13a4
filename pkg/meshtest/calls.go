package meshtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// calling is a run's calls: who makes them, and who owns their log or believes that it does.
type calling struct {
	*mesh
	owners  []*callOwner // the last one is the owner
	started int
	open    []*spout.Call    // whose callers wait, or have not called yet
	at      map[string]int64 // by id: the position of those that were taken
	done    map[string]bool  // those that somebody has told an outcome of
	lost    int
}

// callOwner takes calls, emits them, gathers the replies and answers, as pkg/service does.
type callOwner struct {
	*calling
	calls    *spout.Calls
	inbox    []tuple.Delta
	actor    *actor
	gatherer *actor
	waiting  map[string]bool // calls whose callers listen here
	answers  map[string]bool // those that are processed, and not confirmed
}

func newCalling(m *mesh) *calling {
	c := &calling{mesh: m, at: map[string]int64{}, done: map[string]bool{}}
	for i := range m.Calls {
		c.open = append(c.open, &m.Calls[i])
	}
	return c
}

func (c *calling) current() *callOwner { return c.owners[len(c.owners)-1] }

// take gives the log of calls to a new owner.
func (c *calling) take() {
	o := &callOwner{calling: c, waiting: map[string]bool{}, answers: map[string]bool{}}
	c.owners = slices.DeleteFunc(c.owners, func(o *callOwner) bool { return o.actor.over })
	c.owners = append(c.owners, o)
	c.started++
	o.actor = c.start(fmt.Sprint("caller's ", c.started), func(a *actor) error {
		err := o.own(a)
		if o.gatherer != nil && !o.gatherer.over {
			o.gatherer.kill()
		}
		if c.current() == o {
			c.take()
		}
		return err
	})
}

// kill ends the owner's process.
func (o *callOwner) kill() {
	for _, a := range []*actor{o.actor, o.gatherer} {
		if a != nil && !a.over {
			a.kill()
		}
	}
}

func (o *callOwner) own(a *actor) error {
	m := o.mesh
	defer m.release(a)
	revision := m.run1(a)
	st, ctx := store{m.memory, m, a}, context.Background()
	g, err := st.Raise(ctx, topologyName, spout.CallLog)
	if err != nil {
		return err
	}
	c, err := spout.NewCalls(ctx, spout.Options{
		Where: m.where(spoutName, -4), Generation: g, Revision: revision, Ledger: m.ledger(), Clock: clock{a}, Sink: func(trace.Event) {},
		Outbox: &transport{m: m, a: a, in: address{spoutName, -4}, inbox: &o.inbox},
	}, topologyName, st, spout.CallsOptions{
		Spec: m.Spec, Edges: m.Edges, Done: o.answer,
		Letter: func(_ context.Context, node string, id tuple.ID) (*tuple.Letter, error) {
			return m.letters[letterKey(node, id)], nil
		},
	})
	if err != nil {
		return err
	}
	o.calls = c
	if !m.broken.lateGather {
		if err := o.gather(g, revision); err != nil {
			return err
		}
	}
	return m.emitLog(a, spout.CallLog, c, &o.inbox, func() bool { return o.current() == o }, func() error {
		switch {
		case o.gatherer != nil && o.gatherer.over:
			return errReplaced
		case o.gatherer == nil && m.rng.IntN(10) == 0: // under lateGather
			return o.gather(g, revision)
		}
		return nil
	})
}

// gather takes the input of replies over, and starts its loop.
func (o *callOwner) gather(generation, revision uint32) error {
	in := address{topology.ReplyNode, 0}
	s := o.stream(in)
	if s.epoch > uint64(generation) {
		return errReplaced
	}
	s.take(uint64(generation))
	o.gatherer = o.start(fmt.Sprint("replies ", o.started), func(a *actor) error {
		t := &transport{m: o.mesh, a: a, in: in, epoch: uint64(generation)}
		l, err := bolt.New(context.Background(), bolt.Options{
			Where: o.where(in.node, 0), Revision: revision, Inbox: t, Outbox: t, Deltas: t, Clock: clock{a}, Fetch: 4,
			Letters: o.lettersTold(t, o.calls.Fail),
			Bolt: bolt.Func(func(_ context.Context, t *tuple.Tuple, c *bolt.Collector) error {
				if !json.Valid(t.Payload) {
					return bolt.Reject(errors.New("no JSON"))
				}
				o.calls.Gather(t.Position(), spout.Reply{Node: c.Source(), ID: t.ID, Key: t.Key, Payload: slices.Clone(t.Payload)})
				return nil
			}),
		})
		if err != nil {
			return err
		}
		for {
			if _, err := l.Step(context.Background()); errors.Is(err, errReplaced) {
				return err
			} else if err != nil {
				a.sleep(20 * time.Millisecond)
			}
		}
	})
	return nil
}

// lettersTold are a node's letters in a topology that takes calls.
func (m *mesh) lettersTold(t *transport, tell func(context.Context, spout.Failed) error) bolt.Letters {
	letters := spout.CallLetters{Letters: t, Origin: spout.LogOrigin(topologyName, spout.CallLog), Tell: tell}
	if m.broken.newLetters {
		return onceTold{letters}
	}
	return letters
}

// onceTold announces letters when they are stored only.
type onceTold struct{ spout.CallLetters }

// Announce implements bolt.Announced.
func (x onceTold) Announce(ctx context.Context, l *tuple.Letter) error {
	if l.Error == "" {
		return nil
	}
	return x.CallLetters.Announce(ctx, l)
}

// tell tells whoever believes that it owns the calls: the first who takes it in answers, the others may have been out of reach.
func (c *calling) tell(a *actor) func(context.Context, spout.Failed) error {
	return func(ctx context.Context, f spout.Failed) error {
		a.yield()
		heard := false
		for _, i := range c.rng.Perm(len(c.owners)) {
			if o := c.owners[i]; o.calls != nil && !o.actor.over && !c.chance(NoLetter) && (!heard || c.rng.IntN(2) == 0) {
				heard = o.calls.Fail(ctx, f) == nil || heard
			}
		}
		if a.yield(); !heard || c.chance(NoLetter) {
			if c.broken.toldOnce {
				return nil
			}
			return errors.New("nobody answers")
		}
		return nil
	}
}

// call makes the calls, each again and again until it is answered, of any owner.
func (c *calling) call(a *actor) error {
	for len(c.open) > 0 {
		a.sleep(time.Duration(c.rng.IntN(300)) * time.Millisecond)
		if len(c.open) == 0 {
			break
		}
		q := c.open[c.rng.IntN(min(len(c.open), 4))]
		o := c.current()
		if c.rng.IntN(4) == 0 {
			o = c.owners[c.rng.IntN(len(c.owners))]
		}
		if o.calls != nil && !o.actor.over {
			o.ask(a, *q)
		}
	}
	return nil
}

// ask is what an owner makes of a call.
func (o *callOwner) ask(a *actor, q spout.Call) {
	if !q.NoWait {
		o.waiting[q.ID] = true
	}
	q.At = clock{a}.Now().UnixMilli()
	at, _, err := spout.AppendCall(context.Background(), store{o.memory, o.mesh, a}, topologyName, q)
	if err != nil || o.actor.over {
		return
	}
	if was, taken := o.at[q.ID]; taken && was != at {
		o.fail("call %s was taken at %d and at %d", q.ID, was, at)
	}
	o.at[q.ID] = at
	switch past := o.calls.Past(at); {
	case q.NoWait:
		o.hear(q.ID)
	case o.answers[q.ID]:
		o.hear(q.ID)
		if o.rng.IntN(2) == 0 { // confirmed
			delete(o.answers, q.ID)
		}
	case past:
		if !o.done[q.ID] {
			o.fail("call %s is lost, and no answer was ever complete", q.ID)
		}
		o.note("the answer of %s is lost", q.ID)
		o.lost++
		o.hear(q.ID)
	}
}

// answer checks the outcome that an owner, or one that believes to be it, is about to tell, and tells it.
func (o *callOwner) answer(out spout.Outcome) {
	if err := o.Answered(out); err != nil {
		o.fail("call %s: %w", out.ID, err)
	}
	o.done[out.ID], o.answers[out.ID] = true, true
	if o.waiting[out.ID] && !o.chance(LostDelta) {
		o.hear(out.ID)
	}
}

// hear ends a call for its caller.
func (c *calling) hear(id string) {
	c.open = slices.DeleteFunc(c.open, func(q *spout.Call) bool { return q.ID == id })
}

// settled reports whether all calls were answered, and are processed.
func (c *calling) settled() bool {
	_, length, floor, _ := c.memory.Read(context.Background(), topologyName, spout.CallLog, math.MaxInt64, 0)
	return len(c.open) == 0 && length == floor
}
