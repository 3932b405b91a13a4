package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/boltmesh/boltmesh/pkg/observe"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// draw writes what is known of a tuple for people.
func (d *told) draw(w *tabwriter.Writer) {
	what := "tuple " + cmp.Or(d.Tuple, "not found")
	if d.Position != "" {
		what += ", reading " + printable(d.Position)
	}
	fmt.Fprintf(w, "%s of %s: %s\n", what, d.Topology, d.State)
	if j := d.Journey; j != nil && j.Link != "" {
		fmt.Fprintf(w, "%s\n", j.Link)
	}
	if d.Journey != nil {
		row(w)
		d.tree(w)
		_ = w.Flush() // what follows has no columns
	}
	for _, h := range d.Holders {
		task := ""
		if h.Task != tuple.Shared {
			task = fmt.Sprint(" task ", h.Task)
		}
		fmt.Fprintf(w, "held by %s%s of %s since %s\n", h.Node, task, h.Worker, stamp(h.Since.UnixMilli()))
	}
	for _, l := range d.Letters {
		fmt.Fprintf(w, "dead letter of %s since %s, executed %d times: %s (boltmesh dlq show %s %s)\n",
			l.Node, stamp(l.FailedAt), l.Tries, printable(l.Error), d.Topology, l.ID)
	}
	for _, n := range d.Notes {
		fmt.Fprintf(w, "note: %s\n", n)
	}
}

// tree writes the hops, each below the one that emitted its tuple; times count from the first.
func (d *told) tree(w *tabwriter.Writer) {
	row(w, "HOP", "AT", "TOOK", "WORKER", "TASK", "TRY", "OUTCOME", "STAGES")
	var first time.Time
	d.Journey.Each(func(h *observe.Hop) bool {
		if !h.At.IsZero() && (first.IsZero() || h.At.Before(first)) {
			first = h.At
		}
		return true
	})
	for _, h := range d.Journey.Hops {
		d.hop(w, h, first, "", "")
	}
}

// hop writes h and what is below it; head stands before its name, body before those of its children.
func (d *told) hop(w io.Writer, h *observe.Hop, first time.Time, head, body string) {
	name := h.Node
	if h.Stream != "" && h.Stream != tuple.DefaultStream {
		name += " <- " + h.From + ":" + h.Stream
	}
	if h.Tuple == d.Tuple && head != "" {
		name += " *"
	}
	at := "-"
	if !h.At.IsZero() {
		at = "+" + milliseconds(h.At.Sub(first))
		if h.At.Equal(first) {
			at = first.Format("15:04:05.000")
		}
	}
	took := "-"
	if h.Took > 0 {
		took = milliseconds(h.Took.Duration())
	}
	try := fmt.Sprint(h.Attempt)
	if h.Tries > 1 {
		try += fmt.Sprintf(" (%d executions)", h.Tries)
	}
	outcome := h.Outcome
	if h.Error != "" {
		outcome += ": " + h.Error
	}
	fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
		printable(head+name), at, took, printable(cmp.Or(h.Worker, "-")), cmp.Or(h.Task, "-"), try, printable(outcome), stages(h))
	for i, below := range h.Below {
		more, next := "├─ ", "│  "
		if i == len(h.Below)-1 {
			more, next = "└─ ", "   "
		}
		d.hop(w, below, first, body+more, body+next)
	}
}

func stages(h *observe.Hop) string {
	var out []string
	for _, s := range h.Stages {
		out = append(out, s.Name+" "+milliseconds(s.Took.Duration()))
	}
	return printable(strings.Join(out, ", "))
}

// milliseconds writes a duration with as many digits as mean something.
func milliseconds(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d >= 100*time.Millisecond:
		return fmt.Sprintf("%dms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1fms", float64(d.Microseconds())/1000)
}
