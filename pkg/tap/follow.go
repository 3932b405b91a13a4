package tap

import (
	"context"
	"strings"
	"time"

	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/observe"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Quarry says whose tree is followed: that of the first tuple that passes and fits. Device is looked at where ID is zero, and then only as spouts emit it.
type Quarry struct {
	ID     tuple.ID
	At     *tuple.Position // where the reading is known to be
	Device string
}

// Outcomes of a hop as far as frames and deltas tell.
const (
	Emitted = "emitted"
	Handled = "handled" // its frame has been reported to the ledger: acked, dropped as a repetition, or dead-lettered
	Waiting = "waiting" // not reported yet
)

// mostFollowed bounds the deliveries of one tree.
const mostFollowed = 10_000

// Following follows one tree by the frames that carry it and the deltas that report them.
type Following struct {
	plan   *topology.Plan
	quarry Quarry
	ear    *jetstream.Ear
	before recent

	at         tuple.Position
	root       tuple.Root // the latest attempt seen
	deliveries []*delivery
	frames     map[string][]*delivery // by id
	waiting    map[tuple.Attempt]int  // deliveries that have not reported
}

// delivery is a hop with what connects it to others.
type delivery struct {
	*observe.Hop
	t       tuple.Tuple
	task    int32
	reports bool // its frame has reported
}

// Follow begins to listen to everything that passes in a topology; nothing that passed before is seen.
func Follow(ctx context.Context, conn *jetstream.Conn, plan *topology.Plan, q Quarry) (*Following, error) {
	name := plan.Topology.Name
	ear, err := conn.Overhear(ctx, jetstream.Frames(name, "*"), jetstream.AllDeltas(name)) // one ear: a report must not overtake what was emitted before it
	if err != nil {
		return nil, err
	}
	return &Following{plan: plan, quarry: q, ear: ear, before: newRecent(), frames: map[string][]*delivery{}, waiting: map[tuple.Attempt]int{}}, nil
}

// Close stops listening.
func (f *Following) Close() { f.ear.Close() }

// Wait listens until all that was seen of an attempt has reported, or ctx ends. complete says which.
func (f *Following) Wait(ctx context.Context) (complete bool) {
	for {
		h, err := f.ear.Next(ctx)
		if err != nil {
			return false
		}
		if strings.HasPrefix(h.Subject, "bmdelta.") {
			f.deltas(h.Data)
		} else if !f.before.has(h.ID) {
			f.frame(&h, time.Now().UTC())
		}
		for _, n := range f.waiting {
			if n == 0 {
				return true
			}
		}
	}
}

// Root is the latest attempt of the root that the tree belongs to; seen is false before any of it has passed.
func (f *Following) Root() (root tuple.Root, at tuple.Position, seen bool) {
	return f.root, f.at, len(f.deliveries) > 0
}

// Missed is how many messages passed unread.
func (f *Following) Missed() uint64 { return f.ear.Missed() }

func (f *Following) frame(h *jetstream.Heard, at time.Time) {
	var frame tuple.Frame
	if frame.Decode(h.Data) != nil {
		return
	}
	for i := range frame.Tuples {
		t := &frame.Tuples[i]
		if len(f.deliveries) == 0 && f.fits(&frame, t) {
			f.at = t.Position()
		} else if len(f.deliveries) == 0 || t.Position() != f.at {
			continue
		}
		if len(f.deliveries) >= mostFollowed {
			return
		}
		f.deliver(h, &frame, t, at)
	}
}

// fits reports whether the tuple is what is looked for.
func (f *Following) fits(frame *tuple.Frame, t *tuple.Tuple) bool {
	switch q := &f.quarry; {
	case q.At != nil:
		return t.Position() == *q.At
	case !q.ID.IsZero():
		return t.ID == q.ID
	default:
		return frame.Source == f.plan.Topology.Spout.ID && t.Stream != tuple.TickStream && t.Key == q.Device
	}
}

func (f *Following) deliver(h *jetstream.Heard, frame *tuple.Frame, t *tuple.Tuple, at time.Time) {
	to, task := destination(h.Subject)
	d := &delivery{t: *t, task: task, Hop: &observe.Hop{
		Node: to, Task: tuple.TaskName(task), From: frame.Source, Stream: t.Stream, Tuple: t.ID.String(), Device: strings.Clone(t.Key),
		Generation: int64(t.Root.Attempt.Generation), Attempt: int64(t.Root.Attempt.Count), Outcome: Waiting, At: at,
	}}
	for _, n := range f.plan.Nodes {
		if n.ID == to {
			d.Kind = n.Kind
		}
	}
	d.t.Key, d.t.Payload = d.Device, nil
	f.deliveries = append(f.deliveries, d)
	f.frames[h.ID] = append(f.frames[h.ID], d)
	f.waiting[t.Root.Attempt]++
	if a, b := t.Root.Attempt, f.root.Attempt; len(f.deliveries) == 1 || a.Generation > b.Generation || a.Generation == b.Generation && a.Count > b.Count {
		f.root = t.Root
	}
}

// deltas takes in which frames have reported.
func (f *Following) deltas(data []byte) {
	ds, err := tuple.DecodeDeltas(data)
	if err != nil {
		return
	}
	now := time.Now()
	for _, r := range ds {
		for _, d := range f.frames[r.Frame.String()] {
			if d.reports || d.t.Root.First != r.First || d.t.Root.Attempt != r.Attempt {
				continue
			}
			d.reports, d.Outcome = true, Handled
			if !d.At.IsZero() {
				d.Took = observe.Micros(now.Sub(d.At).Microseconds())
			}
			f.waiting[r.Attempt]--
		}
	}
}

// Journey draws the tree as it has been seen. Above what a spout emitted stands a hop for its emission.
func (f *Following) Journey() *observe.Journey {
	j := &observe.Journey{Hops: []*observe.Hop{}}
	emissions := map[tuple.Attempt]*observe.Hop{}
	for _, d := range f.deliveries {
		d.Below, d.Hop.Emitted = nil, 0
	}
	for _, d := range f.deliveries {
		if d.t.Trace.Sampled() {
			j.Trace = tuple.ID(d.t.Trace.TraceID).String()
		}
		up := f.parent(d)
		if up == nil {
			a := d.t.Root.Attempt
			if emissions[a] == nil {
				emissions[a] = f.emission(d)
				j.Hops = append(j.Hops, emissions[a])
			}
			up = emissions[a]
		}
		up.Below = append(up.Below, d.Hop)
		up.Emitted++
	}
	j.Sort()
	return j
}

// emission is the hop of the spout that emitted d, or what d came of.
func (f *Following) emission(d *delivery) *observe.Hop {
	h := &observe.Hop{
		Node: f.plan.Topology.Spout.ID, Kind: topology.KindSpout, Tuple: tuple.RootID(f.at).String(), Device: d.Device,
		Generation: d.Generation, Attempt: d.Attempt, Outcome: Emitted, At: d.At, Offset: f.at.Offset,
	}
	if d.From == h.Node {
		h.Stream = d.Stream
	}
	return h
}

// ordinalsMost is how many outputs of one execution are tried to find which one a tuple is.
const ordinalsMost = 64

// parent finds the delivery that a tuple was emitted at: ids say so, as each follows from that of the tuple before.
func (f *Following) parent(d *delivery) *observe.Hop {
	var one *delivery
	n := 0
	for _, up := range f.deliveries {
		if up.Node != d.From || up.t.Root.Attempt != d.t.Root.Attempt {
			continue
		}
		if n++; begot(up, d) {
			return up.Hop
		}
		one = up
	}
	if n == 1 {
		return one.Hop
	}
	return nil
}

func begot(up, d *delivery) bool {
	e := tuple.Emitter{Node: tuple.NameOf(d.From)}
	for _, by := range []tuple.ID{{}, tuple.ByGroup(d.t.Group), tuple.ByTask(up.task)} {
		e.By = by
		for ordinal := range uint32(ordinalsMost) {
			if tuple.ChildID(up.t.ID, e, tuple.NameOf(d.Stream), ordinal) == d.t.ID {
				return true
			}
		}
	}
	return false
}
