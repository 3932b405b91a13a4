package main

import "fmt"

// length of the windows by event time, ms.
const length = 20_000

// slot is a group and the start of a window; 0 where there is no window.
type slot struct {
	group string
	start int64
}

// share is what some readings, or some documents, have in one slot.
type share struct {
	count int
	sum   float64
}

func (s share) with(count int, sum float64) share { return share{s.count + count, s.sum + sum} }

// shares adds readings up, by whatever a reading belongs to.
func shares(all []reading, of func(reading) slot) map[slot]share {
	out := map[slot]share{}
	for _, r := range all {
		out[of(r)] = out[of(r)].with(1, r.Value)
	}
	return out
}

func start(ts int64) int64 { return ts / length * length }

func (c *checker) fed() (all []reading) {
	for _, rs := range c.want {
		all = append(all, rs...)
	}
	return all
}

// single wants one document of each device and window, with all of its readings, however late they were.
func (c *checker) single() {
	want := shares(c.fed(), func(r reading) slot { return slot{r.Device, start(r.TS)} })
	got := map[slot]share{}
	for _, w := range c.windows {
		at := slot{w.Group, w.Window.Start}
		if _, twice := got[at]; twice {
			c.differs(w.Group, "two documents of the window at %d", at.start)
		}
		got[at] = share{w.Count, w.Sum}
	}
	c.same("window", got, want)
}

// global wants the windows of each site and what was late for them to add up to its readings, window by window, and its intervals to all of them. A reading
// is late once. A site whose devices move counts with the one to which they do.
func (c *checker) global() {
	fed := c.fed()
	ofSite := func(r reading) slot { return slot{site(r.Device), start(r.TS)} }
	got := shares(c.late, ofSite)
	seen := map[int]bool{}
	for _, r := range c.late {
		if seen[r.Seq] {
			c.differs(r.Device, "reading %d is late twice", r.Seq)
		}
		seen[r.Seq] = true
	}
	for _, w := range c.sites {
		at := slot{w.Group, w.Window.Start}
		got[at] = got[at].with(w.Count, w.Sum)
	}
	c.same("window of a site", atOrigin(got), shares(fed, ofSite))
	clocked := map[slot]share{}
	for _, w := range c.siteParts {
		clocked[slot{w.Device, 0}] = clocked[slot{w.Device, 0}].with(w.Count, w.Sum)
	}
	c.same("sum of a site's intervals", atOrigin(clocked), shares(fed, func(r reading) slot { return slot{site(r.Device), 0} }))
}

func (c *checker) same(what string, got, want map[slot]share) {
	for at, s := range want {
		if got[at] != s {
			c.differs(at.group, "the %s at %d has %s, want %s", what, at.start, got[at], s)
		}
	}
	for at := range got {
		if _, known := want[at]; !known {
			c.differs(at.group, "a %s at %d, where there was no reading", what, at.start)
		}
	}
}

// String implements fmt.Stringer.
func (s share) String() string { return fmt.Sprintf("%d readings with the sum %v", s.count, s.sum) }
