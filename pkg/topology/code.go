package topology

import (
	"fmt"
	"slices"
	"strings"
)

// code checks a bolt's expressions in the order in which they are evaluated. It returns the fields as set ones have changed them.
func (c *checker) code(b *parsed, in FieldSet) FieldSet {
	checker := c.options.Checker
	in = in.clone()
	for i := range b.code {
		e := &b.code[i]
		if e.sets != "" && b.o.has("script") { // it is evaluated on what the script returned
			in.Open = true
		}
		if checker != nil {
			mentions, problems := checker.Expr(e.source, in, e.want)
			for _, p := range problems {
				p.Place = c.inside(e, p.Place)
				if p.Hint == "" {
					p.Hint = e.hint(p.What)
				}
				c.problems = append(c.problems, p)
			}
			if e.mentions = mentions; len(problems) == 0 {
				c.doubt(e, in)
			}
			if b.Kind == KindCustom && UsesArchive(mentions) {
				c.unsupported(c.inside(e, Place{Line: 1, Column: 1}), "the archive in a node of kind "+b.Kind)
			}
		}
		if e.sets != "" {
			in.Types[e.sets] = TypeAny
		}
	}
	return in
}

// hint is what to write where the language itself has no better idea.
func (e *code) hint(what string) string {
	switch {
	case strings.Contains(what, "mismatched types"):
		return "both sides must be of one type"
	case strings.Contains(what, "unexpected"):
		return "check brackets, quotes and operators before this place"
	case e.want == TypeBool:
		return "write a condition such as temperature > 100"
	case e.want == TypeNumber:
		return "write what yields a number, such as a field"
	}
	return "write fields, numbers, texts in quotes and operators"
}

// inside turns a place within an expression into one within the document.
func (c *checker) inside(e *code, p Place) Place {
	line, column := columnOf(e.scalar.text, min(e.offset, len(e.scalar.text)))
	if p.Line > 1 {
		return c.within(e.scalar, line+p.Line-1, p.Column)
	}
	return c.within(e.scalar, line, column+p.Column-1)
}

// doubt warns of fields that are not declared but nearly so: dynamic fields are allowed, mistyped ones are never there.
func (c *checker) doubt(e *code, in FieldSet) {
	if !in.Open {
		return
	}
	known := FieldSet{Types: in.Types}
	for _, m := range e.mentions {
		head, _, _ := strings.Cut(m, ".")
		if known.has(m) || oneOf(head, ambient) {
			continue
		}
		if hint := suggest(m, known.names()); hint != "" {
			c.warn(c.inside(e, Place{Line: 1, Column: 1 + max(0, strings.Index(e.source, m))}), hint, "the field %q is not declared", m)
		}
	}
}

// scriptOf checks a bolt's script and that it declares what its kind calls.
func (c *checker) scriptOf(b *parsed) {
	if c.options.Checker == nil || b.Script == nil || b.source == nil || b.Script.File != "" && c.options.Script == nil {
		return
	}
	has, problems := c.options.Checker.Script(b.Script.File, b.Script.Text)
	for _, p := range problems {
		if b.Script.File == "" {
			p.Place = c.within(b.source, p.Place.Line, p.Place.Column)
		} else {
			p.Place.File = b.Script.File
		}
		if p.Hint == "" {
			p.Hint = "check the script at this place"
		}
		c.problems = append(c.problems, p)
	}
	if has == nil || len(problems) > 0 {
		return
	}
	wanted := map[string][]string{KindConvert: {"convert(t, ctx)"}, KindStat: {"compute(t, state)", "output(state, window)"}, KindAlarm: {"when(t, ctx)"}}[b.Kind]
	if b.Kind == KindStat && len(b.Aggregates) > 0 {
		wanted = nil
	}
	if b.Kind == KindStat && b.scripted() {
		wanted = append(slices.Clip(wanted), "group(t)")
	}
	for _, call := range wanted {
		name, _, _ := strings.Cut(call, "(")
		if !has(name) {
			c.fail(b.source.at, fmt.Sprintf("write function %s { ... }", call), "the script of %q declares no function %s", b.ID, name)
		}
	}
	c.forgetful(b)
}

// forgetful warns of a script that looks at the previous reading where none is kept.
func (c *checker) forgetful(b *parsed) {
	const hint = "let the script of a stat, in compute(t, state, ctx), or of an alarm look at it: these keep the last reading of each group"
	switch {
	case !b.Script.UsesPrevious():
	case b.Kind == KindConvert:
		c.warn(b.source.at, hint, "the script of %q mentions previous, and ctx.previous is undefined in a convert node, which keeps nothing from one reading to the next", b.ID)
	case b.Kind == KindStat && len(b.Aggregates) > 0:
		c.warn(b.source.at, hint, "the script of %q mentions previous, and ctx.previous is undefined in group(t, ctx), which is asked before anything of the group is known", b.ID)
	}
}

// groupings checks how tuples are divided among a node's tasks: PROTOCOL G1 and G2.
func (c *checker) groupings(b *parsed, sets []FieldSet) {
	for i, f := range b.From {
		at := b.from[i]
		for k, field := range f.By {
			c.key(field, "by", at.by[k], sets[i])
		}
		c.sender(f, at)
		if b.stateful() {
			c.into(b, f, at)
		} else if f.Grouping == PartialKey && len(f.By) == 0 {
			c.fail(at.grouping, "write by: [device]", "partial_key needs key fields")
		}
	}
	if b.stateful() {
		c.alike(b)
		c.ordered(b)
		if !b.staged() { // a first stage is divided by device, and keeps what it found out
			c.steady(b)
		}
	}
	if slices.Equal(b.Group, []string{"none"}) && b.Tasks > 1 {
		c.fail(b.o.place("tasks"), "remove tasks", "group: none is one group, which one task holds")
	}
}

// sender demands a node of the user's own where the node that emits has to divide.
func (c *checker) sender(f From, at parsedFrom) {
	if f.Grouping != Direct && f.Grouping != Custom {
		return
	}
	kind := KindSpout
	if up := c.bolts[f.Node]; up != nil {
		kind = up.Kind
	}
	switch {
	case kind == KindCustom || kind == "": // a kind that is unknown has been reported
	case f.Grouping == Direct:
		c.fail(at.grouping, "write fields with by: [...], or receive from a node of kind custom", "direct needs a sender that names the task, and %q is of kind %s", f.Node, kind)
	default:
		c.fail(at.grouping, "write fields with by: [...], or receive from a node of kind custom", "the grouping %q is a function of the service that emits, and %q is of kind %s", f.Custom, f.Node, kind)
	}
}

// into allows into a stateful node only what is a pure function of the tuple and keeps a group in one task.
func (c *checker) into(b *parsed, f From, at parsedFrom) {
	group := b.groupFields()
	switch f.Grouping {
	case "", Fields:
	case Global, Custom:
		if b.staged() {
			c.fail(at.grouping, "remove grouping", "bad grouping into %q: readings are divided by device until their group is known", b.ID)
		}
	case Direct:
		c.fail(at.grouping, "remove grouping, write fields, or {custom: <name>} for a function of the group", "bad grouping direct into %q: it keeps state, and nothing keeps the sender from naming another task when a tuple is replayed, which would count twice", b.ID)
	case All:
		c.fail(at.grouping, "remove grouping", "bad grouping all into %q: every task would count every tuple; all is for ticks, which need no declaration", b.ID)
	case PartialKey:
		c.fail(at.grouping, "remove grouping, or write fields", "bad grouping partial_key into %q: a group would be divided between two tasks, each with half of its state", b.ID)
	default:
		c.fail(at.grouping, "remove grouping, or write fields", "bad grouping %s into %q: it keeps state, and a replayed tuple could reach another task and count twice", f.Grouping, b.ID)
	}
	for k, field := range f.By {
		if !oneOf(field, group) {
			c.fail(at.by[k], "write by as a subset of group: "+strings.Join(group, ", "), "bad grouping by %q into %q: tuples of one group would go to several tasks", field, b.ID)
		}
	}
	if (f.Grouping == Fields || f.Grouping == Custom) && slices.Equal(group, []string{"none"}) {
		c.fail(at.grouping, "write global", "bad grouping "+f.Grouping+" into %q: group: none is one group, which one task holds", b.ID)
	}
}

// alike demands one division for all edges into a stateful node: else a group's tuples meet in no task.
func (c *checker) alike(b *parsed) {
	for i := 1; i < len(b.From); i++ {
		g0, by0 := c.plan.divide(&b.Bolt, b.From[0])
		g, by := c.plan.divide(&b.Bolt, b.From[i])
		alike := b.From[i].Custom == b.From[0].Custom && (g != Custom || c.serviceOf(b.From[i]) == c.serviceOf(b.From[0]))
		if g != g0 || !alike || !slices.Equal(by, by0) {
			c.fail(b.from[i].grouping, "give all edges the same grouping and by", "bad grouping into %q: its edges divide tuples differently, so that one group would be in two tasks", b.ID)
		}
	}
}

// serviceOf names the service that runs the node at the other end.
func (c *checker) serviceOf(f From) string {
	if up := c.bolts[f.Node]; up != nil {
		return up.Service
	}
	return ""
}

// ordered warns of a node that depends on the order of readings below workers that compete for them.
func (c *checker) ordered(b *parsed) {
	why := b.orderSensitive()
	if why == "" {
		return
	}
	if node, at, ok := c.shuffledAbove(b, map[string]bool{}); ok {
		c.warn(at, "remove grouping there: order per device is then kept", "%q receives in any order, and below it %q depends on order: %s", node, b.ID, why)
	}
}

func (c *checker) shuffledAbove(b *parsed, seen map[string]bool) (string, Place, bool) {
	for _, f := range b.From {
		up := c.bolts[f.Node]
		if up == nil || seen[f.Node] || up.stateful() {
			continue
		}
		seen[f.Node] = true
		for i, g := range up.From {
			if division, _ := c.plan.divide(&up.Bolt, g); scatters(division) {
				return up.ID, up.from[i].grouping, true
			}
		}
		if id, at, ok := c.shuffledAbove(up, seen); ok {
			return id, at, true
		}
	}
	return "", Place{}, false
}

// orderSensitive says why a node's results depend on the order of its readings, or "".
func (b *parsed) orderSensitive() string {
	switch {
	case b.Kind == KindAlarm:
		return "an alarm raises and clears in the order of readings"
	case b.Kind != KindStat:
		return ""
	case b.Script != nil && len(b.Aggregates) == 0:
		return "its script sees one reading after the other"
	case b.Window.Kind == WindowCount:
		return "a count window takes readings as they come"
	}
	for _, a := range b.Aggregates {
		switch a.Func {
		case "first", "last", "delta", "rate", "ewma":
			return a.Func + " depends on which reading came when"
		}
	}
	return ""
}
