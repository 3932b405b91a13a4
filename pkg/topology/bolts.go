package topology

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// parsed is a bolt with the places and the code that the checks need.
type parsed struct {
	Bolt
	o       object
	from    []parsedFrom
	groupAt []Place
	code    []code
	source  *node // of the script
}

type parsedFrom struct {
	at, node, stream, grouping Place
	by                         []Place
}

// code is one expression to be checked, in the order of evaluation.
type code struct {
	scalar *node
	offset int // of the expression in the scalar's text
	source string
	want   string
	sets   string // the field that takes the value

	mentions []string // the fields it refers to, once it is checked
}

func (r *reader) bolts(top object) []*parsed {
	n := top.node("bolts")
	if n == nil {
		return nil
	}
	if n.kind != sequence {
		r.fail(n.at, "write one entry per bolt, each beginning with a dash", "bolts must be a list, not %s", n.describe())
		return nil
	}
	if len(n.items) > MaxBolts {
		r.fail(n.items[MaxBolts].at, "divide it into several", "the topology has %d bolts, at most %d are allowed", len(n.items), MaxBolts)
		n.items = n.items[:MaxBolts]
	}
	if len(n.items) == 0 {
		r.fail(n.at, "write at least one bolt", "bolts is empty")
	}
	var out []*parsed
	for _, item := range n.items {
		if b := r.bolt(item); b != nil {
			out = append(out, b)
		}
	}
	return out
}

// kindOf finds out what a bolt is before its keys are judged.
func (r *reader) kindOf(n *node) (kind string, ok bool) {
	k := n.value("kind")
	if k == nil || k.null {
		return "", false
	}
	kind, ok = r.text(k, "kind")
	switch {
	case !ok:
	case kind == KindSpout:
		r.fail(k.at, "other sources need a topology of their own", "a second spout: a topology has exactly one, under spout:")
		ok = false
	case kind == KindOutput:
		r.fail(k.at, "write save: <collection> on the node whose tuples it is to store", "the output node is implied")
		ok = false
	case !oneOf(kind, kinds):
		hint := suggest(kind, kinds)
		if hint == "" {
			hint = "write " + orList(kinds) + "; a bolt of your own is kind: custom with service: <name>"
		}
		r.fail(k.at, hint, "%q is no kind of bolt", clip(kind))
		ok = false
	}
	return kind, ok
}

func (r *reader) bolt(n *node) *parsed {
	if n.kind != mapping {
		r.fail(n.at, "write id:, kind: and from:", "a bolt must be a mapping of keys to values, not %s", n.describe())
		return nil
	}
	kind, known := r.kindOf(n)
	keys, what := keysOf(kind), "a bolt of kind "+kind
	if !known {
		kind, what, keys = "", "a bolt", shapes["bolt"]
		for _, k := range kinds { // without a kind every kind's keys are let pass
			for _, more := range shapes[k] {
				if !oneOf(more.name, namesOf(keys)) {
					keys = append(slices.Clip(keys), key{name: more.name})
				}
			}
		}
	}
	b := &parsed{o: r.object(n, what, keys, belongs(kind))}
	b.ID, b.Kind = b.o.id("id"), kind
	b.Tasks = b.o.whole("tasks", 0, 1, MaxTasks)
	b.Retry = r.retry(b.o)
	b.Build = b.o.text("build", "")
	b.Streams = r.streams(b.o)
	b.Save = r.save(b.o)
	b.Notify = r.notify(b.o, kind)
	r.readFrom(b)
	if known {
		r.parts(b)
	}
	return b
}

// belongs says of a key that is unknown for a kind which kind knows it.
func belongs(kind string) func(string) string {
	return func(name string) string {
		var of []string
		for _, k := range kinds {
			if k != kind && oneOf(name, namesOf(shapes[k])) {
				of = append(of, k)
			}
		}
		if len(of) == 0 {
			return ""
		}
		return fmt.Sprintf("%s belongs to kind %s", name, orList(of))
	}
}

func (r *reader) streams(o object) map[string][]string {
	n := o.node("streams")
	if n == nil {
		return nil
	}
	if n.kind != mapping {
		r.fail(n.at, "write {late: [a, b]}", "streams must be a mapping of names to lists of fields, not %s", n.describe())
		return nil
	}
	out := map[string][]string{}
	inner := object{reader: r, at: n.at, vals: map[string]*node{}, keys: map[string]Place{}}
	for _, p := range n.pairs {
		if !isStream(p.key) {
			r.fail(p.at, "write a lower-case letter, then letters, digits, - and _", "%q cannot be the name of a stream", clip(p.key))
			continue
		}
		if _, ok := out[p.key]; ok {
			r.fail(p.at, "remove one", "the stream %q is declared twice", p.key)
		}
		inner.vals["fields"] = p.value
		out[p.key] = []string{}
		fields, places := inner.texts("fields")
		for i, f := range fields {
			if !isField(f) {
				r.fail(places[i], fieldHint, "%q cannot be a field", clip(f))
				continue
			}
			out[p.key] = append(out[p.key], f)
		}
	}
	return out
}

func (r *reader) save(bolt object) *Save {
	n := bolt.node("save")
	if n == nil {
		return nil
	}
	s := &Save{At: n.at}
	at := n.at
	if n.kind == scalar {
		s.Collection = bolt.text("save", "")
	} else {
		o := r.object(n, "save", shapes["save"], nil)
		s.Collection, at = o.text("collection", ""), o.place("collection")
		s.TTL = o.duration("ttl", 0, time.Second)
		s.Fields = r.storedFields(o)
		s.Indexes = r.indexes(o)
	}
	if s.Collection != "" && !isCollection(s.Collection) {
		r.fail(at, "write a letter, then letters, digits, - and _, at most 63 in all", "%q cannot be the name of a collection", clip(s.Collection))
	}
	return s
}

func (r *reader) indexes(o object) (out [][]string) {
	n := o.node("indexes")
	if n == nil {
		return nil
	}
	if n.kind != sequence {
		r.fail(n.at, "write [[device, -time]]", "indexes must be a list of lists of fields, not %s", n.describe())
		return nil
	}
	for _, item := range n.items {
		index := object{reader: r, at: item.at, vals: map[string]*node{"indexes": item}}
		fields, places := index.texts("indexes")
		for i, f := range fields {
			if !isField(strings.TrimPrefix(f, "-")) {
				r.fail(places[i], fieldHint, "%q cannot be a field", clip(f))
			}
		}
		if len(fields) == 0 {
			r.fail(item.at, "write [device, -time]", "an index without fields")
			continue
		}
		out = append(out, fields)
	}
	return out
}

func (r *reader) readFrom(b *parsed) {
	n := b.o.node("from")
	if n == nil {
		return
	}
	items := n.items
	if n.kind != sequence {
		items = []*node{n}
	}
	if len(items) == 0 {
		r.fail(n.at, "name a node", "the bolt %q is unreachable: from is empty", b.ID)
	}
	for _, item := range items {
		f, p := From{}, parsedFrom{at: item.at, node: item.at, stream: item.at, grouping: item.at}
		if item.kind == scalar {
			s, ok := r.text(item, "from")
			if !ok || s == "" {
				if item.null || ok {
					r.fail(item.at, "name a node", "from has an empty entry")
				}
				continue
			}
			f.Node = s
		} else {
			o := r.object(item, "from", shapes["from"], nil)
			if o.bad {
				continue
			}
			f.Node, f.Stream = o.text("node", ""), o.text("stream", "")
			f.Grouping, f.Custom = r.grouping(o)
			f.By, p.by = o.texts("by")
			p.node, p.stream, p.grouping = o.place("node"), o.place("stream"), o.place("grouping")
			r.checkBy(o, &f, p)
		}
		if f.Node != "" {
			b.From, b.from = append(b.From, f), append(b.from, p)
		}
	}
}

// grouping reads one of the groupings, or {custom: name}.
func (r *reader) grouping(o object) (grouping, custom string) {
	n := o.node("grouping")
	if n == nil || n.kind == scalar {
		return o.choice("grouping", "", groupings), ""
	}
	return Custom, r.object(n, "grouping", shapes["grouping"], nil).id("custom")
}

// checkBy judges grouping and by as such, whatever the receiving node.
func (r *reader) checkBy(o object, f *From, p parsedFrom) {
	for i, field := range f.By {
		if !isField(field) || field == "none" {
			r.fail(p.by[i], "write device, a field or archive.<field>", "%q cannot be a key", clip(field))
		}
		if strings.HasPrefix(field, "archive.") {
			r.fail(p.by[i], "write group: archive.<field> in a statistic", "%q cannot be a key: were a profile changed while a reading is replayed, the reading would go two ways", clip(field))
		}
		if oneOf(field, f.By[:i]) {
			r.fail(p.by[i], "remove one", "%q is named twice", clip(field))
		}
	}
	switch f.Grouping {
	case "", Fields, PartialKey, Custom:
	default:
		if o.has("by") {
			r.fail(o.keys["by"], "remove it, or write grouping: fields", "by has no meaning with grouping: %s", f.Grouping)
		}
	}
}

// group reads device, a field, archive.<field>, none, script, or a list of fields.
func (r *reader) group(b *parsed) {
	b.Group, b.groupAt = b.o.texts("group")
	if n := b.o.node("group"); n != nil && len(b.Group) == 0 && n.kind == sequence {
		r.fail(n.at, "write none for one group of all", "group is empty")
	}
	for i, g := range b.Group {
		switch {
		case g == "none" && len(b.Group) > 1:
			r.fail(b.groupAt[i], "write group: none alone", "none cannot be combined")
		case !isField(g) || g == "archive":
			r.fail(b.groupAt[i], "write device, a field, archive.<field>, script or none", "%q cannot be a group", clip(g))
		case strings.HasPrefix(g, "archive.") && b.Kind != KindStat:
			r.fail(b.groupAt[i], "group by device, or by a field of the reading", "a node of kind %s cannot be grouped by a field of the archive: only a statistic keeps what a profile was when a reading counted", b.Kind)
		case g == GroupScript && len(b.Group) > 1 && b.Kind == KindStat && b.o.has("script"):
			r.fail(b.groupAt[i], "write group: script alone, and join the parts in group(t)", "script cannot be combined")
		case oneOf(g, b.Group[:i]):
			r.fail(b.groupAt[i], "remove one", "%q is named twice", clip(g))
		}
	}
}
