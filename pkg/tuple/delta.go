package tuple

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Delta reports to the owner of a root what became of one frame: the XOR of the ledger ids handled and of those emitted for them.
// It is whole: sent once for all tuples of a root in the frame, or not at all. A zero Frame with a zero XOR extends the root's timeout.
type Delta struct {
	Frame   ID
	First   int64 // the root's first offset
	Attempt Attempt
	XOR     uint64
}

// maxDeltas bounds one message: a frame has at most MaxRoots roots and a batch at most 64 frames.
const maxDeltas = 64 * MaxRoots

// AppendDeltas encodes deltas of one origin behind b: magic, version, count, then the fields in order.
func AppendDeltas(b []byte, deltas []Delta) []byte {
	b = append(b, magic, Version)
	b = binary.AppendUvarint(b, uint64(len(deltas)))
	for _, d := range deltas {
		b = append(b, d.Frame[:]...)
		b = binary.AppendVarint(b, d.First)
		b = binary.AppendUvarint(b, uint64(d.Attempt.Generation))
		b = binary.AppendUvarint(b, uint64(d.Attempt.Count))
		b = binary.LittleEndian.AppendUint64(b, d.XOR)
	}
	return b
}

// DecodeDeltas reads what AppendDeltas wrote; b may come from anybody.
func DecodeDeltas(b []byte) ([]Delta, error) {
	r := reader{b: b}
	if r.byte() != magic {
		r.fail("not a delta message")
	}
	if v := r.byte(); r.err == nil && (v == 0 || v > Version) {
		return nil, fmt.Errorf("%w: deltas of version %d, this build reads up to %d", ErrVersion, v, Version)
	}
	n := int(r.uvarint(maxDeltas))
	if r.err == nil && n > len(b)/27 { // 16 id, 1 first, 2 attempt, 8 xor
		r.fail("more deltas than bytes")
	}
	if r.err != nil {
		return nil, r.err
	}
	out := make([]Delta, n)
	for i := range out {
		out[i] = Delta{
			Frame: r.id(), First: r.varint(),
			Attempt: Attempt{uint32(r.uvarint(math.MaxUint32)), uint32(r.uvarint(math.MaxUint32))},
			XOR:     r.uint64(),
		}
	}
	if r.err == nil && r.at != len(b) {
		r.fail("bytes after the last delta")
	}
	return out, r.err
}
