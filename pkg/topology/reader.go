package topology

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// reader walks a document and collects what is wrong with it.
type reader struct {
	options  Options
	lines    []string
	problems Problems
	warnings Problems
	vars     map[string]string
	scripts  map[string]string
	deferred bool // inside spout.kafka or a notify, where variables stay as they are until they are used
}

func (r *reader) fail(at Place, hint, format string, args ...any) {
	r.problems = append(r.problems, Problem{at, fmt.Sprintf(format, args...), hint})
}

func (r *reader) warn(at Place, hint, format string, args ...any) {
	r.warnings = append(r.warnings, Problem{at, fmt.Sprintf(format, args...), hint})
}

// fill puts variables into a scalar.
func (r *reader) fill(n *node) *node {
	if n == nil || n.kind != scalar || !strings.Contains(n.text, "${") {
		return n
	}
	vars := r.options.Vars
	if r.deferred { // checked for its form only
		vars = func(string) (string, bool) { return "", true }
	}
	text, err := substitute(n.text, vars, func(name, value string) {
		if !r.deferred {
			r.vars[name] = value
		}
	})
	if err != nil {
		r.fail(n.at, "write ${NAME:default}, or $${ for the characters themselves", "%v", err)
		return &node{kind: scalar, at: n.at, null: true, style: filled}
	}
	if r.deferred {
		return n
	}
	return &node{kind: scalar, at: n.at, text: text, style: filled}
}

// object is a mapping whose keys are known.
type object struct {
	*reader
	at   Place
	vals map[string]*node
	keys map[string]Place
	bad  bool // the value was no mapping at all
}

// object reads a mapping strictly: every key must be one of keys, once. elsewhere says of an unknown key where it would belong.
func (r *reader) object(n *node, what string, keys []key, elsewhere func(string) string) object {
	o := object{reader: r, at: n.at, vals: map[string]*node{}, keys: map[string]Place{}}
	if n.kind != mapping {
		o.bad = true
		r.fail(n.at, "write key: value pairs, one of: "+strings.Join(namesOf(keys), ", "), "%s must be a mapping of keys to values, not %s", what, n.describe())
		return o
	}
	names := namesOf(keys)
	for _, p := range n.pairs {
		switch {
		case !slices.Contains(names, p.key):
			hint := ""
			if elsewhere != nil {
				hint = elsewhere(p.key)
			}
			if hint == "" {
				hint = suggest(p.key, names)
			}
			if hint == "" {
				hint = "known keys: " + strings.Join(names, ", ")
			}
			r.fail(p.at, hint, "unknown key %q in %s", clip(p.key), what)
		case o.has(p.key):
			hint := "remove one"
			if p.key == "spout" {
				hint = "a topology has exactly one spout; other sources need a topology of their own"
			}
			r.fail(p.at, hint, "the key %q is given twice in %s", p.key, what)
		default:
			o.vals[p.key], o.keys[p.key] = p.value, p.at
		}
	}
	for _, k := range keys {
		if k.need && o.node(k.name) == nil {
			hint := "write " + k.name + ": " + example(k.of)
			switch k.name {
			case "spout":
				hint = "a topology has exactly one spout: write spout: {id: readings, kafka: {...}}"
			case "from":
				hint = "name the node that it receives from: it is unreachable without"
			}
			r.fail(n.at, hint, "the key %q is missing in %s", k.name, what)
		}
	}
	return o
}

// example shows what a value of a type looks like.
func example(of string) string {
	switch {
	case strings.Contains(of, "|"):
		return strings.ReplaceAll(of, "|", " or ")
	case of == "id":
		return "<name>"
	case of == "bolts":
		return "and one entry per bolt, each beginning with a dash"
	case of == "kafka":
		return `{brokers: "localhost:9092", topics: [readings]}`
	case of == "strings":
		return "[<name>]"
	}
	return "<" + of + ">"
}

func (o object) has(key string) bool { _, ok := o.keys[key]; return ok }

// node returns a key's value, or nil when it is absent or null.
func (o object) node(key string) *node {
	if n := o.vals[key]; n != nil && !n.null {
		return n
	}
	return nil
}

// place returns where a key's value is, or where the mapping is.
func (o object) place(key string) Place {
	if n := o.vals[key]; n != nil {
		return n.at
	}
	return o.at
}

func clip(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:80], "") + "..."
	}
	return s
}

func (n *node) describe() string {
	switch {
	case n.kind == mapping:
		return "a mapping"
	case n.kind == sequence:
		return "a list"
	case n.null:
		return "nothing"
	}
	return strconv.Quote(clip(n.text))
}

// text reads a string. Plain scalars that YAML takes for something else must be quoted, so that no version 1.10 becomes 1.1.
func (r *reader) text(n *node, what string) (string, bool) {
	n = r.fill(n)
	switch {
	case n.null && n.text == "":
		return "", false // said elsewhere
	case n.kind != scalar:
		r.fail(n.at, "write one word, or a text in quotes", "%s must be a string, not %s", what, n.describe())
		return "", false
	case n.style == plain && (n.null || isNumber(n.text) || n.text == "true" || n.text == "false"):
		r.fail(n.at, fmt.Sprintf("quote it: %q", n.text), "%s must be a string, not %s", what, n.text)
		return "", false
	}
	return n.text, true
}

func isNumber(s string) bool {
	_, err := strconv.ParseFloat(s, 64)
	return err == nil
}

func (o object) text(key, fallback string) string {
	if n := o.node(key); n != nil {
		if s, ok := o.reader.text(n, key); ok {
			if s == "" {
				o.fail(n.at, "write a value or remove the key", "%s is empty", key)
			}
			return s
		}
	}
	return fallback
}

// choice reads one of a few words.
func (o object) choice(key, fallback string, words []string) string {
	n := o.node(key)
	if n == nil {
		return fallback
	}
	s, ok := o.reader.text(n, key)
	if ok && !oneOf(s, words) {
		if o.deferred && strings.Contains(s, "${") {
			return s
		}
		hint := suggest(s, words)
		if hint == "" {
			hint = "write " + orList(words)
		}
		o.fail(n.at, hint, "%q is no %s", clip(s), key)
		return fallback
	}
	return s
}

func oneOf(s string, words []string) bool { return slices.Contains(words, s) }

// whole reads an integer within bounds.
func (o object) whole(key string, fallback, low, high int) int {
	n := o.fill(o.node(key))
	if n == nil || n.null {
		return fallback
	}
	v, err := strconv.Atoi(strings.ReplaceAll(n.text, "_", ""))
	switch {
	case n.kind != scalar || err != nil || n.style == quoted || n.style == block:
		o.fail(n.at, fmt.Sprintf("write a number from %d to %d, without quotes", low, high), "%s must be a whole number, not %s", key, n.describe())
	case v < low || v > high:
		o.fail(n.at, fmt.Sprintf("write a number from %d to %d", low, high), "%s is %d", key, v)
	default:
		return v
	}
	return fallback
}

func (o object) flag(key string) bool {
	n := o.fill(o.node(key))
	if n == nil || n.null {
		return false
	}
	if n.kind != scalar || n.style == quoted || n.text != "true" && n.text != "false" {
		o.fail(n.at, "write true or false", "%s must be true or false, not %s", key, n.describe())
	}
	return n.text == "true"
}

// duration reads a duration of at least low.
func (o object) duration(key string, fallback, low time.Duration) time.Duration {
	n := o.fill(o.node(key))
	if n == nil || n.null {
		return fallback
	}
	if n.kind != scalar {
		o.fail(n.at, durationHint, "%s must be a duration, not %s", key, n.describe())
		return fallback
	}
	d, ok := ParseDuration(n.text)
	switch {
	case !ok && isNumber(n.text) && strings.HasPrefix(n.text, "-"):
		o.fail(n.at, durationHint, "%s is %s, it must be greater than 0", key, clip(n.text))
	case !ok && isNumber(n.text):
		o.fail(n.at, fmt.Sprintf("write the unit, such as %ss or %sms", n.text, n.text), "bad duration %q for %s", clip(n.text), key)
	case !ok && strings.HasPrefix(n.text, "-"):
		o.fail(n.at, durationHint, "%s is %s, it must be greater than 0", key, clip(n.text))
	case !ok:
		o.fail(n.at, durationHint, "bad duration %q for %s", clip(n.text), key)
	case d < low && d == 0:
		o.fail(n.at, durationHint, "%s is %s, it must be greater than 0", key, n.text)
	case d < low:
		o.fail(n.at, fmt.Sprintf("write at least %v", low), "%s is %s, which is too short", key, n.text)
	default:
		return d
	}
	return fallback
}

const durationHint = "write a duration such as 500ms, 5s, 1m, 1h or 2d"

// maxDuration is a hundred years; longer ones would overflow in sums.
const maxDuration = 100 * 365 * 24 * time.Hour

// ParseDuration reads a duration as topologies write them: a number and a unit (ms, s, m, h or d), or several of them, as in 1h30m.
func ParseDuration(s string) (time.Duration, bool) {
	units := map[string]time.Duration{"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}
	if s == "" || len(s) > 40 {
		return 0, false
	}
	total := 0.0
	for s != "" {
		i := strings.IndexFunc(s, func(c rune) bool { return (c < '0' || c > '9') && c != '.' })
		if i <= 0 {
			return 0, false
		}
		number, err := strconv.ParseFloat(s[:i], 64)
		if err != nil {
			return 0, false
		}
		s = s[i:]
		j := strings.IndexFunc(s, func(c rune) bool { return c < 'a' || c > 'z' })
		if j < 0 {
			j = len(s)
		}
		unit, ok := units[s[:j]]
		if !ok {
			return 0, false
		}
		total += number * float64(unit)
		s = s[j:]
	}
	if math.IsNaN(total) || total > float64(maxDuration) {
		return 0, false
	}
	return time.Duration(math.Round(total)), true
}

// texts reads a string or a list of strings, with their places.
func (o object) texts(key string) (values []string, places []Place) {
	n := o.node(key)
	if n == nil {
		return nil, nil
	}
	items := n.items
	if n.kind != sequence {
		items = []*node{n}
	}
	for _, item := range items {
		s, ok := o.reader.text(item, key)
		switch {
		case item.null || ok && s == "":
			o.fail(item.at, "write a name or remove it", "%s has an empty entry", key)
		case ok:
			values, places = append(values, s), append(places, item.at)
		}
	}
	return values, places
}

// id reads a topology's, a node's or a stream's name.
func (o object) id(key string) string {
	n := o.node(key)
	if n == nil {
		return ""
	}
	s, ok := o.reader.text(n, key)
	if !ok {
		return ""
	}
	if !isID(s) {
		o.fail(n.at, "write a lower-case letter, then letters, digits and -, at most 64 in all", "%q cannot be a name", clip(s))
		return ""
	}
	return s
}

func isID(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (i == 0 || c != '-' && (c < '0' || c > '9')) {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// isStream allows what ids do, and underscores: streams are named in scripts.
func isStream(s string) bool { return isID(strings.ReplaceAll(s, "_", "-")) }

// isField reports whether s can be the path of a field.
func isField(s string) bool {
	return s != "" && len(s) <= 256 && !strings.HasPrefix(s, ".") && !strings.HasSuffix(s, ".") && !strings.Contains(s, "..") &&
		!strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c == 0x7f || c == '$' })
}

// any reads what a user hands to scripts or to a custom bolt: JSON's values only.
func (r *reader) any(n *node) any {
	n = r.fill(n)
	switch n.kind {
	case mapping:
		out := map[string]any{}
		for _, p := range n.pairs {
			if _, ok := out[p.key]; ok {
				r.fail(p.at, "remove one", "the key %q is given twice", clip(p.key))
			}
			out[p.key] = r.any(p.value)
		}
		return out
	case sequence:
		out := make([]any, len(n.items))
		for i, item := range n.items {
			out[i] = r.any(item)
		}
		return out
	}
	switch {
	case n.null:
		return nil
	case n.style == quoted || n.style == block:
		return n.text
	case n.text == "true" || n.text == "false":
		return n.text == "true"
	case strings.HasPrefix(n.text, ".") && strings.Contains(".inf.nan", strings.ToLower(n.text)):
		r.fail(n.at, "write another value", "%s is no number that JSON has", n.text)
		return nil
	}
	if f, err := strconv.ParseFloat(n.text, 64); err == nil && !math.IsNaN(f) && !math.IsInf(f, 0) {
		return f
	}
	return n.text
}

// unsupported reports something that the language knows and this version cannot run: better refused here than by every worker.
func (r *reader) unsupported(at Place, what string) {
	r.fail(at, "leave it out", "%s is not supported by this version", what)
}
