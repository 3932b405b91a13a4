package script

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/dop251/goja"

	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// contextView is ctx; it implements goja.DynamicObject and cannot be changed.
type contextView struct {
	rt           *Runtime
	emit, random goja.Value
}

var contextKeys = []string{"device", "time", "stream", "id", "params", "archive", "previous", "random", "emit"}

func (rt *Runtime) prepareContext() error {
	vm := rt.vm
	parse, ok := goja.AssertFunction(vm.Get("JSON").ToObject(vm).Get("parse"))
	if !ok {
		return fmt.Errorf("the engine has no JSON.parse")
	}
	params, err := parse(goja.Undefined(), vm.ToValue(string(rt.params)))
	if err != nil {
		return err
	}
	freeze, err := vm.RunString(`(function freeze(o) {
		if (typeof o === "object" && o !== null) { Object.values(o).forEach(freeze); Object.freeze(o) }
		return o
	})`)
	if err != nil {
		return err
	}
	deep, _ := goja.AssertFunction(freeze)
	if rt.paramsJS, err = deep(goja.Undefined(), params); err != nil {
		return err
	}
	rt.ctx = vm.NewDynamicObject(&contextView{
		rt:     rt,
		emit:   vm.ToValue(rt.emit),
		random: vm.ToValue(func(goja.FunctionCall) goja.Value { return vm.ToValue(rt.next()) }),
	})
	return nil
}

// Get implements goja.DynamicObject.
func (c *contextView) Get(key string) goja.Value {
	vm, in := c.rt.vm, c.rt.input
	switch key {
	case "params":
		return c.rt.paramsJS
	case "emit":
		return c.emit
	case "random":
		return c.random
	}
	if in == nil {
		return nil
	}
	switch key {
	case "device":
		return vm.ToValue(in.Device)
	case "time":
		return vm.ToValue(in.Time)
	case "stream":
		return vm.ToValue(in.Stream)
	case "id":
		return vm.ToValue(in.ID.String())
	case "archive":
		return c.rt.profile(in.Archive)
	case "previous":
		return c.rt.previous(in.Previous)
	}
	return nil
}

// Set implements goja.DynamicObject.
func (c *contextView) Set(key string, _ goja.Value) bool {
	panic(c.rt.vm.NewTypeError("ctx.%s cannot be set; keep values in global variables or, in stat scripts, in the state", key))
}

// Has implements goja.DynamicObject.
func (c *contextView) Has(key string) bool { return slices.Contains(contextKeys, key) }

// Delete implements goja.DynamicObject.
func (c *contextView) Delete(string) bool { return false }

// Keys implements goja.DynamicObject.
func (c *contextView) Keys() []string { return slices.Clone(contextKeys) }

// emit is ctx.emit(obj) and ctx.emit(stream, obj). What is emitted is encoded at once: later changes do not reach it.
func (rt *Runtime) emit(call goja.FunctionCall) goja.Value {
	stream, value := "", call.Argument(0)
	if len(call.Arguments) > 1 {
		if stream, value = value.String(), call.Argument(1); len(stream) > tuple.MaxKey {
			panic(rt.vm.NewTypeError("emit: the stream's name is longer than %d bytes", tuple.MaxKey))
		}
	}
	if err := rt.output(stream, value); err != nil {
		panic(rt.vm.NewGoError(fmt.Errorf("emit: %w", err)))
	}
	return goja.Undefined()
}

// previous shows the reading before this one; changes to it go nowhere.
func (rt *Runtime) previous(d *Doc) goja.Value {
	if d == nil || !d.load() {
		return goja.Undefined()
	}
	for _, v := range rt.opened {
		if v.o == &d.root {
			return d.root.view.shown
		}
	}
	return rt.open(&d.root)
}

// profileView shows a Go map to scripts, which must not change it: it lies in a cache.
type profileView struct {
	rt *Runtime
	m  map[string]any
}

func (rt *Runtime) profile(m map[string]any) goja.Value {
	if m == nil {
		return goja.Undefined()
	}
	return rt.vm.NewDynamicObject(&profileView{rt: rt, m: m})
}

// Get implements goja.DynamicObject.
func (p *profileView) Get(key string) goja.Value {
	v, ok := p.m[key]
	if !ok {
		return nil
	}
	return p.rt.fromProfile(v)
}

func (rt *Runtime) fromProfile(v any) goja.Value {
	switch v := v.(type) {
	case nil:
		return goja.Null()
	case map[string]any:
		return rt.profile(v)
	case []any:
		items := make([]any, len(v))
		for i := range v {
			items[i] = rt.fromProfile(v[i])
		}
		return rt.vm.NewArray(items...)
	case string, bool, float64, int, int64:
		return rt.vm.ToValue(v)
	}
	if r := reflect.ValueOf(v); r.CanInt() || r.CanUint() || r.CanFloat() {
		return rt.vm.ToValue(widen(v))
	}
	return rt.vm.ToValue(fmt.Sprint(v))
}

// Set implements goja.DynamicObject.
func (p *profileView) Set(string, goja.Value) bool {
	panic(p.rt.vm.NewTypeError("the archive is read-only"))
}

// Has implements goja.DynamicObject.
func (p *profileView) Has(key string) bool {
	_, ok := p.m[key]
	return ok
}

// Delete implements goja.DynamicObject.
func (p *profileView) Delete(string) bool { panic(p.rt.vm.NewTypeError("the archive is read-only")) }

// Keys implements goja.DynamicObject. The order is that of the names, since a map has none.
func (p *profileView) Keys() []string {
	keys := make([]string, 0, len(p.m))
	for k := range p.m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
