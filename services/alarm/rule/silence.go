package rule

import (
	"context"
	"math"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// clock is processing time as ticks tell it, and what goes by it: how long a group has been silent, how long an episode has not been acknowledged. A
// reading's own processing time is not known: it came after the last tick before it and, since ticks are every ms apart, at most that much later.
type clock struct {
	silence  int64 // ms without a reading; 0: none is looked for
	patience int64 // ms without an acknowledgement until an episode is escalated; 0: none is
	every    int64 // ms between ticks

	now  int64 // time of the last tick, 0 before this owner's first
	from int64 // time of this owner's first tick
	gaps []gap // by time, those that still matter
}

// gap is a time without ticks: the mesh stood still, so that no silence in it is a device's.
type gap struct{ until, lost int64 }

// watch is what a group's record says about time. Its zero value is a group that has never been heard and has no episode to escalate: it is not looked at.
type watch struct {
	heard int64 // time of the last tick before its last reading; 0: that reading came before its owner's first tick
	armed bool  // its silence is on the agenda

	begun   int64 // time of the last tick before the episode was raised; 0: that was before its owner's first tick
	waiting bool  // the escalation of its episode is on the agenda
}

func (s *clock) declare(spec topology.Bolt) {
	s.silence = spec.NoData.Milliseconds()
	if spec.Escalate != nil {
		s.patience = spec.Escalate.After.Milliseconds()
	}
	if _, every := spec.Ticks(); every > 0 {
		s.every = every.Milliseconds()
	}
}

// heard notes a reading of the collector's group. It reports whether w has changed, which it does once between two ticks, however many readings come.
// The agenda is written only for a group that is not on it; one that is will be put off by the tick that finds it due.
func (s *clock) heard(w *watch, c *bolt.Collector) bool {
	if s.silence == 0 || w.armed && w.heard == s.now {
		return false
	}
	w.heard = s.now
	if !w.armed {
		w.armed = true
		s.wake(*w, c)
	}
	return true
}

// wait notes that the group's episode is to be escalated in time, if it is not noted yet. It reports whether w has changed.
func (s *clock) wait(w *watch, waiting bool, c *bolt.Collector) bool {
	if waiting == w.waiting {
		return false
	}
	if w.waiting = waiting; waiting {
		w.begun = s.now
		s.wake(*w, c)
	}
	return true
}

// wake puts the group on the agenda for whatever is due first.
func (s *clock) wake(w watch, c *bolt.Collector) {
	at := int64(math.MaxInt64)
	if w.armed && s.silence > 0 {
		at = s.due(w)
	}
	if w.waiting {
		at = min(at, s.late(w))
	}
	if at < math.MaxInt64 {
		c.Wake(at)
	}
}

// due is the processing time from which a group is silent; the next tick's, whatever it is, where that is not known yet.
func (s *clock) due(w watch) int64 {
	at := w.heard
	if at == 0 {
		at = s.from
	}
	if at == 0 {
		return 0
	}
	due := at + s.every + s.silence
	for _, g := range s.gaps {
		if g.until > at {
			due += g.lost
		}
	}
	return due
}

// late is the processing time from which an episode is escalated; the next tick's, which then counts as that of the raise, where that is not known.
func (s *clock) late(w watch) int64 {
	if w.begun == 0 {
		return 0
	}
	return w.begun + s.every + s.patience
}

// tick notes a tick. Ticks are every ms apart; one that is late by a whole period ends a gap.
func (s *clock) tick(t bolt.Tick) {
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
	if b.clock.silence == 0 && b.clock.patience == 0 {
		return math.MinInt64, false
	}
	b.clock.tick(t)
	return t.Time, true
}

// Tick implements bolt.Stateful: it raises the alarm of a group that has been silent for so long, escalates an episode that was not acknowledged for so
// long, and puts others off.
func (b *Bolt) Tick(ctx context.Context, t bolt.Tick, group string, c *bolt.Collector) error {
	r, err := b.read(ctx, c)
	if err != nil || !r.armed && !r.waiting {
		return err
	}
	by := cause{device: group, at: t.Time}
	if r.armed && b.clock.silence > 0 && t.Time >= b.clock.due(r.watch) {
		r.armed = false
		if err := b.emit(r.Silence(&b.limits, t.Time), by, c, &r.Episode); err != nil {
			return err
		}
	}
	if b.clock.wait(&r.watch, r.Waiting(&b.limits), c); r.waiting {
		if r.begun == 0 {
			r.begun = t.Time
		}
		if t.Time >= b.clock.late(r.watch) {
			r.waiting = false
			if err := b.emit(r.Escalate(&b.limits, t.Time), by, c, &r.Episode); err != nil {
				return err
			}
		}
	}
	b.clock.wake(r.watch, c)
	return b.write(ctx, c, r)
}
