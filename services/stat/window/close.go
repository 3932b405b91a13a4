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
		return 0, tick.Flush || b.spec.Every > 0
	case aligned:
		if tick.Flush {
			return math.MaxInt64, true
		}
		return tick.Time, true
	}
	return 0, true
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
		return b.endInterval(ctx, tick, group, r, c)
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

// endInterval outputs what has gathered since the last output, and forgets it.
func (b *Bolt) endInterval(ctx context.Context, tick bolt.Tick, group string, r *record, c *bolt.Collector) error {
	if len(r.open) == 0 {
		return nil
	}
	p, last := r.open[0], timeKey+b.id+"-"+group
	v, err := c.State().Read(ctx, last, decodeStamp)
	if err != nil {
		return unread(err)
	}
	p.Start, p.End = v.(*stamp).at, tick.Time
	if err := b.output(c, &p, tick.Time); err != nil {
		return err
	}
	c.State().Delete(b.key(group))
	c.State().Put(last, &stamp{at: tick.Time})
	return nil
}

// endAligned outputs a window by processing time once a tick lies behind it. Its readings came after the tick entry before the first one that finds it
// open, which tells where it lies: that tick may come long before its end.
func (b *Bolt) endAligned(ctx context.Context, tick bolt.Tick, group string, r *record, c *bolt.Collector) error {
	if len(r.open) == 0 {
		return nil
	}
	p := r.open[0]
	if p.End == 0 {
		p.Start = Floor(tick.Last, b.size)
		if tick.Last <= 0 || tick.Time >= p.Start+2*b.size { // ticks were missing: it came before the last boundary, at the latest
			p.Start = Floor(tick.Time, b.size) - b.size
		}
		p.End = p.Start + b.size
	}
	if tick.Flush || tick.Time >= p.End {
		if err := b.output(c, &p, p.End); err != nil {
			return err
		}
		c.State().Delete(b.key(group))
		return nil
	}
	v, err := c.State().Edit(ctx, b.key(group), b.decoder)
	if err != nil {
		return unread(err)
	}
	v.(*record).open[0].Bounds = p.Bounds
	b.wake(v.(*record), c)
	return nil
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
