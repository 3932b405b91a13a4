package member

import (
	"math"
	"slices"
	"testing"
)

func TestCandidates(t *testing.T) {
	alive := []Member{{Node: "hourly", Worker: "a"}, {Node: "hourly", Worker: "b"}, {Node: "other", Worker: "c"}, {Node: "hourly", Worker: "d", Leaving: true}}
	if got := Candidates("hourly", alive); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("%v", got)
	}
}

func TestWatermark(t *testing.T) {
	mark := func(p int, w int64, idle bool) Mark { return Mark{Topic: "t", Partition: p, Watermark: w, Idle: idle} }
	for name, c := range map[string]struct {
		last  int64
		marks []Mark
		want  int
		out   int64
	}{
		"the slowest busy partition":        {0, []Mark{mark(0, 50, false), mark(1, 30, false), mark(2, 10, true)}, 3, 30},
		"everybody idle: what was seen":     {0, []Mark{mark(0, 50, true), mark(1, 30, true)}, 2, 50},
		"a partition nobody reports":        {7, []Mark{mark(0, 50, false)}, 2, 7},
		"never back":                        {40, []Mark{mark(0, 30, false)}, 1, 40},
		"a busy partition without readings": {math.MinInt64, []Mark{mark(0, math.MinInt64, false), mark(1, 30, false)}, 2, math.MinInt64},
		"no spout":                          {5, nil, 0, 5},
	} {
		if got := Watermark(c.last, []Member{{Marks: c.marks}, {Marks: c.marks}}, c.want); got != c.out {
			t.Errorf("%s: %d, want %d", name, got, c.out)
		}
	}
}
