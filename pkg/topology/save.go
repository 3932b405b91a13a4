package topology

import "strings"

// documentFields are the fields that every document has, whatever is stored beside them.
var documentFields = []string{"_id", "node", "device", "time"}

// storedFields reads [a, b] or {name: field}.
func (r *reader) storedFields(save object) (out []StoredField) {
	n := save.node("fields")
	if n == nil {
		return nil
	}
	if n.kind != mapping {
		names, places := save.texts("fields")
		for i, name := range names {
			out = append(out, StoredField{name, name, places[i]})
		}
	} else {
		inner := object{reader: r, at: n.at, vals: map[string]*node{}, keys: map[string]Place{}}
		for _, p := range n.pairs {
			inner.vals["fields"], inner.keys["fields"] = p.value, p.at
			out = append(out, StoredField{p.key, inner.text("fields", ""), p.at})
		}
	}
	if len(out) == 0 {
		r.fail(n.at, "name the fields, or remove the key to store all", "fields is empty")
	}
	seen := map[string]bool{}
	for i, f := range out {
		if f.Name == f.From { // a nested field is stored under its last name
			out[i].Name = f.From[strings.LastIndexByte(f.From, '.')+1:]
		}
		name := out[i].Name
		switch {
		case !isField(f.From):
			r.fail(f.At, fieldHint, "%q cannot be a field", clip(f.From))
		case !isField(name) || strings.Contains(name, "."):
			r.fail(f.At, "write a name without dots: documents are flat", "%q cannot be a field of a document", clip(name))
		case oneOf(name, documentFields):
			r.fail(f.At, "choose another name", "every document has a field %s of its own", name)
		case seen[name]:
			r.fail(f.At, "remove one, or write {another: "+clip(f.From)+"}", "the field %q is stored twice", name)
		}
		seen[name] = true
	}
	return out
}

// storedFields checks that a node emits what is to be stored of it.
func (c *checker) storedFields(b *parsed) {
	if b.Save == nil || b.Kind != KindConvert && b.Kind != KindStat || len(b.Streams) > 0 {
		return
	}
	out, _ := b.output("", c.in[b.ID])
	for _, f := range b.Save.Fields {
		c.key(f.From, "save", f.At, out)
	}
}
