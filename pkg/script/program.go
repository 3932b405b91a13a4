package script

import (
	"errors"
	"fmt"

	"github.com/dop251/goja"
	"github.com/dop251/goja/ast"
	"github.com/dop251/goja/file"
	"github.com/dop251/goja/parser"
)

// Limits of a script's source.
const (
	maxSource  = 256 << 10
	maxNesting = 500 // open brackets; the parser recurses
)

// Program is a compiled script. It is immutable and may be shared by any number of Runtimes.
type Program struct {
	file      string
	code      *goja.Program
	functions map[string]bool
}

// CompileJS compiles a script; file is its name in errors, which are *Error.
func CompileJS(file, src string) (p *Program, err error) {
	defer func() {
		if r := recover(); r != nil {
			p, err = nil, &Error{File: file, Line: 1, Column: 1, Message: fmt.Sprint("the script cannot be compiled: ", r)}
		}
	}()
	if len(src) > maxSource {
		return nil, &Error{File: file, Line: 1, Column: 1, Message: fmt.Sprintf("the script is longer than %d bytes", maxSource)}
	}
	if nesting(src) > maxNesting {
		return nil, &Error{File: file, Line: 1, Column: 1, Message: fmt.Sprintf("the script nests more than %d brackets", maxNesting)}
	}
	// source maps are off: a comment in a script would otherwise make the parser read files
	tree, err := parser.ParseFile(nil, file, src, 0, parser.WithDisableSourceMaps)
	if err != nil {
		return nil, syntaxError(file, err)
	}
	code, err := goja.CompileAST(tree, false)
	if err != nil {
		return nil, syntaxError(file, err)
	}
	return &Program{file: file, code: code, functions: functionsOf(tree)}, nil
}

// Has reports whether the script declares a top-level function called fn, be it `function fn` or `const fn = (...) =>`.
func (p *Program) Has(fn string) bool { return p.functions[fn] }

// File returns the name that the script was compiled under.
func (p *Program) File() string { return p.file }

func nesting(src string) int {
	depth, deepest := 0, 0
	for i := range len(src) {
		switch src[i] {
		case '(', '[', '{':
			depth++
			deepest = max(deepest, depth)
		case ')', ']', '}':
			depth--
		}
	}
	return deepest
}

func functionsOf(tree *ast.Program) map[string]bool {
	found := map[string]bool{}
	bindings := func(list []*ast.Binding) {
		for _, b := range list {
			name, ok := b.Target.(*ast.Identifier)
			if !ok {
				continue
			}
			switch b.Initializer.(type) {
			case *ast.FunctionLiteral, *ast.ArrowFunctionLiteral:
				found[name.Name.String()] = true
			}
		}
	}
	for _, statement := range tree.Body {
		switch s := statement.(type) {
		case *ast.FunctionDeclaration:
			found[s.Function.Name.Name.String()] = true
		case *ast.LexicalDeclaration:
			bindings(s.List)
		case *ast.VariableStatement:
			bindings(s.List)
		}
	}
	return found
}

func syntaxError(name string, err error) *Error {
	e := &Error{File: name, Line: 1, Column: 1, Message: err.Error()}
	var list parser.ErrorList
	var one *parser.Error
	var late *goja.CompilerSyntaxError
	var at file.Position
	switch {
	case errors.As(err, &list) && len(list) > 0:
		at, e.Message = list[0].Position, list[0].Message
	case errors.As(err, &one):
		at, e.Message = one.Position, one.Message
	case errors.As(err, &late):
		e.Message = late.Message
		if late.File != nil {
			at = late.File.Position(late.Offset)
		}
	}
	if at.Line > 0 {
		e.Line, e.Column = at.Line, at.Column
	}
	return e
}
