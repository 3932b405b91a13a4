package script

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
)

// fieldPrefix begins the program's names of fields. Users cannot write it, so a field called count or max never hides
// the function of that name.
const fieldPrefix = "$."

// resolver turns chains such as a.b["c"] into one name each, so that only those values are picked from the document,
// and finds names that are not known. It is applied to each tree that is compiled.
type resolver struct {
	options *ExprOptions
	refs    map[string]Type // filled by survey; nil when nobody needs them
	locals  map[string]bool // names declared by let
	err     *file.Error
}

// visit is called for every node, children first.
type visit func(*ast.Node)

// Visit implements ast.Visitor.
func (f visit) Visit(n *ast.Node) { f(n) }

// survey parses src for itself and collects names, or the first fault.
func (r *resolver) survey(src string) error {
	tree, err := parser.Parse(src)
	if err != nil {
		return err
	}
	nodes := 0
	ast.Walk(&tree.Node, visit(func(n *ast.Node) {
		nodes++
		if let, ok := (*n).(*ast.VariableDeclaratorNode); ok {
			r.locals[let.Name] = true
		}
	}))
	if nodes > maxExprNodes {
		return r.options.errorAt(0, 0, fmt.Sprintf("the expression has more than %d parts", maxExprNodes), "move it to a script")
	}
	ast.Walk(&tree.Node, r)
	ast.Walk(&tree.Node, visit(r.know))
	if r.err != nil {
		return r.err.Bind(file.NewSource(src))
	}
	return nil
}

func (r *resolver) fail(n ast.Node, hint, format string, args ...any) {
	if r.err == nil {
		r.err = &file.Error{Location: n.Location(), Message: fmt.Sprintf(format, args...) + hintMark + hint}
	}
}

// Visit sees children before parents: a has become a reference when a.b is seen, and is extended.
func (r *resolver) Visit(n *ast.Node) {
	switch node := (*n).(type) {
	case *ast.IdentifierNode:
		if !r.locals[node.Value] && !strings.HasPrefix(node.Value, "$") {
			node.Value = fieldPrefix + node.Value
		}
	case *ast.MemberNode:
		base, ok := node.Node.(*ast.IdentifierNode)
		name, constant := node.Property.(*ast.StringNode)
		if !ok || !constant || node.Method {
			return
		}
		field := &ast.IdentifierNode{Value: base.Value + "." + name.Value}
		if base.Value == "$env" { // the way to name a field that is no identifier: $env["cpu-load"]
			field.Value = fieldPrefix + name.Value
		}
		if !strings.HasPrefix(field.Value, fieldPrefix) {
			return
		}
		field.SetLocation(base.Location())
		*n = field
	}
}

// know checks what is left after Visit.
func (r *resolver) know(n *ast.Node) {
	switch node := (*n).(type) {
	case *ast.CallNode:
		r.call(node)
	case *ast.BuiltinNode:
		if node.Name == "now" {
			r.fail(node, `write "time", the reading's own time in milliseconds`, "the clock cannot be read")
		}
	case *ast.IdentifierNode:
		path, ok := strings.CutPrefix(node.Value, fieldPrefix)
		if ok {
			r.field(node, path)
		} else if node.Value == "$env" {
			r.fail(node, `write $env["name"] for a field whose name is not an identifier`, "$env cannot be used as a whole")
		}
	}
}

func (r *resolver) call(node *ast.CallNode) {
	callee, ok := node.Callee.(*ast.IdentifierNode)
	if !ok {
		r.fail(node, "", "this cannot be called")
		return
	}
	name := strings.TrimPrefix(callee.Value, fieldPrefix)
	hint := suggest(name, builtin.Names)
	r.err = nil // the callee was reported as an unknown field
	r.fail(callee, hint, "there is no function %q", name)
}

func (r *resolver) field(n ast.Node, path string) {
	t, ok := r.typeOf(path)
	if !ok {
		r.fail(n, suggest(path, r.names()), "unknown field %q", path)
	}
	if r.refs != nil {
		r.refs[path] = t
	}
}

// typeOf returns a path's declared type. Below a declared field of type Any, and above a declared nested field, all is
// dynamic; below a scalar is nothing.
func (r *resolver) typeOf(path string) (Type, bool) {
	fields := r.options.Fields
	if t, ok := fields[path]; ok {
		return t, true
	}
	for declared := range fields {
		if strings.HasPrefix(declared, path+".") {
			return Any, true
		}
	}
	for i := len(path) - 1; i > 0; i-- {
		if path[i] == '.' {
			if t, ok := fields[path[:i]]; ok {
				return Any, t == Any
			}
		}
	}
	base, _, nested := strings.Cut(path, ".")
	if t, ok := ambient[base]; ok && (!nested || t == Any || r.options.Open) {
		if nested || r.options.Open {
			return Any, true // an undeclared field of the document may stand before it
		}
		return t, true
	}
	return Any, r.options.Open
}

// names lists what may be written, for suggestions.
func (r *resolver) names() []string {
	names := slices.AppendSeq(slices.Collect(maps.Keys(r.options.Fields)), maps.Keys(ambient))
	slices.Sort(names)
	return names
}

// modName is the function that stands for %, which in expr refuses all but integers.
const modName = "$mod"

// modulo replaces % by modName.
type modulo struct{ err *file.Error }

// Visit implements ast.Visitor.
func (m *modulo) Visit(n *ast.Node) {
	node, ok := (*n).(*ast.BinaryNode)
	if !ok || node.Operator != "%" {
		return
	}
	for _, side := range []ast.Node{node.Left, node.Right} {
		t := side.Nature()
		if known := t.Type != nil; m.err == nil && known && !t.IsNumber() && t.Type.String() != "interface {}" {
			m.err = &file.Error{Location: node.Location(), Message: "% needs numbers, not " + t.String()}
		}
	}
	ast.Patch(n, callOf(node, modName, node.Left, node.Right))
}

func callOf(at ast.Node, name string, args ...ast.Node) ast.Node {
	callee := &ast.IdentifierNode{Value: name}
	callee.SetLocation(at.Location())
	call := &ast.CallNode{Callee: callee, Arguments: args}
	call.SetLocation(at.Location())
	return call
}

// remainder has the sign of its first operand, as in C and JavaScript.
func remainder(args ...any) (any, error) {
	a, b := widen(args[0]), widen(args[1])
	x, ok := a.(float64)
	y, ok2 := b.(float64)
	if !ok || !ok2 {
		return nil, fmt.Errorf("invalid operation: %T %% %T", a, b)
	}
	return math.Mod(x, y), nil
}
