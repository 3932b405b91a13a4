// Package rule is what an alarm node does: it tests a condition on every reading and follows, per group, the episodes in which it holds.
// The alarm service and the single-process mode run one Bolt per loop, since the script's engine is not safe for concurrent use.
// It never reads a clock: how long the condition has held is judged at readings, in event time, and how long a group has been silent at ticks.
package rule

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/boltmesh/boltmesh/pkg/archive"
	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/script"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

const stateKey = "alarm_last-"

// Bolt keeps one alarm per group. It implements bolt.Stateful.
type Bolt struct {
	// Archive is where the profiles of devices come from, set before the first batch if UsesArchive says so; nil: nobody has one.
	Archive *archive.Reader

	id       string
	severity string
	group    func(*tuple.Tuple) (string, bool)
	limits   Limits

	where  *script.Expr // nil: all readings
	when   *script.Expr // nil: the script decides
	clear  *script.Expr // nil: not when
	script *script.Runtime
	fields []string // of the payload, that when refers to

	profiles bool // an expression or the script reads them

	doc script.Doc
	env script.Env
	out script.Doc

	silence silence
}

// New makes the alarm that spec declares. Group must be the function that the router uses; params are the topology's, for scripts. Errors carry the place
// in the topology or the script.
func New(spec topology.Bolt, group func(*tuple.Tuple) (string, bool), params map[string]any) (*Bolt, error) {
	b := &Bolt{
		id: spec.ID, severity: spec.Severity, group: group,
		limits: Limits{
			RaiseAfter: spec.RaiseAfter, ClearAfter: spec.ClearAfter,
			RaiseFor: spec.RaiseFor.Milliseconds(), ClearFor: spec.ClearFor.Milliseconds(), Suppress: spec.Suppress.Milliseconds(),
		},
	}
	if err := b.declare(spec, params); err != nil {
		return nil, fmt.Errorf("alarm %s: %w", spec.ID, err)
	}
	return b, nil
}

func (b *Bolt) declare(spec topology.Bolt, params map[string]any) error {
	switch {
	case spec.When != nil && spec.Script != nil || spec.When == nil && spec.Script == nil && spec.NoData == 0:
		return errors.New("it needs either when or a script with when(t, ctx), or no_data")
	case spec.When == nil && spec.Script == nil && spec.Clear != nil:
		return errors.New("clear has no meaning without a condition")
	case spec.RaiseAfter < 0 || spec.ClearAfter < 0 || spec.RaiseFor < 0 || spec.ClearFor < 0 || spec.Suppress < 0 || spec.NoData < 0:
		return errors.New("a number of readings or a duration is negative")
	}
	b.silence.declare(spec)
	for _, e := range []struct {
		source *topology.Expr
		to     **script.Expr
	}{{spec.Where, &b.where}, {spec.When, &b.when}, {spec.Clear, &b.clear}} {
		if e.source == nil {
			continue
		}
		var err error
		if *e.to, err = compile(*e.source); err != nil {
			return err
		}
		b.profiles = b.profiles || topology.UsesArchive((*e.to).Fields())
	}
	if b.when != nil {
		b.fields = slices.DeleteFunc(b.when.Fields(), ambient)
		return nil
	}
	if spec.Script == nil {
		return nil
	}
	b.profiles = b.profiles || spec.Script.UsesArchive()
	return b.load(*spec.Script, params)
}

// ambient says that a field is not the reading's but its surroundings', the same for all readings of the group.
func ambient(field string) bool {
	return field == "device" || field == "time" || field == "stream" || topology.UsesArchive([]string{field})
}

// compile leaves the fields open: that they exist and have the right types was checked when the topology was validated.
func compile(e topology.Expr) (*script.Expr, error) {
	return script.CompileExpr(e.Source, script.ExprOptions{Open: true, Want: script.Bool, File: e.At.File, Line: e.At.Line, Column: e.At.Column})
}

func (b *Bolt) load(s topology.Script, params map[string]any) error {
	file, text := s.File, s.Text
	if file == "" { // inline: its faults are reported by the lines of the document that it stands in
		file, text = s.At.File, strings.Repeat("\n", max(s.At.Line-1, 0))+text
	}
	p, err := script.CompileJS(file, text)
	if err != nil {
		return err
	}
	if !p.Has("when") {
		return &script.Error{File: file, Line: max(s.At.Line, 1), Column: 1, Message: "the script declares no function when", Hint: "write function when(t, ctx) { return t.temperature > 100 }"}
	}
	b.script, err = script.NewRuntime(p, script.RuntimeOptions{Params: params})
	return err
}

// Group implements bolt.Stateful.
func (b *Bolt) Group(t *tuple.Tuple) (string, bool) { return b.group(t) }

// Keys implements bolt.Stateful.
func (b *Bolt) Keys(group string, add func(string)) { add(stateKey + b.id + "-" + group) }

// UsesArchive reports whether the bolt reads profiles of devices.
func (b *Bolt) UsesArchive() bool { return b.profiles }

// Prepare implements bolt.Preparer.
func (b *Bolt) Prepare(ctx context.Context, batch iter.Seq[*tuple.Tuple]) error {
	return b.Archive.Prepare(ctx, batch)
}

// Execute implements bolt.Bolt: it takes a reading through the rule. A reading without a field that the condition needs changes nothing.
func (b *Bolt) Execute(ctx context.Context, t *tuple.Tuple, c *bolt.Collector) (err error) {
	b.doc.Reset(t.Payload)
	b.env.Doc, b.env.Device, b.env.Time, b.env.Stream = &b.doc, t.Key, t.Time, t.Stream
	if b.env.Archive, err = b.Archive.Of(ctx, t.Key); err != nil {
		return err
	}
	if b.where != nil {
		if pass, err := b.answer(b.where); !pass || err != nil {
			return ignoreAbsent(err)
		}
	}
	key := stateKey + b.id + "-" + c.Group()
	v, err := c.State().Read(ctx, key, decode)
	if err != nil {
		return unread(err)
	}
	r := *v.(*record)
	changed := b.silence.heard(&r.watch, c)
	if r.Hear(t.Time) == Cleared {
		changed = true
		if err := b.emit(t, c, &r.Episode); err != nil {
			return err
		}
	}
	switch change, err := b.judge(t, &r.Episode); {
	case err != nil:
		return err
	case change == Raised || change == Cleared:
		if err := b.emit(t, c, &r.Episode); err != nil {
			return err
		}
		changed = true
	case change == Counted:
		changed = true
	}
	if !changed {
		return nil
	}
	if v, err = c.State().Edit(ctx, key, decode); err != nil {
		return unread(err)
	}
	*v.(*record) = r
	return nil
}

// judge takes the reading through the condition, if there is one.
func (b *Bolt) judge(t *tuple.Tuple, e *Episode) (Change, error) {
	if b.when == nil && b.script == nil {
		return Nothing, nil
	}
	speaks, err := b.speaks(t, e.Open)
	if err != nil {
		return Nothing, ignoreAbsent(err)
	}
	return e.Step(b.limits, speaks, t.Time), nil
}

// emit tells of what the reading has just done to the alarm.
func (b *Bolt) emit(t *tuple.Tuple, c *bolt.Collector, e *Episode) error {
	value, err := b.value()
	if err != nil {
		return err
	}
	payload, err := b.event(cause{t.Key, t.Time, value}, c.Group(), e)
	if err != nil {
		return err
	}
	c.Emit(bolt.Emission{Key: t.Key, Time: t.Time, Payload: payload})
	return nil
}

// speaks tells whether the reading speaks for a change: for the raise, or for the clear of an open alarm.
func (b *Bolt) speaks(t *tuple.Tuple, open bool) (bool, error) {
	if open && b.clear != nil {
		return b.answer(b.clear)
	}
	if b.when != nil {
		holds, err := b.answer(b.when)
		return holds != open, err
	}
	holds, err := b.script.Test(&script.Input{Doc: &b.doc, ID: t.ID, Device: t.Key, Stream: t.Stream, Time: t.Time, Archive: b.env.Archive})
	return holds != open, fault(err)
}

func (b *Bolt) answer(e *script.Expr) (bool, error) {
	yes, err := e.EvalBool(&b.env)
	return yes, fault(err)
}

// fault classifies what an expression or a script did wrong: it is final, except for a script that ran too long, since the next try may find the
// machine less busy. Absence is no fault.
func fault(err error) error {
	if err == nil || errors.Is(err, script.ErrAbsent) || errors.Is(err, script.ErrDeadline) {
		return err
	}
	return bolt.Reject(err)
}

func ignoreAbsent(err error) error {
	if errors.Is(err, script.ErrAbsent) {
		return nil
	}
	return err
}

// unread classifies an error of the state: an unreadable value is final, anything else is an outage.
func unread(err error) error {
	if errors.Is(err, errCorrupt) {
		return bolt.Reject(err)
	}
	return bolt.Unavailable(err)
}
