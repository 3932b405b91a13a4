package sqlite

import (
	"encoding/binary"
	"errors"

	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// change is what a commit changes, but for the agenda: the content of a row of that table, until it is merged into the others. Of several, one after the
// other, fold makes one.
type change struct {
	values  map[string][]byte // nil: deleted
	floors  map[tuple.Origin]int64
	packs   map[tuple.Origin][]byte // ids as in state.Pack
	applied map[tuple.ID]state.Applied
	outputs map[output][]byte
}

// output names a recorded output.
type output struct {
	id    tuple.ID
	slice int
}

func newChange() *change {
	return &change{map[string][]byte{}, map[tuple.Origin]int64{}, map[tuple.Origin][]byte{}, map[tuple.ID]state.Applied{}, map[output][]byte{}}
}

// appendChange encodes a batch, without its agenda: counts and lengths are varints, in the order of fold.
func appendChange(to []byte, b *state.Batch) []byte {
	packs, others := state.Packs(b.Apply)
	to = binary.AppendUvarint(to, uint64(len(b.Set)))
	for i := range b.Set {
		to = appendBytes(appendBytes(to, b.Set[i].Key), b.Set[i].Value)
	}
	to = binary.AppendUvarint(to, uint64(len(b.Delete)))
	for _, key := range b.Delete {
		to = appendBytes(to, key)
	}
	to = binary.AppendUvarint(to, uint64(len(b.Floors)))
	for o, floor := range b.Floors {
		to = binary.AppendVarint(binary.BigEndian.AppendUint64(to, uint64(o)), floor)
	}
	to = binary.AppendUvarint(to, uint64(len(packs)))
	for _, p := range packs {
		to = appendBytes(binary.BigEndian.AppendUint64(to, uint64(p.Origin)), p.IDs)
	}
	to = binary.AppendUvarint(to, uint64(len(others)))
	for _, i := range others {
		r := &b.Apply[i]
		to = binary.BigEndian.AppendUint64(append(to, r.ID[:]...), uint64(r.Position.Origin))
		to = binary.AppendUvarint(binary.AppendVarint(to, r.Position.Offset), uint64(r.Slices))
		to = appendBytes(append(to, bit(r.Unfinished), bit(r.Outputs != nil)), r.Cursor)
		if r.Outputs != nil {
			to = appendBytes(to, r.Outputs)
		}
	}
	return to
}

func appendBytes[B ~[]byte | ~string](to []byte, b B) []byte {
	return append(binary.AppendUvarint(to, uint64(len(b))), b...)
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

var errChange = errors.New("a change that was committed is corrupt")

// fold adds an encoded change, which is later than all in c. What c then holds is part of b.
func (c *change) fold(b []byte) error {
	r := reader{b: b}
	for range r.count() {
		key := string(r.bytes())
		c.values[key] = r.bytes()
	}
	for range r.count() {
		c.values[string(r.bytes())] = nil
	}
	for range r.count() {
		o := r.origin()
		floor := r.varint()
		if was, there := c.floors[o]; !there || was < floor {
			c.floors[o] = floor
		}
	}
	for range r.count() {
		o := r.origin()
		c.packs[o] = append(c.packs[o], r.bytes()...)
	}
	for range r.count() {
		id := tuple.ID(r.take(len(tuple.ID{})))
		a := state.Applied{Position: tuple.Position{Origin: r.origin(), Offset: r.varint()}, Slices: int(r.uvarint())}
		flags := r.take(2)
		a.Unfinished, a.Cursor = flags[0] > 0, string(r.bytes())
		c.applied[id] = a
		if flags[1] > 0 {
			c.outputs[output{id, a.Slices - 1}] = r.bytes()
		}
	}
	if r.bad || len(r.b) > 0 {
		return errChange
	}
	return nil
}

// forget removes what was applied below floors that were raised later, with its outputs.
func (c *change) forget() {
	for id, a := range c.applied {
		if floor, ok := c.floors[a.Position.Origin]; ok && a.Position.Offset < floor {
			delete(c.applied, id)
		}
	}
	for o := range c.outputs {
		if o.slice >= c.applied[o.id].Slices {
			delete(c.outputs, o)
		}
	}
}

// reader takes an encoded change apart. After the first thing that is not there it yields zeros.
type reader struct {
	b   []byte
	bad bool
}

// take returns the next n bytes, never nil.
func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.b, r.bad = nil, true
		return make([]byte, min(max(n, 0), 16)) // as many as any field of fixed size has
	}
	x := r.b[:n:n]
	r.b = r.b[n:]
	return x
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		n = -1
	}
	r.take(n)
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		n = -1
	}
	r.take(n)
	return v
}

// count returns how many elements follow, of at least one byte each.
func (r *reader) count() int {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.b, r.bad = nil, true
		return 0
	}
	return int(n)
}

func (r *reader) bytes() []byte { return r.take(r.count()) }

func (r *reader) origin() tuple.Origin { return tuple.Origin(binary.BigEndian.Uint64(r.take(8))) }
