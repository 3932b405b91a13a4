package rule

import "slices"

// Flapping says when an alarm is raised too often for each raise to be notified. Raises 0: never.
type Flapping struct {
	Raises int   // so many
	Within int64 // within such a time is flapping; event time, ms
	Calm   int64 // without a raise ends it; event time, ms
}

// flap notes a raise. It reports whether the raise is muted: all are from the one after that which made the alarm flap, until there was calm.
func (e *Episode) flap(f Flapping, at int64) (muted bool) {
	if f.Raises == 0 {
		e.Flapping, e.Recent = false, nil
		return false
	}
	if n := len(e.Recent); n > 0 && at-e.Recent[n-1] >= f.Calm {
		if e.Flapping {
			e.Recent = nil // or the raises before the calm would make it flap again at once
		}
		e.Flapping = false
	}
	muted = e.Flapping
	e.Recent = append(slices.Clone(e.Recent), at)
	e.Recent = e.Recent[max(0, len(e.Recent)-f.Raises):]
	if len(e.Recent) == f.Raises && at-e.Recent[0] <= f.Within {
		e.Flapping = true
	}
	return muted
}
