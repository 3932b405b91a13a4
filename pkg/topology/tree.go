package topology

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Limits of a document. They keep a hostile one from costing more than a moment.
const (
	maxDocument = 1 << 20
	maxTokens   = 50_000
	maxNodes    = 100_000 // after aliases are followed
	maxDepth    = 32
)

type nodeKind uint8

const (
	scalar nodeKind = iota
	mapping
	sequence
)

// node is one value of the document with its place; aliases are followed and merges applied.
type node struct {
	kind  nodeKind
	at    Place
	text  string // of a scalar, as written, without quotes
	style style
	null  bool

	pairs []pair // of a mapping, in document order
	items []*node
}

type style uint8

const (
	plain  style = iota
	quoted       // by ' or "
	block        // | or >
	filled       // a scalar into which a variable was put: it may become any type
)

type pair struct {
	key   string
	at    Place
	value *node
}

// tree builds nodes from the parser's AST.
type tree struct {
	lines   []string
	anchors map[string]ast.Node
	open    map[string]bool // aliases being followed
	count   int
	problem *Problem // the first; building stops at it
}

// parseTree returns the document's only value, or the first reason why there is none.
func parseTree(source []byte) (root *node, lines []string, problem *Problem) {
	defer func() {
		if r := recover(); r != nil {
			root, problem = nil, &Problem{Place{Line: 1, Column: 1}, fmt.Sprint("the document cannot be parsed as YAML: ", r), ""}
		}
	}()
	start := Place{Line: 1, Column: 1}
	if len(source) > maxDocument {
		return nil, nil, &Problem{start, fmt.Sprintf("the document has %d bytes, at most %d are allowed", len(source), maxDocument), "move scripts into files"}
	}
	if !utf8.Valid(source) {
		return nil, nil, &Problem{start, "the document is not UTF-8", "save it as UTF-8"}
	}
	text := strings.ReplaceAll(strings.TrimPrefix(string(source), "\ufeff"), "\r\n", "\n")
	tokens := lexer.Tokenize(text)
	if p := limits(tokens); p != nil {
		return nil, nil, p
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, nil, syntaxProblem(err)
	}
	t := &tree{lines: strings.Split(text, "\n"), anchors: map[string]ast.Node{}, open: map[string]bool{}}
	var body ast.Node
	for _, d := range file.Docs {
		switch {
		case d.Body == nil || d.Body.Type() == ast.CommentType:
		case body != nil:
			return nil, nil, &Problem{t.place(d.Body), "a second document", "one file holds one topology: remove what follows ---"}
		default:
			body = d.Body
		}
	}
	if body == nil {
		return nil, nil, &Problem{start, "the document is empty", "begin with topology: <name>"}
	}
	root = t.build(body, 0)
	return root, t.lines, t.problem
}

// limits looks at the tokens before the parser does: its time is quadratic in the depth of brackets.
func limits(tokens token.Tokens) *Problem {
	at := func(t *token.Token, what string) *Problem {
		return &Problem{Place{Line: t.Position.Line, Column: t.Position.Column}, what, ""}
	}
	depth, run := 0, 0
	for i, t := range tokens {
		if i >= maxTokens {
			return at(t, fmt.Sprintf("the document has more than %d tokens", maxTokens))
		}
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			depth++
		case token.SequenceEndType, token.MappingEndType:
			depth--
		case token.MappingKeyType:
			return at(t, "keys written with ? are not allowed")
		case token.SequenceEntryType, token.AnchorType, token.TagType:
			run++
		default:
			if t.Type != token.StringType || len(t.Value) > 0 {
				run = 0
			}
		}
		if depth > maxDepth || run > 3*maxDepth || t.Position != nil && t.Position.IndentLevel > 2*maxDepth {
			return at(t, fmt.Sprintf("values are nested more than %d deep", maxDepth))
		}
	}
	return nil
}

func syntaxProblem(err error) *Problem {
	var at yaml.Error
	if errors.As(err, &at) && at.GetToken() != nil && at.GetToken().Position != nil {
		p := at.GetToken().Position
		return &Problem{Place{Line: max(p.Line, 1), Column: max(p.Column, 1)}, "not YAML: " + at.GetMessage(), "check indentation, quotes and brackets"}
	}
	return &Problem{Place{Line: 1, Column: 1}, "not YAML: " + firstLine(err.Error()), ""}
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

func (t *tree) place(n ast.Node) Place {
	switch v := n.(type) {
	case *ast.MappingNode:
		if !v.IsFlowStyle && len(v.Values) > 0 {
			return t.place(v.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return t.place(v.Key)
	}
	tk := n.GetToken()
	if tk == nil || tk.Position == nil {
		return Place{Line: 1, Column: 1}
	}
	return Place{Line: max(tk.Position.Line, 1), Column: max(tk.Position.Column, 1)}
}

func (t *tree) fail(n ast.Node, what, hint string) *node {
	if t.problem == nil {
		t.problem = &Problem{t.place(n), what, hint}
	}
	return &node{kind: scalar, at: t.place(n), null: true}
}

func (t *tree) build(n ast.Node, depth int) *node {
	t.count++
	switch {
	case t.problem != nil || n == nil:
		return &node{kind: scalar, null: true, at: Place{Line: 1, Column: 1}}
	case t.count > maxNodes:
		return t.fail(n, fmt.Sprintf("the document has more than %d values once its aliases are followed", maxNodes), "write less with aliases")
	case depth > maxDepth:
		return t.fail(n, fmt.Sprintf("values are nested more than %d deep", maxDepth), "")
	}
	switch v := n.(type) {
	case *ast.AnchorNode:
		t.anchors[v.Name.GetToken().Value] = v.Value
		return t.build(v.Value, depth+1)
	case *ast.AliasNode:
		return t.alias(v, depth)
	case *ast.TagNode:
		return t.fail(n, "tags such as "+v.Start.Value+" are not allowed", "remove it")
	case *ast.MappingNode:
		return t.mapping(v, v.Values, depth)
	case *ast.MappingValueNode:
		return t.mapping(v, []*ast.MappingValueNode{v}, depth)
	case *ast.SequenceNode:
		out := &node{kind: sequence, at: t.place(n)}
		for _, item := range v.Values {
			out.items = append(out.items, t.build(item, depth+1))
		}
		return out
	}
	return t.scalar(n)
}

func (t *tree) alias(v *ast.AliasNode, depth int) *node {
	name := v.Value.GetToken().Value
	target, ok := t.anchors[name]
	switch {
	case !ok:
		return t.fail(v, fmt.Sprintf("no anchor is called %q above this alias", name), "")
	case t.open[name]:
		return t.fail(v, fmt.Sprintf("the alias %q contains itself", name), "")
	}
	t.open[name] = true
	defer delete(t.open, name)
	return t.build(target, depth+1)
}

func (t *tree) mapping(n ast.Node, values []*ast.MappingValueNode, depth int) *node {
	out := &node{kind: mapping, at: t.place(n)}
	var merged []pair
	for _, v := range values {
		if v.Key.IsMergeKey() {
			merged = append(merged, t.merge(v.Value, depth)...)
			continue
		}
		at := t.place(v.Key)
		key := t.scalar(v.Key)
		if last := len(out.pairs) - 1; last >= 0 && t.rejoin(out.pairs[last].value, key, v.Value) {
			continue
		}
		if key.null && key.text == "" {
			t.fail(v.Key, "a key must be a plain name", "")
		}
		out.pairs = append(out.pairs, pair{key.text, at, t.build(v.Value, depth+1)})
	}
	for _, m := range merged { // what stands in the mapping itself wins
		if out.value(m.key) == nil {
			out.pairs = append(out.pairs, m)
		}
	}
	return out
}

// rejoin mends a call with several arguments written in a flow mapping, as in {p95: quantile(celsius, 0.95)}: the comma ended the value there, and
// the rest became a key without a value. It reports whether key was such a rest.
func (t *tree) rejoin(before, key *node, value ast.Node) bool {
	null, ok := value.(*ast.NullNode)
	if !ok || null.Token.Type != token.ImplicitNullType || before.kind != scalar || before.style != plain || key.style != plain ||
		strings.Count(before.text, "(") <= strings.Count(before.text, ")") {
		return false
	}
	before.text += ", " + key.text
	return true
}

func (t *tree) merge(n ast.Node, depth int) []pair {
	v := t.build(n, depth+1)
	switch v.kind {
	case mapping:
		return v.pairs
	case sequence:
		var out []pair
		for _, item := range v.items {
			out = append(out, item.pairs...)
		}
		return out
	}
	t.fail(n, "<< needs an alias of a mapping", "")
	return nil
}

func (t *tree) scalar(n ast.Node) *node {
	out := &node{kind: scalar, at: t.place(n)}
	switch v := n.(type) {
	case *ast.LiteralNode:
		out.text, out.style = v.Value.Value, block
	case *ast.StringNode:
		out.text = v.Value
		if v.Token.Type == token.SingleQuoteType || v.Token.Type == token.DoubleQuoteType {
			out.style = quoted
		}
	case *ast.NullNode:
		out.text, out.null = v.Token.Value, true
		if v.Token.Type == token.ImplicitNullType {
			out.text = ""
		}
	case *ast.BoolNode, *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		out.text = n.GetToken().Value
	default:
		return t.fail(n, "a value of a kind that is not allowed here", "")
	}
	return out
}

// value returns the value of a mapping's key, or nil.
func (n *node) value(key string) *node {
	for _, p := range n.pairs {
		if p.key == key {
			return p.value
		}
	}
	return nil
}
