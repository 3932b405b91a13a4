package tuple

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"unsafe"
)

// Version is the wire version that this build writes. Older versions are read, newer ones refused.
const Version = 1

const magic = 0xB7 // first byte of a frame; no JSON text begins with it

// Errors that decoding returns, wrapped with the place where the bytes stopped making sense.
var (
	ErrVersion = errors.New("frame of a newer wire version: upgrade this service")
	ErrCorrupt = errors.New("corrupt frame")
)

// Append encodes f behind b.
func (f *Frame) Append(b []byte) ([]byte, error) {
	if len(f.Tuples) == 0 || len(f.Tuples) > MaxTuples {
		return nil, fmt.Errorf("a frame holds 1 to %d tuples, not %d", MaxTuples, len(f.Tuples))
	}
	var p Packing
	for i := range f.Tuples {
		if err := p.Add(&f.Tuples[i]); err != nil {
			return nil, err
		}
	}
	return append(p.header(b, f.Revision, f.Source), p.tuples...), nil
}

const (
	flagTrace = 1 << iota // trace id and span id follow
	flagN                 // emitting group and n follow
)

// leastTuple is how many bytes a tuple takes at least: flags, id, and six fields of one byte.
const leastTuple = 1 + 16 + 6

func (t *Tuple) append(b []byte, root, stream int) []byte {
	var flags byte
	if t.Trace.Sampled() {
		flags |= flagTrace
	}
	if t.N != 0 || t.Group != "" {
		flags |= flagN
	}
	b = append(b, flags)
	b = append(b, t.ID[:]...)
	b = binary.AppendUvarint(b, uint64(root))
	b = binary.AppendUvarint(b, uint64(stream))
	b = binary.AppendVarint(b, t.Offset-t.Root.First)
	b = binary.AppendVarint(b, t.Time)
	b = appendString(b, t.Key)
	if flags&flagTrace != 0 {
		b = append(b, t.Trace.TraceID[:]...)
		b = append(b, t.Trace.SpanID[:]...)
	}
	if flags&flagN != 0 {
		b = appendString(b, t.Group)
		b = binary.AppendUvarint(b, t.N)
	}
	b = binary.AppendUvarint(b, uint64(len(t.Payload)))
	return append(b, t.Payload...)
}

// Decode reads one frame, in place of what f holds: its memory is used again, and nothing is allocated when there is enough of it. Payloads alias b, which must
// not change afterwards, and keys do too unless f has Keys: whoever keeps one for longer clones it, or keeps b. b may come from anybody.
func (f *Frame) Decode(b []byte) error {
	if err := f.Open(b); err != nil {
		return err
	}
	return f.Read()
}

// Open does what Decode does, but for the tuples.
func (f *Frame) Open(b []byte) error {
	f.Tuples = f.Tuples[:0]
	r := reader{b: b}
	if r.byte() != magic {
		return fmt.Errorf("%w: it does not begin with 0x%X", ErrCorrupt, magic)
	}
	if v := r.byte(); v == 0 || v > Version {
		return fmt.Errorf("%w: version %d, this build reads up to %d", ErrVersion, v, Version)
	}
	f.Revision = uint32(r.uvarint(math.MaxUint32))
	r.again(&f.Source)
	f.streams = resize(f.streams, int(r.uvarint(MaxRoots)))
	for i := range f.streams {
		r.again(&f.streams[i])
	}
	f.roots = resize(f.roots, int(r.uvarint(MaxRoots)))
	for i := range f.roots {
		f.roots[i] = Root{
			Origin: Origin(r.uint64()), First: r.varint(),
			Attempt: Attempt{uint32(r.uvarint(math.MaxUint32)), uint32(r.uvarint(math.MaxUint32))},
			Floor:   r.varint(),
		}
	}
	f.rest = r
	return r.err
}

// Roots are those of the tuples of the frame that was opened last.
func (f *Frame) Roots() []Root { return f.roots }

// Read decodes the tuples of the frame that was opened last, once. It puts them into the memory of Tuples, which may have been another frame's.
func (f *Frame) Read() error {
	r := f.rest
	n := int(r.uvarint(MaxTuples))
	switch {
	case r.err == nil && n == 0:
		r.fail("no tuples")
	case n > (len(r.b)-r.at)/leastTuple:
		r.fail("more tuples than bytes")
		n = 0
	}
	f.Tuples = resize(f.Tuples, n)
	clear(f.Tuples)
	for i := 0; i < n && r.err == nil; i++ {
		r.tuple(&f.Tuples[i], f)
	}
	if r.err == nil && len(r.b) != r.at {
		r.fail("bytes after the last tuple")
	}
	f.rest = reader{}
	return r.err
}

// resize returns s with n elements, which hold anything.
func resize[T any](s []T, n int) []T { return slices.Grow(s[:0], n)[:n] }

func (r *reader) tuple(t *Tuple, f *Frame) {
	flags := r.byte()
	if flags&^(flagTrace|flagN) != 0 {
		r.fail("unknown tuple flags")
	}
	t.ID = r.id()
	root, stream := r.uvarint(MaxRoots), r.uvarint(MaxRoots)
	if r.err == nil && (root >= uint64(len(f.roots)) || stream >= uint64(len(f.streams))) {
		r.fail("root or stream index out of range")
	}
	if r.err != nil {
		return
	}
	t.Root, t.Stream = f.roots[root], f.streams[stream]
	t.Offset = t.Root.First + r.varint()
	t.Time = r.varint()
	if key := r.bytes(int(r.uvarint(MaxKey))); f.Keys != nil {
		t.Key = f.Keys.String(key)
	} else {
		t.Key = unsafe.String(unsafe.SliceData(key), len(key)) // b does not change
	}
	if flags&flagTrace != 0 {
		copy(t.Trace.TraceID[:], r.bytes(16))
		copy(t.Trace.SpanID[:], r.bytes(8))
	}
	if flags&flagN != 0 {
		t.Group = r.string()
		t.N = r.uvarint(math.MaxUint64)
	}
	t.Payload = r.bytes(int(r.uvarint(MaxPayload)))
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// reader takes bytes off the front and remembers the first thing that was wrong; after an error every read returns zero.
type reader struct {
	b   []byte
	at  int
	err error
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s at byte %d", ErrCorrupt, what, r.at)
	}
}

func (r *reader) bytes(n int) []byte {
	if r.err != nil || n < 0 || len(r.b)-r.at < n {
		r.fail("it ends too early")
		return nil
	}
	r.at += n
	return r.b[r.at-n : r.at : r.at]
}

func (r *reader) byte() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (r *reader) uvarint(most uint64) uint64 {
	if r.err != nil {
		return 0
	}
	v, n := binary.Uvarint(r.b[r.at:])
	if n <= 0 || v > most {
		r.fail("a number is out of range")
		return 0
	}
	r.at += n
	return v
}

func (r *reader) varint() int64 {
	if r.err != nil {
		return 0
	}
	v, n := binary.Varint(r.b[r.at:])
	if n <= 0 {
		r.fail("a number is out of range")
		return 0
	}
	r.at += n
	return v
}

func (r *reader) string() string { return string(r.bytes(int(r.uvarint(MaxKey)))) }

// again reads a string into one that may hold the same already.
func (r *reader) again(s *string) {
	if b := r.bytes(int(r.uvarint(MaxKey))); *s != string(b) {
		*s = string(b)
	}
}

func (r *reader) id() (id ID) {
	copy(id[:], r.bytes(len(id)))
	return id
}
