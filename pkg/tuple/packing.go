package tuple

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Packing is a frame under construction: tuples are encoded as they are added, so that none is copied or kept. The zero value is empty. It is not safe
// for concurrent use.
type Packing struct {
	streams []string
	roots   []Root
	tuples  []byte // encoded
	n       int
	head    []byte // scratch of Seal
}

// Takes reports whether the frame has room for t, as far as numbers go: of tuples, roots and streams.
func (p *Packing) Takes(t *Tuple) bool {
	return p.n < MaxTuples && (len(p.roots) < MaxRoots || slices.Contains(p.roots, t.Root)) && (len(p.streams) < MaxRoots || slices.Contains(p.streams, t.Stream))
}

// Add encodes t behind those added before.
func (p *Packing) Add(t *Tuple) error {
	switch {
	case !p.Takes(t):
		return fmt.Errorf("a frame holds at most %d tuples of %d roots and streams", MaxTuples, MaxRoots)
	case len(t.Key) > MaxKey || len(t.Group) > MaxKey || len(t.Stream) > MaxKey || len(t.Payload) > MaxPayload:
		return fmt.Errorf("tuple %s: key, group or stream above %d bytes, or payload above %d", t.ID, MaxKey, MaxPayload)
	}
	p.tuples = t.append(p.tuples, indexOf(&p.roots, t.Root), indexOf(&p.streams, t.Stream))
	p.n++
	return nil
}

// Len returns how many tuples were added since the last Seal.
func (p *Packing) Len() int { return p.n }

// Size returns how many bytes the tuples take.
func (p *Packing) Size() int { return len(p.tuples) }

// Seal appends the frame to b and empties p. The layout is described byte by byte in docs/wire.md.
func (p *Packing) Seal(b []byte, revision uint32, source string) []byte {
	p.head = p.header(p.head[:0], revision, source)
	b = slices.Grow(b, len(p.head)+len(p.tuples))
	b = append(append(b, p.head...), p.tuples...)
	p.Reset()
	return b
}

// Reset empties p.
func (p *Packing) Reset() {
	if cap(p.tuples) > 2*TargetFrameBytes {
		p.tuples = nil // it held a tuple that is larger than a frame
	}
	p.streams, p.roots, p.tuples, p.n = p.streams[:0], p.roots[:0], p.tuples[:0], 0
}

func (p *Packing) header(b []byte, revision uint32, source string) []byte {
	b = append(b, magic, Version)
	b = binary.AppendUvarint(b, uint64(revision))
	b = appendString(b, source)
	b = binary.AppendUvarint(b, uint64(len(p.streams)))
	for _, s := range p.streams {
		b = appendString(b, s)
	}
	b = binary.AppendUvarint(b, uint64(len(p.roots)))
	for _, r := range p.roots {
		b = binary.LittleEndian.AppendUint64(b, uint64(r.Origin))
		b = binary.AppendVarint(b, r.First)
		b = binary.AppendUvarint(b, uint64(r.Attempt.Generation))
		b = binary.AppendUvarint(b, uint64(r.Attempt.Count))
		b = binary.AppendVarint(b, r.Floor)
	}
	return binary.AppendUvarint(b, uint64(p.n))
}

// indexOf returns the index of v in list, at its end if it is new. Neighbours mostly share theirs, so the last is tried first.
func indexOf[T comparable](list *[]T, v T) int {
	for i := len(*list) - 1; i >= 0; i-- {
		if (*list)[i] == v {
			return i
		}
	}
	*list = append(*list, v)
	return len(*list) - 1
}
