package window

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/boltmesh/boltmesh/pkg/script"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// reserved are the fields that outputs and their documents have anyway.
var reserved = [...]string{"_id", "node", "device", "group", "time", "ts", "window"}

// New makes the statistic that spec declares. Group must be the function that the router uses; params are the topology's, for scripts. Errors carry the
// place in the topology or the script.
func New(spec topology.Bolt, group func(*tuple.Tuple) (string, bool), params map[string]any) (*Bolt, error) {
	b := &Bolt{
		id: spec.ID, group: group, spec: spec, global: spec.Global(), watermark: math.MinInt64, late: spec.Window.Late,
		byDevice: len(spec.Group) == 0 || len(spec.Group) == 1 && spec.Group[0] == "device",
	}
	if b.late == "" {
		b.late = "late"
	}
	err := b.declareWindow()
	if err == nil && spec.Where != nil {
		b.where, err = b.compile(*spec.Where, script.Bool)
	}
	switch {
	case err != nil:
	case spec.Script != nil && len(spec.Aggregates) == 0:
		err = b.declareScript(*spec.Script, params)
	default:
		err = b.declareAggregates()
	}
	if err != nil {
		return nil, fmt.Errorf("stat %s: %w", spec.ID, err)
	}
	b.layout.window = byte(b.mode)
	b.keptLayout = b.layout
	b.keptLayout.kept = true
	b.decoder = b.layout.decode
	return b, nil
}

func (b *Bolt) declareWindow() error {
	w := &b.spec.Window
	processing := w.Time == "processing"
	b.size, b.slide, b.gap = w.Size.Milliseconds(), w.Slide.Milliseconds(), w.Gap.Milliseconds()
	b.kind = w.Kind
	switch w.Kind {
	case topology.WindowNone:
		b.mode, b.kind = interval, "interval"
		return positive("every", b.spec.Every)
	case topology.WindowLifetime:
		b.mode = lifetime
		return nil
	case topology.WindowTumbling:
		b.mode, b.slide = sliding, b.size
		if processing {
			b.mode = aligned
		}
		if b.keep = w.Corrections.Milliseconds(); b.keep > 0 && (processing || b.spec.Stage != 0 || len(b.spec.Aggregates) == 0) {
			return errors.New("only aggregates in tumbling windows by event time, in one stage, can be corrected")
		}
		return positive("the window's size", w.Size)
	}
	if processing {
		return fmt.Errorf("a %s window goes by event time; only tumbling can go by processing time", w.Kind)
	}
	switch w.Kind {
	case topology.WindowSliding:
		b.mode = sliding
		if err := positive("the window's size", w.Size); err != nil {
			return err
		}
		if err := positive("the window's slide", w.Slide); err != nil {
			return err
		}
		if b.slide > b.size || b.size/b.slide > maxOverlap {
			return fmt.Errorf("the slide %v must be at most the size %v and at least a %dth of it", w.Slide, w.Size, maxOverlap)
		}
		return nil
	case topology.WindowSession:
		b.mode = session
		return positive("the session's gap", w.Gap)
	case topology.WindowCount:
		b.mode = counted
		if w.CountSlide == 0 {
			w.CountSlide = w.Count
		}
		if w.Count < 1 || w.Count > maxCount || w.CountSlide < 1 || w.CountSlide > w.Count {
			return fmt.Errorf("a count window has 1 to %d readings and a slide of 1 to its count, not %d and %d", maxCount, w.Count, w.CountSlide)
		}
		return nil
	}
	return fmt.Errorf("unknown window %q", w.Kind)
}

func positive(what string, d time.Duration) error {
	if d < time.Millisecond {
		return fmt.Errorf("%s must be at least 1ms, not %v", what, d)
	}
	return nil
}

func (b *Bolt) declareAggregates() error {
	as := b.spec.Aggregates
	if len(as) == 0 || len(as) > maxAggregates {
		return fmt.Errorf("it has %d aggregates: 1 to %d, or a script", len(as), maxAggregates)
	}
	for _, a := range as {
		if err := b.declareAggregate(a); err != nil {
			return err
		}
	}
	b.inputs = make([]input, len(b.exprs))
	b.row.values = make([]float64, len(b.layout.funcs))
	if b.layout.texts {
		b.row.texts = make([]string, len(b.layout.funcs))
	}
	return nil
}

func (b *Bolt) declareAggregate(a topology.Aggregate) error {
	k := Kind(a.Func)
	switch {
	case !k.Known():
		return misplaced(a.At, "unknown aggregate %q", a.Func)
	case a.Arg == nil && k != Count:
		return misplaced(a.At, "%s needs an argument, as in %s(celsius)", a.Func, a.Func)
	case slices.Contains(reserved[:], a.Name) || slices.ContainsFunc(b.outs, func(o out) bool { return o.name == a.Name }):
		return misplaced(a.At, "an output has a field %s already", a.Name)
	case b.mode == session && !k.mergeable():
		return misplaced(a.At, "%s cannot be kept in a session window: a reading may join two sessions, and two of them cannot be merged", a.Func)
	}
	param, err := parameter(k, a)
	if err != nil {
		return err
	}
	arg, source := -1, ""
	if a.Arg != nil {
		if arg, err = b.argument(*a.Arg, k.taking()); err != nil {
			return err
		}
		source = b.exprs[arg].source
	}
	f, name := Function{Kind: k}, a.Func+"("+source
	if k == TopK || k == EWMA {
		f.Param = param
		name += ", " + strconv.FormatFloat(param, 'g', -1, 64)
	}
	id := uint64(tuple.NameOf(name + ")"))
	cell := slices.Index(b.layout.names, id)
	if cell < 0 {
		cell = len(b.layout.names)
		b.args = append(b.args, arg)
		b.layout.funcs, b.layout.names = append(b.layout.funcs, f), append(b.layout.names, id)
		b.layout.texts = b.layout.texts || k == TopK
	}
	b.outs = append(b.outs, out{a.Name, cell, param})
	return nil
}

// parameter returns an aggregate's second argument, 0 where it has none.
func parameter(k Kind, a topology.Aggregate) (float64, error) {
	least, greatest := 0.0, 1.0
	switch k {
	case Quantile, EWMA:
	case TopK:
		least, greatest = 1, maxTop
	default:
		if len(a.Param) > 0 {
			return 0, misplaced(a.At, "%s takes one argument", a.Func)
		}
		return 0, nil
	}
	if len(a.Param) != 1 {
		return 0, misplaced(a.At, "%s takes two arguments", a.Func)
	}
	v := a.Param[0]
	if !(v >= least && v <= greatest) || k == TopK && v != math.Trunc(v) {
		return 0, misplaced(a.At, "the second argument of %s is from %v to %v, not %v", a.Func, least, greatest, v)
	}
	return v, nil
}

// argument returns the index of an argument, compiled once for all aggregates that have it: sum(x) and mean( x ) evaluate x once.
func (b *Bolt) argument(e topology.Expr, takes taking) (int, error) {
	a := argument{source: strings.TrimSpace(e.Source), takes: takes}
	for i, known := range b.exprs {
		if known.source == a.source && known.takes == a.takes {
			return i, nil
		}
	}
	want := script.Number
	if takes != number {
		want = script.Any
	}
	var err error
	if a.expr, err = b.compile(e, want); err != nil {
		return 0, err
	}
	b.exprs = append(b.exprs, a)
	return len(b.exprs) - 1, nil
}

func misplaced(at topology.Place, format string, args ...any) error {
	return &script.Error{File: at.File, Line: max(at.Line, 1), Column: max(at.Column, 1), Message: fmt.Sprintf(format, args...)}
}

// compile notes what an expression reads.
func (b *Bolt) compile(e topology.Expr, want script.Type) (*script.Expr, error) {
	x, err := compile(e, want)
	if err == nil {
		b.doc.Expect(x.Fields()...)
		b.profiles = b.profiles || topology.UsesArchive(x.Fields())
	}
	return x, err
}

// compile leaves the fields open: that they exist and have the right types was checked when the topology was validated.
func compile(e topology.Expr, want script.Type) (*script.Expr, error) {
	return script.CompileExpr(e.Source, script.ExprOptions{Open: true, Want: want, File: e.At.File, Line: e.At.Line, Column: e.At.Column})
}

func (b *Bolt) declareScript(s topology.Script, params map[string]any) error {
	if b.mode == session || b.mode == counted {
		return fmt.Errorf("a script cannot keep a %s window: its states cannot be merged", b.kind)
	}
	var err error
	b.script, err = scriptOf(s, params, "compute", "output")
	b.recalls = s.UsesPrevious()
	b.profiles = b.profiles || s.UsesArchive()
	return err
}

// scriptOf makes a runtime of a script that declares some functions.
func scriptOf(s topology.Script, params map[string]any, functions ...string) (*script.Runtime, error) {
	file, text := s.File, s.Text
	if file == "" { // inline: its faults are reported by the lines of the document that it stands in
		file, text = s.At.File, strings.Repeat("\n", max(s.At.Line-1, 0))+text
	}
	p, err := script.CompileJS(file, text)
	if err != nil {
		return nil, err
	}
	for _, f := range functions {
		if !p.Has(f) {
			return nil, &script.Error{File: file, Line: max(s.At.Line, 1), Column: 1, Message: "the script declares no function " + f, Hint: "a stat script has compute(t, state) and output(state, window), and group(t) with group: script"}
		}
	}
	return script.NewRuntime(p, script.RuntimeOptions{Params: params})
}
