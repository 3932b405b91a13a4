package meshtest

import (
	"strconv"
	"strings"
	"testing"
)

// TestShrink: a failure is shown with few of its faults, and the command that is printed shows it again.
func TestShrink(t *testing.T) {
	for seed := uint64(0); ; seed++ {
		run := func(x Window) (*Result, error) {
			p := newPlant(seed)
			p.options.broken.unknownIsSuccess, p.changes = true, false
			p.options.Patience, p.options.Window = 30_000, x
			return p.run()
		}
		r, err := run(Window{})
		if err == nil {
			continue
		}
		s := Shrink(run)
		report := s.Report("replay")
		_, flags, _ := strings.Cut(report, "to see it again: replay")
		var faults, without string
		var salt uint64
		for f := strings.Fields(flags); len(f) > 1; f = f[2:] {
			switch f[0] {
			case "-faults":
				faults = f[1]
			case "-without":
				without = f[1]
			case "-salt":
				salt, _ = strconv.ParseUint(f[1], 10, 64)
			}
		}
		x, err := ParseWindow(faults, without, salt)
		if err != nil {
			t.Fatal(err)
		}
		if _, again := run(x); again == nil {
			t.Errorf("%s shows nothing, not %v", flags, s.Err)
		}
		if !strings.Contains(report, "unknown outcome") || len(s.History) > 15 {
			t.Errorf("%d faults are left as\n%s", r.Hits, report)
		}
		t.Logf("%d faults cut down to\n%s", r.Hits, report)
		return
	}
}
