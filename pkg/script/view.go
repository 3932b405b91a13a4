package script

import (
	"fmt"
	"math"
	"reflect"

	"github.com/dop251/goja"
)

// view remembers the object by which a runtime shows a node, so that t.a === t.a.
type view struct {
	rt    *Runtime
	epoch int // of rt: an object of a runtime that was thrown away is of no use
	shown *goja.Object
}

// objectView shows an object to scripts; it implements goja.DynamicObject.
type objectView struct {
	rt *Runtime
	o  *object // nil once the call is over
}

// arrayView shows an array to scripts; it implements goja.DynamicArray.
type arrayView struct {
	rt *Runtime
	a  *array
}

var (
	objectViewType = reflect.TypeFor[*objectView]()
	arrayViewType  = reflect.TypeFor[*arrayView]()
	promiseType    = reflect.TypeFor[*goja.Promise]()
)

// open shows an object for the length of one call.
func (rt *Runtime) open(o *object) *goja.Object {
	v := &objectView{rt: rt, o: o}
	rt.opened = append(rt.opened, v)
	o.view = view{rt: rt, epoch: rt.epoch, shown: rt.vm.NewDynamicObject(v)}
	return o.view.shown
}

func (rt *Runtime) show(n *node, build func() *goja.Object) *goja.Object {
	if n.view.rt != rt || n.view.epoch != rt.epoch {
		n.view = view{rt: rt, epoch: rt.epoch, shown: build()}
	}
	return n.view.shown
}

// toJS returns a decoded slot as scripts see it.
func (rt *Runtime) toJS(s *slot) goja.Value {
	switch s.kind {
	case kindAbsent:
		return nil
	case kindBool:
		return rt.vm.ToValue(s.num != 0)
	case kindNumber:
		return rt.vm.ToValue(s.num)
	case kindString:
		return rt.vm.ToValue(s.str)
	case kindObject:
		o := s.ref.(*object)
		return rt.show(&o.node, func() *goja.Object { return rt.vm.NewDynamicObject(&objectView{rt: rt, o: o}) })
	case kindArray:
		a := s.ref.(*array)
		return rt.show(&a.node, func() *goja.Object { return rt.vm.NewDynamicArray(&arrayView{rt: rt, a: a}) })
	case kindNative:
		return s.ref.(goja.Value)
	}
	return goja.Null()
}

// fromJS takes a script's value into a slot. Objects stay the script's own until the call ends; see settle.
func (rt *Runtime) fromJS(v goja.Value) slot {
	switch v := v.(type) {
	case nil:
		return slot{}
	case *goja.Object:
		return slot{kind: kindNative, ref: v}
	}
	if goja.IsUndefined(v) {
		return slot{}
	}
	if goja.IsNull(v) {
		return slot{kind: kindNull}
	}
	switch v.ExportType().Kind() {
	case reflect.Bool:
		s := slot{kind: kindBool}
		if v.ToBoolean() {
			s.num = 1
		}
		return s
	case reflect.Int64, reflect.Float64:
		return slot{kind: kindNumber, num: v.ToFloat()}
	case reflect.String:
		return slot{kind: kindString, str: v.String()}
	}
	panic(rt.vm.NewTypeError("a %s has no JSON form", v.ExportType()))
}

func (v *objectView) object() *object {
	if v.o == nil {
		panic(v.rt.vm.NewTypeError("this object belongs to a call that has ended; copy what is to be kept"))
	}
	return v.o
}

// Get implements goja.DynamicObject.
func (v *objectView) Get(key string) goja.Value {
	s := v.object().slot(key)
	if s == nil {
		return nil
	}
	return v.rt.toJS(s)
}

// Set implements goja.DynamicObject. Setting undefined deletes, which is what JSON makes of it.
func (v *objectView) Set(key string, val goja.Value) bool {
	s := v.rt.fromJS(val)
	if s.kind == kindAbsent {
		v.object().delete(key)
	} else {
		v.object().set(key, s)
	}
	return true
}

// Has implements goja.DynamicObject.
func (v *objectView) Has(key string) bool {
	o := v.object()
	i := find(o, key, hashOf(key))
	return i >= 0 && o.fields[i].kind != kindAbsent
}

// Delete implements goja.DynamicObject.
func (v *objectView) Delete(key string) bool {
	v.object().delete(key)
	return true
}

// Keys implements goja.DynamicObject.
func (v *objectView) Keys() []string { return v.object().keys() }

// Len implements goja.DynamicArray.
func (v *arrayView) Len() int { return len(v.a.items) }

// Get implements goja.DynamicArray.
func (v *arrayView) Get(i int) goja.Value {
	s := v.a.slot(i)
	if s == nil {
		return nil
	}
	return v.rt.toJS(s)
}

// Set implements goja.DynamicArray; undefined becomes null, as in JSON.
func (v *arrayView) Set(i int, val goja.Value) bool {
	if i < 0 || i >= maxLength {
		return false
	}
	s := v.rt.fromJS(val)
	if s.kind == kindAbsent {
		s.kind = kindNull
	}
	v.a.set(i, s)
	return true
}

// SetLen implements goja.DynamicArray.
func (v *arrayView) SetLen(n int) bool {
	if n < 0 || n > maxLength {
		return false
	}
	v.a.resize(n)
	return true
}

// settle encodes the script's own objects that were put into a tree, so that the tree outlives the call, and finds
// numbers that have no JSON form. Only what changed is visited.
func (rt *Runtime) settle(s *slot, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("nested more than %d deep", maxDepth)
	}
	switch s.kind {
	case kindNumber:
		if math.IsNaN(s.num) || s.raw == nil && math.IsInf(s.num, 0) {
			return fmt.Errorf("%v has no JSON form", s.num)
		}
	case kindNative:
		e := encoder{natives: rt.native}
		if err := rt.native(&e, s.ref, depth); err != nil {
			return err
		}
		*s = slot{kind: kindRaw, raw: e.out}
	case kindObject:
		return rt.settleObject(s.ref.(*object), depth)
	case kindArray:
		a := s.ref.(*array)
		if !a.dirty {
			return nil
		}
		for i := range a.items {
			if err := rt.settle(&a.items[i], depth+1); err != nil {
				return fmt.Errorf("%d: %w", i, err)
			}
		}
	}
	return nil
}

func (rt *Runtime) settleObject(o *object, depth int) error {
	if !o.dirty {
		return nil
	}
	for i := range o.fields {
		f := &o.fields[i]
		if err := rt.settle(&f.slot, depth+1); err != nil {
			return fmt.Errorf("%s: %w", f.key(), err)
		}
	}
	return nil
}

// native writes a script's own value as JSON.stringify would, except that NaN and infinities are errors.
func (rt *Runtime) native(e *encoder, v any, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("the value is nested more than %d deep, or contains itself", maxDepth)
	}
	obj, ok := v.(*goja.Object)
	if !ok {
		s := rt.fromJS(v.(goja.Value))
		return e.scalar(&s)
	}
	switch obj.ExportType() {
	case objectViewType:
		return e.object(obj.Export().(*objectView).object(), depth)
	case arrayViewType:
		return e.array(obj.Export().(*arrayView).a, depth)
	case promiseType:
		return fmt.Errorf("a promise has no JSON form: scripts run to their end in one call")
	}
	switch obj.ClassName() {
	case "Array":
		return rt.nativeArray(e, obj, depth)
	case "Number", "String", "Boolean":
		return rt.native(e, rt.vm.ToValue(obj.Export()), depth+1)
	case "Date":
		to, _ := goja.AssertFunction(obj.Get("toJSON"))
		out, err := to(obj)
		if err != nil {
			panic(err)
		}
		return rt.native(e, out, depth+1)
	}
	if _, ok := goja.AssertFunction(obj); ok {
		return fmt.Errorf("a function has no JSON form")
	}
	if to, ok := goja.AssertFunction(obj.Get("toJSON")); ok {
		out, err := to(obj)
		if err != nil {
			panic(err)
		}
		return rt.native(e, out, depth+1)
	}
	return rt.nativeObject(e, obj, depth)
}

func (rt *Runtime) nativeArray(e *encoder, obj *goja.Object, depth int) error {
	n := obj.Get("length").ToInteger()
	if n > maxLength {
		return fmt.Errorf("%w: a list of %d", ErrTooLarge, n)
	}
	e.out = append(e.out, '[')
	for i := range n {
		if i > 0 {
			e.out = append(e.out, ',')
		}
		item := obj.Get(fmt.Sprint(i))
		if item == nil || goja.IsUndefined(item) {
			item = goja.Null()
		}
		if err := rt.native(e, item, depth+1); err != nil {
			return fmt.Errorf("%d: %w", i, err)
		}
	}
	e.out = append(e.out, ']')
	return e.room(0)
}

func (rt *Runtime) nativeObject(e *encoder, obj *goja.Object, depth int) error {
	e.out = append(e.out, '{')
	first := true
	for _, key := range obj.Keys() {
		item := obj.Get(key)
		if item == nil || goja.IsUndefined(item) {
			continue
		}
		if !first {
			e.out = append(e.out, ',')
		}
		first = false
		e.out = appendString(e.out, key)
		e.out = append(e.out, ':')
		if err := rt.native(e, item, depth+1); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	e.out = append(e.out, '}')
	return e.room(0)
}
