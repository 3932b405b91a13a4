package topology

import (
	"maps"
	"regexp"
	"strings"
)

// DefaultArchive is the archive that devices are looked up in where a topology names none.
const DefaultArchive = "devices"

// What a device without a profile in the archive is.
const (
	UnknownNull   = "null"   // its archive is null
	UnknownReject = "reject" // nodes that use the archive dead-letter its readings
)

// Archive says where the profiles of devices are, which expressions read as archive.<field> and scripts as ctx.archive.
type Archive struct {
	Name    string // default DefaultArchive; topologies may share one
	Unknown string // UnknownNull (default) or UnknownReject
}

// IsArchive reports whether name can be that of an archive: a lower-case letter, then lower-case letters, digits and _, at most 48 in all.
func IsArchive(name string) bool {
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (i == 0 || c != '_' && (c < '0' || c > '9')) {
			return false
		}
	}
	return name != "" && len(name) <= 48
}

// archive reads the block of that name, or the name alone.
func (r *reader) archive(top object) Archive {
	a := Archive{Name: DefaultArchive, Unknown: UnknownNull}
	n := top.node("archive")
	if n == nil {
		return a
	}
	at := n.at
	if n.kind == scalar {
		a.Name = top.text("archive", a.Name)
	} else {
		o := r.object(n, "archive", shapes["archive"], nil)
		a.Name, at = o.text("name", a.Name), o.place("name")
		if u := o.vals["unknown_device"]; u != nil && !u.null {
			a.Unknown = o.choice("unknown_device", UnknownNull, []string{UnknownNull, UnknownReject})
		}
	}
	if !IsArchive(a.Name) {
		r.fail(at, "write a lower-case letter, then lower-case letters, digits and _, at most 48 in all", "%q cannot be the name of an archive", clip(a.Name))
	}
	return a
}

// derived is what of a node's output may differ when a reading is replayed, because a profile was changed in between.
type derived struct {
	fields  map[string]string // field -> the node that takes it from the archive
	scripts string            // the node whose script, which sees the archive, may have made any of the fields
}

var archiveInScript = regexp.MustCompile(`\barchive\b`)

// UsesArchive reports whether a script may read ctx.archive.
func (s *Script) UsesArchive() bool { return archiveInScript.MatchString(s.Text) }

var previousInScript = regexp.MustCompile(`\bprevious\b`)

// UsesPrevious reports whether a script may read ctx.previous.
func (s *Script) UsesPrevious() bool { return previousInScript.MatchString(s.Text) }

// UsesArchive reports whether what an expression mentions includes the archive.
func UsesArchive(mentions []string) bool {
	for _, m := range mentions {
		if head, _, _ := strings.Cut(m, "."); head == "archive" {
			return true
		}
	}
	return false
}

// inherit joins what comes over the edges of b. What a stateful node emits is recorded, and so the same at every replay.
func (c *checker) inherit(b *parsed) derived {
	out := derived{fields: map[string]string{}}
	for _, f := range b.From {
		up := c.bolts[f.Node]
		if up == nil || up.stateful() {
			continue
		}
		d := c.derived[f.Node]
		maps.Copy(out.fields, d.fields)
		if d.scripts != "" {
			out.scripts = d.scripts
		}
	}
	return out
}

// derive notes what b takes from the archive, in the order in which it does.
func (c *checker) derive(b *parsed) {
	d := c.inherit(b)
	if b.Script != nil && b.Script.UsesArchive() {
		d.scripts = b.ID
	}
	for _, e := range b.code {
		if e.sets == "" {
			continue
		}
		if node := d.source(b.ID, e.mentions); node != "" {
			d.fields[e.sets] = node
		} else {
			delete(d.fields, e.sets)
		}
	}
	for _, f := range b.Drop {
		delete(d.fields, f)
	}
	c.derived[b.ID] = d
}

// source returns the node that takes one of mentions from the archive, "" when none does.
func (d derived) source(self string, mentions []string) string {
	if UsesArchive(mentions) {
		return self
	}
	for _, m := range mentions {
		for field, node := range d.fields {
			if within(m, field) || within(field, m) {
				return node
			}
		}
	}
	return ""
}

// within reports whether the field a is b or a part of it.
func within(a, b string) bool { return a == b || strings.HasPrefix(a, b+".") }

// steady demands that tuples are divided among stateful tasks by what a replay does not change: else a reading counts in two groups (PROTOCOL C18).
func (c *checker) steady(b *parsed) {
	in := c.inherit(b)
	hint := "group by device, or by a field of the reading"
	if b.Kind == KindStat {
		hint = "group by archive.<field> itself, by device, or by a field of the reading"
	}
	check := func(field string, at Place) {
		if node := in.source("", []string{field}); node != "" {
			c.fail(at, hint, "%q takes %q from the archive: were the profile changed while a reading is replayed, the reading would count in two groups of %q", node, field, b.ID)
		} else if in.scripts != "" && field != "device" && field != "none" {
			c.warn(at, "make sure that it does not: were the profile changed while a reading is replayed, the reading would count in two groups", "the script of %q reads the archive, and %q may come from there", in.scripts, field)
		}
	}
	for i, g := range b.Group {
		if !strings.HasPrefix(g, "archive.") {
			check(g, b.groupAt[i])
		}
	}
	for i, f := range b.From {
		for k, field := range f.By {
			if !oneOf(field, b.Group) {
				check(field, b.from[i].by[k])
			}
		}
	}
}
