package script

import (
	"encoding/json"
	"fmt"
	"hash/maphash"
	"math"
	"slices"
	"strconv"
)

// kind says what a slot holds.
type kind uint8

const (
	kindAbsent kind = iota // deleted, or undefined in a script
	kindRaw                // JSON not looked at yet
	kindNull
	kindBool
	kindNumber
	kindString
	kindObject
	kindArray
	kindNative // an object of a running script; only between the start and the end of one call
)

// slot is one value of an object or an array, decoded when it is first looked at.
type slot struct {
	kind kind
	num  float64 // number; 1 for true
	str  string
	raw  []byte // the value's JSON; nil once it was set to something else
	ref  any    // *object, *array, the script's own object, or (for a scalar) the boxed Go value
}

// node is what objects and arrays have in common: where they hang and whether anything below them changed.
type node struct {
	parent *node
	dirty  bool
	view   view // the object that scripts see, made when one looks
}

func (n *node) touch() {
	for ; n != nil && !n.dirty; n = n.parent {
		n.dirty = true
	}
}

// decode looks at a raw slot; owner becomes the parent of an object or array found there.
func (s *slot) decode(owner *node) {
	if s.kind != kindRaw {
		return
	}
	switch c := s.raw[0]; c {
	case 'n':
		s.kind = kindNull
	case 't':
		s.kind, s.num = kindBool, 1
	case 'f':
		s.kind, s.num = kindBool, 0
	case '"':
		s.kind, s.str = kindString, unquote(s.raw)
	case '{':
		o := &object{}
		o.parent = owner
		o.load(s.raw, nil)
		s.kind, s.ref = kindObject, o
	case '[':
		a := &array{}
		a.parent = owner
		a.load(s.raw)
		s.kind, s.ref = kindArray, a
	default:
		// out of range means an infinity, as in JavaScript; the digits stay in raw
		f, _ := strconv.ParseFloat(string(s.raw), 64)
		s.kind, s.num = kindNumber, f
	}
}

// value returns a decoded slot as Go: nil, bool, float64, string, map[string]any or []any. Scalars are boxed once.
func (s *slot) value() any {
	switch s.kind {
	case kindBool:
		return s.num != 0
	case kindNumber:
		if s.ref == nil {
			s.ref = s.num
		}
		return s.ref
	case kindString:
		if s.ref == nil {
			s.ref = s.str
		}
		return s.ref
	case kindObject:
		return s.ref.(*object).value()
	case kindArray:
		return s.ref.(*array).value()
	}
	return nil
}

// slotOf encodes a Go value that is not a script's.
func slotOf(v any) (slot, error) {
	switch v := v.(type) {
	case nil:
		return slot{kind: kindNull}, nil
	case bool:
		s := slot{kind: kindBool}
		if v {
			s.num = 1
		}
		return s, nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return slot{}, fmt.Errorf("%v has no JSON form", v)
		}
		return slot{kind: kindNumber, num: v}, nil
	case string:
		return slot{kind: kindString, str: v}, nil
	case int:
		return slot{kind: kindRaw, raw: strconv.AppendInt(nil, int64(v), 10)}, nil
	case int64:
		return slot{kind: kindRaw, raw: strconv.AppendInt(nil, v, 10)}, nil
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return slot{}, err
	}
	return slot{kind: kindRaw, raw: raw}, nil
}

// field is one member of an object.
type field struct {
	quoted  []byte // the key as written, nil for a field added later
	name    string // the key decoded, when decoded is set
	decoded bool
	hash    uint32
	slot
}

func (f *field) key() string {
	if !f.decoded {
		f.name, f.decoded = string(f.quoted[1:len(f.quoted)-1]), true
	}
	return f.name
}

// hashOf tells most names of one object apart at the cost of a few instructions.
func hashOf[T string | []byte](s T) uint32 {
	n := len(s)
	if n == 0 {
		return 0
	}
	return uint32(n)&0xff | uint32(s[0])<<8 | uint32(s[n-1])<<16 | uint32(s[n/2])<<24
}

// wide is the number of fields from which an object keeps a hash table of names; below it a walk is faster.
const wide = 32

// object is a JSON object whose fields are known and whose values are decoded when touched. A name that occurs twice
// has the place of its first and the value of its last occurrence, as in JavaScript.
type object struct {
	node
	fields []field
	places []int32 // hash table of objects with more than wide fields, open addressing: 1 + a field's place, 0 is free; its length is a power of two
}

// load indexes raw, which must hold one JSON object and nothing else: the fields whose names have the hashes of only, or all when it is nil.
func (o *object) load(raw []byte, only []uint32) bool {
	o.fields = o.fields[:0]
	o.places = o.places[:0]
	o.dirty = false
	o.view = view{}
	s := scanner{b: raw}
	s.space()
	if s.peek() != '{' {
		return false
	}
	add := o.append
	if only != nil {
		add = func(quoted []byte, plain bool, value []byte) {
			if !plain || slices.Contains(only, hashOf(quoted[1:len(quoted)-1])) {
				o.append(quoted, plain, value)
			}
		}
	}
	ok := s.members(0, add)
	s.space()
	return ok && s.i == len(raw)
}

func (o *object) append(quoted []byte, plain bool, value []byte) {
	name := quoted[1 : len(quoted)-1]
	decoded := ""
	if !plain {
		decoded = unquote(quoted)
		name = []byte(decoded)
	}
	hash := hashOf(name)
	if i := find(o, name, hash); i >= 0 {
		o.fields[i].slot = slot{kind: kindRaw, raw: value}
		return
	}
	f := o.push()
	f.quoted, f.hash, f.kind, f.raw = quoted, hash, kindRaw, value
	f.name, f.decoded = decoded, !plain
	o.note()
}

// push adds an empty field; note must follow once it has its name.
func (o *object) push() *field {
	n := len(o.fields)
	if n < cap(o.fields) {
		o.fields = o.fields[:n+1]
		o.fields[n] = field{}
	} else {
		o.fields = append(o.fields, field{})
	}
	return &o.fields[n]
}

// note enters the last field into the table, once the object is wide.
func (o *object) note() {
	n := len(o.fields)
	if n > wide && 2*n > len(o.places) { // at most half full, so that a search ends soon
		o.index()
	} else if n > wide {
		o.enter(n - 1)
	}
}

// index makes the table, in the memory of the one before if that suffices.
func (o *object) index() {
	size := 4 * wide
	for size < 4*len(o.fields) {
		size *= 2
	}
	if cap(o.places) < size {
		o.places = make([]int32, size)
	}
	o.places = o.places[:size]
	clear(o.places)
	for i := range o.fields {
		o.enter(i)
	}
}

func (o *object) enter(i int) {
	f := &o.fields[i]
	var at int
	if f.decoded {
		at = o.home(maphash.String(seed, f.name))
	} else {
		at = o.home(maphash.Bytes(seed, f.quoted[1:len(f.quoted)-1]))
	}
	for o.places[at] != 0 {
		at = (at + 1) & (len(o.places) - 1)
	}
	o.places[at] = int32(i + 1)
}

// seed makes it unknown which names meet in a table: they come from anybody.
var seed = maphash.MakeSeed()

func (o *object) home(hash uint64) int { return int(hash) & (len(o.places) - 1) }

func (f *field) is(name string) bool {
	return f.decoded && f.name == name || !f.decoded && string(f.quoted[1:len(f.quoted)-1]) == name
}

func (o *object) add(name string, hash uint32, v slot) {
	*o.push() = field{name: name, decoded: true, hash: hash, slot: v}
	o.note()
	o.touch()
}

// find returns the place of a field, deleted ones included, or -1.
func find[T string | []byte](o *object, name T, hash uint32) int {
	if len(o.places) > 0 {
		for at := o.home(maphash.String(seed, string(name))); o.places[at] != 0; at = (at + 1) & (len(o.places) - 1) {
			i := int(o.places[at]) - 1
			if f := &o.fields[i]; f.hash == hash && f.is(string(name)) {
				return i
			}
		}
		return -1
	}
	for i := range o.fields {
		if f := &o.fields[i]; f.hash == hash && f.is(string(name)) {
			return i
		}
	}
	return -1
}

// slot returns a field's decoded value, or nil when there is none.
func (o *object) slot(name string) *slot {
	i := find(o, name, hashOf(name))
	if i < 0 || o.fields[i].kind == kindAbsent {
		return nil
	}
	s := &o.fields[i].slot
	s.decode(&o.node)
	return s
}

// set replaces or adds a field; setting the scalar that is already there changes nothing, so that its digits stay.
func (o *object) set(name string, v slot) {
	hash := hashOf(name)
	i := find(o, name, hash)
	if i < 0 {
		o.add(name, hash, v)
		return
	}
	s := &o.fields[i].slot
	s.decode(&o.node)
	if s.same(&v) {
		return
	}
	if s.kind == kindAbsent { // deleted before: it comes back at the end, as in JavaScript
		o.remove(i)
		o.add(name, hash, v)
		return
	}
	*s = v
	o.touch()
}

func (s *slot) same(v *slot) bool {
	if s.kind != v.kind {
		return false
	}
	switch s.kind {
	case kindNull:
		return true
	case kindBool, kindNumber:
		return s.num == v.num
	case kindString:
		return s.str == v.str
	}
	return false
}

func (o *object) remove(i int) {
	o.fields = append(o.fields[:i], o.fields[i+1:]...)
	if len(o.places) > 0 {
		o.index()
	}
}

func (o *object) delete(name string) {
	i := find(o, name, hashOf(name))
	if i < 0 || o.fields[i].kind == kindAbsent {
		return
	}
	o.fields[i].slot = slot{}
	o.touch()
}

func (o *object) keys() []string {
	keys := make([]string, 0, len(o.fields))
	for i := range o.fields {
		if o.fields[i].kind != kindAbsent {
			keys = append(keys, o.fields[i].key())
		}
	}
	return keys
}

func (o *object) value() map[string]any {
	m := make(map[string]any, len(o.fields))
	for i := range o.fields {
		f := &o.fields[i]
		if f.kind == kindAbsent {
			continue
		}
		f.decode(&o.node)
		m[f.key()] = f.slot.value()
	}
	return m
}

// array is a JSON array whose elements are decoded when touched.
type array struct {
	node
	items []slot
}

// load indexes raw, which must hold a valid JSON array.
func (a *array) load(raw []byte) {
	a.items = make([]slot, 0, 8)
	s := scanner{b: raw}
	s.items(0, func(value []byte) { a.items = append(a.items, slot{kind: kindRaw, raw: value}) })
}

func (a *array) slot(i int) *slot {
	if i < 0 || i >= len(a.items) {
		return nil
	}
	s := &a.items[i]
	s.decode(&a.node)
	return s
}

func (a *array) set(i int, v slot) {
	for len(a.items) <= i {
		a.items = append(a.items, slot{kind: kindNull})
	}
	s := a.slot(i)
	if s.same(&v) {
		return
	}
	*s = v
	a.touch()
}

func (a *array) resize(n int) {
	if n == len(a.items) {
		return
	}
	for len(a.items) < n {
		a.items = append(a.items, slot{kind: kindNull})
	}
	clear(a.items[n:])
	a.items = a.items[:n]
	a.touch()
}

func (a *array) value() []any {
	out := make([]any, len(a.items))
	for i := range a.items {
		out[i] = a.slot(i).value()
	}
	return out
}
