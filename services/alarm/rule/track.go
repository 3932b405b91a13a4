package rule

import "slices"

// Track follows one level of an alarm: whether it holds, and what speaks for a change of that. The zero value does not hold.
type Track struct {
	Held   bool
	Streak int   // consecutive readings that speak for a change
	Since  int64 // event time of the first of them, ms
}

// step takes in a reading that speaks for a change, or against it. It reports whether anything is otherwise than before.
func (t *Track) step(l *Limits, speaks bool, at int64) bool {
	if !speaks {
		moved := t.Streak > 0
		t.Streak, t.Since = 0, 0
		return moved
	}
	if t.Streak == 0 {
		t.Since = at
	}
	t.Streak++
	after, lasting := max(l.RaiseAfter, 1), l.RaiseFor
	if t.Held {
		after, lasting = max(l.ClearAfter, 1), l.ClearFor
	}
	if t.Streak >= after && at-t.Since >= lasting {
		*t = Track{Held: !t.Held}
	}
	return true
}

// fit makes the episode follow n levels: the topology may have had another number of them when it was stored.
func (e *Episode) fit(n int) {
	e.Tracks = e.Tracks[:min(n, len(e.Tracks))]
	for len(e.Tracks) < n {
		e.Tracks = append(e.Tracks, Track{})
	}
}

// top is the number of the highest level that holds, from 1; 0: none does.
func (e *Episode) top() int {
	for i, t := range slices.Backward(e.Tracks) {
		if t.Held {
			return i + 1
		}
	}
	return 0
}

// fresh reports whether nothing is to be remembered of any level.
func fresh(tracks []Track) bool {
	return !slices.ContainsFunc(tracks, func(t Track) bool { return t != Track{} })
}
