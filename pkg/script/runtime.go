package script

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	goruntime "runtime"
	"sync"
	"time"

	"github.com/dop251/goja"

	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Defaults of RuntimeOptions.
const (
	DefaultDeadline = 100 * time.Millisecond
	DefaultMaxStack = 500
)

// RuntimeOptions bounds a Runtime. The zero value is usable.
type RuntimeOptions struct {
	Deadline time.Duration  // of one call and of the top level; 0 is DefaultDeadline
	Params   map[string]any // ctx.params, frozen; any JSON
	MaxStack int            // nested calls; 0 is DefaultMaxStack
}

// Runtime runs one Program, one call after the other: make one per loop. It is not safe for concurrent use. Calls return
// *Error for what the script did wrong, ErrAbsent where a method says so, and the document's own error when a payload is not
// a JSON object. What a script keeps in global variables is lost when a call overran its deadline, and with the process.
type Runtime struct {
	program *Program
	options RuntimeOptions
	params  []byte

	vm        *goja.Runtime // nil when the last one must not be used again
	epoch     int
	functions map[string]goja.Callable
	ctx       *goja.Object
	paramsJS  goja.Value
	opened    []*objectView
	depth     int // of guarded builtins

	input   *Input // of the call under way
	random  uint64
	outputs []Output

	watch watchdog
}

// MaxPrevious is how large a reading may be, in bytes of payload, that stat and alarm nodes keep as ctx.previous for the one after it.
const MaxPrevious = 4 << 10

// Input is the tuple that a script sees.
type Input struct {
	Doc      *Doc           // t; the script's changes stay in it, also when the call fails
	ID       tuple.ID       // ctx.id; it seeds ctx.random() and Math.random()
	Device   string         // ctx.device
	Stream   string         // ctx.stream
	Time     int64          // ctx.time and Date.now(): event time, milliseconds since the Unix epoch
	Archive  map[string]any // ctx.archive, read-only; may be nil
	Previous *Doc           // ctx.previous: the group's reading before this one; may be nil
}

// NewRuntime runs the program's top level. Its errors are *Error.
func NewRuntime(p *Program, o RuntimeOptions) (*Runtime, error) {
	if o.Deadline <= 0 {
		o.Deadline = DefaultDeadline
	}
	if o.MaxStack <= 0 {
		o.MaxStack = DefaultMaxStack
	}
	rt := &Runtime{program: p, options: o}
	var err error
	if o.Params == nil {
		o.Params = map[string]any{}
	}
	if rt.params, err = json.Marshal(o.Params); err != nil {
		return nil, fmt.Errorf("params: %w", err)
	}
	if err := rt.build(); err != nil {
		return nil, err
	}
	return rt, nil
}

// build makes a fresh engine and runs the program's top level in it.
func (rt *Runtime) build() error {
	vm := goja.New()
	vm.SetMaxCallStackSize(rt.options.MaxStack)
	vm.SetParserOptions()
	vm.SetRandSource(rt.next)
	vm.SetTimeSource(func() time.Time { return time.UnixMilli(rt.now()) })
	rt.vm = vm
	rt.epoch++
	rt.functions = map[string]goja.Callable{}
	err := rt.protect(func() error {
		if err := rt.restrict(); err != nil {
			return err
		}
		if err := rt.prepareContext(); err != nil {
			return err
		}
		if _, err := vm.RunProgram(rt.program.code); err != nil {
			return err
		}
		for name := range rt.program.functions {
			if fn, ok := goja.AssertFunction(vm.Get(name)); ok {
				rt.functions[name] = fn
			}
		}
		return nil
	})
	if err != nil {
		rt.vm = nil
	}
	return err
}

func (rt *Runtime) now() int64 {
	if rt.input == nil {
		return 0
	}
	return rt.input.Time
}

// next is a uniform number in [0, 1): splitmix64 from the tuple's id, so that a repeated call sees the same.
func (rt *Runtime) next() float64 {
	rt.random += 0x9e3779b97f4a7c15
	z := rt.random
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return float64((z^z>>31)>>11) / (1 << 53)
}

// begin prepares a call of a function for a tuple; in may be nil.
func (rt *Runtime) begin(name string, in *Input) (goja.Callable, error) {
	if rt.vm == nil {
		if err := rt.build(); err != nil {
			return nil, err
		}
	}
	fn, ok := rt.functions[name]
	if !ok {
		return nil, &Error{File: rt.program.file, Line: 1, Column: 1, Message: "the script declares no function " + name}
	}
	rt.input, rt.outputs, rt.random, rt.depth = in, nil, 0, 0
	if in != nil {
		for i, b := range in.ID {
			rt.random = bits.RotateLeft64(rt.random, 8) ^ uint64(b)*uint64(2*i+1)
		}
	}
	return fn, nil
}

// call runs a function of the script and hands its result to finish, all under the deadline.
func (rt *Runtime) call(fn goja.Callable, finish func(goja.Value) error, args ...goja.Value) error {
	err := rt.protect(func() error {
		v, err := fn(goja.Undefined(), args...)
		if err != nil {
			return err
		}
		return finish(v)
	})
	for i, v := range rt.opened {
		v.o = nil
		rt.opened[i] = nil
	}
	rt.opened = rt.opened[:0]
	rt.input = nil
	return err
}

// protect runs f under the deadline and turns whatever leaves it, panics included, into an *Error.
func (rt *Runtime) protect(f func() error) (err error) {
	rt.watch.start(rt.vm, rt.options.Deadline)
	defer func() {
		if r := recover(); r != nil {
			rt.vm = nil
			if e, ok := r.(error); ok {
				err = e
			} else {
				err = fmt.Errorf("the engine failed: %v", r)
			}
		}
		if rt.watch.stop() {
			rt.vm = nil
		}
		if err != nil {
			err = rt.fault(err)
		}
	}()
	if thrown := rt.vm.Try(func() { err = f() }); thrown != nil {
		return thrown
	}
	return err
}

// fault places an error in the script.
func (rt *Runtime) fault(err error) error {
	if errors.Is(err, ErrAbsent) || errors.Is(err, errNotObject) {
		return err
	}
	var own *Error
	if errors.As(err, &own) {
		return own
	}
	e := &Error{File: rt.program.file, Line: 1, Column: 1, Message: err.Error()}
	var interrupted *goja.InterruptedError
	var overflow *goja.StackOverflowError
	var thrown *goja.Exception
	switch {
	case errors.As(err, &interrupted):
		e.Message, e.Err = fmt.Sprintf("the script ran longer than %v", rt.options.Deadline), ErrDeadline
		e.place(rt.program.file, interrupted.Stack())
		rt.vm = nil
	case errors.As(err, &overflow):
		e.Message = fmt.Sprintf("the script nests more than %d calls", rt.options.MaxStack)
		e.place(rt.program.file, overflow.Stack())
		rt.vm = nil
	case errors.As(err, &thrown):
		e.Message = messageOf(thrown)
		e.place(rt.program.file, thrown.Stack())
		if inner := errors.Unwrap(thrown); inner != nil { // one of ours, such as emit's
			e.Message = inner.Error()
			if errors.Is(inner, ErrTooLarge) {
				e.Err = ErrTooLarge
			}
		}
	case errors.Is(err, ErrTooLarge):
		e.Err = ErrTooLarge
	}
	return e
}

// messageOf describes what was thrown; String could run the script again.
func messageOf(thrown *goja.Exception) (message string) {
	defer func() {
		if recover() != nil {
			message = "the script threw something that cannot be shown"
		}
	}()
	if thrown.Value() == nil {
		return "the script threw"
	}
	const limit = 500
	if message = thrown.Value().String(); len(message) > limit {
		message = message[:limit] + "..."
	}
	return message
}

// place takes the innermost frame that lies in the script.
func (e *Error) place(file string, stack []goja.StackFrame) {
	for i := range stack {
		if at := stack[i].Position(); at.Line > 0 && at.Filename == file {
			e.Line, e.Column = at.Line, at.Column
			return
		}
	}
}

// looks is how many times the watchdog must look before it interrupts. A process that gets no CPU for a while, as in a
// throttled container, loses one slice only, not the whole deadline: the timer is set again after it has woken up.
const looks = 4

// watchdog interrupts a runtime that runs too long. Its one timer is reused.
type watchdog struct{ shot *shot }

// shot is a timer and what it may interrupt.
type shot struct {
	timer *time.Timer
	slice time.Duration

	mu    sync.Mutex
	vm    *goja.Runtime // nil between calls
	left  int
	fired bool
}

func (w *watchdog) start(vm *goja.Runtime, after time.Duration) {
	s := w.shot
	if s == nil {
		s = &shot{}
		w.shot = s
	}
	s.mu.Lock()
	s.vm, s.left, s.fired, s.slice = vm, looks, false, after/looks
	if s.timer == nil {
		s.timer = time.AfterFunc(s.slice, s.fire)
	} else {
		s.timer.Reset(s.slice)
	}
	s.mu.Unlock()
}

// fire looks once more. First it queues behind all that want to run: a goroutine that was preempted amid a call has been in that queue before it, and gets on.
// So a call is interrupted only if it had a processor between all looks, however many others want one.
func (s *shot) fire() {
	goruntime.Gosched()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.vm == nil {
		return
	}
	if s.left--; s.left > 0 {
		s.timer.Reset(s.slice)
		return
	}
	s.fired = true
	s.vm.Interrupt(ErrDeadline)
}

// stop ends the watch and reports whether the runtime was interrupted, perhaps too late to matter to the call. A shot
// whose timer could not be stopped may still be on its way; it is left behind, so that it never meets the next call.
func (w *watchdog) stop() bool {
	s := w.shot
	s.mu.Lock()
	defer s.mu.Unlock()
	s.vm = nil
	if !s.timer.Stop() {
		w.shot = nil
	}
	return s.fired
}
