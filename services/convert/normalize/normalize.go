// Package normalize is what a convert node does to a reading: filter it, hand it to the user's script, set and drop fields.
// The convert service and the single-process mode run one Bolt per loop, since the script's engine is not safe for concurrent use.
// It never keeps anything from one reading to the next, and never touches a payload that nothing asks it to change.
package normalize

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/boltmesh/boltmesh/pkg/archive"
	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/script"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Bolt converts readings in this order: `where`, the script, and for each of its outputs `set` (each assignment sees those before it) and `drop`.
// Children inherit key and event time. Without changes the payload that is emitted is the tuple's own slice.
type Bolt struct {
	// Archive is where the profiles of devices come from, set before the first batch if UsesArchive says so; nil: nobody has one.
	Archive *archive.Reader

	where  *script.Expr // nil: all pass
	set    []assignment
	drop   []string
	script *script.Runtime // nil: none

	profiles bool // where, set or the script reads them

	in  script.Doc
	out script.Doc
	env script.Env
}

type assignment struct {
	field string
	value *script.Expr
}

// New compiles what spec declares; params are the topology's, for scripts. Its errors carry the place in the topology or the script.
func New(spec topology.Bolt, params map[string]any) (*Bolt, error) {
	b := &Bolt{drop: spec.Drop}
	var err error
	if spec.Where != nil {
		if b.where, err = compile(*spec.Where, script.Bool); err != nil {
			return nil, fmt.Errorf("where of %s: %w", spec.ID, err)
		}
		b.profiles = topology.UsesArchive(b.where.Fields())
	}
	for _, s := range spec.Set {
		value, err := compile(s.Expr, script.Any)
		if err != nil {
			return nil, fmt.Errorf("set %s of %s: %w", s.Field, spec.ID, err)
		}
		b.set = append(b.set, assignment{s.Field, value})
		b.profiles = b.profiles || topology.UsesArchive(value.Fields())
	}
	if spec.Script != nil {
		if b.script, err = load(*spec.Script, params); err != nil {
			return nil, fmt.Errorf("script of %s: %w", spec.ID, err)
		}
		b.profiles = b.profiles || spec.Script.UsesArchive()
	}
	return b, nil
}

// compile leaves the fields open: that they exist and have the right types was checked when the topology was validated.
func compile(e topology.Expr, want script.Type) (*script.Expr, error) {
	return script.CompileExpr(e.Source, script.ExprOptions{Open: true, Want: want, File: e.At.File, Line: e.At.Line, Column: e.At.Column})
}

func load(s topology.Script, params map[string]any) (*script.Runtime, error) {
	file, text := s.File, s.Text
	if file == "" { // inline: its faults are reported by the lines of the document that it stands in
		file, text = s.At.File, strings.Repeat("\n", max(s.At.Line-1, 0))+text
	}
	p, err := script.CompileJS(file, text)
	if err != nil {
		return nil, err
	}
	if !p.Has("convert") {
		return nil, &script.Error{File: file, Line: max(s.At.Line, 1), Column: 1, Message: "the script declares no function convert", Hint: "write function convert(t, ctx) { return t }"}
	}
	return script.NewRuntime(p, script.RuntimeOptions{Params: params})
}

// UsesArchive reports whether the bolt reads profiles of devices.
func (b *Bolt) UsesArchive() bool { return b.profiles }

// Prepare implements bolt.Preparer.
func (b *Bolt) Prepare(ctx context.Context, batch iter.Seq[*tuple.Tuple]) error {
	return b.Archive.Prepare(ctx, batch)
}

// Execute implements bolt.Bolt. A payload that is not a JSON object, and whatever an expression or a script did wrong, rejects the tuple; only a
// script that ran too long is tried again, because the next try may find the machine less busy.
func (b *Bolt) Execute(ctx context.Context, t *tuple.Tuple, c *bolt.Collector) (err error) {
	b.in.Reset(t.Payload)
	b.env.Device, b.env.Time, b.env.Stream = t.Key, t.Time, t.Stream
	if b.env.Archive, err = b.Archive.Of(ctx, t.Key); err != nil {
		return err
	}
	if b.where != nil {
		b.env.Doc = &b.in
		switch pass, err := b.where.EvalBool(&b.env); {
		case errors.Is(err, script.ErrAbsent):
			return nil
		case err != nil:
			return fault(err)
		case !pass:
			return nil
		}
	}
	if b.script == nil {
		payload, err := b.finish(&b.in)
		if err != nil {
			return err
		}
		c.Emit(bolt.Emission{Key: t.Key, Time: t.Time, Payload: payload})
		return nil
	}
	outputs, err := b.script.Convert(&script.Input{Doc: &b.in, ID: t.ID, Device: t.Key, Stream: t.Stream, Time: t.Time, Archive: b.env.Archive})
	if err != nil {
		return fault(err)
	}
	for _, o := range outputs {
		b.out.Reset(o.Payload)
		payload, err := b.finish(&b.out)
		if err != nil {
			return err
		}
		c.Emit(bolt.Emission{Stream: o.Stream, Key: t.Key, Time: t.Time, Payload: payload})
	}
	return nil
}

// finish applies set and drop to a document and returns its bytes.
func (b *Bolt) finish(d *script.Doc) ([]byte, error) {
	b.env.Doc = d
	for _, s := range b.set {
		v, err := s.value.Eval(&b.env)
		if err != nil && !errors.Is(err, script.ErrAbsent) {
			return nil, fault(err)
		}
		if err == nil && v != nil {
			d.Set(s.field, v)
		}
		if err := d.Err(); err != nil {
			return nil, fault(err)
		}
	}
	for _, field := range b.drop {
		d.Delete(field)
	}
	payload, err := d.Bytes()
	if err != nil {
		return nil, fault(err)
	}
	return payload, nil
}

func fault(err error) error {
	if errors.Is(err, script.ErrDeadline) {
		return err
	}
	return bolt.Reject(err)
}
