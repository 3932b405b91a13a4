package window

import (
	"context"
	"slices"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/script"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// recall returns the group's reading before this one for the script, afresh, since a script may change what it sees; nil where there is none.
func (b *Bolt) recall(r *record) *script.Doc {
	if !b.recalls || len(r.previous) == 0 {
		return nil
	}
	b.before.Reset(r.previous)
	return &b.before
}

// remember keeps a reading for the one after it. One that is too large is not kept, nor is then the one before it, which is no longer the previous one.
func (b *Bolt) remember(r *record, t *tuple.Tuple) {
	r.previous = nil // a script that no longer asks leaves nothing behind
	if b.recalls && len(t.Payload) <= script.MaxPrevious {
		r.previous = slices.Clone(t.Payload)
	}
}

// empty takes the windows of a group that has output all of them, and everything else but its last reading.
func (b *Bolt) empty(ctx context.Context, r *record, group string, c *bolt.Collector) error {
	if !b.recalls || len(r.previous) == 0 {
		c.State().Delete(b.key(group))
		return nil
	}
	r, err := b.edit(ctx, c, group)
	if err == nil {
		r.open = nil
	}
	return err
}
