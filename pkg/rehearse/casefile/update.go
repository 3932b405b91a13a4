package casefile

import (
	"fmt"
	"slices"
	"strings"
)

// Update returns the file with what came written in the place of what was expected, for every expectation that was looked at in the last Run and not met.
// Fields that an expectation does not name stay unnamed. Comments within an expectation that changes are lost.
func (f *File) Update() ([]byte, error) {
	type change struct {
		from, to int // lines, from 0
		text     []string
	}
	var changes []change
	for _, c := range f.cases {
		for _, s := range c.steps {
			for _, e := range s.entries {
				if e.got == nil || e.value.String() == e.got.String() || within(e.value, e.got) {
					continue
				}
				at := e.line - 1
				indent := e.column - 1
				before := f.lines[at][:min(indent, len(f.lines[at]))]
				if strings.Trim(before, " -") != "" {
					return nil, &Error{f.Name, e.line, e.column, fmt.Sprintf("%s cannot be updated where it stands: give it a line of its own", e.name)}
				}
				changes = append(changes, change{at, f.end(at, indent), e.render(before, indent)})
			}
		}
	}
	lines := slices.Clone(f.lines)
	slices.SortFunc(changes, func(a, b change) int { return b.from - a.from })
	for _, c := range changes {
		lines = slices.Replace(lines, c.from, c.to, c.text...)
	}
	return []byte(strings.Join(lines, "\n")), nil
}

// within reports whether what is expected was met: then it stays as it is written.
func within(want, got *value) bool { return len(differences(want, got, DefaultTolerance)) == 0 }

// end returns the line behind the value of the key at a line and an indentation.
func (f *File) end(at, indent int) int {
	end := at + 1
	for i := at + 1; i < len(f.lines); i++ {
		line := f.lines[i]
		trimmed := strings.TrimLeft(line, " ")
		deep := len(line) - len(trimmed)
		switch {
		case trimmed == "" || strings.HasPrefix(trimmed, "#") && deep <= indent:
			continue // belongs to the value if more of it follows
		case deep > indent || deep == indent && strings.HasPrefix(trimmed, "- "):
			end = i + 1
		default:
			return end
		}
	}
	return end
}

// render writes the key with what came.
func (e *entry) render(before string, indent int) []string {
	key := before + plain(e.name) + ":"
	inner := strings.Repeat(" ", indent+2)
	switch {
	case e.got.kind == list && len(e.got.items) > 0:
		out := []string{key}
		for _, item := range e.got.items {
			out = append(out, inner+"- "+item.String())
		}
		return out
	case e.got.kind == object && len(e.got.fields) > 0 && e.section.name != "alarms" && e.value.line != e.line:
		out := []string{key}
		for _, f := range e.got.fields {
			out = append(out, inner+plain(f.name)+": "+f.value.String())
		}
		return out
	}
	return []string{key + " " + e.got.String()}
}
