package rule

import (
	"context"
	"math"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// silence finds groups that have not been heard for long, in processing time as ticks tell it. A reading's own processing time is not known: it came
// after the last tick before it and, since ticks are every ms apart, at most that much later.
type silence struct {
	limit int64 // ms; 0: none is looked for
	every int64 // ms between ticks

	now  int64 // time of the last tick, 0 before this owner's first
	from int64 // time of this owner's first tick
	gaps []gap // by time, those that still matter
}

// gap is a time without ticks: the mesh stood still, so that no silence in it is a device's.
type gap struct{ until, lost int64 }

// watch is what a group's record says about its silence. Its zero value is a group that has never been heard, and is not looked at.
type watch struct {
	heard int64 // time of the last tick before its last reading; 0: that reading came before its owner's first tick
	armed bool  // it is on the agenda
}

func (s *silence) declare(spec topology.Bolt) {
	s.limit = spec.NoData.Milliseconds()
	if _, every := spec.Ticks(); s.limit > 0 {
		s.every = every.Milliseconds()
	}
}

// heard notes a reading of the collector's group. It reports whether w has changed, which it does once between two ticks, however many readings come.
// The agenda is written only for a group that is not on it; one that is will be put off by the tick that finds it due.
func (s *silence) heard(w *watch, c *bolt.Collector) bool {
	if s.limit == 0 || w.armed && w.heard == s.now {
		return false
	}
	w.heard = s.now
	if !w.armed {
		w.armed = true
		c.Wake(s.due(*w))
	}
	return true
}

// due is the processing time from which a group is silent; the next tick's, whatever it is, where that is not known yet.
func (s *silence) due(w watch) int64 {
	at := w.heard
	if at == 0 {
		at = s.from
	}
	if at == 0 {
		return 0
	}
	due := at + s.every + s.limit
	for _, g := range s.gaps {
		if g.until > at {
			due += g.lost
		}
	}
	return due
}

// tick notes a tick. Ticks are every ms apart; one that is late by a whole period ends a gap.
func (s *silence) tick(t bolt.Tick) {
	if t.Time <= s.now {
		return
	}
	s.now = t.Time
	if s.from == 0 {
		s.from = t.Time
	}
	if lost := t.Time - t.Last - s.every; t.Last > 0 && lost >= s.every {
		s.gaps = append(s.gaps, gap{t.Time, lost})
	}
	for len(s.gaps) > 0 && s.due(watch{heard: s.gaps[0].until}) < s.now {
		s.gaps = s.gaps[1:] // whoever was heard before it has been looked at
	}
}

// Due implements bolt.Stateful.
func (b *Bolt) Due(t bolt.Tick) (until int64, ok bool) {
	if b.silence.limit == 0 {
		return math.MinInt64, false
	}
	b.silence.tick(t)
	return t.Time, true
}

// Tick implements bolt.Stateful: it raises the alarm of a group that has been silent for so long, and puts others off.
func (b *Bolt) Tick(ctx context.Context, t bolt.Tick, group string, c *bolt.Collector) error {
	key := stateKey + b.id + "-" + group
	v, err := c.State().Read(ctx, key, decode)
	if err != nil {
		return unread(err)
	}
	r := *v.(*record)
	if !r.armed || b.silence.limit == 0 {
		return nil
	}
	if due := b.silence.due(r.watch); t.Time < due {
		c.Wake(due)
		return nil
	}
	r.armed = false
	if r.Silence(b.limits, t.Time) == Raised {
		payload, err := b.event(cause{device: group, at: t.Time}, group, &r.Episode)
		if err != nil {
			return err
		}
		c.Emit(bolt.Emission{Key: group, Time: t.Time, Payload: payload})
	}
	if v, err = c.State().Edit(ctx, key, decode); err != nil {
		return unread(err)
	}
	*v.(*record) = r
	return nil
}
