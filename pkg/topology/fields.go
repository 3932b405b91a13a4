package topology

import (
	"maps"
	"slices"
	"strings"
)

// ambient names stand beside the fields in every expression and group.
var ambient = []string{"device", "time", "stream", "archive"}

// statFields are what a statistic's tuples hold beside its aggregates; docs/documents.md describes them.
var statFields = []string{"device", "group", "window"}

// taken are the names that aggregates cannot have: their documents have such fields anyway.
var taken = []string{"_id", "node", "device", "group", "time", "ts", "window"}

// has reports whether the field may be in the set; nested fields are in it with their parent.
func (s FieldSet) has(field string) bool {
	if s.Open {
		return true
	}
	for {
		if _, ok := s.Types[field]; ok {
			return true
		}
		i := strings.LastIndexByte(field, '.')
		if i < 0 {
			return false
		}
		field = field[:i]
	}
}

func (s FieldSet) names() []string { return slices.Sorted(maps.Keys(s.Types)) }

func (s FieldSet) clone() FieldSet {
	out := FieldSet{Types: map[string]string{}, Open: s.Open}
	maps.Copy(out.Types, s.Types)
	return out
}

// join is what may come over either of two edges.
func (s FieldSet) join(o FieldSet) FieldSet {
	out := s.clone()
	out.Open = s.Open || o.Open
	for f, t := range o.Types {
		if have, ok := out.Types[f]; ok && have != t {
			t = TypeAny
		}
		out.Types[f] = t
	}
	return out
}

// anyOf is a set of fields of unknown types; without names it is open.
func anyOf(names []string) FieldSet {
	out := FieldSet{Types: map[string]string{}, Open: len(names) == 0}
	for _, n := range names {
		out.Types[n] = TypeAny
	}
	return out
}

// output returns what a node emits on a stream; ok is false when it has no such stream.
func (b *parsed) output(stream string, in FieldSet) (FieldSet, bool) {
	if stream == "" {
		stream = "default"
	}
	if declared, ok := b.Streams[stream]; ok {
		out := anyOf(declared)
		for f := range out.Types {
			if t, ok := in.Types[f]; ok && b.Kind != KindCustom {
				out.Types[f] = t
			}
		}
		return out, true
	}
	if stream == CorrectionStream && b.corrects() {
		return b.statistics(), true
	}
	if stream != "default" {
		return in, b.hasLate() && stream == b.lateStream()
	}
	switch b.Kind {
	case KindConvert:
		return b.converted(in), true
	case KindStat:
		return b.statistics(), true
	}
	return FieldSet{Open: true}, true
}

func (b *parsed) converted(in FieldSet) FieldSet {
	if b.o.has("script") {
		return FieldSet{Open: true}
	}
	out := in.clone()
	for _, a := range b.Set {
		out.Types[a.Field] = TypeAny
	}
	for _, f := range b.Drop {
		delete(out.Types, f)
	}
	return out
}

func (b *parsed) statistics() FieldSet {
	if len(b.Aggregates) == 0 {
		return FieldSet{Open: true}
	}
	out := anyOf(statFields)
	out.Types["device"], out.Types["group"] = TypeString, TypeString
	if b.corrects() {
		out.Types["version"] = TypeNumber
	}
	for _, a := range b.Aggregates {
		if r, ok := ruleOf(a.Func); ok {
			out.Types[a.Name] = r.yields
		}
	}
	return out
}

// hasLate reports whether a stat's windows can close before a reading arrives.
func (b *Bolt) hasLate() bool {
	switch b.Window.Kind {
	case WindowTumbling, WindowSliding, WindowSession:
		return b.Kind == KindStat && b.Window.Time != "processing"
	}
	return false
}

// corrects reports whether a stat emits corrected figures.
func (b *Bolt) corrects() bool { return b.Window.Corrections > 0 }

func (b *Bolt) lateStream() string {
	if b.Window.Late == "" {
		return "late"
	}
	return b.Window.Late
}

// streamNames lists a bolt's outputs, the default one first.
func (b *Bolt) streamNames() []string {
	out := []string{"default"}
	if b.hasLate() {
		out = append(out, b.lateStream())
	}
	if b.corrects() {
		out = append(out, CorrectionStream)
	}
	for _, s := range slices.Sorted(maps.Keys(b.Streams)) {
		if !oneOf(s, out) {
			out = append(out, s)
		}
	}
	return out
}

// Emits lists the streams that a bolt can emit on, the default one first: those of its kind and those that it declares.
func (b *Bolt) Emits() []string { return b.streamNames() }

// Late returns the stream that a stat sends late readings to, or "" when it has none.
func (b *Bolt) Late() string {
	if !b.hasLate() {
		return ""
	}
	return b.lateStream()
}
