package topology

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// checker judges the graph as a whole.
type checker struct {
	*reader
	t     *Topology
	bolts map[string]*parsed
	plan  *graph
	in    map[string]FieldSet

	derived map[string]derived
}

func (r *reader) check(t *Topology, spout object, bolts []*parsed) {
	c := &checker{reader: r, t: t, bolts: map[string]*parsed{}, in: map[string]FieldSet{}, derived: map[string]derived{}}
	c.ids(spout, bolts)
	for _, b := range bolts {
		if c.edges(b) {
			t.Bolts = append(t.Bolts, b.Bolt)
		}
	}
	c.plan = newGraph(t)
	order, cycles := c.plan.order()
	for _, b := range bolts {
		if c.bolts[b.ID] == b {
			c.in[b.ID] = FieldSet{Open: true} // until it is known
		}
	}
	for _, cycle := range cycles {
		c.cycle(cycle)
	}
	if t.Spout.ID != "" {
		c.reachable(bolts)
	}
	for _, id := range order {
		if b := c.bolts[id]; b != nil && b.Kind != "" {
			c.node(b)
		}
	}
	for _, b := range bolts {
		if !slices.Contains(order, b.ID) && b.Kind != "" { // its fields are unknown, its code can still be checked
			c.code(b, FieldSet{Open: true})
			c.scriptOf(b)
		}
	}
	c.collections(bolts)
	c.callable(spout, bolts)
	t.Bolts = nil
}

func (c *checker) ids(spout object, bolts []*parsed) {
	seen := map[string]Place{}
	if id := c.t.Spout.ID; id != "" {
		seen[id] = spout.place("id")
		if id == OutputNode {
			c.fail(spout.place("id"), "choose another", "%q is the name of the implied node that stores documents", id)
		}
	}
	for _, b := range bolts {
		first, taken := seen[b.ID]
		switch {
		case b.ID == "":
			continue
		case taken:
			c.fail(b.o.place("id"), "rename one", "the id %q is already taken at line %d", b.ID, first.Line)
			continue
		case b.ID == OutputNode:
			c.fail(b.o.place("id"), "choose another", "%q is the name of the implied node that stores documents", b.ID)
		}
		seen[b.ID] = b.o.place("id")
		c.bolts[b.ID] = b
	}
}

// edges checks where a bolt receives from. It reports whether the bolt is fit for the graph.
func (c *checker) edges(b *parsed) bool {
	fit := b.ID != "" && c.bolts[b.ID] == b
	kept := b.From[:0:0]
	places := b.from[:0:0]
	for i, f := range b.From {
		at := b.from[i]
		target := c.bolts[f.Node]
		switch {
		case f.Node == c.t.Spout.ID:
			if !c.spoutStream(f, at) {
				continue
			}
		case target == nil:
			if c.t.Spout.ID != "" { // else it may be the spout's
				c.fail(at.node, c.nodeHint(f.Node), "unknown node %q", clip(f.Node))
			}
			continue
		case !oneOf(f.Stream, target.streamNames()) && f.Stream != "" && target.Kind != "":
			hint := suggest(f.Stream, target.streamNames())
			if hint == "" {
				hint = fmt.Sprintf("%s has %s; others are declared with streams: {%s: []}", target.ID, orList(target.streamNames()), clip(f.Stream))
			}
			c.fail(at.stream, hint, "unknown stream %q of the node %q", clip(f.Stream), f.Node)
			continue
		}
		twin := slices.ContainsFunc(kept, func(k From) bool { return k.Node == f.Node && nameOf(k.Stream) == nameOf(f.Stream) })
		if twin {
			c.fail(at.at, "remove one", "%q receives from %q twice, so that every tuple would count twice", b.ID, f.Node)
			continue
		}
		kept, places = append(kept, f), append(places, at)
	}
	b.From, b.from = kept, places
	return fit
}

func nameOf(stream string) string {
	if stream == "" {
		return "default"
	}
	return stream
}

func (c *checker) nodeHint(name string) string {
	known := make([]string, 0, len(c.bolts)+1)
	if c.t.Spout.ID != "" {
		known = append(known, c.t.Spout.ID)
	}
	for id := range c.bolts {
		known = append(known, id)
	}
	slices.Sort(known)
	if node, stream, ok := strings.Cut(name, "."); ok && oneOf(node, known) {
		return fmt.Sprintf("write {node: %s, stream: %s}", node, clip(stream))
	}
	if hint := suggest(name, known); hint != "" {
		return hint
	}
	if len(known) > 12 {
		known = append(known[:12], "...")
	}
	return "known nodes: " + strings.Join(known, ", ")
}

func (c *checker) cycle(ids []string) {
	b := c.bolts[ids[0]]
	at := b.o.place("from")
	for i, f := range b.From {
		if f.Node == ids[len(ids)-1] {
			at = b.from[i].node
		}
	}
	c.fail(at, "a topology has no cycles: remove one of these edges", "cycle: %s", strings.Join(append(ids, ids[0]), " -> "))
}

// reachable reports bolts that nothing from the spout ever reaches, unless it is for an edge that has been reported.
func (c *checker) reachable(bolts []*parsed) {
	reached := map[string]bool{}
	todo := []string{c.t.Spout.ID}
	for _, b := range bolts {
		if b.ID != "" && len(b.From) == 0 {
			todo = append(todo, b.ID)
		}
	}
	for ; len(todo) > 0; todo = todo[1:] {
		if !reached[todo[0]] {
			reached[todo[0]] = true
			todo = append(todo, c.plan.below[todo[0]]...)
		}
	}
	for _, b := range bolts {
		if c.bolts[b.ID] == b && !reached[b.ID] {
			c.fail(b.o.place("from"), "receive from the spout or from a node that does", "the node %q is unreachable: nothing from the spout arrives there", b.ID)
		}
	}
}

// node checks one bolt after all that it receives from.
func (c *checker) node(b *parsed) {
	in := FieldSet{}
	var sets []FieldSet
	for i, f := range b.From {
		set := c.fieldsOf(f)
		sets = append(sets, set)
		if i == 0 {
			in = set.clone()
		} else {
			in = in.join(set)
		}
	}
	if len(b.From) == 0 {
		in.Open = true
	}
	c.in[b.ID] = c.code(b, in)
	c.scriptOf(b)
	c.derive(b)
	c.twofold(b)
	for i, g := range b.Group {
		if !b.scripted() {
			c.key(g, "group", b.groupAt[i], in)
		}
	}
	c.groupings(b, sets)
	c.notified(b)
	c.storedFields(b)
	if !b.hasReader(c.plan) && b.Save == nil && b.Notify == nil && b.Kind != KindCustom && !c.t.Answers(&b.Bolt) {
		c.warn(b.o.place("id"), "write save: <collection>, or let a node receive from it", "what %q emits goes nowhere", b.ID)
	}
}

func (b *parsed) hasReader(g *graph) bool { return len(g.below[b.ID]) > 0 }

// fieldsOf returns what comes over an edge.
func (c *checker) fieldsOf(f From) FieldSet {
	if f.Node == c.t.Spout.ID && f.Stream == CallStream {
		return FieldSet{Open: true}
	}
	if f.Node == c.t.Spout.ID {
		s := &c.t.Spout
		out := FieldSet{Types: s.Fields, Open: true}
		if s.Decode == "csv" {
			out = anyOf(s.Columns)
			for name, t := range s.Fields {
				out.Types[name] = t
			}
			out.Open = len(s.Columns) == 0
		}
		if s.Decode == "raw" {
			out = FieldSet{Types: map[string]string{"raw": TypeString, "raw_base64": TypeString}}
		}
		return out
	}
	b := c.bolts[f.Node]
	out, _ := b.output(f.Stream, c.in[f.Node])
	return out
}

// key checks a field that tuples are divided by.
func (c *checker) key(field, what string, at Place, in FieldSet) {
	switch {
	case oneOf(field, ambient) || field == "none" || strings.HasPrefix(field, "archive."):
		return
	case !in.has(field):
	case in.Open && len(in.Types) > 0 && !(FieldSet{Types: in.Types}).has(field):
		if c.t.Spout.Fields == nil {
			return
		}
	default:
		return
	}
	hint := suggest(field, append(in.names(), "device", "none"))
	if hint == "" {
		hint = "known fields: " + strings.Join(slices.Compact(slices.Sorted(slices.Values(append(in.names(), "device")))), ", ")
		if in.Open {
			hint += "; declare it under spout.fields, or with streams where it arises"
		}
	}
	c.fail(at, hint, "unknown field %q in %s", clip(field), what)
}

// maxTTL is the longest that MongoDB takes: its seconds are a 32-bit number.
const maxTTL = math.MaxInt32 * time.Second

// collections refuses a ttl that is too long, and two nodes that want different things of one collection.
func (c *checker) collections(bolts []*parsed) {
	first := map[string]*Save{}
	for _, b := range bolts {
		if b.Save == nil || b.Save.TTL == 0 {
			continue
		}
		if b.Save.TTL > maxTTL {
			c.fail(b.Save.At, "write at most 24855d, or no ttl", "the ttl of the collection %q is longer than MongoDB keeps account of", b.Save.Collection)
		}
		s, ok := first[b.Save.Collection]
		if ok && s.TTL != b.Save.TTL {
			c.fail(b.Save.At, "write the same ttl", "the collection %q has another ttl at line %d", s.Collection, s.At.Line)
		}
		if !ok {
			first[b.Save.Collection] = b.Save
		}
	}
}
