package script

import (
	"errors"
	"fmt"
	"strings"

	"github.com/dop251/goja"
)

// Limits of what a script may make. The engine has no limit of its own, and an interrupt waits for builtins to return.
const (
	maxLength  = 1 << 20 // elements of an array, bytes of a buffer
	maxText    = 4 << 20 // bytes of a string made by a builtin
	maxOutputs = 10_000  // of one call
	maxInner   = 100     // builtins that call each other, such as join over nested arrays
)

// restrict removes what makes code from strings, and puts size checks before the builtins that allocate or loop by
// themselves. It is a fence against mistakes, not a sandbox. `s += s` is stopped by the deadline, after some hundred
// megabytes. Two things are not stopped at all: a regular expression with lookaround or back-references that
// backtracks, and spreading an array whose length was raised by assignment.
func (rt *Runtime) restrict() error {
	vm := rt.vm
	global := vm.GlobalObject()
	prototypes, err := vm.RunString(`[function () {}, function* () {}, async function () {}].map(Object.getPrototypeOf)`)
	if err != nil {
		return err
	}
	for i := range 3 {
		p := prototypes.ToObject(vm).Get(fmt.Sprint(i)).ToObject(vm)
		if err := p.DefineDataProperty("constructor", goja.Undefined(), goja.FLAG_FALSE, goja.FLAG_FALSE, goja.FLAG_FALSE); err != nil {
			return err
		}
	}
	for _, name := range []string{"eval", "Function"} {
		if err := global.Delete(name); err != nil {
			return err
		}
	}
	return errors.Join(rt.restrictStrings(), rt.restrictArrays(), rt.restrictConstructors(), rt.restrictRest())
}

// check looks at a builtin's call before it happens and panics to refuse it.
type check func(call goja.FunctionCall)

// before puts a check in front of the builtin owner[name].
func (rt *Runtime) before(owner *goja.Object, name string, c check) error {
	v := owner.Get(name)
	original, ok := goja.AssertFunction(v)
	if !ok {
		return nil // this engine does not have it
	}
	guarded := func(call goja.FunctionCall) goja.Value {
		if rt.depth++; rt.depth > maxInner {
			rt.refuse("%s nests too deep", name)
		}
		defer func() { rt.depth-- }()
		c(call)
		out, err := original(call.This, call.Arguments...)
		if err != nil {
			panic(err)
		}
		return out
	}
	f := rt.vm.ToValue(guarded).ToObject(rt.vm)
	_ = f.DefineDataProperty("name", rt.vm.ToValue(name), goja.FLAG_FALSE, goja.FLAG_TRUE, goja.FLAG_FALSE)
	_ = f.DefineDataProperty("length", v.ToObject(rt.vm).Get("length"), goja.FLAG_FALSE, goja.FLAG_TRUE, goja.FLAG_FALSE)
	return owner.DefineDataProperty(name, f, goja.FLAG_TRUE, goja.FLAG_TRUE, goja.FLAG_FALSE)
}

func (rt *Runtime) refuse(format string, args ...any) {
	panic(rt.vm.NewGoError(fmt.Errorf("%w: "+format, append([]any{ErrTooLarge}, args...)...)))
}

func (rt *Runtime) prototype(of string) *goja.Object {
	return rt.vm.Get(of).ToObject(rt.vm).Get("prototype").ToObject(rt.vm)
}

func (rt *Runtime) fits(what string, size float64) {
	if size > maxText {
		rt.refuse("%s would make more than %d bytes", what, maxText)
	}
}

func size(v goja.Value) float64 { return float64(len(v.String())) }

func (rt *Runtime) restrictStrings() error {
	p := rt.prototype("String")
	pad := func(call goja.FunctionCall) { rt.fits("padding", 4*call.Argument(0).ToFloat()) }
	replace := func(call goja.FunctionCall) {
		text, pattern := call.This.String(), call.Argument(0)
		times := len(text) + 1
		if _, ok := pattern.(*goja.Object); !ok {
			times = strings.Count(text, pattern.String())
		}
		if _, ok := goja.AssertFunction(call.Argument(1)); !ok {
			rt.fits("replace", float64(len(text))+float64(times)*size(call.Argument(1)))
		}
	}
	return errors.Join(
		rt.before(p, "repeat", func(call goja.FunctionCall) {
			rt.fits("repeat", call.Argument(0).ToFloat()*max(1, size(call.This)))
		}),
		rt.before(p, "padStart", pad), rt.before(p, "padEnd", pad),
		rt.before(p, "replace", replace), rt.before(p, "replaceAll", replace),
		rt.before(p, "split", func(call goja.FunctionCall) { rt.fits("split", size(call.This)) }),
		rt.before(p, "concat", func(call goja.FunctionCall) {
			total := size(call.This)
			for _, a := range call.Arguments {
				total += size(a)
			}
			rt.fits("concat", total)
		}),
	)
}

// length is that of an array or of anything that has one; strings' own are small enough.
func (rt *Runtime) length(v goja.Value) float64 {
	obj, ok := v.(*goja.Object)
	if !ok {
		return 0
	}
	n := obj.Get("length")
	if n == nil {
		return 0
	}
	return n.ToFloat()
}

func (rt *Runtime) short(v goja.Value) float64 {
	n := rt.length(v)
	if n > maxLength {
		rt.refuse("an array of %v", n)
	}
	return n
}

func (rt *Runtime) restrictArrays() error {
	p := rt.prototype("Array")
	var errs []error
	for _, name := range p.GetOwnPropertyNames() {
		c := func(call goja.FunctionCall) { rt.short(call.This) }
		switch name {
		case "constructor", "at", "push", "pop", "keys", "values", "entries":
			continue // they neither loop nor allocate by the length
		case "join":
			c = func(call goja.FunctionCall) {
				n := rt.short(call.This)
				if glue := call.Argument(0); !goja.IsUndefined(glue) {
					rt.fits("join", n*size(glue))
				}
				rt.fits("join", rt.textsOf(call.This))
			}
		case "concat":
			c = func(call goja.FunctionCall) {
				total := rt.short(call.This)
				for _, a := range call.Arguments {
					total += rt.short(a)
				}
				if total > maxLength {
					rt.refuse("an array of %v", total)
				}
			}
		case "flat":
			c = func(call goja.FunctionCall) {
				rt.short(call.This)
				if call.Argument(0).ToFloat() > maxInner {
					rt.refuse("flat(%v); at most %d levels", call.Argument(0), maxInner)
				}
			}
		}
		errs = append(errs, rt.before(p, name, c))
	}
	from := rt.vm.Get("Array").ToObject(rt.vm)
	errs = append(errs, rt.before(from, "from", func(call goja.FunctionCall) { rt.short(call.Argument(0)) }))
	return errors.Join(errs...)
}

// textsOf adds up the strings of an array; one long string many times is the way to a large join.
func (rt *Runtime) textsOf(v goja.Value) float64 {
	obj, ok := v.(*goja.Object)
	if !ok || obj.ExportType() == arrayViewType {
		return 0
	}
	total := 0.0
	for i := range int64(rt.length(obj)) {
		if item := obj.Get(fmt.Sprint(i)); item != nil {
			if _, ok := item.(*goja.Object); !ok {
				total += size(item)
			}
		}
		if total > maxText {
			break
		}
	}
	return total
}

// restrictConstructors stands proxies before the constructors that take a length.
func (rt *Runtime) restrictConstructors() error {
	var errs []error
	for _, name := range []string{
		"Array", "ArrayBuffer", "Int8Array", "Uint8Array", "Uint8ClampedArray", "Int16Array", "Uint16Array",
		"Int32Array", "Uint32Array", "Float32Array", "Float64Array", "BigInt64Array", "BigUint64Array",
	} {
		if v := rt.vm.Get(name); v != nil && !goja.IsUndefined(v) {
			errs = append(errs, rt.restrictConstructor(name, v.ToObject(rt.vm)))
		}
	}
	return errors.Join(errs...)
}

func (rt *Runtime) restrictConstructor(name string, target *goja.Object) error {
	construct, _ := goja.AssertConstructor(target)
	call, _ := goja.AssertFunction(target)
	checked := func(args []goja.Value) {
		if len(args) == 0 {
			return
		}
		if _, ok := args[0].(*goja.Object); ok {
			rt.short(args[0])
		} else if len(args) == 1 && args[0].ToFloat() > maxLength {
			rt.refuse("%s(%v); at most %d", name, args[0], maxLength)
		}
	}
	proxy := rt.vm.ToValue(rt.vm.NewProxy(target, &goja.ProxyTrapConfig{
		Construct: func(_ *goja.Object, args []goja.Value, newTarget *goja.Object) *goja.Object {
			checked(args)
			out, err := construct(newTarget, args...)
			if err != nil {
				panic(err)
			}
			return out
		},
		Apply: func(_ *goja.Object, this goja.Value, args []goja.Value) goja.Value {
			checked(args)
			out, err := call(this, args...)
			if err != nil {
				panic(err)
			}
			return out
		},
	}))
	prototype := target.Get("prototype").ToObject(rt.vm)
	return errors.Join(
		rt.instances(target, proxy),
		prototype.DefineDataProperty("constructor", proxy, goja.FLAG_TRUE, goja.FLAG_TRUE, goja.FLAG_FALSE),
		rt.vm.GlobalObject().DefineDataProperty(name, proxy, goja.FLAG_TRUE, goja.FLAG_TRUE, goja.FLAG_FALSE),
	)
}

// instances makes `x instanceof Array` ask the constructor behind the proxy: the engine does not look through.
func (rt *Runtime) instances(target *goja.Object, proxy goja.Value) error {
	ask, ok := goja.AssertFunction(target.GetSymbol(goja.SymHasInstance))
	if !ok {
		return errors.New("the engine has no Symbol.hasInstance")
	}
	return target.DefineDataPropertySymbol(goja.SymHasInstance, rt.vm.ToValue(func(call goja.FunctionCall) goja.Value {
		of := call.This
		if of == proxy {
			of = target
		}
		answer, err := ask(of, call.Argument(0))
		if err != nil {
			panic(err)
		}
		return answer
	}), goja.FLAG_FALSE, goja.FLAG_FALSE, goja.FLAG_FALSE)
}

// restrictRest bounds argument lists, and the depth of JSON, over which the engine recurses.
func (rt *Runtime) restrictRest() error {
	json := rt.vm.Get("JSON").ToObject(rt.vm)
	reflect := rt.vm.Get("Reflect").ToObject(rt.vm)
	second := func(call goja.FunctionCall) { rt.short(call.Argument(1)) }
	prototype, err := rt.vm.RunString(`Object.getPrototypeOf(function () {})`)
	if err != nil {
		return err
	}
	return errors.Join(
		rt.before(prototype.ToObject(rt.vm), "apply", second),
		rt.before(reflect, "apply", func(call goja.FunctionCall) { rt.short(call.Argument(2)) }),
		rt.before(reflect, "construct", second),
		rt.before(json, "parse", func(call goja.FunctionCall) {
			text := call.Argument(0).String()
			rt.fits("JSON.parse", float64(len(text)))
			if nesting(text) > maxDepth {
				s := scanner{b: []byte(text)}
				s.space()
				if _, ok := s.value(0); !ok {
					panic(rt.vm.NewTypeError("JSON.parse: malformed, or nested more than %d deep", maxDepth))
				}
			}
		}),
		rt.before(json, "stringify", func(call goja.FunctionCall) {
			if obj, ok := call.Argument(0).(*goja.Object); ok {
				rt.shallow(obj, 0)
			}
		}),
	)
}

// shallow refuses what is nested so deep that the engine's own recursion would be a danger.
func (rt *Runtime) shallow(obj *goja.Object, depth int) {
	if depth > maxDepth {
		rt.refuse("JSON.stringify of what is nested more than %d deep, or contains itself", maxDepth)
	}
	switch obj.ExportType() {
	case objectViewType, arrayViewType:
		if obj.ExportType() == arrayViewType || !obj.Export().(*objectView).object().dirty {
			return
		}
	}
	if obj.ClassName() == "Array" {
		rt.short(obj)
	}
	for _, key := range obj.Keys() {
		if inner, ok := obj.Get(key).(*goja.Object); ok {
			rt.shallow(inner, depth+1)
		}
	}
}
