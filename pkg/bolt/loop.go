package bolt

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Delivery is one frame as the broker handed it over, with what the inbox needs to acknowledge it.
type Delivery struct {
	Data  []byte
	Token any
}

// Inbox is where a loop's frames come from: one task's, or those that workers compete for.
type Inbox interface {
	// Fetch returns up to most frames in order; none when nothing came within the inbox's own patience.
	Fetch(ctx context.Context, most int) ([]Delivery, error)
	// Ack ends the deliveries: they will not come again, except when the broker forgets.
	Ack(ctx context.Context, ds []Delivery) error
	// Working asks the broker to wait with redelivering.
	Working(ctx context.Context, ds []Delivery) error
}

// Outgoing is one encoded frame with its destination.
type Outgoing struct {
	Node string
	Task int32 // tuple.Shared for competing workers
	ID   tuple.ID
	Data []byte
}

// Outbox stores frames at their destinations.
type Outbox interface {
	// Publish returns once every frame is stored, or ctx ends. Per destination it keeps the order and has one frame in flight; refused frames are
	// tried again under the same id for as long as it takes.
	Publish(ctx context.Context, frames []Outgoing) error
}

// Forgetful is an Outbox that has forgotten what it has stored once Publish has returned without an error: the memory of the frames is the caller's again.
type Forgetful interface {
	Outbox
	Forgets()
}

// Deltas carries ledger deltas to the owner of an origin. They may get lost: that is a timeout and a replay.
type Deltas interface {
	Send(ctx context.Context, origin tuple.Origin, deltas []tuple.Delta) error
}

// Letters is where a node's dead letters are kept.
type Letters interface {
	// Put stores a letter durably, once per (node, id). Where all tasks of the node get the tuple, each has a letter of its own, and so another id.
	Put(ctx context.Context, l *tuple.Letter) error
	// Known reports whether a letter of this node was stored for id, whatever has become of it since: it may have been replayed under a new position,
	// so a tuple that comes again under its old one must not be handled. It is asked for every tuple, and answers from memory.
	Known(ctx context.Context, id tuple.ID) (bool, error)
}

// Announced is a Letters that also wants to hear of every delivery of a tuple that has a letter, before it counts as handled: when the letter was stored, and
// whenever the tuple comes again.
type Announced interface {
	Letters
	// Announce is told of the letter, under the attempt of this delivery; without Error and what else only the letter knows where only the tuple is at hand. It is called
	// again after an error, for as long as it takes.
	Announce(ctx context.Context, l *tuple.Letter) error
}

// Clock tells and passes the time.
type Clock interface {
	Now() time.Time
	// Sleep returns early with ctx's error when ctx ends.
	Sleep(ctx context.Context, d time.Duration) error
}

// Ownership is what a stateful loop holds: a task of the store, claimed, with its head loaded after the claim.
type Ownership struct {
	Store state.Store
	Task  state.Task
	Epoch uint64
	View  *state.View
}

// Options assemble a loop. Bolt, Inbox, Outbox, Deltas, Letters and Clock are required; Own is, for a Stateful bolt.
type Options struct {
	Where    trace.Where // Task is the owned task, or tuple.Shared
	Revision uint32
	Bolt     Bolt
	Edges    []Edge
	Streams  []string // what the node may emit on: an emission on any other rejects its tuple; nil: on any
	Retry    topology.Retry
	Own      *Ownership
	Copies   bool    // an incoming edge hands every tuple to all tasks: the children of each task are its own
	Inner    []Inner // nodes that Local edges lead to, each after those that emit to it; not of a Stateful bolt
	Inbox    Inbox
	Outbox   Outbox
	Deltas   Deltas
	Letters  Letters
	Clock    Clock
	Sink     trace.Sink
	Fetch    int // frames per batch; default 16
	Slice    int // groups that a tick handles between two commits; default 1000
}

// Loop handles the frames of one task, one batch at a time. It is not safe for concurrent use.
type Loop struct {
	Options
	name      tuple.Name
	where     trace.Where
	state     Stateful // the bolt, when it is
	floors    map[tuple.Origin]int64
	stored    map[tuple.Origin]int64 // the floors that the store has
	woken     map[string]int64       // some of what the store's agenda has
	applied   applied
	keys      *tuple.Keys // met of late; nil without state: nothing is kept then
	streams   map[string]tuple.Name
	ordinals  map[string]uint32 // scratch of run.ordinal
	holding   atomic.Pointer[Held]
	inner     []*Loop    // of Inner
	within    []*Loop    // by edge: the inner loop that it leads to; nil for frames
	most      int        // frames that the next batch may have
	pending   []Delivery // fetched, not acknowledged: taken up again by the next Step after an error
	tail      tail       // handled, not acknowledged
	run       *run       // of the last batch: its memory is the next one's
	piecemeal bool       // the tuples of a batch are decoded frame by frame: nobody looks at all of them together
	stale     bool       // a commit may have happened that applied does not know of: the head must be read before anything is handled
}

// Held is what a loop has fetched and not finished: the roots in it, and since when.
type Held struct {
	Roots []tuple.Root
	Since time.Time
}

// Held says what the loop is working on; nil when it waits for frames. It may be called from any goroutine.
func (l *Loop) Held() *Held { return l.holding.Load() }

// New returns a loop that is ready to Step. For a stateful bolt it loads the task's head, which must happen after the claim and before the first
// message is taken.
func New(ctx context.Context, o Options) (*Loop, error) {
	l, err := newLoop(o)
	if err != nil {
		return nil, err
	}
	s, stateful := o.Bolt.(Stateful)
	l.tail = newTail(&l.Options, stateful)
	if stateful {
		if o.Own == nil || len(o.Inner) > 0 {
			return nil, fmt.Errorf("node %s is stateful: it needs an owned task, and runs no other node's bolt", o.Where.Node)
		}
		l.state, l.keys = s, new(tuple.Keys)
		return l, l.load(ctx)
	}
	_, prepares := o.Bolt.(Preparer)
	_, finishes := o.Bolt.(Finisher)
	l.piecemeal = !prepares && !finishes
	return l, l.enclose()
}

// newLoop returns a loop without state.
func newLoop(o Options) (*Loop, error) {
	if o.Fetch <= 0 {
		o.Fetch = 16
	}
	if o.Slice <= 0 {
		o.Slice = 1000
	}
	if o.Retry.Attempts <= 0 {
		o.Retry.Attempts = 5
	}
	if o.Retry.Backoff <= 0 {
		o.Retry.Backoff = 100 * time.Millisecond
	}
	if o.Retry.Ceiling <= 0 {
		o.Retry.Ceiling = 10 * time.Second
	}
	var err error
	if o.Edges, err = own(o.Edges, o.Bolt); err != nil {
		return nil, fmt.Errorf("node %s: %w", o.Where.Node, err)
	}
	return &Loop{
		Options: o, name: tuple.NameOf(o.Where.Node), where: o.Where, floors: map[tuple.Origin]int64{}, streams: map[string]tuple.Name{},
		ordinals: map[string]uint32{}, within: make([]*Loop, len(o.Edges)), most: min(o.Fetch, firstMost),
	}, nil
}

// load takes the task's head from the store: at the start, and when a commit's outcome is unknown.
func (l *Loop) load(ctx context.Context) error {
	head, err := l.Own.Store.Head(ctx, l.Own.Task)
	if err != nil {
		return fmt.Errorf("load task %s: %w", l.Own.Task, err)
	}
	l.applied = newApplied(head.Applied)
	l.stored, l.woken = map[tuple.Origin]int64{}, map[string]int64{}
	for o, f := range head.Floors {
		l.stored[o] = f
		l.floors[o] = max(l.floors[o], f)
	}
	l.stale = false
	return nil
}

// Step handles one batch: fetch, execute, commit (stateful only), publish and await, deltas, acknowledge. What goes along edges with a Linger may wait for later
// batches, and the last two with it, until a Step finds that it is time, or finds no batch, or Settle. A crash in any gap repeats work and never loses it; ids absorb
// the repetition. After an error what is not acknowledged stays with the loop and the next Step takes it up again, except after state.ErrFenced: then the task has
// another owner, and the loop must not be used any more. It reports how many frames it handled.
func (l *Loop) Step(ctx context.Context) (frames int, err error) {
	if err := l.fetch(ctx); err != nil || len(l.pending) == 0 {
		return 0, err
	}
	if l.stale {
		if err := l.load(ctx); err != nil {
			return 0, err
		}
	}
	r := l.begin()
	if err := r.execute(ctx); err != nil {
		return 0, r.abandon(err)
	}
	if err := r.chain(ctx); err != nil {
		return 0, r.abandon(err)
	}
	if err := r.commit(ctx); err != nil {
		return 0, r.abandon(err)
	}
	if err := r.emitted(ctx); err != nil {
		return 0, r.abandon(err)
	}
	frames = len(l.pending)
	l.tail.add(r)
	l.pending = nil
	if !l.tail.out.waiting() {
		if err := l.Settle(ctx); err != nil {
			return 0, r.abandon(err)
		}
	}
	r.tellAll()
	return frames, nil
}

// abandon gives a batch up for now: what was not committed is forgotten, and the next Step reads what the store holds before it does anything else.
func (r *run) abandon(err error) error {
	err = r.takeBack(err)
	if r.Own == nil || errors.Is(err, state.ErrFenced) {
		return err
	}
	r.Own.View.Forget()
	r.stale = true
	return err
}
