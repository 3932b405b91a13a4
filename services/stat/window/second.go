package window

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/tidwall/gjson"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// SecondStage is the second stage of a statistic in two: the statistic itself, of what its first stage tells. Its ticks follow those of the first stage: they
// come when all that was told at one has been applied, so that a window closes with everything in it.
type SecondStage struct{ *Bolt }

// Execute implements bolt.Bolt: it adds what a task of the first stage knows of a window. Nothing is late here: a window that is closed already is
// opened again, for another output.
func (s *SecondStage) Execute(ctx context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	raw, err := base64.StdEncoding.DecodeString(gjson.GetBytes(t.Payload, "part").Str)
	if err != nil || len(raw) == 0 {
		return bolt.Reject(fmt.Errorf("the parts of a statistic cannot be read: %w", errors.Join(err, errCorrupt)))
	}
	v, err := s.layout.decode(raw)
	if err != nil {
		return bolt.Reject(err)
	}
	r, err := s.edit(ctx, c, c.Group())
	if err != nil {
		return err
	}
	for _, told := range v.(*record).open {
		if s.mode == session {
			told.Bounds = overlapping(r.open, told.Bounds)
			r.join(told.Bounds).merge(s.layout.funcs, &told)
		} else {
			r.pane(told.Bounds).merge(s.layout.funcs, &told)
		}
	}
	s.wake(r, c)
	return nil
}

// wake puts the group on the agenda for its first window.
func (s *SecondStage) wake(r *record, c *bolt.Collector) {
	at, _ := s.next(r)
	if s.mode == interval && len(r.open) > 0 {
		at = r.open[0].End
	}
	c.Wake(at)
}

// Due implements bolt.Stateful.
func (s *SecondStage) Due(tick bolt.Tick) (until int64, ok bool) {
	switch {
	case s.mode != interval:
		return s.Bolt.Due(tick)
	case tick.Flush:
		return math.MaxInt64, true
	}
	return tick.Time, true
}

// Tick implements bolt.Stateful.
func (s *SecondStage) Tick(ctx context.Context, tick bolt.Tick, group string, c *bolt.Collector) error {
	if s.mode != interval && s.mode != aligned {
		return s.Bolt.Tick(ctx, tick, group, c)
	}
	r, err := s.edit(ctx, c, group)
	if err != nil {
		return err
	}
	until, _ := s.Due(tick)
	n := 0
	for ; n < len(r.open) && (r.open[n].End <= until || tick.Flush); n++ {
		if err := s.close(ctx, &r.open[n], group, c); err != nil {
			return err
		}
	}
	r.open = slices.Delete(r.open, 0, n)
	if len(r.open) > 0 {
		s.wake(r, c)
		return nil
	}
	c.State().Delete(s.key(group))
	return s.silence(ctx, tick, group, n == 0, c)
}

// close outputs a window by processing time.
func (s *SecondStage) close(ctx context.Context, p *pane, group string, c *bolt.Collector) error {
	if s.mode == aligned {
		return s.output(c, p, p.End)
	}
	return s.endInterval(ctx, p, p.End, group, c)
}

// overlapping returns what becomes of bounds when all windows that they overlap become one.
func overlapping(open []pane, b Bounds) Bounds {
	for _, p := range open {
		if p.overlaps(b) {
			b = Bounds{min(b.Start, p.Start), max(b.End, p.End)}
		}
	}
	return b
}

// merge takes in what another pane has seen.
func (p *pane) merge(funcs []Function, o *pane) {
	if p.n == 0 || o.last > p.last {
		p.last = o.last
	}
	p.n += o.n
	for i, f := range funcs {
		p.cells[i].Merge(f.Kind, o.cells[i])
	}
}

// Forwarded is the second stage of a statistic that cannot be merged: it counts readings, which its first stage has sent on with their group.
type Forwarded struct{ *Bolt }

// Execute implements bolt.Bolt.
func (f *Forwarded) Execute(ctx context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	reading := *t
	reading.Payload = []byte(gjson.GetBytes(t.Payload, "reading").Raw)
	return f.Bolt.Execute(ctx, &reading, c)
}
