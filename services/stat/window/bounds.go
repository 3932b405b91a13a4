package window

// Bounds are a window's span of time, [Start, End) in ms.
type Bounds struct{ Start, End int64 }

// Floor returns the greatest multiple of step that is at most ts.
func Floor(ts, step int64) int64 {
	r := ts % step
	if r < 0 {
		r += step
	}
	return ts - r
}

// Sliding returns the windows [k*slide, k*slide+size) that contain ts, by start. With slide == size there is one: tumbling.
func Sliding(ts, size, slide int64) []Bounds {
	last := Floor(ts, slide)
	n := (size - (ts - last) + slide - 1) / slide // starts at last, last-slide, ... > ts-size
	if n <= 0 {
		return nil // slide > size leaves gaps
	}
	bs := make([]Bounds, n)
	for i := range bs {
		start := last - (n-1-int64(i))*slide
		bs[i] = Bounds{start, start + size}
	}
	return bs
}

// Session returns the bounds of the session that a reading at ts belongs to, given the open ones: all that it is less than gap away from become one.
func Session(ts, gap int64, open []Bounds) Bounds {
	b := Bounds{ts, ts + gap}
	for _, o := range open {
		if o.overlaps(Bounds{ts, ts + gap}) {
			b.Start, b.End = min(b.Start, o.Start), max(b.End, o.End)
		}
	}
	return b
}

func (b Bounds) overlaps(o Bounds) bool { return b.Start < o.End && o.Start < b.End }

// Counted says how the last readings form count windows: after every slide readings, a window over the last count.
type Counted struct{ Count, Slide int }

// Next takes the number of readings kept and those since the last output, before one more arrives. It returns how many of the oldest to drop then, and
// whether a window is complete.
func (w Counted) Next(kept, since int) (drop int, complete bool) {
	return max(kept+1-w.Count, 0), since+1 >= w.Slide
}
