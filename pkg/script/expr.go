package script

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/types"
	"github.com/expr-lang/expr/vm"
)

// Type is what a field or a result is declared to be.
type Type uint8

// Any is the zero Type: checked when it is used, not before.
const (
	Any Type = iota
	Bool
	Number
	String
)

// String returns the word that topologies use.
func (t Type) String() string { return [...]string{"any", "bool", "number", "string"}[t] }

// Limits of one expression.
const (
	maxExprBytes = 4 << 10
	maxExprNodes = 500
	maxElements  = 100_000 // made by one evaluation
	maxSteps     = 1_000_000
)

// ExprOptions says what an expression may refer to. The zero value allows device, time, stream and archive only.
type ExprOptions struct {
	Fields map[string]Type // declared fields, nested ones as a.b; uses that contradict them are errors
	Open   bool            // other fields are allowed too, dynamically; otherwise they are errors
	Want   Type            // the result's type
	File   string          // where the expression is written, for errors
	Line   int             // its line there; 0 is 1
	Column int             // the column of its first character there; 0 is 1
}

// Env is what an expression is evaluated over. Its exported fields are set for each tuple; keep the Env itself, one per
// loop, since it also holds the evaluation's memory. It is not safe for concurrent use.
//
// Fields of Doc are top-level names, nested ones a.b. Beside them stand device, time, stream and archive; where the
// document has a field of one of these names, the document's wins.
type Env struct {
	Doc     *Doc
	Device  string
	Time    int64 // event time, milliseconds since the Unix epoch
	Stream  string
	Archive map[string]any // the device's profile; may be nil

	vars  map[string]any
	vm    vm.VM
	steps int
}

// ambient are the names that stand beside the document's fields.
var ambient = map[string]Type{"device": String, "time": Number, "stream": String, "archive": Any}

// Expr is a compiled expression. It is safe for concurrent use with different Envs.
type Expr struct {
	program *vm.Program
	refs    []ref
	options ExprOptions
}

// ref is a field that the expression mentions, picked before it runs.
type ref struct {
	path string
	base string // the path's first name
	name string // in the program
}

// CompileExpr parses and type-checks one expression. Its errors are *Error.
func CompileExpr(src string, o ExprOptions) (e *Expr, err error) {
	o.Line, o.Column = max(o.Line, 1), max(o.Column, 1)
	defer func() {
		if r := recover(); r != nil {
			e, err = nil, o.errorAt(0, 0, fmt.Sprint("the expression cannot be compiled: ", r), "")
		}
	}()
	if len(src) > maxExprBytes {
		return nil, o.errorAt(0, 0, fmt.Sprintf("the expression is longer than %d bytes", maxExprBytes), "move it to a script")
	}
	if strings.TrimSpace(src) == "" {
		return nil, o.errorAt(0, 0, "the expression is empty", "")
	}
	paths, err := o.check(src)
	if err != nil {
		return nil, err
	}
	program, err := o.compile(src, paths)
	if err != nil {
		return nil, o.fault(err)
	}
	e = &Expr{program: program, options: o}
	for _, path := range paths {
		base, _, _ := strings.Cut(path, ".")
		e.refs = append(e.refs, ref{path: path, base: base, name: fieldPrefix + path})
	}
	return e, nil
}

// check compiles once against the declared types, for its errors only: declared types would make the program itself
// fail in other ways when a reading breaks the declaration. It returns the paths that are referred to.
func (o *ExprOptions) check(src string) ([]string, error) {
	r := &resolver{options: o, refs: map[string]Type{}, locals: map[string]bool{}}
	if err := r.survey(src); err != nil {
		return nil, o.fault(err)
	}
	env := types.Map{}
	for path, t := range r.refs {
		env[fieldPrefix+path] = t.checked()
	}
	remainders := &modulo{}
	options := append(o.common(), expr.Env(env), expr.Patch(r), expr.Patch(remainders))
	switch o.Want {
	case Bool:
		options = append(options, expr.AsBool())
	case Number:
		options = append(options, expr.AsFloat64())
	case String:
		options = append(options, expr.AsKind(reflect.String))
	}
	_, err := expr.Compile(src, options...)
	if remainders.err != nil {
		err = remainders.err.Bind(file.NewSource(src))
	}
	if err != nil {
		return nil, o.fault(err)
	}
	return slices.Sorted(maps.Keys(r.refs)), nil
}

func (t Type) checked() types.Type {
	switch t {
	case Bool:
		return types.Bool
	case Number:
		return types.Float64
	case String:
		return types.String
	}
	return types.Any
}

// common are the options of both compilations: what reads a clock or a time zone is out.
func (o *ExprOptions) common() []expr.Option {
	return []expr.Option{
		expr.DisableBuiltin("now"),
		expr.Function(modName, remainder, new(func(any, any) float64)),
	}
}

// compile makes the program that runs: dynamic, and with the guards in place.
func (o *ExprOptions) compile(src string, paths []string) (*vm.Program, error) {
	r := &resolver{options: o, locals: map[string]bool{}}
	if err := r.survey(src); err != nil {
		return nil, err
	}
	env := types.Map{stepsName: types.Any}
	for _, path := range paths {
		env[fieldPrefix+path] = types.Any
	}
	options := append(o.common(), expr.Env(env), expr.Patch(r), expr.Patch(&modulo{}), expr.Patch(&guard{locals: r.locals}))
	return expr.Compile(src, append(options, guardFunctions()...)...)
}

// Fields returns the paths of the fields that the expression refers to, sorted, device, time, stream and archive included.
func (e *Expr) Fields() []string {
	paths := make([]string, len(e.refs))
	for i, r := range e.refs {
		paths[i] = r.path
	}
	return paths
}

// Eval returns the expression's value; numbers are float64. A nil value is returned as it is when Want is Any, and is
// ErrAbsent when Want says otherwise and a field was absent. The error is ErrAbsent, the document's own, or an *Error.
func (e *Expr) Eval(env *Env) (v any, err error) {
	absent, err := e.fill(env)
	if err != nil {
		return nil, err
	}
	env.vm.MemoryBudget = maxElements
	env.steps = maxSteps
	v, err = env.vm.Run(e.program, env.vars)
	if err != nil {
		if errors.Is(err, errAbsentOperand) || absent && nilFault(err) {
			return nil, ErrAbsent
		}
		return nil, e.options.fault(err)
	}
	v = widen(v)
	if v == nil && absent && e.options.Want != Any {
		return nil, ErrAbsent
	}
	return v, nil
}

// EvalBool is Eval for an expression that answers yes or no.
func (e *Expr) EvalBool(env *Env) (bool, error) {
	v, err := e.Eval(env)
	if err != nil {
		return false, err
	}
	if b, ok := v.(bool); ok {
		return b, nil
	}
	return false, e.options.errorAt(0, 0, "the result is "+nameOf(v)+", not a bool", "")
}

// EvalNumber is Eval for an expression that yields a number, such as an aggregate's argument.
func (e *Expr) EvalNumber(env *Env) (float64, error) {
	v, err := e.Eval(env)
	if err != nil {
		return 0, err
	}
	if f, ok := v.(float64); ok {
		return f, nil
	}
	return 0, e.options.errorAt(0, 0, "the result is "+nameOf(v)+", not a number", "")
}

// fill picks the fields that the expression refers to and reports whether any is absent.
func (e *Expr) fill(env *Env) (absent bool, err error) {
	if env.vars == nil {
		env.vars = make(map[string]any, 8)
		env.vars[stepsName] = &env.steps
	}
	if env.Doc != nil && len(e.refs) == 0 && !env.Doc.load() {
		return false, env.Doc.err
	}
	for _, r := range e.refs {
		if env.Doc != nil && !env.Doc.loadFor(r.path) {
			return false, env.Doc.err
		}
		v := env.pick(r)
		env.vars[r.name] = v
		absent = absent || v == nil
	}
	return absent, nil
}

func (env *Env) pick(r ref) any {
	if env.Doc != nil {
		if s := env.Doc.slot(r.path); s != nil {
			return s.value()
		}
		if _, ok := ambient[r.base]; !ok || env.Doc.slot(r.base) != nil {
			return nil
		}
	}
	switch r.path {
	case "device":
		return env.Device
	case "time":
		return float64(env.Time)
	case "stream":
		return env.Stream
	case "archive":
		if env.Archive == nil {
			return nil
		}
		return env.Archive
	}
	if rest, ok := strings.CutPrefix(r.path, "archive."); ok {
		return widen(follow(env.Archive, rest))
	}
	return nil
}

// follow returns the value at a path in a profile, by the rules of Doc.Value, or nil.
func follow(m map[string]any, path string) any {
	if v, ok := m[path]; ok {
		return v
	}
	head, rest, ok := strings.Cut(path, ".")
	if !ok {
		return nil
	}
	inner, _ := m[head].(map[string]any)
	return follow(inner, rest)
}

// widen makes every number a float64, so that 3 from a profile, a literal or len() compares and divides like any other.
func widen(v any) any {
	switch v := v.(type) {
	case nil, bool, string, float64:
		return v
	case int:
		return float64(v)
	}
	switch r := reflect.ValueOf(v); {
	case r.CanInt():
		return float64(r.Int())
	case r.CanUint():
		return float64(r.Uint())
	case r.CanFloat():
		return r.Float()
	}
	return v
}

func nameOf(v any) string {
	switch v.(type) {
	case nil:
		return "absent"
	case bool:
		return "a bool"
	case float64:
		return "a number"
	case string:
		return "a string"
	case map[string]any:
		return "an object"
	}
	return "a list"
}

// nilFault says whether an evaluation failed on a nil operand rather than for another reason.
func nilFault(err error) bool {
	return strings.Contains(err.Error(), "nil")
}

// errorAt places an error line lines and column characters after the start of the expression.
func (o *ExprOptions) errorAt(line, column int, message, hint string) *Error {
	e := &Error{File: o.File, Line: o.Line + line, Column: column + 1, Message: message, Hint: hint}
	if line == 0 {
		e.Column = o.Column + column
	}
	return e
}

// fault turns an error of expr into one with the place in the user's file and in the user's words.
func (o *ExprOptions) fault(err error) error {
	var own *Error
	if errors.As(err, &own) {
		return own
	}
	var at *file.Error
	if !errors.As(err, &at) {
		return o.errorAt(0, 0, inUserWords(err.Error()), "")
	}
	message, hint, _ := strings.Cut(at.Message, hintMark)
	return o.errorAt(max(at.Line, 1)-1, at.Column, inUserWords(message), hint)
}

// hintMark separates message and hint while an error passes through expr.
const hintMark = "\x00"

var userWords = strings.NewReplacer(
	"interface {}", "any", "float64", "number", "map[string]number", "object", "map[string]any", "object", "[]any", "list",
	"<nil>", "absent", " int ", " number ", "int)", "number)", "unexpected token EOF", "unexpected end",
)

func inUserWords(message string) string { return userWords.Replace(message) }
