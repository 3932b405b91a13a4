package casefile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

type kind uint8

const (
	null kind = iota
	boolean
	number
	text
	list
	object
)

// value is a value of YAML or JSON with its place in the file, from 1.
type value struct {
	kind   kind
	text   string // of a scalar, as written
	number float64
	items  []*value
	fields []field
	place
}

type field struct {
	name string
	place
	*value
}

type place struct{ line, column int }

func (v *value) field(name string) *value {
	if v == nil {
		return nil
	}
	for _, f := range v.fields {
		if f.name == name {
			return f.value
		}
	}
	return nil
}

// set puts a field where it is, or at the end.
func (v *value) set(name string, to *value) {
	for i := range v.fields {
		if v.fields[i].name == name {
			v.fields[i].value = to
			return
		}
	}
	v.fields = append(v.fields, field{name: name, value: to})
}

// only returns the object with no other fields than those of like, and so on within.
func (v *value) only(like *value) *value {
	if like == nil || like.kind != v.kind || v.kind != object && v.kind != list || len(like.fields)+len(like.items) == 0 {
		return v
	}
	out := &value{kind: v.kind}
	for i, item := range v.items {
		out.items = append(out.items, item.only(like.items[min(i, len(like.items)-1)]))
	}
	for _, f := range like.fields {
		if had := v.field(f.name); had != nil {
			out.set(f.name, had.only(f.value))
		}
	}
	return out
}

func texts(s string) *value { return &value{kind: text, text: s} }

func whole(n int64) *value {
	return &value{kind: number, text: strconv.FormatInt(n, 10), number: float64(n)}
}

// problem is what is wrong with a file, at a place.
type problem struct {
	place
	what string
}

func (p *problem) Error() string { return p.what }

// fail stops reading at a place.
func fail(at place, format string, args ...any) error {
	return &problem{at, fmt.Sprintf(format, args...)}
}

// parseYAML reads the only document of a file.
func parseYAML(source []byte) (v *value, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fail(place{1, 1}, "the file cannot be parsed as YAML: %v", r)
		}
	}()
	file, err := parser.ParseBytes(source, 0)
	var syntax yaml.Error
	switch {
	case errors.As(err, &syntax) && syntax.GetToken() != nil:
		at := syntax.GetToken().Position
		return nil, fail(place{at.Line, at.Column}, "not YAML: %s", syntax.GetMessage())
	case err != nil:
		return nil, fail(place{1, 1}, "not YAML: %v", err)
	case len(file.Docs) != 1 || file.Docs[0].Body == nil:
		return nil, fail(place{1, 1}, "one document is wanted: begin with cases:")
	}
	return build(file.Docs[0].Body)
}

func placeOf(n ast.Node) place {
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return placeOf(m.Values[0].Key)
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		return place{t.Position.Line, t.Position.Column}
	}
	return place{1, 1}
}

func build(n ast.Node) (*value, error) {
	v := &value{place: placeOf(n)}
	switch n := n.(type) {
	case *ast.MappingNode:
		return v, v.mapping(n.Values)
	case *ast.MappingValueNode:
		return v, v.mapping([]*ast.MappingValueNode{n})
	case *ast.SequenceNode:
		v.kind = list
		for _, item := range n.Values {
			i, err := build(item)
			if err != nil {
				return nil, err
			}
			v.items = append(v.items, i)
		}
	case *ast.LiteralNode:
		v.kind, v.text = text, n.Value.Value
	case *ast.StringNode:
		v.kind, v.text = text, n.Value
		if f, err := strconv.ParseFloat(n.Value, 64); err == nil && n.Token.Type == token.StringType && !math.IsInf(f, 0) && !math.IsNaN(f) {
			v.kind, v.number = number, f // 1e9, which YAML 1.1 takes for a text
		}
	case *ast.IntegerNode, *ast.FloatNode:
		v.kind, v.text = number, n.GetToken().Value
		f, err := strconv.ParseFloat(strings.ReplaceAll(v.text, "_", ""), 64)
		if err != nil {
			return nil, fail(v.place, "%s is not a number that JSON has", v.text)
		}
		v.number = f
	case *ast.BoolNode:
		v.kind, v.text = boolean, n.GetToken().Value
	case *ast.NullNode:
	default:
		return nil, fail(v.place, "anchors, aliases and tags are not understood here")
	}
	return v, nil
}

func (v *value) mapping(values []*ast.MappingValueNode) error {
	v.kind = object
	for _, m := range values {
		inner, err := build(m.Value)
		if err != nil {
			return err
		}
		name := m.Key.GetToken().Value
		if v.field(name) != nil {
			return fail(placeOf(m.Key), "%q is given twice", name)
		}
		v.fields = append(v.fields, field{name, placeOf(m.Key), inner})
	}
	return nil
}

// parseJSON reads JSON with its fields in their order.
func parseJSON(b []byte) (*value, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	return decode(d)
}

func decode(d *json.Decoder) (*value, error) {
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	v := &value{}
	switch t := t.(type) {
	case json.Delim:
		v.kind = list
		if t == '{' {
			v.kind = object
		}
		for d.More() {
			name := ""
			if v.kind == object {
				key, err := d.Token()
				if err != nil {
					return nil, err
				}
				name, _ = key.(string)
			}
			inner, err := decode(d)
			if err != nil {
				return nil, err
			}
			if v.kind == object {
				v.set(name, inner)
			} else {
				v.items = append(v.items, inner)
			}
		}
		_, err = d.Token()
	case json.Number:
		v.kind, v.text = number, t.String()
		v.number, err = t.Float64()
	case string:
		v.kind, v.text = text, t
	case bool:
		v.kind, v.text = boolean, strconv.FormatBool(t)
	}
	return v, err
}

// json returns the value as JSON.
func (v *value) json() []byte { return v.appendJSON(nil) }

func (v *value) appendJSON(b []byte) []byte {
	switch v.kind {
	case null:
		return append(b, "null"...)
	case boolean:
		return append(b, v.text...)
	case number:
		if json.Valid([]byte(v.text)) {
			return append(b, v.text...)
		}
		return strconv.AppendFloat(b, v.number, 'g', -1, 64)
	case text:
		return appendText(b, v.text)
	case list:
		b = append(b, '[')
		for i, item := range v.items {
			if i > 0 {
				b = append(b, ',')
			}
			b = item.appendJSON(b)
		}
		return append(b, ']')
	}
	b = append(b, '{')
	for i, f := range v.fields {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendText(b, f.name), ':')
		b = f.value.appendJSON(b)
	}
	return append(b, '}')
}

func appendText(b []byte, s string) []byte {
	var quoted bytes.Buffer
	e := json.NewEncoder(&quoted)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a text always has a JSON form
	return append(b, bytes.TrimSuffix(quoted.Bytes(), []byte("\n"))...)
}

// String writes the value as YAML on one line.
func (v *value) String() string {
	var parts []string
	switch v.kind {
	case null:
		return "null"
	case text:
		return plain(v.text)
	case list:
		for _, item := range v.items {
			parts = append(parts, item.String())
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case object:
		for _, f := range v.fields {
			parts = append(parts, plain(f.name)+": "+f.value.String())
		}
		return "{" + strings.Join(parts, ", ") + "}"
	}
	return v.text
}

// plain writes a text without quotes where YAML reads it as the same text.
func plain(s string) string {
	_, err := strconv.ParseFloat(s, 64)
	odd := err == nil || s == "" || slices.Contains([]string{"true", "false", "null", "~", "yes", "no", "on", "off"}, strings.ToLower(s)) ||
		strings.ContainsAny(s, "{}[],\"'#&*!|>%@`\\") || strings.Contains(s, ":") || strings.TrimSpace(s) != s ||
		strings.ContainsAny(s[:1], "-?=<.~0") || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' })
	if odd {
		return string(appendText(nil, s))
	}
	return s
}
