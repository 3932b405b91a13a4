package script

import (
	"errors"

	"github.com/boltmesh/boltmesh/pkg/topology"
)

// Check is the topology.Checker of the languages of this package.
type Check struct{}

// Expr compiles an expression; see topology.Checker.
func (Check) Expr(source string, fields topology.FieldSet, want string) ([]string, topology.Problems) {
	o := ExprOptions{Fields: make(map[string]Type, len(fields.Types)), Open: fields.Open, Want: typeOf(want)}
	for name, t := range fields.Types {
		o.Fields[name] = typeOf(t)
	}
	e, err := CompileExpr(source, o)
	if err != nil {
		return nil, problems(err)
	}
	return e.Fields(), nil
}

// Script compiles a script; see topology.Checker.
func (Check) Script(file, text string) (func(string) bool, topology.Problems) {
	p, err := CompileJS(file, text)
	if err != nil {
		return nil, problems(err)
	}
	return p.Has, nil
}

func typeOf(word string) Type {
	switch word {
	case topology.TypeBool:
		return Bool
	case topology.TypeNumber:
		return Number
	case topology.TypeString:
		return String
	}
	return Any
}

func problems(err error) topology.Problems {
	p := topology.Problem{Place: topology.Place{Line: 1, Column: 1}, What: err.Error()}
	var e *Error
	if errors.As(err, &e) {
		p = topology.Problem{Place: topology.Place{Line: max(e.Line, 1), Column: max(e.Column, 1)}, What: e.Message, Hint: e.Hint}
	}
	return topology.Problems{p}
}
