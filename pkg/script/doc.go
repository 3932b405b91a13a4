// Package script runs what users write: one-line expr-lang expressions and JavaScript, over JSON objects that are decoded only where touched.
// The convert, stat and alarm bolts call it for every tuple, and topology validation compiles with it to report faults with their place.
// It never does I/O, starts a goroutine of its own, reads the wall clock or lets a script panic out; yet scripts are operator-trusted: memory is bounded case by case, not as a whole.
package script

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Doc is one JSON object over raw bytes, such as a tuple's payload. Nothing is decoded until asked for, and bytes that
// nobody changed are returned as they came, digits beyond 2^53 included. The zero Doc is an error until Reset.
// It is not safe for concurrent use, and its raw bytes must not change while it is used.
type Doc struct {
	raw    []byte
	root   object
	extent extent
	expect []uint32 // hashes of the names that readers look up, by Expect; nil: any
	err    error
}

// extent is how much of a Doc has been indexed.
type extent uint8

const (
	nothing  extent = iota
	expected        // the fields of Doc.expect
	everything
)

// NewDoc returns a Doc over raw.
func NewDoc(raw []byte) *Doc {
	d := &Doc{}
	d.Reset(raw)
	return d
}

// Reset makes d a Doc over raw, keeping its memory.
func (d *Doc) Reset(raw []byte) {
	d.raw, d.extent, d.err = raw, nothing, nil
}

// Expect says which paths will be looked up, beside others perhaps: of the objects to come only these fields are indexed, as long as nobody asks for more.
func (d *Doc) Expect(paths ...string) {
	for _, p := range paths {
		eachName(p, func(name string) bool {
			d.expect = append(d.expect, hashOf(name))
			return true
		})
	}
}

// eachName calls f with every name that a path may begin with: in a.b these are a.b and a. It ends early when f says so.
func eachName(path string, f func(name string) bool) {
	for i := 0; i <= len(path); i++ {
		if (i == len(path) || path[i] == '.') && !f(path[:i]) {
			return
		}
	}
}

// expects reports whether the fields that a path may begin with are among the expected ones.
func (d *Doc) expects(path string) (yes bool) {
	yes = true
	eachName(path, func(name string) bool {
		yes = slices.Contains(d.expect, hashOf(name))
		return yes
	})
	return yes
}

// Err reports that the raw bytes are not one JSON object, or that a value given to Set has no JSON form.
func (d *Doc) Err() error {
	d.load()
	return d.err
}

var errNotObject = errors.New("the payload is not a JSON object")

// load indexes all fields.
func (d *Doc) load() bool { return d.extend(everything) }

// loadFor indexes what is needed to follow a path.
func (d *Doc) loadFor(path string) bool {
	if d.expect != nil && d.extent != everything && d.expects(path) {
		return d.extend(expected)
	}
	return d.load()
}

func (d *Doc) extend(to extent) bool {
	if d.extent < to && d.err == nil {
		d.extent = to
		only := d.expect
		if to == everything {
			only = nil
		}
		if !d.root.load(d.raw, only) {
			d.root.fields = d.root.fields[:0]
			d.root.places = nil
			d.err = errNotObject
			if len(d.raw) > 0 {
				d.err = fmt.Errorf("%w: %.40q", errNotObject, d.raw)
			}
		}
	}
	return d.err == nil
}

// Value returns the value at a path as bool, float64, string, []any or map[string]any. A path is a field's name, or
// names joined by dots that lead into nested objects; a field whose own name contains the dots wins. Absent and null are
// both ok=false, as is everything in a Doc with an error. Objects and arrays are copies.
func (d *Doc) Value(path string) (v any, ok bool) {
	s := d.slot(path)
	if s == nil || s.kind == kindNull {
		return nil, false
	}
	return s.value(), true
}

// Number returns the number at a path; ok is false when it is absent or not a number.
func (d *Doc) Number(path string) (f float64, ok bool) {
	s := d.slot(path)
	if s == nil || s.kind != kindNumber {
		return 0, false
	}
	return s.num, true
}

// Text returns the string at a path; ok is false when it is absent or not a string.
func (d *Doc) Text(path string) (text string, ok bool) {
	s := d.slot(path)
	if s == nil || s.kind != kindString {
		return "", false
	}
	return s.str, true
}

func (d *Doc) slot(path string) *slot {
	if !d.loadFor(path) {
		return nil
	}
	return d.root.at(path)
}

// at follows a path from o.
func (o *object) at(path string) *slot {
	if s := o.slot(path); s != nil {
		return s
	}
	for dot := strings.IndexByte(path, '.'); dot >= 0; {
		if s := o.slot(path[:dot]); s != nil && s.kind == kindObject {
			if s := s.ref.(*object).at(path[dot+1:]); s != nil {
				return s
			}
		}
		next := strings.IndexByte(path[dot+1:], '.')
		if next < 0 {
			break
		}
		dot += 1 + next
	}
	return nil
}

// Keys returns the names of the object's fields in their order.
func (d *Doc) Keys() []string {
	if !d.load() {
		return nil
	}
	return d.root.keys()
}

// Set gives the field called name (dots are part of the name) a value: any Go value with a JSON form. A value without
// one, such as NaN, makes Err and Bytes fail.
func (d *Doc) Set(name string, v any) {
	if !d.load() {
		return
	}
	s, err := slotOf(v)
	if err != nil {
		d.err = fmt.Errorf("%s: %w", name, err)
		return
	}
	if s.kind == kindRaw {
		s.decode(&d.root.node)
	}
	d.root.set(name, s)
}

// Delete removes the field called name, if there is one.
func (d *Doc) Delete(name string) {
	if d.load() {
		d.root.delete(name)
	}
}

// Bytes returns the object as JSON: the raw bytes themselves when nothing changed, otherwise new bytes in which fields
// keep their order and added ones follow in the order of Set.
func (d *Doc) Bytes() ([]byte, error) {
	if !d.load() {
		return nil, d.err
	}
	if !d.root.dirty {
		return d.raw, nil
	}
	e := encoder{out: make([]byte, 0, len(d.raw)+64)}
	if err := e.object(&d.root, 0); err != nil {
		return nil, err
	}
	return e.out, nil
}
