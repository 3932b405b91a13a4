package meshtest

import (
	"fmt"
	"slices"
	"strings"
)

// Shrunk is a failure cut short: the fewest faults that were found to be enough.
type Shrunk struct {
	Window  Window
	Err     error
	History []string
}

// Shrink narrows the window of a run that fails with all faults, as long as it goes on failing: first to few kinds of faults, then to the first and the
// last that are needed. Leaving a fault out changes all that follows, so each step is tried with several schedules, and what is left is enough to fail,
// not the least. run must be deterministic.
func Shrink(run func(Window) (*Result, error)) Shrunk {
	best, hits := Shrunk{}, 0
	try := func(x Window) bool {
		r, err := run(x)
		if err != nil {
			best, hits = Shrunk{x, err, r.History}, r.Hits
		}
		return err != nil
	}
	if !try(Window{}) {
		return best // it is no function of its seed
	}
	for k := range kinds {
		x := best.Window
		x.Without = append(slices.Clone(x.Without), k)
		for x.Salt = 0; x.Salt < salts && !try(x); x.Salt++ {
		}
	}
	x := best.Window
	if x.To = max(hits, 1); !try(x) {
		return best
	}
	for step := max(x.To/2, 1); step > 0; step /= 2 {
		for best.Window.To-step > best.Window.From {
			x := best.Window
			if x.To -= step; !try(x) {
				break
			}
		}
		for best.Window.From+step < best.Window.To {
			x := best.Window
			if x.From += step; !try(x) {
				break
			}
		}
	}
	return best
}

// salts are how many schedules are tried to do without a kind of fault.
const salts = 12

// Report says what was found and how to see it again. command runs the seed; the window is added to it.
func (s Shrunk) Report(command string) string {
	h := s.History[max(0, len(s.History)-40):]
	return fmt.Sprintf("%v\n%s\nto see it again: %s%s", s.Err, strings.Join(h, "\n"), command, s.Window)
}
