package topology

import (
	"fmt"
	"strconv"
	"strings"
)

// rule says how a statistic is called.
type rule struct {
	bare   bool   // may stand without an argument
	of     string // type of the argument
	param  string // what the second argument is; "" when there is none
	needed bool   // the second argument must be given
	low    float64
	high   float64
	whole  bool
	yields string
}

func ruleOf(function string) (rule, bool) {
	switch function {
	case "count":
		return rule{bare: true, of: TypeAny, yields: TypeNumber}, true
	case "sum", "mean", "min", "max", "stddev", "first", "last", "delta", "rate":
		return rule{of: TypeNumber, yields: TypeNumber}, true
	case "distinct":
		return rule{of: TypeAny, yields: TypeNumber}, true
	case "quantile":
		return rule{of: TypeNumber, param: "the quantile", needed: true, low: 0, high: 1, yields: TypeNumber}, true
	case "topk":
		return rule{of: TypeAny, param: "how many", needed: true, low: 1, high: maxTop, whole: true, yields: TypeAny}, true
	case "ewma":
		return rule{of: TypeNumber, param: "the weight of the newest value", needed: true, low: 0, high: 1, yields: TypeNumber}, true
	}
	return rule{}, false
}

// aggregate reads func, func(expression) or func(expression, number...).
func (r *reader) aggregate(b *parsed, n *node) (Aggregate, bool) {
	lead := len(n.text) - len(strings.TrimLeft(n.text, " \t\n"))
	text := strings.TrimSpace(n.text)
	at := func(offset int) Place { return r.offsetPlace(n, lead+offset) }
	name, rest, called := strings.Cut(text, "(")
	a := Aggregate{Func: strings.TrimSpace(name), At: at(0)}
	rule, ok := ruleOf(a.Func)
	switch {
	case !ok:
		hint := suggest(a.Func, functions)
		if hint == "" {
			hint = "known statistics: " + strings.Join(functions, ", ")
		}
		r.fail(at(0), hint, "%q is no statistic", clip(a.Func))
		return a, false
	case !called && rule.bare:
		return a, true
	case !called:
		r.fail(at(0), fmt.Sprintf("write %s(temperature)", a.Func), "%s needs an argument", a.Func)
		return a, false
	case !strings.HasSuffix(rest, ")"):
		r.fail(at(0), "check the brackets; inside { } a value with a comma may need quotes", "%q is no complete call", clip(text))
		return a, false
	}
	open := len(name) + 1
	args := arguments(rest[:len(rest)-1])
	if strings.TrimSpace(args[0].text) == "" {
		if rule.bare && len(args) == 1 {
			return a, true
		}
		r.fail(at(open), fmt.Sprintf("write %s(temperature)", a.Func), "%s needs an argument", a.Func)
		return a, false
	}
	first := args[0]
	skip := len(first.text) - len(strings.TrimLeft(first.text, " \t\n"))
	b.code = append(b.code, code{scalar: n, offset: lead + open + skip, source: strings.TrimSpace(first.text), want: rule.of})
	a.Arg = &Expr{Source: strings.TrimSpace(first.text), At: at(open + skip)}
	return a, r.parameters(&a, rule, args[1:], func(offset int) Place { return at(open + offset) })
}

// parameters reads the numbers after the first argument.
func (r *reader) parameters(a *Aggregate, rule rule, args []argument, at func(int) Place) bool {
	most := 0
	if rule.param != "" {
		most = 1
	}
	switch {
	case len(args) > most:
		r.fail(at(args[most].offset), "remove it", "%s has an argument too many", a.Func)
		return false
	case len(args) < most && rule.needed:
		r.fail(a.At, fmt.Sprintf("write %s(%s, %v)", a.Func, a.Arg.Source, max(rule.low, rule.high/2)), "%s needs a second argument, %s", a.Func, rule.param)
		return false
	}
	for _, arg := range args {
		v, err := strconv.ParseFloat(strings.TrimSpace(arg.text), 64)
		if err != nil || !(v >= rule.low && v <= rule.high) || rule.whole && v != float64(int(v)) {
			kind := "a number"
			if rule.whole {
				kind = "a whole number"
			}
			r.fail(at(arg.offset), fmt.Sprintf("write %s from %v to %v", kind, rule.low, rule.high), "%s of %s cannot be %q", rule.param, a.Func, clip(strings.TrimSpace(arg.text)))
			return false
		}
		a.Param = append(a.Param, v)
	}
	return true
}

// argument is a part of a call, with its offset behind the opening bracket.
type argument struct {
	text   string
	offset int
}

// arguments splits at the commas that stand in no bracket and no string.
func arguments(s string) []argument {
	var out []argument
	depth, start := 0, 0
	var quote byte
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case quote != 0:
			if c == '\\' && quote != '`' {
				i++
			} else if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'' || c == '`':
			quote = c
		case c == '(' || c == '[' || c == '{':
			depth++
		case c == ')' || c == ']' || c == '}':
			depth--
		case c == ',' && depth == 0:
			out = append(out, argument{s[start:i], start})
			start = i + 1
		}
	}
	return append(out, argument{s[start:], start})
}

// offsetPlace is within for an offset in bytes.
func (r *reader) offsetPlace(n *node, offset int) Place {
	line, column := columnOf(n.text, offset)
	return r.within(n, line, column)
}
