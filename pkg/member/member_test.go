package member

import (
	"math"
	"slices"
	"testing"
)

func TestDivisionHolds(t *testing.T) {
	d := Division{Workers: map[string]int64{"a": 1, "b": 2}, Tasks: []string{"a", "b", "b"}}
	a, b := Member{Node: "n", Worker: "a", Since: 1}, Member{Node: "n", Worker: "b", Since: 2}
	leaving, restarted, other := b, b, Member{Node: "m", Worker: "c"}
	leaving.Leaving, restarted.Since = true, 3
	for _, c := range []struct {
		name  string
		tasks int
		alive []Member
		want  bool
	}{
		{"as planned", 3, []Member{a, b, other}, true},
		{"one joined", 3, []Member{a, b, {Node: "n", Worker: "c"}}, false},
		{"one left", 3, []Member{a}, false},
		{"one leaves", 3, []Member{a, leaving}, false},
		{"one restarted", 3, []Member{a, restarted}, false},
		{"another number of tasks", 4, []Member{a, b}, false},
	} {
		if got := d.Holds("n", c.tasks, c.alive); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

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
