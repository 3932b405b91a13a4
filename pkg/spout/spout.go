// Package spout runs one source of a topology: it emits what the source holds as roots, tracks their tuple trees in a ledger, replays what is overdue
// and moves the source's floor over what is complete. Kafka partitions and the topology's own logs (ticks, replays, calls) are sources alike.
// It never starts a goroutine, reads a clock of its own or names a vendor: the service that owns the source drives it.
package spout

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/boltmesh/boltmesh/pkg/ack"
	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// ErrStale says that the source has a later owner. The loop must not be used any more.
var ErrStale = errors.New("the source has a later owner")

// Options assemble a loop. All but Sink, Carry, Begin and Holders are required.
type Options struct {
	Where      trace.Where // Task is the partition
	Origin     tuple.Origin
	Generation uint32
	Floor      int64 // every offset below is fully processed
	Revision   uint32
	Ledger     ack.Options
	Outbox     bolt.Outbox
	Clock      bolt.Clock
	Sink       trace.Sink
	// Carry, if there is one, is offered every new root of so many tuples, whose frames may be shared with other sources that emit along the same edges. It
	// calls load, with a packer like those that pack makes, and returns when what load has packed is stored, or ctx ends. Without calling load it returns
	// false: then the root has frames of its own.
	Carry func(ctx context.Context, tuples int, pack func() *bolt.Packer, load func(*bolt.Packer) error) (bool, error)
	// Commit makes the floor durable. ErrStale, wrapped, when the generation is not the current one.
	Commit func(ctx context.Context, floor int64) error
	// Begin, if there is one, begins to make the floor durable and returns how far it is, or why an earlier one failed: Tick does not wait for Commit then.
	Begin func(floor int64) (durable int64, err error)
	// Holders finds out where an overdue root is held; may be nil. It is asked about the oldest overdue root only: the others mostly wait behind it.
	Holders func(ctx context.Context, r tuple.Root) []trace.Holder
}

// Loop emits the roots of one origin. It is not safe for concurrent use.
type Loop struct {
	Options
	ledger    *ack.Ledger
	roots     map[int64]root // open ones, by first offset: what a replay needs
	bytes     int            // of their payloads
	pack      *bolt.Packer   // of the last emission
	committed int64
	durable   bool // frames carry no floor that is not committed: what a later owner emits again must be handled again
}

type root struct {
	source string
	edges  []bolt.Edge
	tuples []tuple.Tuple
	bytes  int
}

// New returns a loop whose ledger is empty. Nothing has been emitted yet.
func New(o Options) *Loop {
	return &Loop{Options: o, ledger: ack.New(o.Generation, o.Floor, o.Ledger), roots: map[int64]root{}, committed: o.Floor}
}

// Emit tracks the offsets [first, next) as one root and publishes its tuples along the edges. It returns when all are stored, or ctx ends: then the
// root stays tracked and replays. The loop keeps the tuples until the root is complete.
func (l *Loop) Emit(ctx context.Context, first, next int64, edges []bolt.Edge, tuples []tuple.Tuple) error {
	return l.EmitFrom(ctx, l.Where.Node, first, next, edges, tuples)
}

// EmitFrom is Emit for tuples that come, as far as their receivers can see, from another node.
func (l *Loop) EmitFrom(ctx context.Context, source string, first, next int64, edges []bolt.Edge, tuples []tuple.Tuple) error {
	r := root{source: source, edges: edges, tuples: tuples}
	for i := range tuples {
		r.bytes += len(tuples[i].Payload)
	}
	l.roots[first] = r
	l.bytes += r.bytes
	a := l.ledger.Attempt()
	if l.Carry != nil {
		pack := func() *bolt.Packer { return l.newPacker(&r) }
		load := func(pack *bolt.Packer) error { return l.load(pack, first, next, a) }
		if carried, err := l.Carry(ctx, len(tuples), pack, load); carried || err != nil {
			return l.unpublished(first, err)
		}
	}
	return l.emit(ctx, first, next, a)
}

func (l *Loop) emit(ctx context.Context, first, next int64, a tuple.Attempt) error {
	r := l.roots[first]
	pack := l.packer(&r)
	if err := l.load(pack, first, next, a); err != nil {
		return err
	}
	frames := pack.Take()
	if len(frames) == 0 {
		return nil
	}
	if err := l.Outbox.Publish(ctx, frames); err != nil {
		return l.unpublished(first, err)
	}
	bolt.Spend(l.Outbox, frames)
	return nil
}

// load packs the tuples of a root and tracks it.
func (l *Loop) load(pack *bolt.Packer, first, next int64, a tuple.Attempt) error {
	tuples := l.roots[first].tuples
	at := tuple.Root{Origin: l.Origin, First: first, Attempt: a, Floor: l.ledger.Floor()}
	if l.durable {
		at.Floor = l.committed
	}
	var xor uint64
	for i := range tuples {
		tuples[i].Root = at
		x, _, err := pack.Route(&tuples[i])
		if err != nil {
			return err
		}
		xor ^= x
	}
	l.done(l.ledger.Track(first, next, a, xor, l.Clock.Now().UnixMilli()))
	return nil
}

func (l *Loop) unpublished(first int64, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("publish root %d of origin %x: %w", first, uint64(l.Origin), err)
}

// packer returns an empty packer for a root: the last one's, whose memory is used again, if it goes the same ways.
func (l *Loop) packer(r *root) *bolt.Packer {
	p := l.pack
	if p == nil || p.Source != r.source || len(p.Edges) != len(r.edges) || len(r.edges) > 0 && &p.Edges[0] != &r.edges[0] {
		p = l.newPacker(r)
		l.pack = p
	}
	p.Reset()
	return p
}

func (l *Loop) newPacker(r *root) *bolt.Packer {
	return &bolt.Packer{Revision: l.Revision, Source: r.source, Edges: r.edges}
}

// Apply takes deltas in.
func (l *Loop) Apply(deltas []tuple.Delta) {
	now := l.Clock.Now().UnixMilli()
	for _, d := range deltas {
		l.done(l.ledger.Apply(d, now))
	}
}

func (l *Loop) done(d ack.Done, ok bool) {
	if !ok {
		return
	}
	l.bytes -= l.roots[d.First].bytes
	delete(l.roots, d.First)
	l.Sink.Emit(trace.Completed{
		Where: l.Where, Root: tuple.Root{Origin: l.Origin, First: d.First, Attempt: d.Attempt}, Next: d.Next,
		Latency: time.Duration(l.Clock.Now().UnixMilli()-d.Begun) * time.Millisecond,
	})
}

// Tick replays what is overdue and commits the floor if it has moved, or begins to.
func (l *Loop) Tick(ctx context.Context) error {
	for i, d := range l.ledger.Tick(l.Clock.Now().UnixMilli()) {
		said := trace.Overdue{
			Where: l.Where, Root: tuple.Root{Origin: l.Origin, First: d.First, Attempt: d.Attempt}, Age: time.Duration(d.Age) * time.Millisecond,
		}
		said.Root.Attempt.Count-- // the one that timed out
		if i == 0 && l.Holders != nil {
			said.Holders = l.Holders(ctx, said.Root)
		}
		l.Sink.Emit(said)
		if err := l.emit(ctx, d.First, d.Next, d.Attempt); err != nil {
			return err
		}
	}
	if l.Begin == nil {
		return l.Settle(ctx)
	}
	return l.begin()
}

func (l *Loop) begin() error {
	floor := l.ledger.Floor()
	if floor == l.committed {
		return nil
	}
	durable, err := l.Begin(floor)
	if err != nil {
		return l.uncommitted(floor, err)
	}
	l.committed = max(l.committed, durable)
	return nil
}

func (l *Loop) uncommitted(floor int64, err error) error {
	return fmt.Errorf("commit floor %d of origin %x: %w", floor, uint64(l.Origin), err)
}

// Settle commits the floor if it has moved since the last commit.
func (l *Loop) Settle(ctx context.Context) error {
	floor := l.ledger.Floor()
	if floor == l.committed {
		return nil
	}
	if err := l.Commit(ctx, floor); err != nil {
		return l.uncommitted(floor, err)
	}
	l.committed = floor
	return nil
}

// Floor returns the end of the contiguous prefix of complete offsets.
func (l *Loop) Floor() int64 { return l.ledger.Floor() }

// Room reports whether offset o may be emitted: within the span, and within a budget of payload bytes kept for replay.
func (l *Loop) Room(o int64, bytes int) bool {
	return l.ledger.Room(o) && (bytes <= 0 || l.bytes < bytes)
}

// Open returns the number of open roots and when the oldest was emitted, in ms; 0 when there is none.
func (l *Loop) Open() (int, int64) { return l.ledger.Open() }

// Describe draws the ledger.
func (l *Loop) Describe() string { return l.ledger.Describe() }
