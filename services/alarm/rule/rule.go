// Package rule is what an alarm node does: it tests a condition on every reading and follows, per group, the episodes in which it holds.
// The alarm service and the single-process mode run one Bolt per loop, since the script's engine is not safe for concurrent use.
// It never reads a clock: how long the condition has held is judged at readings, in event time, and how long a group has been silent, or an episode has not
// been acknowledged, at ticks.
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

	id     string
	group  func(*tuple.Tuple) (string, bool)
	limits Limits

	where   *script.Expr // nil: all readings
	levels  []level      // rising; none: there is only silence to look for
	script  *script.Runtime
	recalls bool     // the script sees the group's previous reading
	fields  []string // of the payload, that the conditions refer to

	profiles bool // an expression or the script reads them

	doc      script.Doc
	before   script.Doc  // the previous reading
	previous *script.Doc // before, if there is one
	env      script.Env
	out      script.Doc

	said   []Answer // scratch
	tracks []Track  // scratch: of the record that is being worked on

	clock clock
}

// level is one of an alarm's conditions.
type level struct {
	when  *script.Expr // nil: the script decides
	clear *script.Expr // nil: not when
}

// New makes the alarm that spec declares. Group must be the function that the router uses; params are the topology's, for scripts. Errors carry the place
// in the topology or the script.
func New(spec topology.Bolt, group func(*tuple.Tuple) (string, bool), params map[string]any) (*Bolt, error) {
	b := &Bolt{
		id: spec.ID, group: group,
		limits: Limits{
			RaiseAfter: spec.RaiseAfter, ClearAfter: spec.ClearAfter,
			RaiseFor: spec.RaiseFor.Milliseconds(), ClearFor: spec.ClearFor.Milliseconds(), Suppress: spec.Suppress.Milliseconds(),
			Quiet: spec.Severity,
		},
	}
	if e := spec.Escalate; e != nil {
		b.limits.Escalated = e.To
	}
	if f := spec.Flapping; f != nil {
		b.limits.Flapping = Flapping{Raises: f.Raises, Within: f.Within.Milliseconds(), Calm: f.Calm.Milliseconds()}
	}
	if err := b.declare(spec, params); err != nil {
		return nil, fmt.Errorf("alarm %s: %w", spec.ID, err)
	}
	return b, nil
}

func (b *Bolt) declare(spec topology.Bolt, params map[string]any) (err error) {
	conditions := 0
	for _, given := range []bool{spec.When != nil, spec.Script != nil, len(spec.Levels) > 0} {
		if given {
			conditions++
		}
	}
	switch {
	case conditions > 1 || conditions == 0 && spec.NoData == 0:
		return errors.New("it needs either when, levels or a script with when(t, ctx), or no_data")
	case conditions == 0 && spec.Clear != nil:
		return errors.New("clear has no meaning without a condition")
	case spec.RaiseAfter < 0 || spec.ClearAfter < 0 || spec.RaiseFor < 0 || spec.ClearFor < 0 || spec.Suppress < 0 || spec.NoData < 0:
		return errors.New("a number of readings or a duration is negative")
	}
	b.clock.declare(spec)
	if b.where, err = b.compile(spec.Where); err != nil {
		return err
	}
	declared := spec.Levels
	if conditions > 0 && len(declared) == 0 {
		declared = []topology.Level{{Severity: spec.Severity, When: spec.When, Clear: spec.Clear}}
	}
	for _, d := range declared {
		var l level
		if l.when, err = b.compile(d.When); err != nil {
			return err
		}
		if l.clear, err = b.compile(d.Clear); err != nil {
			return err
		}
		b.levels, b.limits.Levels = append(b.levels, l), append(b.limits.Levels, d.Severity)
		if l.when == nil {
			continue
		}
		for _, f := range l.when.Fields() {
			if !ambient(f) && !slices.Contains(b.fields, f) {
				b.fields = append(b.fields, f)
			}
		}
	}
	b.said = make([]Answer, len(b.levels))
	if spec.Script == nil {
		return nil
	}
	b.profiles = b.profiles || spec.Script.UsesArchive()
	b.recalls = spec.Script.UsesPrevious()
	return b.load(*spec.Script, params)
}

// ambient says that a field is not the reading's but its surroundings', the same for all readings of the group.
func ambient(field string) bool {
	return field == "device" || field == "time" || field == "stream" || topology.UsesArchive([]string{field})
}

// compile leaves the fields open: that they exist and have the right types was checked when the topology was validated.
func (b *Bolt) compile(e *topology.Expr) (*script.Expr, error) {
	if e == nil {
		return nil, nil
	}
	c, err := script.CompileExpr(e.Source, script.ExprOptions{Open: true, Want: script.Bool, File: e.At.File, Line: e.At.Line, Column: e.At.Column})
	if err == nil {
		b.doc.Expect(c.Fields()...)
		b.profiles = b.profiles || topology.UsesArchive(c.Fields())
	}
	return c, err
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

// Group implements bolt.Stateful. A command names its group.
func (b *Bolt) Group(t *tuple.Tuple) (string, bool) {
	if t.Stream == tuple.CommandStream {
		return t.Group, t.Group != ""
	}
	return b.group(t)
}

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
	if t.Stream == tuple.CommandStream {
		return b.command(ctx, t, c)
	}
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
	r, err := b.read(ctx, c)
	if err != nil {
		return err
	}
	b.recall(r)
	changed := b.clock.heard(&r.watch, c)
	if r.Hear(t.Time) == Cleared {
		changed = true
		if err := b.tell(Cleared, t, c, &r.Episode); err != nil {
			return err
		}
	}
	switch change, err := b.judge(t, &r.Episode); {
	case err != nil:
		return err
	case change != Nothing:
		changed = true
		if err := b.tell(change, t, c, &r.Episode); err != nil {
			return err
		}
	}
	if b.remember(r, t) {
		changed = true
	}
	if b.clock.wait(&r.watch, r.Waiting(&b.limits), c) || changed {
		return b.write(ctx, c, r)
	}
	return nil
}

// read returns a copy of the group's record, which write stores.
func (b *Bolt) read(ctx context.Context, c *bolt.Collector) (*record, error) {
	v, err := c.State().Read(ctx, stateKey+b.id+"-"+c.Group(), decode)
	if err != nil {
		return nil, unread(err)
	}
	r := *v.(*record)
	b.tracks = append(b.tracks[:0], r.Tracks...)
	r.Tracks = b.tracks
	if r.Open && len(r.History) == 0 { // stored by a version without histories
		r.fit(len(b.levels))
		r.Severity = r.severity(&b.limits)
		r.History = []Happening{{What: Raised, At: r.RaisedAt, Severity: r.Severity}}
	}
	return &r, nil
}

func (b *Bolt) write(ctx context.Context, c *bolt.Collector, r *record) error {
	v, err := c.State().Edit(ctx, stateKey+b.id+"-"+c.Group(), decode)
	if err != nil {
		return unread(err)
	}
	b.tracks = r.Tracks[:0] // it may have grown
	if r.Tracks = slices.Clone(r.Tracks); fresh(r.Tracks) {
		r.Tracks = nil
	}
	if !r.Open { // it has been told
		r.History, r.Omitted = nil, 0
	}
	*v.(*record) = *r
	return nil
}

// judge takes the reading through the conditions, if there are any.
func (b *Bolt) judge(t *tuple.Tuple, e *Episode) (Change, error) {
	if len(b.levels) == 0 {
		return Nothing, nil
	}
	e.fit(len(b.levels))
	for i := range b.levels {
		b.said[i] = Against
		speaks, err := b.speaks(&b.levels[i], t, e.Tracks[i].Held)
		switch {
		case errors.Is(err, script.ErrAbsent):
			b.said[i] = Unknown
		case err != nil:
			return Nothing, err
		case speaks:
			b.said[i] = For
		}
	}
	return e.Step(&b.limits, b.said, t.Time), nil
}

// tell emits what the reading has just done to the alarm, if that is an event.
func (b *Bolt) tell(what Change, t *tuple.Tuple, c *bolt.Collector, e *Episode) error {
	if what.String() == "" {
		return nil
	}
	value, err := b.value()
	if err != nil {
		return err
	}
	return b.emit(what, cause{device: t.Key, at: t.Time, value: value}, c, e)
}

// speaks tells whether the reading speaks for a change of a level: that it holds, or that it no longer does if it is held.
func (b *Bolt) speaks(l *level, t *tuple.Tuple, held bool) (bool, error) {
	if held && l.clear != nil {
		return b.answer(l.clear)
	}
	if l.when != nil {
		holds, err := b.answer(l.when)
		return holds != held, err
	}
	holds, err := b.script.Test(&script.Input{Doc: &b.doc, ID: t.ID, Device: t.Key, Stream: t.Stream, Time: t.Time, Archive: b.env.Archive, Previous: b.previous})
	return holds != held, fault(err)
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
