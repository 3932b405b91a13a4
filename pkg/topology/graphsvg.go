package topology

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Sizes of the picture, in pixels.
const (
	svgMargin = 24
	svgLine   = 17  // height of a line of text
	svgGap    = 20  // between two boxes of a column
	svgHop    = 150 // least distance between two columns: an edge's label stands there
	svgGlyph  = 7   // width of a letter, about
	svgTitle  = 40
)

// fills of boxes, by kind.
var svgFills = map[string]string{KindSpout: "#dbeafe", KindConvert: "#ecfccb", KindStat: "#fef3c7", KindAlarm: "#fee2e2", KindCustom: "#ede9fe"}

// box is a node in the picture.
type box struct {
	*Node
	lines      []string
	x, y, w, h int
	in         int // edges drawn into it
}

// SVG draws the plan as a picture that needs nothing else: columns by distance from the spout, edges with their groupings, and in each box what the node is
// and what it saves.
func (p *Plan) SVG() string {
	boxes, width, height := p.lay()
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" font-family="system-ui, sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", width, height)
	b.WriteString(`<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#64748b"/></marker></defs>` + "\n")
	fmt.Fprintf(&b, `<text x="%d" y="%d" font-size="17" font-weight="600" fill="#0f172a">%s</text>`+"\n", svgMargin, svgMargin+8, escape(p.Topology.Name))
	for i := range p.Nodes {
		for _, e := range p.Nodes[i].Out {
			if e.Save == nil {
				edge(&b, boxes[e.From], boxes[e.To], &e)
			}
		}
	}
	for i := range p.Nodes {
		if x := boxes[p.Nodes[i].ID]; x != nil {
			x.draw(&b)
		}
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// lay places the boxes. A column's boxes are in the order of the middles of those that they receive from, so that few edges cross.
func (p *Plan) lay() (boxes map[string]*box, width, height int) {
	boxes = map[string]*box{}
	var columns [][]*box
	for i := range p.Nodes {
		n := &p.Nodes[i]
		if n.Kind == KindOutput {
			continue
		}
		x := &box{Node: n, lines: append([]string{n.ID}, p.about(n)...)}
		for _, l := range x.lines {
			x.w = max(x.w, svgGlyph*utf8.RuneCountInString(l)+24)
		}
		x.h = svgLine*len(x.lines) + 14
		for len(columns) <= n.Level {
			columns = append(columns, nil)
		}
		columns[n.Level] = append(columns[n.Level], x)
		boxes[n.ID] = x
	}
	for _, column := range columns {
		tall := -svgGap
		for _, x := range column {
			tall += x.h + svgGap
		}
		height = max(height, tall)
	}
	left := svgMargin
	for _, column := range columns {
		slices.SortStableFunc(column, func(a, b *box) int { return cmp.Compare(a.pull(boxes), b.pull(boxes)) })
		tall, wide, label := -svgGap, 0, 0
		for _, x := range column {
			tall, wide = tall+x.h+svgGap, max(wide, x.w)
			for _, e := range x.Out {
				label = max(label, svgGlyph*utf8.RuneCountInString(e.Way()))
			}
		}
		top := svgTitle + svgMargin + (height-tall)/2
		for _, x := range column {
			x.x, x.y, x.w = left, top, wide
			top += x.h + svgGap
		}
		left += wide + max(svgHop, label+60)
	}
	last := columns[len(columns)-1]
	return boxes, last[0].x + last[0].w + svgMargin, height + svgTitle + 2*svgMargin
}

// pull is the height at which the nodes that a box receives from stand, in the mean.
func (x *box) pull(boxes map[string]*box) int {
	sum, n := 0, 0
	for _, e := range x.In {
		if from := boxes[e.From]; from != nil {
			sum, n = sum+from.y+from.h/2, n+1
		}
	}
	return sum / max(n, 1)
}

func (x *box) draw(b *strings.Builder) {
	fill := cmp.Or(svgFills[x.Kind], "#f1f5f9")
	fmt.Fprintf(b, `<rect x="%d" y="%d" width="%d" height="%d" rx="7" fill="%s" stroke="#475569"/>`+"\n", x.x, x.y, x.w, x.h, fill)
	for i, l := range x.lines {
		weight, ink := "400", "#475569"
		if i == 0 {
			weight, ink = "600", "#0f172a"
		}
		fmt.Fprintf(b, `<text x="%d" y="%d" font-weight="%s" fill="%s">%s</text>`+"\n", x.x+12, x.y+svgLine*(i+1)+3, weight, ink, escape(l))
	}
}

// edge draws an edge with its label before its end; edges into one box end below each other.
func edge(b *strings.Builder, from, to *box, e *Edge) {
	to.in++
	n := len(to.In)
	x1, y1, x2, y2 := from.x+from.w, from.y+from.h/2, to.x, to.y+to.h*to.in/(n+1)
	bend := min((x2-x1)/2, svgHop/2)
	dash := ""
	if e.Stream != "default" {
		dash = ` stroke-dasharray="5 3"`
	}
	fmt.Fprintf(b, `<path d="M%d %dC%d %d %d %d %d %d" fill="none" stroke="#64748b"%s marker-end="url(#tip)"/>`+"\n", x1, y1, x1+bend, y1, x2-bend, y2, x2, y2, dash)
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end" font-size="11" fill="#334155" stroke="#ffffff" stroke-width="3" paint-order="stroke">%s</text>`+"\n",
		x2-12, y2-4, escape(e.Way()))
}

var xmlText = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;")

func escape(s string) string { return xmlText.Replace(s) }
