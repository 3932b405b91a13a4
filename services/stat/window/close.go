package window

import (
	"context"
	"math"
	"slices"

	"github.com/boltmesh/boltmesh/pkg/bolt"
)

// Due implements bolt.Stateful.
func (b *Bolt) Due(tick bolt.Tick) (until int64, ok bool) {
	switch b.mode {
	case sliding, session:
		b.watermark = max(b.watermark, tick.Watermark)
		if tick.Flush {
			return math.MaxInt64, true
		}
		return tick.Watermark, tick.Watermark > math.MinInt64
	case counted:
		return math.MaxInt64, tick.Flush
	case lifetime:
		if !tick.Flush {
			until = silent
		}
		return until, tick.Flush || b.spec.Every > 0
	case aligned:
		if tick.Flush {
			return math.MaxInt64, true
		}
		return tick.Time, true
	}
	return silent, true
}

// Tick implements bolt.Stateful: it outputs what has closed. All outputs are made before the state is changed, so that a script that fails leaves
// the windows as they are: they come again with the next tick after a further reading.
func (b *Bolt) Tick(ctx context.Context, tick bolt.Tick, group string, c *bolt.Collector) error {
	v, err := c.State().Read(ctx, b.key(group), b.decoder)
	if err != nil {
		return unread(err)
	}
	r := v.(*record)
	switch b.mode {
	case interval:
		if len(r.open) == 0 {
			return b.silence(ctx, tick, group, true, c)
		}
		p := r.open[0]
		if err := b.endInterval(ctx, &p, tick.Time, group, c); err != nil {
			return err
		}
		if err := b.empty(ctx, r, group, c); err != nil {
			return err
		}
		return b.silence(ctx, tick, group, false, c)
	case aligned:
		return b.endAligned(ctx, tick, group, r, c)
	case lifetime:
		return b.report(ctx, group, r, c)
	case counted:
		w := b.spec.Window
		p := r.fold(w.Count - w.CountSlide + r.since) // the window that is being filled, as far as it is
		b.emit(c, &p, p.last)
		v, err := c.State().Edit(ctx, b.key(group), b.decoder)
		if err != nil {
			return unread(err)
		}
		v.(*record).since = 0
		return nil
	}
	until, _ := b.Due(tick)
	if b.corrects() {
		return b.closeKept(ctx, until, group, c)
	}
	n := 0
	for ; n < len(r.open) && r.open[n].End <= until; n++ {
		if err := b.output(c, &r.open[n], r.open[n].End); err != nil {
			return err
		}
	}
	if n == 0 {
		b.wake(r, c)
		return nil
	}
	if v, err = c.State().Edit(ctx, b.key(group), b.decoder); err != nil {
		return unread(err)
	}
	r = v.(*record)
	r.closed = max(r.closed, r.open[n-1].End)
	r.open = slices.Delete(r.open, 0, n)
	b.wake(r, c)
	return nil
}

// endInterval outputs what has gathered since the last output.
func (b *Bolt) endInterval(ctx context.Context, p *pane, at int64, group string, c *bolt.Collector) error {
	last := timeKey + b.id + "-" + group
	v, err := c.State().Read(ctx, last, decodeStamp)
	if err != nil {
		return unread(err)
	}
	p.Start, p.End = v.(*stamp).at, at
	if err := b.output(c, p, at); err != nil {
		return err
	}
	c.State().Put(last, &stamp{at: at})
	return nil
}

// silent is the agenda's time of a group of a global statistic of which nothing is open. The agenda is the statistic's set of groups: they stay on it.
const silent = 1

// silence keeps a group of a global statistic on the agenda though nothing of it is open; speak has it output that nothing came. A flush asks for what
// is open only, and a script has nothing to say of a state that it has not seen.
func (b *Bolt) silence(ctx context.Context, tick bolt.Tick, group string, speak bool, c *bolt.Collector) error {
	if !b.global {
		return nil
	}
	at, p := int64(silent), pane{cells: make([]Cell, len(b.layout.funcs))}
	if b.mode == aligned {
		p.End = Floor(tick.Time, b.size)
		p.Start, at = p.End-b.size, p.End+b.size
	}
	c.Wake(at)
	switch {
	case !speak || tick.Flush || b.script != nil:
		return nil
	case b.mode == aligned:
		return b.output(c, &p, p.End)
	}
	return b.endInterval(ctx, &p, tick.Time, group, c)
}

// endAligned outputs a window by processing time once a tick lies behind it. Its readings came after the tick entry before the first one that finds it
// open, which tells where it lies: that tick may come long before its end.
func (b *Bolt) endAligned(ctx context.Context, tick bolt.Tick, group string, r *record, c *bolt.Collector) error {
	if len(r.open) == 0 {
		return b.silence(ctx, tick, group, true, c)
	}
	p := r.open[0]
	p.place(tick, b.size)
	if tick.Flush || tick.Time >= p.End {
		if err := b.output(c, &p, p.End); err != nil {
			return err
		}
		if err := b.empty(ctx, r, group, c); err != nil {
			return err
		}
		return b.silence(ctx, tick, group, false, c)
	}
	r, err := b.edit(ctx, c, group)
	if err != nil {
		return err
	}
	r.open[0].Bounds = p.Bounds
	b.wake(r, c)
	return nil
}

// place finds out where a window by processing time lies, at the first tick after its first reading.
func (p *pane) place(tick bolt.Tick, size int64) {
	if p.End != 0 {
		return
	}
	p.Start = Floor(tick.Last, size)
	if tick.Last <= 0 || tick.Time >= p.Start+2*size { // ticks were missing: it came before the last boundary, at the latest
		p.Start = Floor(tick.Time, size) - size
	}
	p.End = p.Start + size
}

// report outputs a lifetime's values; they go on.
func (b *Bolt) report(ctx context.Context, group string, r *record, c *bolt.Collector) error {
	if len(r.open) == 0 {
		return nil
	}
	p := r.open[0]
	if err := b.output(c, &p, p.last); err != nil {
		return err
	}
	if b.global && b.spec.Every > 0 {
		c.Wake(silent)
	}
	if b.script == nil {
		return nil
	}
	v, err := c.State().Edit(ctx, b.key(group), b.decoder)
	if err != nil {
		return unread(err)
	}
	v.(*record).open[0].script = p.script // output may have changed it
	return nil
}
