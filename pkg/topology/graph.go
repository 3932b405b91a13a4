package topology

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Text draws the plan as a tree: who receives from whom, in which grouping and by what, how many tasks there are, and what is saved. A node that receives
// from several stands below the first and is named again below the others.
func (p *Plan) Text() string {
	d := &drawing{plan: p, drawn: map[string]bool{}}
	d.rows = append(d.rows, [3]string{p.Topology.Name})
	d.node(&p.Nodes[0], "", "", nil)
	return d.String()
}

// drawing is a tree under construction: rows of the tree itself, what a node is, and what it receives.
type drawing struct {
	plan  *Plan
	rows  [][3]string
	drawn map[string]bool
}

// node draws n and what is below it; head stands before its name, body before those of its children.
func (d *drawing) node(n *Node, head, body string, in []Edge) {
	ways := []string{}
	for _, e := range in {
		ways = append(ways, e.Way())
	}
	received := ""
	if len(ways) > 0 {
		received = "<- " + strings.Join(ways, " and ")
	}
	if d.drawn[n.ID] {
		d.rows = append(d.rows, [3]string{head + n.ID, "(see above)", received})
		return
	}
	d.drawn[n.ID] = true
	d.rows = append(d.rows, [3]string{head + n.ID, strings.Join(d.plan.about(n), ", "), received})
	below := d.plan.below(n)
	for i, child := range below {
		h, b := "├─ ", "│  "
		if i == len(below)-1 {
			h, b = "└─ ", "   "
		}
		d.node(child, body+h, body+b, edgesTo(n, child.ID))
	}
}

// String aligns the columns.
func (d *drawing) String() string {
	var widths [2]int
	for _, r := range d.rows[1:] {
		for i := range widths {
			widths[i] = max(widths[i], utf8.RuneCountInString(r[i]))
		}
	}
	var b strings.Builder
	for _, r := range d.rows {
		line := r[0]
		for i, w := range widths {
			line += strings.Repeat(" ", max(0, w-utf8.RuneCountInString(r[i]))+2) + r[i+1]
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return b.String()
}

// below lists the nodes that receive from n, each once, in the order of the document; the output node, which most receive from, is left out.
func (p *Plan) below(n *Node) (out []*Node) {
	for i := range p.Nodes {
		if to := &p.Nodes[i]; to.Kind != KindOutput && len(edgesTo(n, to.ID)) > 0 {
			out = append(out, to)
		}
	}
	return out
}

func edgesTo(n *Node, to string) (out []Edge) {
	for _, e := range n.Out {
		if e.To == to {
			out = append(out, e)
		}
	}
	return out
}

// Way says in words how an edge divides tuples among tasks: the grouping, its keys, and the stream where that is not the default one.
func (e *Edge) Way() string {
	way := e.Grouping
	if e.Custom != "" {
		way += " " + e.Custom
	}
	if len(e.By) > 0 {
		way += " by " + strings.Join(e.By, ", ")
	}
	if e.Stream != "default" {
		way = e.Stream + ": " + way
	}
	return way
}

// short writes 1h0m0s as 1h.
func short(d string) string {
	if strings.HasSuffix(d, "m0s") {
		d = strings.TrimSuffix(d, "0s")
	}
	if strings.HasSuffix(d, "h0m") {
		d = strings.TrimSuffix(d, "0m")
	}
	return d
}

// saves names the collection that a node's tuples are stored in.
func (p *Plan) saves(n *Node) string {
	i := slices.IndexFunc(n.Out, func(e Edge) bool { return e.Save != nil })
	if i < 0 {
		return ""
	}
	return n.Out[i].Save.Collection
}

// Mermaid writes the plan as a flowchart for https://mermaid.js.org, which code forges and wikis draw.
func (p *Plan) Mermaid() string {
	var b strings.Builder
	b.WriteString("flowchart LR\n")
	names := map[string]string{} // ids such as end mean something to Mermaid
	for i := range p.Nodes {
		n := &p.Nodes[i]
		names[n.ID] = fmt.Sprintf("n%d", i)
		open, shut := "[", "]"
		label := "<b>" + n.ID + "</b><br/>" + strings.Join(p.about(n), "<br/>")
		switch n.Kind {
		case KindSpout:
			open, shut = "([", "])"
		case KindOutput:
			open, shut = "[(", ")]"
			label = "<b>" + n.ID + "</b>"
		}
		fmt.Fprintf(&b, "  %s%s\"%s\"%s\n", names[n.ID], open, label, shut)
	}
	for i := range p.Nodes {
		for _, e := range p.Nodes[i].Out {
			if e.Save != nil {
				fmt.Fprintf(&b, "  %s -.->|\"%s\"| %s\n", names[e.From], e.Save.Collection, names[e.To])
				continue
			}
			fmt.Fprintf(&b, "  %s -->|\"%s\"| %s\n", names[e.From], e.Way(), names[e.To])
		}
	}
	return b.String()
}
