package topology

import (
	"slices"
	"time"
)

// Level is one of several conditions of an alarm, with what the alarm is worth while it is the highest that holds.
type Level struct {
	Severity string
	When     *Expr
	Clear    *Expr // nil: not When
}

// Escalate raises the severity of episodes that nobody has acknowledged.
type Escalate struct {
	After time.Duration // processing time since the raise
	To    string        // severity
}

// Flapping mutes the notifications of an alarm that is raised too often.
type Flapping struct {
	Raises int           // so many
	Within time.Duration // within such an event time
	Calm   time.Duration // event time without a raise that ends it; default Within
}

// Limits of an alarm bolt.
const (
	maxLevels = 8
	maxFlaps  = 100 // raises that are remembered
)

func (r *reader) alarm(b *parsed) {
	b.When = b.expr("when", TypeBool)
	b.Clear = b.expr("clear", TypeBool)
	r.levels(b)
	b.RaiseAfter = b.o.whole("raise_after", 1, 1, 1_000_000)
	b.ClearAfter = b.o.whole("clear_after", 1, 1, 1_000_000)
	b.RaiseFor = b.o.duration("raise_for", 0, time.Millisecond)
	b.ClearFor = b.o.duration("clear_for", 0, time.Millisecond)
	b.Severity = b.o.text("severity", "")
	b.Suppress = b.o.duration("suppress", 0, time.Millisecond)
	b.NoData = b.o.duration("no_data", 0, time.Second)
	r.escalate(b)
	r.flapping(b)
	conditional := b.o.has("when") || b.o.has("script") || b.o.has("levels")
	switch {
	case b.o.has("when") && b.o.has("script"):
		r.fail(b.o.keys["script"], "remove one", "when and script are both given")
	case b.o.has("levels") && b.o.has("script"):
		r.fail(b.o.keys["script"], "remove one; the conditions of levels are expressions", "levels and script are both given")
	case !conditional && !b.o.has("no_data"):
		r.fail(b.o.at, "write a condition such as when: temperature > 100", "the key %q is missing in a bolt of kind alarm", "when")
	}
	if !conditional {
		for _, k := range []string{"clear", "raise_after", "clear_after", "raise_for", "clear_for"} {
			if b.o.has(k) {
				r.fail(b.o.keys[k], "remove it, or write a condition such as when: temperature > 100", "%s has no meaning without a condition: the next reading clears a no_data alarm", k)
			}
		}
		if b.o.has("flapping") {
			r.fail(b.o.keys["flapping"], "remove it, or write a condition such as when: temperature > 100", "flapping has no meaning without a condition: it counts raises by event time, and silence has none")
		}
	}
	for _, edge := range []string{"raise", "clear"} {
		if b.o.has(edge+"_after") && b.o.has(edge+"_for") {
			r.fail(b.o.keys[edge+"_for"], "remove one", "%s_after and %s_for are both given", edge, edge)
		}
	}
}

// levels reads the conditions of an alarm with several, and refuses what each of them has itself.
func (r *reader) levels(b *parsed) {
	n := b.o.node("levels")
	if n == nil {
		return
	}
	const write = "write [{severity: warning, when: temperature > 80}, {severity: critical, when: temperature > 95}]"
	switch {
	case n.kind != sequence:
		r.fail(n.at, write, "levels must be a list, not %s", n.describe())
		return
	case len(n.items) == 0:
		r.fail(n.at, write, "levels is empty")
		return
	case len(n.items) > maxLevels:
		r.fail(n.items[maxLevels].at, "divide them between two bolts", "%d levels, at most %d are allowed", len(n.items), maxLevels)
		return
	}
	for _, item := range n.items {
		o := r.object(item, "a level", shapes["level"], nil)
		if o.bad {
			continue
		}
		l := Level{Severity: o.text("severity", "")}
		if slices.ContainsFunc(b.Levels, func(k Level) bool { return k.Severity == l.Severity && l.Severity != "" }) {
			r.fail(o.place("severity"), "give each level a severity of its own", "two levels have the severity %q", clip(l.Severity))
		}
		l.When, l.Clear = b.exprIn(o, "when"), b.exprIn(o, "clear")
		b.Levels = append(b.Levels, l)
	}
	for _, k := range []string{"when", "clear"} {
		if b.o.has(k) {
			r.fail(b.o.keys[k], "write it in each of the levels", "%s and levels are both given", k)
		}
	}
	if b.o.has("severity") && !b.o.has("no_data") {
		r.fail(b.o.keys["severity"], "write it in each of the levels", "severity and levels are both given; beside levels it is that of no_data")
	}
}

// exprIn is expr for a condition in one of the bolt's own mappings.
func (b *parsed) exprIn(o object, key string) *Expr {
	n := b.o.fill(o.node(key))
	if n == nil {
		return nil
	}
	return b.exprOf(n, key, TypeBool, "")
}

func (r *reader) escalate(b *parsed) {
	n := b.o.node("escalate")
	if n == nil {
		return
	}
	o := r.object(n, "escalate", shapes["escalate"], nil)
	if o.bad {
		return
	}
	e := &Escalate{After: o.duration("after", 0, time.Second), To: o.text("to", "")}
	b.Escalate = e
	switch {
	case e.To == "":
	case len(b.Levels) > 0 && b.Levels[0].Severity == e.To && (b.NoData == 0 || b.Severity == e.To):
		r.fail(o.place("to"), "write the severity of a higher level, or another word", "escalate goes to %q, which is that of the lowest level", clip(e.To))
	case len(b.Levels) == 0 && b.Severity == e.To:
		r.fail(o.place("to"), "write a higher severity", "escalate goes to %q, which the alarm has anyway", clip(e.To))
	}
}

func (r *reader) flapping(b *parsed) {
	n := b.o.node("flapping")
	if n == nil {
		return
	}
	o := r.object(n, "flapping", shapes["flapping"], nil)
	if o.bad {
		return
	}
	f := &Flapping{Raises: o.whole("raises", 0, 2, maxFlaps), Within: o.duration("within", 0, time.Millisecond)}
	f.Calm = o.duration("calm", f.Within, time.Millisecond)
	b.Flapping = f
}

// Alarms returns the alarm nodes: those that take commands.
func (p *Plan) Alarms() (out []*Node) {
	for i := range p.Nodes {
		if p.Nodes[i].Kind == KindAlarm {
			out = append(out, &p.Nodes[i])
		}
	}
	return out
}
