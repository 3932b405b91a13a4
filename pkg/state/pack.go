package state

import (
	"encoding/binary"
	"fmt"

	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Pack is what one commit applied of one origin and recorded nothing about but the positions: nearly all of what is applied. A store that keeps a
// pack whole writes one row where it would write hundreds, and deletes it whole once the floor has passed its greatest offset; the ids in it that
// lie below the floor until then are left out when it is unpacked.
type Pack struct {
	Origin   tuple.Origin
	Greatest int64  // offset
	IDs      []byte // of each: its 16 bytes, its offset in 8, big endian
}

const packed = len(tuple.ID{}) + 8

// Packs divides what a batch applies: into one pack for each origin, and the records that say more than a position, by their indexes.
func Packs(apply []Record) (packs []Pack, others []int) {
	at := 0 // the pack of the last record: most often also that of the next
	for i := range apply {
		r := &apply[i]
		if r.Slices > 0 || r.Unfinished || r.Cursor != "" {
			others = append(others, i)
			continue
		}
		if at == len(packs) || packs[at].Origin != r.Position.Origin {
			for at = 0; at < len(packs) && packs[at].Origin != r.Position.Origin; at++ {
			}
		}
		if at == len(packs) {
			packs = append(packs, Pack{r.Position.Origin, r.Position.Offset, make([]byte, 0, packed*(len(apply)-i))})
		}
		p := &packs[at]
		p.Greatest = max(p.Greatest, r.Position.Offset)
		p.IDs = binary.BigEndian.AppendUint64(append(p.IDs, r.ID[:]...), uint64(r.Position.Offset))
	}
	return packs, others
}

// Repack makes one pack of the ids of many, of one origin, without those below its floor.
func Repack(o tuple.Origin, ids []byte, floors map[tuple.Origin]int64) Pack {
	floor, ok := floors[o]
	p := Pack{Origin: o, IDs: make([]byte, 0, len(ids))}
	for ; len(ids) >= packed; ids = ids[packed:] {
		offset := int64(binary.BigEndian.Uint64(ids[packed-8:]))
		if ok && offset < floor {
			continue
		}
		if len(p.IDs) == 0 || offset > p.Greatest {
			p.Greatest = offset
		}
		p.IDs = append(p.IDs, ids[:packed]...)
	}
	return p
}

// Add puts an applied id into the head unless it lies below its floor. The floors must be there already.
func (h *Head) Add(id tuple.ID, a Applied) {
	if floor, ok := h.Floors[a.Position.Origin]; !ok || a.Position.Offset >= floor {
		h.Applied[id] = a
	}
}

// Unpack adds the ids of a pack. The records that say more must be there already: they stay.
func (h *Head) Unpack(p Pack) error {
	if len(p.IDs)%packed != 0 {
		return fmt.Errorf("a pack of %d bytes, of %d for each id", len(p.IDs), packed)
	}
	for b := p.IDs; len(b) > 0; b = b[packed:] {
		id := tuple.ID(b[:packed-8])
		if _, known := h.Applied[id]; !known {
			h.Add(id, Applied{Position: tuple.Position{Origin: p.Origin, Offset: int64(binary.BigEndian.Uint64(b[packed-8:]))}})
		}
	}
	return nil
}
