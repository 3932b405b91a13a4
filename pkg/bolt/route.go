package bolt

import (
	"encoding/binary"
	"fmt"

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
	Gated  bool  // both ends are stateful: tuples carry n
	// Partial divides each key between two tasks, by the tuple's id: a hot key's load is halved, and so is what each task knows of it.
	Partial bool
	// Key returns what the edge groups by; ok is false for a tuple that does not take the edge (a key field is absent). nil divides by tuple id.
	Key func(t *tuple.Tuple) (key string, ok bool)
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
	case e.Stream != t.Stream:
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
			if e.Partial && t.ID[0]&1 == 1 {
				key += "\x00"
			}
			to = append(to, hop{edge: i, task: partition.Task(key, int(e.Tasks))})
		}
	}
	return to
}

// Packer gathers tuples into frames, one row of frames per destination, in the order in which destinations were first used.
type Packer struct {
	Revision uint32
	Source   string
	Edges    []Edge

	names []tuple.Name // of the edges' destinations
	open  map[dest]*open
	order []*open
	done  []Outgoing
}

type dest struct {
	node string
	task int32
}

type open struct {
	dest
	name  tuple.Name
	frame tuple.Frame
	ids   []uint64
	bytes int
}

// Route emits t along all its edges and returns the XOR of the ledger ids of the deliveries.
func (p *Packer) Route(t *tuple.Tuple) (xor uint64, deliveries int, err error) {
	var hops []hop
	for i := range p.Edges {
		hops = p.Edges[i].hops(hops, i, t)
	}
	for _, h := range hops {
		id, err := p.add(t, h)
		if err != nil {
			return 0, 0, err
		}
		xor ^= id
	}
	return xor, len(hops), nil
}

// add puts t into the frame for one hop and returns the delivery's ledger id.
func (p *Packer) add(t *tuple.Tuple, h hop) (uint64, error) {
	if p.names == nil {
		p.open = map[dest]*open{}
		for _, e := range p.Edges {
			p.names = append(p.names, tuple.NameOf(e.To))
		}
	}
	to := dest{p.Edges[h.edge].To, h.task}
	o := p.open[to]
	if o == nil {
		o = &open{dest: to, name: p.names[h.edge]}
		p.open[to] = o
		p.order = append(p.order, o)
	}
	size := len(t.Payload) + len(t.Key) + 64
	if len(o.ids) == tuple.MaxTuples || len(o.ids) > 0 && o.bytes+size > tuple.TargetFrameBytes {
		if err := p.seal(o); err != nil {
			return 0, err
		}
	}
	o.frame.Tuples = append(o.frame.Tuples, *t)
	o.frame.Tuples[len(o.frame.Tuples)-1].N = h.n
	o.bytes += size
	id := tuple.LedgerID(t.ID, o.name, h.task, t.Root.Attempt)
	o.ids = append(o.ids, id)
	return id, nil
}

func (p *Packer) seal(o *open) error {
	o.frame.Revision, o.frame.Source = p.Revision, p.Source
	data, err := o.frame.Append(make([]byte, 0, o.bytes+64))
	if err != nil {
		return fmt.Errorf("frame for %s/%d: %w", o.node, o.task, err)
	}
	p.done = append(p.done, Outgoing{Node: o.node, Task: o.task, ID: tuple.FrameID(o.name, o.task, o.ids), Data: data})
	o.frame.Tuples, o.ids, o.bytes = o.frame.Tuples[:0], o.ids[:0], 0
	return nil
}

// Take closes all frames and hands them over, in order per destination.
func (p *Packer) Take() ([]Outgoing, error) {
	for _, o := range p.order {
		if len(o.ids) > 0 {
			if err := p.seal(o); err != nil {
				return nil, err
			}
		}
	}
	out := p.done
	p.done = nil
	return out, nil
}
