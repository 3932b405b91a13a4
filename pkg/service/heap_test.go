package service

import "testing"

func TestRoomOfTheHeap(t *testing.T) {
	for _, c := range []struct {
		live uint64 // MB
		want int
	}{{0, 100}, {32, 100}, {40, 80}, {64, 50}, {80, 40}, {1 << 14, 40}} {
		if got := roomFor(c.live << 20); got != c.want {
			t.Errorf("with %d MB alive GOGC is %d, not %d", c.live, got, c.want)
		}
	}
}
