package topology

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// parts reads what belongs to the bolt's kind.
func (r *reader) parts(b *parsed) {
	b.Where = b.expr("where", TypeBool)
	switch b.Kind {
	case KindConvert:
		r.set(b)
		r.drop(b)
	case KindStat:
		r.group(b)
		r.stat(b)
	case KindAlarm:
		r.group(b)
		r.alarm(b)
	case KindCustom:
		r.group(b)
		b.Service = b.o.id("service")
		if oneOf(b.Service, []string{KindSpout, KindConvert, KindStat, KindAlarm, KindOutput}) {
			r.fail(b.o.place("service"), "give your service a name of its own", "%q is one of the built-in services", b.Service)
		}
		if n := b.o.node("config"); n != nil {
			b.Config, _ = r.params(n, "config")
		}
		if b.Every = b.o.duration("every", 0, 100*time.Millisecond); b.o.has("every") && !b.o.has("group") {
			r.fail(b.o.keys["every"], "write group: device, or remove every", "ticks come to nodes with state, and %q has no group", b.ID)
		}
	}
	b.Script = r.script(b)
}

// expr reads an expression and notes it for checking.
func (b *parsed) expr(key, want string) *Expr {
	n := b.o.fill(b.o.node(key))
	if n == nil {
		return nil
	}
	return b.exprOf(n, key, want, "")
}

func (b *parsed) exprOf(n *node, what, want, sets string) *Expr {
	switch {
	case n.kind != scalar:
		b.o.fail(n.at, "write one line such as temperature > 100", "%s must be an expression, not %s", what, n.describe())
		return nil
	case n.null && n.style == filled: // a variable was missing, which has been said
		return nil
	case n.text == "":
		b.o.fail(n.at, "write an expression or remove the key", "%s is empty", what)
		return nil
	}
	b.code = append(b.code, code{scalar: n, source: n.text, want: want, sets: sets})
	return &Expr{Source: n.text, At: b.o.within(n, 1, 1)}
}

func (r *reader) set(b *parsed) {
	n := b.o.node("set")
	if n == nil {
		return
	}
	if n.kind != mapping {
		r.fail(n.at, "write {field: expression}", "set must be a mapping of fields to expressions, not %s", n.describe())
		return
	}
	seen := map[string]bool{}
	for _, p := range n.pairs {
		switch {
		case !isField(p.key):
			r.fail(p.at, fieldHint, "%q cannot be a field", clip(p.key))
			continue
		case seen[p.key]:
			r.fail(p.at, "remove one", "the field %q is set twice", p.key)
			continue
		}
		seen[p.key] = true
		if e := b.exprOf(r.fill(p.value), p.key, TypeAny, p.key); e != nil {
			b.Set = append(b.Set, Assignment{p.key, *e})
		}
	}
}

func (r *reader) drop(b *parsed) {
	var at []Place
	b.Drop, at = b.o.texts("drop")
	for i, f := range b.Drop {
		if !isField(f) {
			r.fail(at[i], fieldHint, "%q cannot be a field", clip(f))
		}
	}
}

// script reads a script: text when it contains a line break, otherwise the name of a file. Variables are not replaced: ${} is JavaScript's own.
func (r *reader) script(b *parsed) *Script {
	n := b.o.node("script")
	if n == nil {
		return nil
	}
	if n.kind != scalar || n.text == "" {
		r.fail(n.at, "write script: scripts/mine.js", "script must be a file's name or JavaScript, not %s", n.describe())
		return nil
	}
	b.source = n
	if strings.Contains(n.text, "\n") {
		return &Script{Text: n.text, At: r.within(n, 1, 1)}
	}
	s := &Script{File: n.text, At: n.at}
	text, ok := r.scripts[s.File]
	if !ok {
		if r.options.Script == nil {
			r.scripts[s.File] = ""
			return s
		}
		var err error
		if text, err = r.options.Script(s.File); err != nil {
			r.fail(n.at, "a file's name relative to this document, or the text itself in a block: script: |", "the script %q cannot be read: %v", clip(s.File), err)
			b.source = nil
			return s
		}
		r.scripts[s.File] = text
	}
	s.Text = text
	return s
}

func (r *reader) stat(b *parsed) {
	r.aggregates(b)
	if !b.o.has("aggregates") && !b.o.has("script") {
		r.fail(b.o.at, "write aggregates: {n: count, mean: mean(temperature)}", "the key %q is missing in a bolt of kind stat", "aggregates")
	}
	if b.o.has("aggregates") && b.o.has("script") && !slices.Equal(b.Group, []string{GroupScript}) {
		r.fail(b.o.keys["script"], "remove one, or write group: script if it has a function group(t)", "aggregates and script are both given")
	}
	b.Every = b.o.duration("every", 0, 100*time.Millisecond)
	r.window(b)
	for _, a := range b.Aggregates {
		if a.Func == "ewma" && b.Window.Kind == WindowSession {
			r.fail(a.At, "use another window, or mean", "an ewma cannot be kept in a session window: a reading may join two sessions, and two ewmas cannot be merged")
		}
	}
	if !b.o.has("window") && !b.o.has("every") {
		r.fail(b.o.at, "write window: {tumbling: 1h}, window: lifetime or every: 1m", "the bolt %q would never output: both window and every are missing", b.ID)
	}
	switch b.Window.Kind {
	case WindowNone, WindowLifetime:
	default:
		if b.o.has("every") {
			r.fail(b.o.keys["every"], "remove every or window", "every goes with window: lifetime or with no window; this one outputs when it ends")
		}
	}
}

func (r *reader) window(b *parsed) {
	n := b.o.node("window")
	if n == nil {
		return
	}
	if n.kind == scalar {
		s, ok := r.text(n, "window")
		if ok && s != WindowLifetime {
			r.fail(n.at, "write lifetime, or a mapping such as {tumbling: 1h}", "%q is no window", clip(s))
		}
		b.Window = Window{Kind: WindowLifetime}
		return
	}
	o := r.object(n, "window", shapes["window"], nil)
	if o.bad {
		return
	}
	var given []string
	for _, k := range []string{WindowTumbling, WindowSliding, WindowSession, WindowCount} {
		if o.has(k) {
			given = append(given, k)
		}
	}
	if len(given) != 1 {
		what := "the kind of window is missing"
		if len(given) > 1 {
			what = "a window is of one kind only, not " + strings.Join(given, " and ")
		}
		r.fail(n.at, "write one of tumbling, sliding, session or count", "%s", what)
		return
	}
	w := Window{Kind: given[0], Time: o.choice("time", "event", []string{"event", "processing"}), Late: o.text("late", "")}
	if w.Late != "" && !isStream(w.Late) {
		r.fail(o.place("late"), "write a lower-case letter, then letters, digits, - and _", "%q cannot be the name of a stream", clip(w.Late))
	}
	r.extent(o, &w)
	r.corrections(o, b, &w)
	switch {
	case w.Time != "processing" || w.Kind == WindowTumbling:
	case w.Kind == WindowCount:
		r.fail(o.place("time"), "remove time: processing", "a count window goes by no time: it takes readings in the order in which they come")
	default:
		r.fail(o.place("time"), "remove time: processing, or write tumbling; where the spout has no time, event time is when a reading came to Kafka",
			"a %s window goes by event time: by the clock it would be another one after every fault", w.Kind)
	}
	if b.o.has("script") && !b.o.has("aggregates") && (w.Kind == WindowSession || w.Kind == WindowCount) {
		r.fail(o.at, "use aggregates, or another window", "a script cannot keep a %s window, whose states must be merged", w.Kind)
	}
	b.Window = w
}

// corrections reads how long windows are kept, and refuses it where a window cannot be corrected.
func (r *reader) corrections(o object, b *parsed, w *Window) {
	if !o.has("corrections") {
		return
	}
	w.Corrections = o.duration("corrections", 0, time.Millisecond)
	at := o.keys["corrections"]
	switch {
	case w.Kind != WindowTumbling || w.Time == "processing":
		r.fail(at, "remove it, or write tumbling by event time", "only tumbling windows by event time can be corrected")
	case len(b.Aggregates) == 0 && b.o.has("script"):
		r.fail(at, "use aggregates", "a script's windows cannot be corrected: its output may change the state")
	case w.Late == CorrectionStream:
		r.fail(o.place("late"), "choose another name", "the stream %s is where corrected figures go", CorrectionStream)
	case w.Size > 0 && w.Corrections/w.Size > maxKept:
		r.fail(o.place("corrections"), fmt.Sprintf("write at most %v", maxKept*w.Size), "more than %d windows of each group would be kept", maxKept)
	}
	for _, a := range b.Aggregates {
		if a.Name == "version" {
			r.fail(a.At, "choose another name", "a statistic with corrections cannot be called version: its documents have a field of that name")
		}
	}
}

// Limits of a stat bolt.
const (
	maxAggregates = 64
	maxCount      = 10_000 // readings that a count window keeps
	maxTop        = 100    // values that a topk tells
	maxKept       = 1000   // windows of a group that are kept for corrections
)

// extent reads a window's size and slide.
func (r *reader) extent(o object, w *Window) {
	switch w.Kind {
	case WindowTumbling:
		w.Size = o.duration("tumbling", 0, time.Millisecond)
		w.Slide = w.Size
	case WindowSliding:
		w.Size, w.Slide = o.duration("sliding", 0, time.Millisecond), o.duration("slide", 0, time.Millisecond)
		switch {
		case !o.has("slide"):
			r.fail(o.at, "write slide: 10m", "the key %q is missing in a sliding window", "slide")
		case w.Slide > w.Size && w.Size > 0:
			r.fail(o.place("slide"), fmt.Sprintf("write at most %v", w.Size), "the slide is longer than the window, so that readings between two would count nowhere")
		case w.Slide > 0 && w.Size/w.Slide > 1000:
			r.fail(o.place("slide"), "write a longer slide", "a reading would be in more than 1000 windows at once")
		}
	case WindowSession:
		w.Gap = o.duration("session", 0, time.Millisecond)
	case WindowCount:
		w.Count = o.whole("count", 0, 1, maxCount)
		w.CountSlide = w.Count
		if o.has("slide") {
			w.CountSlide = o.whole("slide", w.Count, 1, max(1, w.Count))
		}
		if o.has("late") {
			r.fail(o.keys["late"], "remove it", "a count window has no late readings")
		}
	}
	if o.has("slide") && w.Kind != WindowSliding && w.Kind != WindowCount {
		r.fail(o.keys["slide"], "write sliding: instead of "+w.Kind+":", "slide has no meaning in a window of kind %s", w.Kind)
	}
}

func (r *reader) aggregates(b *parsed) {
	n := b.o.node("aggregates")
	if n == nil {
		return
	}
	if n.kind != mapping || len(n.pairs) == 0 {
		r.fail(n.at, "write {n: count, mean: mean(temperature)}", "aggregates must be a mapping of names to statistics, not %s", n.describe())
		return
	}
	if len(n.pairs) > maxAggregates {
		r.fail(n.pairs[maxAggregates].at, "divide them between two bolts", "%d statistics, at most %d are allowed", len(n.pairs), maxAggregates)
	}
	seen := map[string]bool{}
	for _, p := range n.pairs {
		switch {
		case !isField(p.key):
			r.fail(p.at, fieldHint, "%q cannot be a field", clip(p.key))
			continue
		case seen[p.key]:
			r.fail(p.at, "rename one", "the statistic %q is declared twice", p.key)
			continue
		case oneOf(p.key, taken):
			r.fail(p.at, "choose another name", "a statistic cannot be called %s: its documents have a field of that name", p.key)
			continue
		}
		seen[p.key] = true
		v := r.fill(p.value)
		if v.null && v.style == filled {
			continue
		}
		if v.kind != scalar || v.null {
			r.fail(p.at, "write count, or a call such as mean(temperature)", "%s must be a statistic, not %s", p.key, v.describe())
			continue
		}
		if a, ok := r.aggregate(b, v); ok {
			a.Name = p.key
			b.Aggregates = append(b.Aggregates, a)
		}
	}
}
