package window

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestFloor(t *testing.T) {
	for _, tt := range [][3]int64{{7, 5, 5}, {5, 5, 5}, {0, 5, 0}, {-1, 5, -5}, {-5, 5, -5}, {1392388020000, 3600000, 1392386400000}} {
		if got := Floor(tt[0], tt[1]); got != tt[2] {
			t.Errorf("Floor(%d, %d) = %d, want %d", tt[0], tt[1], got, tt[2])
		}
	}
}

// Sliding finds the same windows as trying every start.
func TestSlidingEqualsTheTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ts, size, slide := rapid.Int64Range(-100, 100).Draw(t, "ts"), rapid.Int64Range(1, 30).Draw(t, "size"), rapid.Int64Range(1, 30).Draw(t, "slide")
		var want []Bounds
		for k := int64(-300); k <= 300; k++ {
			if start := k * slide; start <= ts && ts < start+size {
				want = append(want, Bounds{start, start + size})
			}
		}
		if got := Sliding(ts, size, slide); !slices.Equal(got, want) {
			t.Fatalf("%v, want %v", got, want)
		}
	})
}

// Sessions grown reading by reading, in any order, are the runs of sorted times with steps below the gap.
func TestSessionEqualsTheTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		times, gap := rapid.SliceOfN(rapid.Int64Range(0, 200), 1, 30).Draw(t, "times"), rapid.Int64Range(1, 20).Draw(t, "gap")
		var open []Bounds
		for _, ts := range times {
			b := Session(ts, gap, open)
			open = append(slices.DeleteFunc(open, b.overlaps), b)
		}
		slices.SortFunc(open, func(a, b Bounds) int { return int(a.Start - b.Start) })
		slices.Sort(times)
		var want []Bounds
		for _, ts := range times {
			if n := len(want); n > 0 && ts < want[n-1].End {
				want[n-1].End = ts + gap
			} else {
				want = append(want, Bounds{ts, ts + gap})
			}
		}
		if !slices.Equal(open, want) {
			t.Fatalf("%v, want %v", open, want)
		}
	})
}

// The sequences that Storm's sliding windows give for the readings 1 to 8, with what each window drops.
func TestCounted(t *testing.T) {
	w := Counted{Count: 5, Slide: 2}
	var kept []int
	var since int
	var windows, expired, gone []string
	for i := 1; i <= 8; i++ {
		drop, complete := w.Next(len(kept), since)
		for _, x := range kept[:drop] {
			gone = append(gone, fmt.Sprint(x))
		}
		kept, since = append(kept[drop:], i), since+1
		if complete {
			windows, since = append(windows, fmt.Sprint(kept)), 0
			expired, gone = append(expired, strings.Join(gone, ",")), nil
		}
	}
	if got, want := strings.Join(windows, " "), "[1 2] [1 2 3 4] [2 3 4 5 6] [4 5 6 7 8]"; got != want {
		t.Errorf("windows %s, want %s", got, want)
	}
	if got, want := strings.Join(expired, ";"), ";;1;2,3"; got != want {
		t.Errorf("expired %s, want %s", got, want)
	}
}
