package bolt

import (
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// applied is the set of ids that a task has applied above its floors, with a heap per origin so that what falls below a floor is found without a scan.
type applied struct {
	ids   map[tuple.ID]state.Applied
	heaps map[tuple.Origin]*offsets
}

type offsets []struct {
	offset int64
	id     tuple.ID
}

func newApplied(ids map[tuple.ID]state.Applied) applied {
	a := applied{ids: make(map[tuple.ID]state.Applied, len(ids)), heaps: map[tuple.Origin]*offsets{}}
	for id, x := range ids {
		a.add(id, x)
	}
	return a
}

func (a *applied) add(id tuple.ID, x state.Applied) {
	if _, known := a.ids[id]; !known {
		h := a.heaps[x.Position.Origin]
		if h == nil {
			h = &offsets{}
			a.heaps[x.Position.Origin] = h
		}
		h.push(x.Position.Offset, id)
	}
	a.ids[id] = x
}

// forget removes the ids of an origin with an offset below floor.
func (a *applied) forget(o tuple.Origin, floor int64) {
	h := a.heaps[o]
	for h != nil && len(*h) > 0 && (*h)[0].offset < floor {
		delete(a.ids, h.pop())
	}
}

func (h *offsets) push(offset int64, id tuple.ID) {
	*h = append(*h, struct {
		offset int64
		id     tuple.ID
	}{offset, id})
	s := *h
	for i := len(s) - 1; i > 0; {
		up := (i - 1) / 2
		if s[up].offset <= s[i].offset {
			return
		}
		s[up], s[i] = s[i], s[up]
		i = up
	}
}

func (h *offsets) pop() tuple.ID {
	s := *h
	id := s[0].id
	last := len(s) - 1
	s[0] = s[last]
	s = s[:last]
	*h = s
	for i := 0; ; {
		least := i
		for down := 2*i + 1; down <= 2*i+2 && down < last; down++ {
			if s[down].offset < s[least].offset {
				least = down
			}
		}
		if least == i {
			return id
		}
		s[i], s[least] = s[least], s[i]
		i = least
	}
}
