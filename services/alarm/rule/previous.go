package rule

import (
	"slices"

	"github.com/boltmesh/boltmesh/pkg/script"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// recall makes the group's reading before this one what the script sees as the previous one.
func (b *Bolt) recall(r *record) {
	b.previous = nil
	if b.recalls && len(r.previous) > 0 {
		b.before.Reset(r.previous)
		b.previous = &b.before
	}
}

// remember keeps a reading for the one after it, and reports whether that changed the record. One that is too large is not kept, nor is then the one before
// it, which is no longer the previous one.
func (b *Bolt) remember(r *record, t *tuple.Tuple) (changed bool) {
	switch {
	case b.recalls && len(t.Payload) <= script.MaxPrevious:
		r.previous = slices.Clone(t.Payload)
		return true
	case r.previous != nil: // also where the script no longer asks
		r.previous = nil
		return true
	}
	return false
}
