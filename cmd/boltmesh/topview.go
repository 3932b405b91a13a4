package main

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// topView draws rates as lines of text.
type topView struct {
	width  int // of the terminal; 0: as wide as need be
	colour bool
}

// Ways to write a text: what a terminal is told before it.
const (
	plain   = ""
	bold    = "\x1b[1m"
	faint   = "\x1b[2m"
	red     = "\x1b[31m"
	yellow  = "\x1b[33m"
	inverse = "\x1b[7m"
	reset   = "\x1b[0m"
)

// Widths of the columns, but for the first, which gets as much as is left in 80.
var topColumns = []struct {
	title string
	width int
}{{"WORKERS", 7}, {"TASKS", 5}, {"IN/S", 6}, {"OUT/S", 6}, {"LATENCY", 7}, {"QUEUED", 6}, {"BUSY", 5}, {"CAP/S", 6}, {"FAILED", 6}}

// Widths of the first column, and of the one behind the others.
const (
	nodeLeast   = 17
	nodeMost    = 40
	hottestWide = 16
	topWidth    = nodeLeast + 7 + 5 + 6 + 6 + 7 + 6 + 5 + 6 + 6 + 9
)

// troubleShown is for how long an error is shown.
const troubleShown = time.Minute

// lines draws everything.
func (v topView) lines(all []control.Rates, now time.Time) (out []string) {
	if len(all) == 0 {
		return []string{v.paint("no topology is applied", bold)}
	}
	for i := range all {
		if i > 0 {
			out = append(out, "")
		}
		out = append(out, v.topology(&all[i], now)...)
	}
	return out
}

func (v topView) topology(r *control.Rates, now time.Time) (out []string) {
	out = append(out, v.clip(fmt.Sprintf("%s  %s  revision %d  %s", r.Topology, r.State, r.Revision, plural(r.Workers, "worker")), bold))
	if r.State == "unreadable" {
		return append(out, "it was applied by another version")
	}
	lag := fmt.Sprint("lag ", count(float64(r.Lag)))
	if r.Processed > 0 && r.Lag > 0 {
		lag += fmt.Sprintf(" (%s)", short(float64(r.Lag)/r.Processed*1000))
	}
	line := []string{"came " + rate(r.Records) + "/s", "processed " + rate(r.Processed) + "/s", lag, "latency " + latency(r.Latency)}
	if r.Oldest > 0 {
		line = append(line, "oldest "+short(float64(now.UnixMilli()-r.Oldest)))
	}
	out = append(out, v.clip(strings.Join(line, "  "), plain))
	floor := fmt.Sprintf("floor %s of %s in %s", count(float64(r.Floor)), count(float64(r.End)), plural(r.Sources, "partition"))
	if r.Watermark > 0 {
		floor += "  watermark " + stamp(r.Watermark)
	}
	out = append(out, v.clip(floor, plain), "")
	out = append(out, v.table(r)...)
	for _, t := range r.Troubles {
		if age := now.Sub(time.UnixMilli(t.At)); age < troubleShown {
			out = append(out, v.clip(fmt.Sprintf("%s on %s, %s ago: %s", t.Node, t.Worker, short(float64(age.Milliseconds())), printable(t.Error)), red))
		}
	}
	return out
}

func (v topView) table(r *control.Rates) (out []string) {
	first := nodeLeast
	room := max(v.width-topWidth, 0)
	if v.width == 0 {
		room = nodeMost + hottestWide
	}
	for i := range r.Nodes {
		first = max(first, min(utf8.RuneCountInString(r.Nodes[i].Node), nodeMost, nodeLeast+room))
	}
	hottest := room-(first-nodeLeast) >= hottestWide
	cells := []string{}
	for _, c := range topColumns {
		cells = append(cells, c.title)
	}
	last := ""
	if hottest {
		last = "HOTTEST TASK"
	}
	out = append(out, v.row(first, "NODE", cells, last, inverse, nil))
	for i := range r.Nodes {
		n := &r.Nodes[i]
		last = ""
		busy := n.Busy
		if h := n.Hottest; h != nil {
			if busy = max(busy, h.Busy); hottest { // a task that cannot keep up stops the others too, in the end
				last = fmt.Sprintf("%d: %s busy", h.Task, share(h.Busy))
			}
		}
		out = append(out, v.row(first, n.Node, nodeCells(n), last, plain, map[int]string{0: shade(n.Workers == 0, red), 6: shadeOf(busy), 8: shade(n.Failed > 0, red)}))
	}
	return out
}

func nodeCells(n *control.NodeRates) []string {
	tasks, queued, busy, capacity := "any", count(float64(n.Queued)), "-", "-"
	switch {
	case n.Kind == topology.KindSpout:
		queued = "-"
	case n.In > 0:
		busy = share(n.Busy)
	}
	if n.Tasks > 0 || n.Kind == topology.KindSpout {
		tasks = fmt.Sprint(n.Tasks)
	}
	if n.Capacity > 0 {
		capacity = rate(n.Capacity)
	}
	return []string{fmt.Sprint(n.Workers), tasks, rate(n.In), rate(n.Out), latency(n.Latency), queued, busy, capacity, count(float64(n.Failed))}
}

// row writes one row of the table; how its cells are painted is said by their number.
func (v topView) row(first int, name string, cells []string, last, all string, paint map[int]string) string {
	if n := utf8.RuneCountInString(name); n > first {
		name = string([]rune(name)[:first-1]) + "…"
	}
	text := name + strings.Repeat(" ", first-utf8.RuneCountInString(name))
	for i, c := range cells {
		c = strings.Repeat(" ", max(0, topColumns[i].width-utf8.RuneCountInString(c))) + c
		text += " " + v.paint(c, paint[i])
	}
	if last != "" {
		text += "  " + last
	}
	return v.paint(text, all)
}

// clip shortens a line to what fits and paints it.
func (v topView) clip(text, how string) string {
	if v.width > 0 && utf8.RuneCountInString(text) > v.width {
		text = string([]rune(text)[:v.width-1]) + "…"
	}
	return v.paint(text, how)
}

func (v topView) paint(text, how string) string {
	if !v.colour || how == plain {
		return text
	}
	return how + text + reset
}

func shade(bad bool, how string) string {
	if bad {
		return how
	}
	return plain
}

// shadeOf paints how busy a node is: from 70 % on queues grow, at 100 % they grow for ever.
func shadeOf(busy float64) string {
	switch {
	case busy >= 0.95:
		return red
	case busy >= 0.7:
		return yellow
	}
	return plain
}

// rate writes a number a second with as many digits as mean something.
func rate(f float64) string {
	switch {
	case f == 0:
		return "0"
	case f < 10:
		return fmt.Sprintf("%.1f", f)
	}
	return count(f)
}

// count writes a number in at most six letters.
func count(f float64) string {
	switch {
	case f < 99_999.5:
		return fmt.Sprintf("%.0f", f)
	case f < 999_500:
		return fmt.Sprintf("%.0fk", f/1e3)
	case f < 99_950_000:
		return fmt.Sprintf("%.1fM", f/1e6)
	case f < 999_500_000:
		return fmt.Sprintf("%.0fM", f/1e6)
	}
	return fmt.Sprintf("%.1fG", f/1e9)
}

func share(f float64) string { return fmt.Sprintf("%.0f%%", 100*f) }

// latency writes milliseconds; nothing came where there are none.
func latency(ms float64) string {
	if ms <= 0 {
		return "-"
	}
	return short(ms)
}

// short writes milliseconds in at most six letters.
func short(ms float64) string {
	switch {
	case ms < 0:
		return "0ms"
	case ms < 9.95:
		return fmt.Sprintf("%.1fms", ms)
	case ms < 999.5:
		return fmt.Sprintf("%.0fms", ms)
	case ms < 99_950:
		return fmt.Sprintf("%.1fs", ms/1000)
	case ms < 99.5*60_000:
		return fmt.Sprintf("%.0fm", ms/60_000)
	case ms < 99.5*3_600_000:
		return fmt.Sprintf("%.0fh", ms/3_600_000)
	}
	return fmt.Sprintf("%.0fd", ms/86_400_000)
}
