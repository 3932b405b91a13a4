package topology

import (
	"fmt"
	"slices"
	"strings"
)

// about says in a few words each what a node is.
func (p *Plan) about(n *Node) []string {
	if n.Kind == KindSpout {
		return []string{p.Topology.Spout.about()}
	}
	what := n.Kind
	if n.Kind == KindCustom {
		what = "custom " + n.Service
	}
	out := []string{what}
	switch {
	case n.Shared:
		out = append(out, "workers compete")
	case n.Tasks == 1:
		out = append(out, "1 task")
	default:
		out = append(out, fmt.Sprintf("%d tasks", n.Tasks))
	}
	if n.Every > 0 {
		out = append(out, "ticks every "+short(n.Every.String()))
	}
	if b := n.Bolt; b != nil {
		out = append(out, p.part(b)...)
	}
	if saves := p.saves(n); saves != "" {
		out = append(out, "saves "+saves)
	}
	return out
}

// about says what a spout emits.
func (s *Spout) about() string {
	switch {
	case !s.Reads():
		return "spout of calls"
	case s.Calls:
		return "spout of " + strings.Join(s.Kafka.Topics, ", ") + " and calls"
	}
	return "spout of " + strings.Join(s.Kafka.Topics, ", ")
}

// part says which part a bolt has in what several nodes do together: a statistic in two stages, calls, profiles of devices.
func (p *Plan) part(b *Bolt) (out []string) {
	switch b.Stage {
	case StageFirst:
		out = append(out, "first stage: finds "+b.groupText())
	case StageSecond:
		i := slices.IndexFunc(p.Topology.Bolts, func(d Bolt) bool { return d.ID == b.ID })
		out = append(out, "second stage: by "+p.Topology.Bolts[i].groupText())
	}
	if b.looksUp() {
		out = append(out, "archive "+p.Topology.Archive.Name)
	}
	if p.Topology.Answers(b) {
		out = append(out, "answers calls")
	}
	return out
}

// groupText names what the bolt's group is made of.
func (b *Bolt) groupText() string {
	if b.scripted() {
		return "its script's group"
	}
	return strings.Join(b.Group, ", ")
}

// looksUp reports whether the bolt mentions profiles of devices: in its group, its script or its expressions, the first stage for the second.
func (b *Bolt) looksUp() bool {
	if b.Stage == StageSecond {
		return false
	}
	if b.Script != nil && b.Script.UsesArchive() || UsesArchive(b.Group) {
		return true
	}
	expressions := []*Expr{b.Where, b.When, b.Clear}
	for i := range b.Set {
		expressions = append(expressions, &b.Set[i].Expr)
	}
	for _, a := range b.Aggregates {
		expressions = append(expressions, a.Arg)
	}
	return slices.ContainsFunc(expressions, func(e *Expr) bool { return e != nil && archiveInScript.MatchString(e.Source) })
}
