package casefile

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// look compares what a step expects with what has come.
func (r *run) look(ctx context.Context, s *step) error {
	mentioned := false
	for _, e := range s.entries {
		var err error
		switch e.section.name {
		case "emitted":
			var got []*value
			if got, err = r.emitted(e.name); err == nil {
				r.several(e, e.name+" emitted", got, r.plainly)
			}
		case "documents":
			var got []*value
			if got, err = r.documents(ctx, e.name); err == nil {
				r.several(e, "the collection "+e.name+" holds", got, r.plainly)
			}
		case "errors":
			mentioned = true
			r.several(e, "the dead letters hold", r.errors(), r.inPart)
		case "alarms":
			r.episodes(e)
		case "state":
			err = r.kept(ctx, e)
		}
		if err != nil {
			return fail(e.place, "%v", err)
		}
	}
	if letters := r.errors(); len(letters) > 0 && !mentioned {
		at := r.place
		if s.expect != nil {
			at = s.expect.place
		}
		r.fail(at, Failure{What: plural(len(letters), "dead letter") + " not expected: if it is right, name it under expect.errors", Came: write(letters)})
	}
	return nil
}

func (r *run) fail(at place, f Failure) {
	f.Line, f.Column = at.line, at.column
	r.failures = append(r.failures, f)
}

func write(vs []*value) (out []string) {
	for _, v := range vs {
		out = append(out, v.String())
	}
	return out
}

// compare lists in what a value differs from one that is wanted.
type compare func(want, got *value) []string

func (r *run) plainly(want, got *value) []string { return differences(want, got, r.tolerance) }

// inPart compares dead letters, of whose error a part is enough.
func (r *run) inPart(want, got *value) (out []string) {
	for _, f := range want.fields {
		had := got.field(f.name)
		if f.name == "error" && had != nil && f.kind == text {
			if !strings.Contains(had.text, f.text) {
				out = append(out, fmt.Sprintf("error is %s, in which %s does not occur", had, f.value))
			}
			continue
		}
		differ(&out, "."+f.name, f.value, had, r.tolerance)
	}
	return out
}

// several compares a list: of all that came; or {count, first, last, includes}, which look at a part of it. what is said before a number of values.
func (r *run) several(e *entry, what string, got []*value, same compare) {
	switch e.kind {
	case list:
		e.got = renew(e.items, got, same)
		r.exactly(e, what, e.items, got, same)
	case object:
		r.partly(e, what, got, same)
	default:
		e.got = renew(nil, got, same)
		r.fail(e.place, Failure{What: fmt.Sprintf("%s is to be a list of what is expected, not %s", e.name, e.value), Came: write(got)})
	}
}

// exactly compares all of a list.
func (r *run) exactly(e *entry, what string, want, got []*value, same compare) {
	pairs := assign(want, got, same)
	taken := map[int]bool{}
	for _, k := range pairs {
		taken[k] = true
	}
	for i, k := range pairs {
		if k < 0 {
			r.missing(want[i], fmt.Sprintf("%s %s: %s is %s", what, numberOf(got), which(i, len(want)), among(got)), got, taken, same)
		}
	}
	var more []*value
	for k, g := range got {
		if !taken[k] {
			more = append(more, g)
		}
	}
	if len(got) > len(want) {
		r.fail(e.place, Failure{What: fmt.Sprintf("%s %s, %d expected", what, numberOf(got), len(want)), Came: write(more)})
	}
}

// which says which of n expected ones is meant.
func which(i, n int) string {
	if n == 1 {
		return "the one expected"
	}
	return fmt.Sprintf("number %d of the %d expected", i+1, n)
}

// among says where an expected one is not.
func among(got []*value) string {
	if len(got) == 0 {
		return "missing"
	}
	return "not among them"
}

// missing reports a value that did not come, with the one most like it.
func (r *run) missing(want *value, what string, got []*value, taken map[int]bool, same compare) {
	f := Failure{What: what, Expected: want.String()}
	if k := nearest(want, got, taken, same); k >= 0 {
		f.Nearest, f.Differs = got[k].String(), same(want, got[k])
		if len(f.Differs) == 0 {
			f.Differs = []string{"only in its place: tuples of a device come in the order in which they are listed, each once"}
		}
	}
	r.fail(want.place, f)
}

func (r *run) partly(e *entry, what string, got []*value, same compare) {
	known := []string{"count", "first", "last", "includes"}
	e.got = &value{kind: object}
	for _, f := range e.fields {
		was := f.value
		switch f.name {
		case "count":
			e.got.set("count", whole(int64(len(got))))
			if f.kind != number || f.number != float64(len(got)) {
				r.fail(f.place, Failure{What: fmt.Sprintf("%s %s, expected %s", what, numberOf(got), f.value)})
			}
			continue
		case "first", "last":
			if len(got) > 0 {
				one := got[0]
				if f.name == "last" {
					one = got[len(got)-1]
				}
				if was = one.only(f.value); len(same(f.value, one)) > 0 {
					r.missing(f.value, fmt.Sprintf("%s %s: the %s is another", what, numberOf(got), f.name), []*value{one}, nil, same)
				}
			} else {
				r.missing(f.value, what+" nothing", nil, nil, same)
			}
		case "includes":
			taken := map[int]bool{}
			for i, k := range assign(f.items, got, same) {
				if taken[k] = true; k < 0 {
					r.missing(f.items[i], fmt.Sprintf("%s %s: %s is %s", what, numberOf(got), which(i, len(f.items)), among(got)), got, taken, same)
				}
			}
		default:
			r.fail(f.place, Failure{What: fmt.Sprintf("%q is unknown: write a list of all that is expected, or a mapping of %s", f.name, strings.Join(known, ", "))})
		}
		e.got.set(f.name, was)
	}
}

// episodes compares the alarms of a node: of each group open, cleared or none, or what its episode holds.
func (r *run) episodes(e *entry) {
	got := r.alarms[e.name]
	e.got = &value{kind: object}
	if e.kind != object {
		r.fail(e.place, Failure{What: "alarms names groups, each open, cleared or none, or what its episode holds"})
	}
	for _, f := range e.fields {
		episode := got[f.name]
		state := texts("none")
		if episode != nil && episode.field("state") != nil {
			state = episode.field("state")
		}
		if f.kind != object {
			e.got.set(f.name, state)
			if f.text != state.text {
				r.fail(f.place, Failure{What: fmt.Sprintf("the alarm %s of %s is %s, expected %s", e.name, f.name, state, f.value)})
			}
			continue
		}
		if episode == nil {
			r.fail(f.place, Failure{What: fmt.Sprintf("the alarm %s of %s was never raised", e.name, f.name), Expected: f.value.String()})
			continue
		}
		e.got.set(f.name, episode.only(f.value))
		if diff := r.plainly(f.value, episode); len(diff) > 0 {
			r.fail(f.place, Failure{What: fmt.Sprintf("the episode of %s in %s is another", e.name, f.name), Expected: f.value.String(), Nearest: episode.String(), Differs: diff})
		}
	}
	for _, group := range slices.Sorted(maps.Keys(got)) {
		if state := got[group].field("state"); e.field.value.field(group) == nil && state != nil && state.text == "open" {
			e.got.set(group, state)
			r.fail(e.place, Failure{What: fmt.Sprintf("the alarm %s of %s is open, which is not expected", e.name, group)})
		}
	}
}

// kept compares what a node keeps for some groups.
func (r *run) kept(ctx context.Context, e *entry) error {
	e.got = &value{kind: object}
	if e.kind != object {
		return fmt.Errorf("state names nodes, each with groups and what is kept for them")
	}
	for _, f := range e.fields {
		raw, err := r.stage.State(ctx, e.name, f.name)
		if err != nil {
			return err
		}
		var got *value
		if raw != nil {
			if got, err = parseJSON(raw); err != nil {
				return err
			}
		}
		if got == nil {
			e.got.set(f.name, &value{})
		} else {
			e.got.set(f.name, got.only(f.value))
		}
		if diff := r.plainly(f.value, got); len(diff) > 0 {
			failure := Failure{What: fmt.Sprintf("%s keeps something else for %s", e.name, f.name), Expected: f.value.String(), Differs: diff}
			if got != nil {
				failure.Nearest = got.String()
			}
			r.fail(f.place, failure)
		}
	}
	return nil
}

// renew is the list that would have been right: what came, each with the fields that its expectation names, new ones with those that any names.
func renew(want, got []*value, same compare) *value {
	like := make([]*value, len(got))
	for i, k := range assign(want, got, same) {
		if k >= 0 {
			like[k] = want[i]
		}
	}
	all := &value{kind: object}
	for _, w := range want {
		for _, f := range w.fields {
			if all.field(f.name) == nil {
				all.set(f.name, &value{})
			}
		}
	}
	out := &value{kind: list}
	for k, g := range got {
		switch {
		case like[k] == nil && k < len(want) && !slices.Contains(like, want[k]):
			like[k] = want[k]
		case like[k] == nil && len(want) > 0:
			like[k] = all
		case like[k] == nil: // nothing says what matters: all but ids and times that the payload does not have
			g.fields = slices.DeleteFunc(g.fields, func(f field) bool { return f.name == "_id" || f.name == "time" })
		}
		out.items = append(out.items, g.only(like[k]))
	}
	return out
}

func numberOf(got []*value) string {
	if len(got) == 0 {
		return "nothing"
	}
	return fmt.Sprint(len(got))
}

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
