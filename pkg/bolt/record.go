package bolt

import (
	"encoding/binary"
	"errors"
)

// appendChildren encodes what an applied tuple emitted, for emitting it again under another attempt.
func appendChildren(b []byte, cs []child) []byte {
	b = binary.AppendUvarint(b, uint64(len(cs)))
	for i := range cs {
		t := &cs[i].tuple
		b = append(b, t.ID[:]...)
		b = binary.AppendVarint(b, t.Time)
		for _, s := range []string{t.Stream, t.Key, t.Group} {
			b = binary.AppendUvarint(b, uint64(len(s)))
			b = append(b, s...)
		}
		b = binary.AppendUvarint(b, uint64(len(t.Payload)))
		b = append(b, t.Payload...)
		b = binary.AppendUvarint(b, uint64(len(cs[i].hops)))
		for _, h := range cs[i].hops {
			b = binary.AppendUvarint(b, uint64(h.edge))
			b = binary.AppendVarint(b, int64(h.task))
			b = binary.AppendUvarint(b, h.n)
		}
	}
	return b
}

var errRecord = errors.New("recorded outputs are corrupt")

// decodeChildren reads what appendChildren wrote.
func decodeChildren(b []byte) (cs []child, err error) {
	take := func(n uint64) []byte {
		if n > uint64(len(b)) {
			err, n = errRecord, 0
		}
		x := b[:n:n]
		b = b[n:]
		return x
	}
	number := func() uint64 {
		v, n := binary.Uvarint(b)
		take(uint64(max(n, 0)))
		if n <= 0 {
			err = errRecord
		}
		return v
	}
	signed := func() int64 {
		v, n := binary.Varint(b)
		take(uint64(max(n, 0)))
		if n <= 0 {
			err = errRecord
		}
		return v
	}
	for range number() {
		var c child
		copy(c.tuple.ID[:], take(16))
		c.tuple.Time = signed()
		c.tuple.Stream, c.tuple.Key, c.tuple.Group = string(take(number())), string(take(number())), string(take(number()))
		c.tuple.Payload = take(number())
		for range number() {
			c.hops = append(c.hops, hop{edge: int(number()), task: int32(signed()), n: number()})
			if err != nil {
				return nil, err
			}
		}
		if err != nil {
			return nil, err
		}
		cs = append(cs, c)
	}
	return cs, err
}
