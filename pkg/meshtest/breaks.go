package meshtest

import (
	"context"
	"encoding/binary"
	"maps"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// breaks are the protocol's rules that a run breaks on purpose, each around the engine and not in it: the simulation must notice. The comments name
// PROTOCOL's counterexamples.
type breaks struct {
	batchIDs             bool // C1: a tuple's id is that of its place in its root
	oneLedgerForAll      bool // C2: copies of a tuple on an `all` edge share a ledger id
	oneLedgerPerTuple    bool // C2b: deliveries of a tuple to different nodes share a ledger id
	jumpingTicks         bool // C4: a new owner of the tick log goes on at its end
	pipelined            bool // C5: frames for one destination overtake a refused one
	zombiePulls          bool // C6: the old owner of a task goes on pulling
	openRoots            int  // C8: the budget counts open roots
	firstTupleMsgID      bool // C10: a frame's id is that of its first tuple
	latestAttemptOnly    bool // C11: deltas of earlier attempts are ignored
	dropWithoutDelta     bool // C12: no delta for what is below the floor
	noFence              bool // C13: commits of earlier epochs are accepted
	lateFence            bool // C13: the fence is raised by the first commit
	noOutputs            bool // C14: recorded outputs are not emitted again
	staleOutputs         bool // C14: they are emitted again under the attempt in which they were made
	noFloors             bool // C15: ids are pruned, but a new owner learns of floors from frames only
	unknownIsSuccess     bool // C16: a commit without an answer is taken as done
	filterBehindN        bool // C19: an edge's filter drops tuples that have got an n
	ownCounter           bool // C20: ticks are appended at the owner's own counter
	impatientFlush       bool // C21: flush levels do not wait for each other
	slicesWithoutOutputs bool // C22: an unfinished slice's outputs are not recorded
	openRoots23          bool // C23: the revision is switched when all open roots are complete
	lateLetters          bool // C24: a dead letter is stored after its delta and acknowledgement
	appendThenMark       bool // C24: a replayed letter is marked after it was appended
	noLookUp             bool // C24: ids are not looked up among the dead letters
	unannounced          bool // C25: an owner emits before it has told of itself
	looksOnce            bool // C25: the revision is switched after one look at the leases
	anyPause             bool // C26: what a lease says of an earlier pause counts
	staleAnswers         bool // C28: an owner of the calls answers without asking whether it is still that
	unwrittenFloors      bool // C28: what it emits carries a floor that is not durable
	lateGather           bool // C28: it emits before it has taken over the input of replies
	toldOnce             bool // C28: a dead letter of a call counts though no owner was told
	newLetters           bool // C28: it is told when it is stored, and not when its tuple comes again
	movesUnrest          bool // C29: who does does not look whether something beyond the floors was applied
	movesNoFloors        bool // C29: what was applied is left behind, and no floor comes in its place
	movesLate            bool // C29: who copies does not ask whether somebody else was asked meanwhile
	earlyLetters         bool // C27: a stateful task stores a dead letter before the commit that says why
}

// remaps reports whether frames or deltas are rewritten, so that a transport must remember what went through it.
func (b *breaks) remaps() bool {
	return b.oneLedgerForAll || b.oneLedgerPerTuple || b.dropWithoutDelta || b.filterBehindN || b.staleOutputs
}

// delivered is one tuple as delivered to a task.
type delivered struct {
	node string
	task int32
	tuple.Tuple
}

func (d *delivered) ledger() uint64 {
	return tuple.LedgerID(d.ID, tuple.NameOf(d.node), d.task, d.Root.Attempt)
}

// broken returns what the broken rule makes of the delivery's ledger id.
func (b *breaks) ledger(d *delivered) uint64 {
	switch {
	case b.oneLedgerForAll && d.Stream == tuple.TickStream:
		return tuple.LedgerID(d.ID, tuple.NameOf(d.node), 0, d.Root.Attempt)
	case b.oneLedgerPerTuple && d.Stream != tuple.TickStream && d.N == 0:
		return tuple.LedgerID(d.ID, 0, 0, d.Root.Attempt)
	case b.filterBehindN && b.filters(d.node, &d.Tuple):
		return 0
	}
	return d.ledger()
}

// filters says what the filter of filterBehindN refuses.
func (b *breaks) filters(to string, t *tuple.Tuple) bool {
	return b.filterBehindN && to == "alarm" && t.N == 2
}

// watch remembers what a loop has fetched.
func (t *transport) watch(ds []bolt.Delivery) {
	t.fetched, t.published = map[tuple.ID][]delivered{}, nil
	if t.floors == nil {
		t.floors = map[tuple.Origin]int64{}
	}
	if head, err := t.m.memory.Head(context.Background(), Task(t.in.node, t.in.task)); err == nil {
		maps.Copy(t.floors, head.Floors)
	}
	for _, d := range ds {
		var f tuple.Frame
		if f.Decode(d.Data) != nil {
			continue
		}
		ids := make([]uint64, len(f.Tuples))
		tuples := make([]delivered, len(f.Tuples))
		for i, x := range f.Tuples {
			tuples[i] = delivered{t.in.node, t.in.task, x}
			ids[i] = tuples[i].ledger()
			t.floors[x.Root.Origin] = max(t.floors[x.Root.Origin], x.Root.Floor)
		}
		t.fetched[tuple.FrameID(tuple.NameOf(t.in.node), t.in.task, ids)] = tuples
	}
}

// rewrite remembers what is published, and changes it as the broken rule wants.
func (t *transport) rewrite(frames []bolt.Outgoing) []bolt.Outgoing {
	fix := map[tuple.Root]uint64{}
	out := frames[:0:0]
	for _, o := range frames {
		var f tuple.Frame
		if f.Decode(o.Data) != nil {
			continue
		}
		kept := f.Tuples[:0:0]
		for _, x := range f.Tuples {
			d := delivered{o.Node, o.Task, x}
			t.published = append(t.published, d)
			fix[x.Root] ^= d.ledger() ^ t.m.broken.ledger(&d)
			if !t.m.broken.filters(o.Node, &x) {
				kept = append(kept, t.stale(x))
			}
		}
		if f.Tuples = kept; len(kept) == 0 {
			continue
		}
		data, err := f.Append(nil)
		if err != nil {
			t.m.fail("encode a frame again: %w", err)
			return nil
		}
		o.Data = data
		out = append(out, o)
	}
	if t.inbox != nil { // a spout: what it has tracked is put right
		for root, x := range fix {
			id := tuple.FrameID(0, 0, []uint64{uint64(root.First), uint64(root.Attempt.Count)})
			*t.inbox = append(*t.inbox, tuple.Delta{Frame: id, First: root.First, Attempt: root.Attempt, XOR: x})
		}
	}
	return out
}

// stale gives a stateful node's output the attempt in which it was first emitted.
func (t *transport) stale(x tuple.Tuple) tuple.Tuple {
	if !t.m.broken.staleOutputs || x.Group == "" {
		return x
	}
	first, again := t.m.emitted[x.ID]
	if !again {
		t.m.emitted[x.ID] = x.Root
		return x
	}
	x.Root = first
	return x
}

// remap makes of a whole delta what the broken rule would have sent; false when it would have sent none.
func (t *transport) remap(o tuple.Origin, d tuple.Delta) (tuple.Delta, bool) {
	mine := func(x *delivered) bool {
		return x.Root.Origin == o && x.Root.First == d.First && x.Root.Attempt == d.Attempt
	}
	rest, dropped := 0, false
	for _, x := range t.fetched[d.Frame] {
		if !mine(&x) {
			continue
		}
		if t.m.broken.dropWithoutDelta && x.Offset < t.floors[o] {
			d.XOR ^= x.ledger()
			dropped = true
			continue
		}
		rest++
		d.XOR ^= x.ledger() ^ t.m.broken.ledger(&x)
	}
	kept := t.published[:0]
	for _, x := range t.published {
		if mine(&x) {
			d.XOR ^= x.ledger() ^ t.m.broken.ledger(&x)
		} else {
			kept = append(kept, x)
		}
	}
	t.published = kept
	return d, rest > 0 || !dropped
}

// msgID is a frame's id as firstTupleMsgID makes it.
func (t *transport) msgID(f bolt.Outgoing) tuple.ID {
	if !t.m.broken.firstTupleMsgID {
		return f.ID
	}
	var x tuple.Frame
	if x.Decode(f.Data) != nil {
		return f.ID
	}
	first := binary.LittleEndian.Uint64(x.Tuples[0].ID[:])
	return tuple.FrameID(tuple.NameOf(f.Node), f.Task, []uint64{first, uint64(tuple.NameOf(x.Source))})
}

// early is a stateful bolt whose rejections are dead letters at once.
type early struct {
	bolt.Stateful
	t *transport
}

func (b early) Execute(ctx context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	err := b.Stateful.Execute(ctx, t, c)
	if bolt.IsReject(err) {
		b.t.m.store(&tuple.Letter{ID: t.ID, Node: b.t.in.node, Payload: t.Payload, Error: err.Error()})
	}
	return err
}

// batcher is a spout whose tuples are named by their place in a root.
type batcher struct {
	*spout.Loop
	decoder *spout.Decoder
	edges   []bolt.Edge
	next    int64
}

func (b *batcher) Next() int64 { return b.next }

func (b *batcher) Offer(ctx context.Context, records []spout.Record, next int64) error {
	first := b.next
	var tuples []tuple.Tuple
	for i, r := range records {
		reading, err := b.decoder.Decode(&r)
		if err != nil {
			return err
		}
		id := tuple.ChildID(tuple.RootID(tuple.Position{Origin: b.Origin, Offset: first}), tuple.Emitter{}, 0, uint32(i))
		tuples = append(tuples, tuple.Tuple{ID: id, Offset: r.Offset, Stream: tuple.DefaultStream, Key: reading.Key, Time: reading.Time, Payload: reading.Payload})
	}
	b.next = next
	return b.Emit(ctx, first, next, b.edges, tuples)
}
