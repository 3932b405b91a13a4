package script

import (
	"encoding/json"
	"fmt"

	"github.com/dop251/goja"

	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Output is what a convert script made of a tuple.
type Output struct {
	Stream  string // "" is the default stream
	Payload []byte // a JSON object of at most tuple.MaxPayload bytes; the input's own bytes when the script returned t as it was
}

// reading prepares a call for a tuple and returns t.
func (rt *Runtime) reading(name string, in *Input) (goja.Callable, *goja.Object, error) {
	fn, err := rt.begin(name, in)
	if err != nil {
		return nil, nil, err
	}
	if !in.Doc.load() {
		return nil, nil, in.Doc.err
	}
	return fn, rt.open(&in.Doc.root), nil
}

// Convert calls convert(t, ctx). Outputs are those of ctx.emit in its order, then the returned object or objects; a
// script that returns nothing adds none.
func (rt *Runtime) Convert(in *Input) ([]Output, error) {
	fn, t, err := rt.reading("convert", in)
	if err != nil {
		return nil, err
	}
	err = rt.call(fn, func(v goja.Value) error {
		if err := rt.settleObject(&in.Doc.root, 0); err != nil {
			return err
		}
		if v == t { // the common case: patch the payload
			return rt.outputDoc("", in.Doc)
		}
		return rt.each("convert", v, func(v goja.Value) error { return rt.output("", v) })
	}, t, rt.ctx)
	outputs := rt.outputs
	rt.outputs = nil
	if err != nil {
		return nil, err
	}
	return outputs, nil
}

// each hands the object or the objects that a function returned to f.
func (rt *Runtime) each(name string, v goja.Value, f func(goja.Value) error) error {
	if goja.IsUndefined(v) || goja.IsNull(v) {
		return nil
	}
	obj, ok := v.(*goja.Object)
	if !ok {
		return rt.returned(name, v, "an object, an array of objects or nothing")
	}
	if obj.ClassName() != "Array" {
		return f(obj)
	}
	n := obj.Get("length").ToInteger()
	if n > maxOutputs {
		return fmt.Errorf("%w: %s returned %d objects, at most %d are allowed", ErrTooLarge, name, n, maxOutputs)
	}
	for i := range n {
		item := obj.Get(fmt.Sprint(i))
		if item == nil || goja.IsUndefined(item) || goja.IsNull(item) {
			continue
		}
		if err := f(item); err != nil {
			return err
		}
	}
	return nil
}

func (rt *Runtime) returned(name string, v goja.Value, want string) error {
	return fmt.Errorf("%s returned %s, not %s", name, kindOf(v), want)
}

func kindOf(v goja.Value) string {
	if v == nil || goja.IsUndefined(v) {
		return "nothing"
	}
	if goja.IsNull(v) {
		return "null"
	}
	if obj, ok := v.(*goja.Object); ok {
		switch name := obj.ClassName(); name {
		case "Object":
			return "an object"
		case "Array":
			return "an array"
		default:
			return "a " + name
		}
	}
	return nameOf(widen(v.Export()))
}

func (rt *Runtime) output(stream string, v goja.Value) error {
	payload, err := rt.payload(v)
	if err != nil {
		return err
	}
	return rt.add(stream, payload)
}

func (rt *Runtime) outputDoc(stream string, d *Doc) error {
	payload, err := d.Bytes()
	if err != nil {
		return err
	}
	return rt.add(stream, payload)
}

func (rt *Runtime) add(stream string, payload []byte) error {
	if len(payload) > tuple.MaxPayload {
		return fmt.Errorf("%w: more than %d bytes", ErrTooLarge, tuple.MaxPayload)
	}
	if len(rt.outputs) >= maxOutputs {
		return fmt.Errorf("%w: more than %d outputs", ErrTooLarge, maxOutputs)
	}
	rt.outputs = append(rt.outputs, Output{Stream: stream, Payload: payload})
	return nil
}

// payload encodes an object that a script hands over.
func (rt *Runtime) payload(v goja.Value) ([]byte, error) {
	obj, ok := v.(*goja.Object)
	if !ok {
		return nil, fmt.Errorf("%s is not an object", kindOf(v))
	}
	e := encoder{out: make([]byte, 0, 256), natives: rt.native}
	if err := rt.native(&e, obj, 0); err != nil {
		return nil, err
	}
	if e.out[0] != '{' {
		return nil, fmt.Errorf("%s is not an object", kindOf(v))
	}
	if err := e.room(0); err != nil {
		return nil, err
	}
	return e.out, nil
}

// Test calls when(t, ctx). The script answers with a bool; nothing or null is ErrAbsent: it has no opinion on this
// reading.
func (rt *Runtime) Test(in *Input) (bool, error) {
	fn, t, err := rt.reading("when", in)
	if err != nil {
		return false, err
	}
	var answer bool
	err = rt.call(fn, func(v goja.Value) error {
		if goja.IsUndefined(v) || goja.IsNull(v) {
			return ErrAbsent
		}
		var ok bool
		if answer, ok = v.Export().(bool); !ok {
			return rt.returned("when", v, "true, false or nothing")
		}
		return nil
	}, t, rt.ctx)
	return answer && err == nil, err
}

// Group calls group(t, ctx). The script answers with a string, or a number that is written as one; nothing or null is
// ErrAbsent.
func (rt *Runtime) Group(in *Input) (string, error) {
	fn, t, err := rt.reading("group", in)
	if err != nil {
		return "", err
	}
	var group string
	err = rt.call(fn, func(v goja.Value) error {
		if goja.IsUndefined(v) || goja.IsNull(v) {
			return ErrAbsent
		}
		switch v.Export().(type) {
		case string, int64, float64:
			group = v.String()
		default:
			return rt.returned("group", v, "a string")
		}
		if len(group) > tuple.MaxKey {
			return fmt.Errorf("group returned a string longer than %d bytes", tuple.MaxKey)
		}
		return nil
	}, t, rt.ctx)
	if err != nil {
		return "", err
	}
	return group, nil
}

// State is what a stat script keeps per group: a JSON object that Go owns. Scripts change it in place, at any depth.
type State struct{ doc Doc }

// NewState returns the state that raw holds; nil or empty is {}.
func NewState(raw []byte) *State {
	s := &State{}
	s.Reset(raw)
	return s
}

// Reset makes s the state that raw holds, unchanged, keeping its memory.
func (s *State) Reset(raw []byte) {
	if len(raw) == 0 {
		raw = []byte("{}")
	}
	s.doc.Reset(raw)
}

// Bytes returns the state as JSON: the bytes given to Reset while nothing changed.
func (s *State) Bytes() ([]byte, error) { return s.doc.Bytes() }

// Dirty reports whether a script changed the state since Reset.
func (s *State) Dirty() bool { return s.doc.extent != nothing && s.doc.root.dirty }

// Compute calls compute(t, state, ctx). An object that it returns replaces the state; other results are ignored. After
// an error the state is unusable until Reset.
func (rt *Runtime) Compute(in *Input, state *State) error {
	fn, t, err := rt.reading("compute", in)
	if err != nil {
		return err
	}
	if !state.doc.load() {
		return fmt.Errorf("state: %w", state.doc.err)
	}
	held := rt.open(&state.doc.root)
	return rt.call(fn, func(v goja.Value) error {
		obj, ok := v.(*goja.Object)
		if !ok || obj == held {
			return rt.settleState(state)
		}
		raw, err := rt.payload(obj)
		if err != nil {
			return fmt.Errorf("compute: the state: %w", err)
		}
		state.Reset(raw)
		state.doc.load()
		state.doc.root.dirty = true
		return nil
	}, t, held, rt.ctx)
}

func (rt *Runtime) settleState(state *State) error {
	if err := rt.settleObject(&state.doc.root, 0); err != nil {
		return fmt.Errorf("the state: %w", err)
	}
	return nil
}

// OutputOf calls output(state, window, ctx) and returns the objects that it returned, none if it returned nothing.
// Window is any value with a JSON form. The script may change the state.
func (rt *Runtime) OutputOf(state *State, window any) ([][]byte, error) {
	fn, err := rt.begin("output", nil)
	if err != nil {
		return nil, err
	}
	if !state.doc.load() {
		return nil, fmt.Errorf("state: %w", state.doc.err)
	}
	shown := goja.Null()
	if window != nil {
		raw, err := json.Marshal(window)
		if err != nil {
			return nil, fmt.Errorf("window: %w", err)
		}
		s := slot{kind: kindRaw, raw: raw}
		s.decode(nil)
		shown = rt.toJS(&s)
	}
	var payloads [][]byte
	err = rt.call(fn, func(v goja.Value) error {
		if err := rt.settleState(state); err != nil {
			return err
		}
		return rt.each("output", v, func(v goja.Value) error {
			payload, err := rt.payload(v)
			payloads = append(payloads, payload)
			return err
		})
	}, rt.open(&state.doc.root), shown, rt.ctx)
	if err != nil {
		return nil, err
	}
	return payloads, nil
}
