package script

import (
	"errors"
	"fmt"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"

	"github.com/boltmesh/boltmesh/pkg/tuple"
)

var (
	errAbsentOperand = errors.New("an operand is absent")
	errSteps         = fmt.Errorf("the expression takes more than %d steps", maxSteps)
)

// Names that no user can write, for what the program needs beside the user's own words.
const (
	stepsName  = "$steps"
	stepName   = "$step"
	absentName = "$absent"
	addName    = "$add"
)

// guard adds to the tree that runs:
//   - operators that would quietly answer for an absent field (==, in, contains...) fail with errAbsentOperand instead;
//   - every turn of a predicate counts, since nested ones over one list multiply;
//   - what makes long strings out of short ones is bounded.
type guard struct{ locals map[string]bool }

// Visit implements ast.Visitor.
func (g *guard) Visit(n *ast.Node) {
	switch node := (*n).(type) {
	case *ast.PredicateNode:
		steps := &ast.IdentifierNode{Value: stepsName}
		node.Node = callOf(node.Node, stepName, steps, node.Node)
	case *ast.BuiltinNode:
		switch node.Name {
		case "repeat", "join", "replace":
			ast.Patch(n, callOf(node, "$"+node.Name, node.Arguments...))
		}
	case *ast.BinaryNode:
		g.binary(n, node)
	}
}

func (g *guard) binary(n *ast.Node, node *ast.BinaryNode) {
	switch node.Operator {
	case "==", "!=":
		if isNil(node.Left) || isNil(node.Right) {
			return
		}
		present(n, node, node.Left, node.Right)
	case "in", "contains", "startsWith", "endsWith", "matches":
		present(n, node, node.Left, node.Right)
	case "+":
		// a + of fields is bounded by the expression's length; only names for sums and turns of reduce can double
		if g.grows(node) {
			ast.Patch(n, callOf(node, addName, node.Left, node.Right))
		}
	}
}

func isNil(n ast.Node) bool {
	_, ok := n.(*ast.NilNode)
	return ok
}

// present makes `l op r` into `l != nil && r != nil ? l op r : absent`, for those sides that are fields.
func present(n *ast.Node, node *ast.BinaryNode, sides ...ast.Node) {
	var condition ast.Node
	for _, side := range sides {
		field, ok := side.(*ast.IdentifierNode)
		if !ok || !strings.HasPrefix(field.Value, fieldPrefix) {
			continue
		}
		test := &ast.BinaryNode{Operator: "!=", Left: &ast.IdentifierNode{Value: field.Value}, Right: &ast.NilNode{}}
		if condition == nil {
			condition = test
		} else {
			condition = &ast.BinaryNode{Operator: "&&", Left: condition, Right: test}
		}
	}
	if condition != nil {
		ast.Patch(n, &ast.ConditionalNode{Ternary: true, Cond: condition, Exp1: node, Exp2: callOf(node, absentName)})
	}
}

func (g *guard) grows(n ast.Node) bool {
	found := false
	ast.Walk(&n, visit(func(n *ast.Node) {
		switch node := (*n).(type) {
		case *ast.PointerNode:
			found = true
		case *ast.IdentifierNode:
			found = found || g.locals[node.Value]
		}
	}))
	return found
}

func guardFunctions() []expr.Option {
	return []expr.Option{
		expr.Function(absentName, func(...any) (any, error) { return nil, errAbsentOperand }, new(func() bool)),
		expr.Function(stepName, step, new(func(any, any) any)),
		expr.Function(addName, add, new(func(any, any) any)),
		bounded("repeat", repeatSize),
		bounded("join", joinSize),
		bounded("replace", replaceSize),
	}
}

func step(args ...any) (any, error) {
	left := args[0].(*int)
	if *left--; *left < 0 {
		return nil, errSteps
	}
	return args[1], nil
}

func add(args ...any) (any, error) {
	a, b := widen(args[0]), widen(args[1])
	switch x := a.(type) {
	case float64:
		if y, ok := b.(float64); ok {
			return x + y, nil
		}
	case string:
		if y, ok := b.(string); ok {
			if len(x)+len(y) > tuple.MaxPayload {
				return nil, ErrTooLarge
			}
			return x + y, nil
		}
	}
	return nil, fmt.Errorf("invalid operation: %T + %T", a, b)
}

// bounded is the builtin called name behind an upper bound of its result's size.
func bounded(name string, size func(args []any) int) expr.Option {
	original := builtin.Builtins[builtin.Index[name]]
	return expr.Function("$"+name, func(args ...any) (any, error) {
		if n := size(args); n < 0 || n > tuple.MaxPayload {
			return nil, fmt.Errorf("%w: %s would make more than %d bytes", ErrTooLarge, name, tuple.MaxPayload)
		}
		if original.Safe != nil {
			v, _, err := original.Safe(args...)
			return v, err
		}
		if original.Func != nil {
			return original.Func(args...)
		}
		return original.Fast(args[0]), nil
	}, new(func(...any) any))
}

func text(args []any, i int) string {
	if i >= len(args) {
		return ""
	}
	s, _ := args[i].(string)
	return s
}

func repeatSize(args []any) int {
	n, ok := widen(args[1]).(float64)
	if !ok || n < 0 {
		return 0 // the builtin says what is wrong
	}
	return int(min(n*float64(len(text(args, 0))), 1<<40))
}

func joinSize(args []any) int {
	size, glue := 0, len(text(args, 1))
	switch list := args[0].(type) {
	case []any:
		for i := range list {
			size += len(text(list, i)) + glue
		}
	case []string:
		for _, s := range list {
			size += len(s) + glue
		}
	}
	return size
}

func replaceSize(args []any) int {
	s := text(args, 0)
	return len(s) + strings.Count(s, text(args, 1))*len(text(args, 2))
}
