package meshtest

import (
	"fmt"
	"strings"
)

// Shrunk is a failure cut short: the fewest faults that were found to be enough.
type Shrunk struct {
	Window  Window
	Err     error
	History []string
}

// Shrink narrows the window of a run that fails, as long as it goes on failing: first the end, then the beginning, then whole kinds of faults. run
// must be deterministic and return what the failing run drew: its faults, its history and its error.
func Shrink(hits int, run func(Window) (history []string, err error)) Shrunk {
	best := Shrunk{}
	try := func(x Window) bool {
		history, err := run(x)
		if err != nil {
			best = Shrunk{x, err, history}
		}
		return err != nil
	}
	if !try(Window{To: hits}) && !try(Window{}) {
		return best // it did not fail again: it is no function of its seed
	}
	for step := hits / 2; step > 0; step /= 2 {
		for best.Window.To > best.Window.From+step {
			x := best.Window
			x.To = max(x.To-step, 1)
			if x.To == best.Window.To || !try(x) {
				break
			}
		}
		for best.Window.To == 0 || best.Window.From+step < best.Window.To {
			x := best.Window
			x.From += step
			if !try(x) {
				break
			}
		}
	}
	for k := range kinds {
		x := best.Window
		x.Without = append(append([]Kind(nil), x.Without...), k)
		try(x)
	}
	return best
}

// Report says what was found and how to see it again. command runs the seed; the window is added to it.
func (s Shrunk) Report(command string) string {
	h := s.History[max(0, len(s.History)-40):]
	return fmt.Sprintf("%v\n%s\nto see it again: %s%s", s.Err, strings.Join(h, "\n"), command, s.Window)
}
