// Package casefile is the YAML that unit tests of topologies are written in: readings that are given, and the tuples, documents, alarms, state and errors
// that are expected of them. `boltmesh test` runs such files; a Go test can, with bolts of its own (see Check). Every case is rehearsed from an empty mesh.
// It never compares more than what a case names.
package casefile

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/boltmesh/boltmesh/pkg/topology"
)

// Suffix ends the names of files of cases. A file is named after its topology: machines.test.yaml tests machines.yaml.
const Suffix = ".test.yaml"

// DefaultTolerance is how far a number may be from what is expected, relative to the greater of the two.
const DefaultTolerance = 1e-9

// File is a parsed file of cases.
type File struct {
	Name     string
	Topology string // file, as written; "" when the name says it
	lines    []string
	cases    []*scene
}

// scene is one case.
type scene struct {
	name      string
	start     time.Time
	tolerance float64
	place
	steps []*step
}

// step is what is given together, and what is then expected.
type step struct {
	archive, state, emit *value
	given                []*value
	wait                 time.Duration
	flush, restart       bool
	expect               *field // nil: only that nothing fails
	entries              []*entry
}

// entry is one thing that is expected, such as the tuples of one node.
type entry struct {
	section *field
	field          // name and place of the key, and what is expected
	got     *value // what would have been right, once it has been looked at
}

// Error says what is wrong with a file, by places.
type Error struct {
	File         string
	Line, Column int
	What         string
}

// Error returns file:line:column: what is wrong.
func (e *Error) Error() string { return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.What) }

var (
	fileKeys = []string{"topology", "start", "tolerance", "archive", "cases"}
	stepKeys = []string{"archive", "state", "given", "emit", "wait", "flush", "restart", "expect"}
	caseKeys = append([]string{"name", "start", "tolerance", "steps"}, stepKeys...)
	sections = []string{"emitted", "documents", "alarms", "state", "errors"}
)

// Parse reads a file. The error is an *Error.
func Parse(name string, source []byte) (*File, error) {
	f := &File{Name: name, lines: strings.Split(string(source), "\n")}
	v, err := parseYAML(source)
	if err == nil {
		err = f.read(v)
	}
	if err != nil {
		return nil, f.misread(err)
	}
	return f, nil
}

// misread gives an error its file.
func (f *File) misread(err error) error {
	var p *problem
	if errors.As(err, &p) {
		return &Error{f.Name, p.line, p.column, p.what}
	}
	return err
}

// keys checks that an object has only fields of known names.
func keys(v *value, what string, known []string) error {
	if v.kind != object {
		return fail(v.place, "%s is a mapping of %s", what, strings.Join(known, ", "))
	}
	for _, f := range v.fields {
		if !contains(known, f.name) {
			return fail(f.place, "%s has no %q: it has %s", what, f.name, strings.Join(known, ", "))
		}
	}
	return nil
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

func (f *File) read(v *value) error {
	if err := keys(v, "the file", fileKeys); err != nil {
		return err
	}
	common := scene{tolerance: DefaultTolerance}
	if err := common.settings(v); err != nil {
		return err
	}
	if t := v.field("topology"); t != nil {
		f.Topology = t.text
	}
	cases := v.field("cases")
	if cases == nil || cases.kind != list || len(cases.items) == 0 {
		return fail(v.place, "cases is a list of at least one case: {name, given, expect}")
	}
	for _, item := range cases.items {
		s := common
		if err := s.read(item); err != nil {
			return err
		}
		s.steps[0].archive = join(v.field("archive"), s.steps[0].archive)
		f.cases = append(f.cases, &s)
	}
	return nil
}

// join is the profiles of a file with those of a case.
func join(all, more *value) *value {
	if all == nil || more == nil {
		if more == nil {
			return all
		}
		return more
	}
	out := &value{kind: object, fields: append([]field(nil), all.fields...)}
	for _, f := range more.fields {
		out.set(f.name, f.value)
	}
	return out
}

// settings reads what a file may say for all its cases.
func (s *scene) settings(v *value) (err error) {
	if t := v.field("start"); t != nil {
		if s.start, err = time.Parse(time.RFC3339, t.text); err != nil {
			return fail(t.place, "start is a time such as 2024-01-01T00:00:00Z, not %s", t)
		}
		s.start = s.start.UTC()
	}
	if t := v.field("tolerance"); t != nil {
		if s.tolerance = t.number; t.kind != number || !(t.number >= 0 && t.number < 1) {
			return fail(t.place, "tolerance is a number from 0 to below 1, relative to the greater of two numbers, not %s", t)
		}
	}
	return nil
}

func (s *scene) read(v *value) error {
	if err := keys(v, "a case", caseKeys); err != nil {
		return err
	}
	s.place = v.place
	name := v.field("name")
	if name == nil || name.kind == object || name.kind == list || name.text == "" {
		return fail(v.place, "the case has no name")
	}
	s.name = name.text
	if err := s.settings(v); err != nil {
		return err
	}
	items := []*value{v}
	if steps := v.field("steps"); steps != nil {
		for _, f := range v.fields {
			if f.name != "archive" && f.name != "state" && contains(stepKeys, f.name) {
				return fail(f.place, "a case with steps has %s in its steps", f.name)
			}
		}
		if steps.kind != list || len(steps.items) == 0 {
			return fail(steps.place, "steps is a list of mappings of %s", strings.Join(stepKeys, ", "))
		}
		items = steps.items
	}
	for i, item := range items {
		if item != v {
			if err := keys(item, "a step", stepKeys); err != nil {
				return err
			}
		}
		st, err := readStep(item)
		if err != nil {
			return err
		}
		if i == 0 && item != v {
			st.archive, st.state = join(v.field("archive"), st.archive), join(v.field("state"), st.state)
		}
		s.steps = append(s.steps, st)
	}
	return nil
}

func readStep(v *value) (*step, error) {
	s := &step{archive: v.field("archive"), state: v.field("state"), emit: v.field("emit")}
	for what, o := range map[string]*value{"archive": s.archive, "state": s.state, "emit": s.emit} {
		if o != nil && o.kind != object {
			return nil, fail(o.place, "%s is a mapping", what)
		}
	}
	if g := v.field("given"); g != nil {
		if g.kind != list {
			return nil, fail(g.place, "given is a list of readings, each a mapping; a text is a record as it is")
		}
		s.given = g.items
	}
	if w := v.field("wait"); w != nil {
		d, ok := topology.ParseDuration(w.text)
		if !ok {
			return nil, fail(w.place, "wait is a duration such as 500ms, 5s, 1m, 1h or 2d, not %s", w)
		}
		s.wait = d
	}
	for name, to := range map[string]*bool{"flush": &s.flush, "restart": &s.restart} {
		if w := v.field(name); w != nil {
			if w.kind != boolean {
				return nil, fail(w.place, "%s is true or false, not %s", name, w)
			}
			*to = w.text == "true"
		}
	}
	for i := range v.fields {
		if v.fields[i].name == "expect" {
			s.expect = &v.fields[i]
			return s, s.readExpect(s.expect.value)
		}
	}
	return s, nil
}

func (s *step) readExpect(v *value) error {
	if err := keys(v, "expect", sections); err != nil {
		return err
	}
	for i := range v.fields {
		section := &v.fields[i]
		if section.name == "errors" {
			s.entries = append(s.entries, &entry{section: section, field: *section})
			continue
		}
		if section.kind != object {
			return fail(section.value.place, "%s is a mapping of names to what is expected", section.name)
		}
		for _, f := range section.fields {
			s.entries = append(s.entries, &entry{section: section, field: f})
		}
	}
	return nil
}

// Cases returns how many cases the file has, and how many of them only selects (nil: all).
func (f *File) Cases(only *regexp.Regexp) (all, selected int) {
	for _, c := range f.cases {
		if only == nil || only.MatchString(c.name) {
			selected++
		}
	}
	return len(f.cases), selected
}
