package bolt

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/boltmesh/boltmesh/pkg/partition"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Edge is one way out of a node, as the engine needs it.
type Edge struct {
	To     string
	Stream string
	Shared bool  // workers of To compete
	Tasks  int32 // of To, unless Shared
	All    bool  // every task gets a copy, each with a ledger id of its own
	Direct bool  // Task gets every tuple, whatever is in it
	Task   int32 // with Direct
	Named  bool  // the emitting bolt names the task, with Collector.EmitTo
	Gated  bool  // both ends are stateful: tuples carry n
	// Linger is how long tuples along the edge may wait for others to the same tasks, when nobody waits for them at To: frames become fewer and larger. What
	// they came from is acknowledged that much later. Along edges of a node with state, and of one that runs in another's loop, none waits.
	Linger time.Duration
	// Local runs To's bolt in this loop, when it is among the loop's Inner; otherwise workers compete as on any shared edge.
	Local bool
	// Partial divides each key between two tasks, by the tuple's id: a hot key's load is halved, and so is what each task knows of it.
	Partial bool
	// Custom names a Grouping of the emitting bolt, which then must be a Grouper; "": none.
	Custom string
	// Key returns what the edge groups by; ok is false for a tuple that does not take the edge (a key field is absent). nil divides by tuple id.
	Key func(t *tuple.Tuple) (key string, ok bool)
	// Group returns the receiving group of a tuple on a gated edge, by which its n counts; nil: Key does.
	Group func(t *tuple.Tuple) (group string, ok bool)

	divide Grouping // of Custom
}

// Grouping divides keys among tasks in a way of its own: the answer, modulo tasks, is the task of key. It must be a pure function of its arguments,
// in every process and every version of the service: a tuple that is replayed must reach the task that it has reached before.
type Grouping func(key string, tasks int32) int32

// Grouper is a bolt with groupings of its own, for edges that it emits along.
type Grouper interface {
	// Grouping returns the grouping of a name that a topology has written; ok is false when there is none.
	Grouping(name string) (g Grouping, ok bool)
}

// own resolves the edges' custom groupings.
func own(edges []Edge, b Bolt) ([]Edge, error) {
	if !slices.ContainsFunc(edges, func(e Edge) bool { return e.Custom != "" }) {
		return edges, nil
	}
	edges = slices.Clone(edges)
	for i := range edges {
		e := &edges[i]
		if e.Custom == "" {
			continue
		}
		g, ok := b.(Grouper)
		if ok {
			e.divide, ok = g.Grouping(e.Custom)
		}
		if !ok {
			return nil, fmt.Errorf("the edge to %s: the service has no grouping called %q", e.To, e.Custom)
		}
	}
	return edges, nil
}

// hop is one delivery of a tuple: an edge, a task, and the counter on gated edges.
type hop struct {
	edge int
	task int32
	n    uint64
}

// hops appends the deliveries of t along the edge with index i.
func (e *Edge) hops(to []hop, i int, t *tuple.Tuple) []hop {
	switch {
	case e.Stream != t.Stream, e.Named:
	case e.Shared:
		to = append(to, hop{edge: i, task: tuple.Shared})
	case e.All:
		for task := range e.Tasks {
			to = append(to, hop{edge: i, task: task})
		}
	case e.Direct:
		to = append(to, hop{edge: i, task: e.Task})
	case e.Key == nil:
		to = append(to, hop{edge: i, task: int32(binary.LittleEndian.Uint32(t.ID[:]) % uint32(e.Tasks))})
	default:
		if key, ok := e.Key(t); ok {
			to = append(to, hop{edge: i, task: e.taskOf(key, t)})
		}
	}
	return to
}

func (e *Edge) taskOf(key string, t *tuple.Tuple) int32 {
	if e.divide != nil {
		return int32(uint32(e.divide(key, e.Tasks)) % uint32(e.Tasks))
	}
	task := partition.Task(key, int(e.Tasks))
	if e.Partial && e.Tasks > 1 && t.ID[0]&1 == 1 { // the other one of the key's two tasks
		task = (task + 1 + partition.Task(key+"\x00", int(e.Tasks)-1)) % e.Tasks
	}
	return task
}

// named is the hop to the task that the bolt has named.
func (e *Edge) named(i int, task int32) (hop, error) {
	if task < 0 || task >= e.Tasks {
		return hop{}, Reject(fmt.Errorf("emitted to task %d of %s, which has %d: a direct edge needs EmitTo with one of them", task, e.To, e.Tasks))
	}
	return hop{edge: i, task: task}, nil
}

// Packer gathers tuples into frames, one row of frames per destination, in the order in which destinations were first used. It keeps its memory from one
// batch to the next.
type Packer struct {
	Revision uint32
	Source   string
	Edges    []Edge

	ways  []way   // by edge
	order []*open // those used since the last Take
	done  []Outgoing
	hops  []hop // scratch of Route
}

// way is where an edge leads: its frames under construction, by task, with one in front for competing workers. Edges to the same node share them.
type way struct {
	name tuple.Name
	open []*open
}

type dest struct {
	node string
	task int32
}

type open struct {
	dest
	name  tuple.Name
	frame tuple.Packing
	ids   []uint64
	used  bool // since the last Take
}

// Route emits t along all its edges and returns the XOR of the ledger ids of the deliveries. It sets t.N.
func (p *Packer) Route(t *tuple.Tuple) (xor uint64, deliveries int, err error) {
	p.hops = p.hops[:0]
	for i := range p.Edges {
		p.hops = p.Edges[i].hops(p.hops, i, t)
	}
	for _, h := range p.hops {
		id, err := p.add(t, h)
		if err != nil {
			return 0, 0, err
		}
		xor ^= id
	}
	return xor, len(p.hops), nil
}

// add puts t into the frame for one hop, numbered for it, and returns the delivery's ledger id.
func (p *Packer) add(t *tuple.Tuple, h hop) (uint64, error) {
	if p.ways == nil {
		p.lay()
	}
	w := &p.ways[h.edge]
	for int(h.task)+1 >= len(w.open) {
		w.open = append(w.open, nil)
	}
	o := w.open[h.task+1]
	if o == nil {
		o = &open{dest: dest{p.Edges[h.edge].To, h.task}, name: w.name}
		for i := range p.ways { // every edge to this node
			if p.Edges[i].To == o.node {
				p.ways[i].put(o)
			}
		}
	}
	if !o.used {
		o.used = true
		p.order = append(p.order, o)
	}
	size := len(t.Payload) + len(t.Key) + 64
	if len(o.ids) > 0 && (o.frame.Size()+size > tuple.TargetFrameBytes || !o.frame.Takes(t)) {
		p.seal(o)
	}
	t.N = h.n
	if err := o.frame.Add(t); err != nil {
		return 0, fmt.Errorf("frame for %s/%d: %w", o.node, o.task, err)
	}
	id := tuple.LedgerID(t.ID, o.name, h.task, t.Root.Attempt)
	o.ids = append(o.ids, id)
	return id, nil
}

// lay prepares the ways.
func (p *Packer) lay() {
	p.ways = make([]way, len(p.Edges))
	for i, e := range p.Edges {
		p.ways[i].name = tuple.NameOf(e.To)
	}
}

func (w *way) put(o *open) {
	for int(o.task)+1 >= len(w.open) {
		w.open = append(w.open, nil)
	}
	w.open[o.task+1] = o
}

func (p *Packer) seal(o *open) {
	p.done = append(p.done, Outgoing{Node: o.node, Task: o.task, ID: tuple.FrameID(o.name, o.task, o.ids), Data: o.frame.Seal(unspent(), p.Revision, p.Source)})
	o.ids = o.ids[:0]
}

// waiting reports whether there are tuples that were not taken.
func (p *Packer) waiting() bool { return len(p.order) > 0 }

// full reports whether a frame has no room for more.
func (p *Packer) full() bool { return len(p.done) > 0 }

// Reset gives up what was not taken.
func (p *Packer) Reset() {
	for _, o := range p.order {
		o.frame.Reset()
		o.ids, o.used = o.ids[:0], false
	}
	p.order, p.done = p.order[:0], nil
}

// Take closes all frames and hands them over, in order per destination.
func (p *Packer) Take() []Outgoing {
	for _, o := range p.order {
		if len(o.ids) > 0 {
			p.seal(o)
		}
	}
	out := p.done
	p.done = nil
	p.Reset()
	return out
}

// spent is memory of frames that are stored, for others of any loop: a few MB at most.
var spent = make(chan []byte, 16)

// unspent returns memory for a frame.
func unspent() []byte {
	select {
	case b := <-spent:
		return b
	default:
		return nil
	}
}

// Spend lets the memory of frames that o has stored be used again, if o has forgotten them. Nobody may look at them afterwards.
func Spend(o Outbox, frames []Outgoing) {
	if _, ok := o.(Forgetful); !ok {
		return
	}
	for i := range frames {
		b := frames[i].Data[:0]
		if cap(b) > 2*tuple.TargetFrameBytes {
			continue // it held a tuple that is larger than a frame
		}
		select {
		case spent <- b:
		default:
		}
	}
}
