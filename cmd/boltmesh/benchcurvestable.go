package main

import (
	"bytes"
	"fmt"
)

// table says in figures what the pictures show, for docs.
func (f *curvesFile) table() []byte {
	var b bytes.Buffer
	b.WriteString("# How cost grows: the figures\n\nWritten by `make bench-curves`; what the columns mean is said in [performance.md](../performance.md#how-cost-grows).\n")
	for _, c := range f.Curves {
		fmt.Fprintf(&b, "\n## %s\n\n", c.Name)
		b.WriteString(c.summary())
		fmt.Fprintf(&b, "\n| %s | tuples/s | to R | CPU us per tuple | of it services | brokers | CPU to R's | allocs |\n|---|---|---|---|---|---|---|---|\n", c.Axis)
		for _, p := range c.Points {
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s | %.0f |\n", grouped(float64(p.X)), rounded(p.TuplesPerS), rounded(p.Ratio),
				rounded(p.CPU), rounded(p.ServicesCPU), rounded(p.BrokersCPU), rounded(p.CPURatio), p.Allocs)
		}
		fmt.Fprintf(&b, "\n%s, boltmesh %s, %s, %d CPUs, load average %s before; medians of %s", c.Date[:min(10, len(c.Date))], c.Version, c.Go, c.CPUs, c.Load, plural(c.Runs, "run"))
		if c.Quick {
			b.WriteString(" of `--quick`")
		}
		if c.Scenario != "transport" {
			fmt.Fprintf(&b, "; %s", c.Stores)
		}
		b.WriteString(".\n")
	}
	return b.Bytes()
}

// summary is one sentence: what becomes of a tuple's cost from the first point to the last.
func (c curveResult) summary() string {
	if len(c.Points) < 2 {
		return ""
	}
	first, last := c.Points[0], c.Points[len(c.Points)-1]
	times := func(of func(*result) float64) string {
		if of(&first.result) == 0 {
			return "?"
		}
		return rounded(of(&last.result) / of(&first.result))
	}
	return fmt.Sprintf("From %s to %s %s, %s times as many: CPU per tuple %s times (as a ratio to R's, %s times), tuples/s %s times.\n",
		grouped(float64(first.X)), grouped(float64(last.X)), c.Axis, rounded(float64(last.X)/float64(first.X)),
		times(func(r *result) float64 { return r.CPU }), times(func(r *result) float64 { return r.CPURatio }), times(func(r *result) float64 { return r.TuplesPerS }))
}

// rounded is a number with about three digits that count.
func rounded(x float64) string {
	switch {
	case x >= 1000:
		unit := 1.0
		for x/unit >= 1000 {
			unit *= 10
		}
		return grouped(float64(int64(x/unit+0.5)) * unit)
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	case x > 0 && x < 0.1:
		return fmt.Sprintf("%.2g", x)
	}
	return fmt.Sprintf("%.2f", x)
}

// grouped is a whole number with a comma every three digits.
func grouped(x float64) string {
	s := fmt.Sprintf("%.0f", x)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
