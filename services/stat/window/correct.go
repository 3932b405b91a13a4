package window

import (
	"context"
	"slices"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// keptKey begins the key of a group's closed windows. They stand apart from the open ones, so that a reading in time does not write them again.
const keptKey = "closed-"

// soon is the agenda's time of what is to be output at the next tick, whatever the watermark: a flush may have closed windows before their end.
const soon = -maxTime

func (b *Bolt) keptKey(group string) string { return keptKey + b.id + "-" + group }

// corrects reports whether closed windows take late readings.
func (b *Bolt) corrects() bool { return b.keep > 0 }

// kept returns the closed windows of a group, to be read. What it holds as closed is the greatest end among those that it no longer has.
func (b *Bolt) kept(ctx context.Context, c *bolt.Collector, group string) (*record, error) {
	return recordOf(c.State().Read(ctx, b.keptKey(group), b.keptLayout.decode))
}

// editKept returns them to be changed.
func (b *Bolt) editKept(ctx context.Context, c *bolt.Collector, group string) (*record, error) {
	return recordOf(c.State().Edit(ctx, b.keptKey(group), b.keptLayout.decode))
}

func recordOf(v state.Value, err error) (*record, error) {
	if err != nil {
		return nil, unread(err)
	}
	return v.(*record), nil
}

// correct takes a reading into its closed window, whose figures are output again at the next tick. It returns false when the window is no longer kept.
func (b *Bolt) correct(ctx context.Context, t *tuple.Tuple, c *bolt.Collector) (bool, error) {
	group := c.Group()
	k, err := b.kept(ctx, c, group)
	if err != nil {
		return false, err
	}
	w := Sliding(t.Time, b.size, b.slide)[0]
	if w.End <= k.closed || b.expired(w) {
		return false, nil
	}
	r, err := b.edit(ctx, c, group)
	if err != nil {
		return false, err
	}
	if k, err = b.editKept(ctx, c, group); err != nil {
		return false, err
	}
	r.closed = max(r.closed, w.End) // so that the next owner, who knows no watermark yet, finds it closed too
	p := k.pane(w)
	p.add(b.layout.funcs, b.row)
	p.dirty = true
	b.wakeKept(r, k, c)
	return true, nil
}

// expired says whether a closed window is no longer kept, as far as this owner knows the watermark.
func (b *Bolt) expired(w Bounds) bool { return w.End+b.keep <= b.watermark }

// closeKept outputs the windows that have closed and those that were corrected, and drops what has been kept for long enough.
func (b *Bolt) closeKept(ctx context.Context, until int64, group string, c *bolt.Collector) error {
	r, err := b.edit(ctx, c, group)
	if err != nil {
		return err
	}
	k, err := b.editKept(ctx, c, group)
	if err != nil {
		return err
	}
	n := 0
	for ; n < len(r.open) && r.open[n].End <= until; n++ {
		r.closed = max(r.closed, r.open[n].End)
		p := k.pane(r.open[n].Bounds) // a new one: what is open here has never been closed
		*p = r.open[n]
		p.dirty = true
	}
	r.open = slices.Delete(r.open, 0, n)
	for i := range k.open {
		if p := &k.open[i]; p.dirty {
			p.dirty = false
			p.version++
			b.emit(c, p, p.End)
		}
	}
	k.open = slices.DeleteFunc(k.open, func(p pane) bool {
		if !b.expired(p.Bounds) {
			return false
		}
		k.closed = max(k.closed, p.End)
		return true
	})
	b.wakeKept(r, k, c)
	return nil
}

// wakeKept puts the group on the agenda for the first of: a window ends, a corrected one is to be output, a kept one has been kept for long enough.
func (b *Bolt) wakeKept(r, k *record, c *bolt.Collector) {
	at, ok := int64(0), false
	sooner := func(t int64) {
		if !ok || t < at {
			at, ok = t, true
		}
	}
	if len(r.open) > 0 {
		sooner(r.open[0].End)
	}
	for i := range k.open {
		if k.open[i].dirty {
			sooner(soon)
		}
	}
	if len(k.open) > 0 {
		sooner(k.open[0].End + b.keep)
	}
	if ok {
		c.Wake(at)
	} else {
		c.Rest()
	}
}
