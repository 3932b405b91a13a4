package topology

import (
	"slices"
	"strings"
)

// Stage says which half of a statistic in two stages a planned bolt is. A statistic whose groups are no pure function of its tuples (an archive's field, a
// script's answer) is planned as two nodes: the first is divided by device, finds out the group of each reading, once, and gathers what can be
// merged; the second is divided by group. So a reading counts in one group however often it is replayed (PROTOCOL C18).
type Stage uint8

// A bolt that is planned as it was declared has the zero Stage.
const (
	StageFirst  Stage = 1 + iota // takes the readings; its Group is the declared one
	StageSecond                  // takes what the first emits, whose field "group" is the group
)

// GroupScript is the group of a statistic whose script has a function group(t).
const GroupScript = "script"

// partSuffix makes the id of a first stage.
const partSuffix = "-part"

// maxSketches bounds the aggregates with a sketch in two stages: what a first stage knows of a group has to fit one tuple.
const maxSketches = 12

// staged says whether the bolt is planned as two nodes, or is the first of them.
func (b *Bolt) staged() bool {
	if b.Kind != KindStat || b.Stage == StageSecond {
		return false
	}
	return b.scripted() || slices.ContainsFunc(b.Group, func(g string) bool { return strings.HasPrefix(g, "archive.") })
}

// scripted says whether a statistic's script names the group.
func (b *Bolt) scripted() bool {
	return b.Script != nil && slices.Equal(b.Group, []string{GroupScript})
}

// Forwards says whether a first stage sends every reading on, with its group, because what the statistic keeps cannot be merged: a script's state, an
// ewma, the readings of a count window. Otherwise it sends aggregates.
func (b *Bolt) Forwards() bool {
	return len(b.Aggregates) == 0 || b.Window.Kind == WindowCount || slices.ContainsFunc(b.Aggregates, func(a Aggregate) bool { return a.Func == "ewma" })
}

// Global says whether the statistic is kept for more than single devices: then what goes by processing time is output for silent groups too.
func (b *Bolt) Global() bool {
	return b.Kind == KindStat && len(b.Group) > 0 && !slices.Equal(b.Group, []string{"device"})
}

// part is the id of a statistic's first stage.
func (b *Bolt) part() string { return b.ID + partSuffix }

// stages returns the topology with every statistic in two stages as two bolts. What reads the late stream of such a one reads it where it arises.
func (t *Topology) stages() *Topology {
	if !slices.ContainsFunc(t.Bolts, func(b Bolt) bool { return b.staged() }) {
		return t
	}
	out := *t
	out.Bolts = nil
	late := map[string]string{} // of statistics whose first stage finds out what is late
	for _, b := range t.Bolts {
		if !b.staged() {
			out.Bolts = append(out.Bolts, b)
			continue
		}
		first, second := b, b
		first.ID, first.Stage, first.Save, first.Tasks = b.part(), StageFirst, nil, tasksOf(b.Tasks)
		second.Stage, second.Group, second.From, second.Where = StageSecond, []string{"group"}, []From{{Node: first.ID}}, nil
		if b.hasLate() && !b.Forwards() {
			late[b.ID] = b.lateStream()
		}
		out.Bolts = append(out.Bolts, first, second)
	}
	for i := range out.Bolts {
		b := &out.Bolts[i]
		b.From = slices.Clone(b.From)
		for k := range b.From {
			if f := &b.From[k]; late[f.Node] != "" && f.Stream == late[f.Node] {
				f.Node += partSuffix
			}
		}
	}
	return &out
}

// twofold checks what only a statistic in two stages must not have.
func (c *checker) twofold(b *parsed) {
	if !b.staged() {
		return
	}
	at := b.o.place("id")
	if b.Window.Corrections > 0 {
		c.fail(at, "group by device or by a field of the reading, or remove corrections", "the windows of a statistic grouped by %s cannot be corrected: its first stage forgets what it has told", strings.Join(b.Group, ", "))
	}
	switch part := b.part(); {
	case c.bolts[part] != nil || c.t.Spout.ID == part:
		c.fail(at, "rename one", "%q is what the first stage of %q is called, which groups by %s", part, b.ID, strings.Join(b.Group, ", "))
	case !isID(part):
		c.fail(at, "choose a shorter id", "the first stage of %q would be called %s, which is too long", b.ID, part)
	}
	sketches := 0
	for _, a := range b.Aggregates {
		switch a.Func {
		case "distinct", "quantile", "topk":
			if sketches++; sketches == maxSketches+1 {
				c.fail(a.At, "divide them between two bolts", "a statistic grouped by %s has at most %d of distinct, quantile and topk", strings.Join(b.Group, ", "), maxSketches)
			}
		}
	}
}
