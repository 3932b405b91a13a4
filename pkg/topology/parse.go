package topology

import (
	"fmt"
	"strings"
	"time"
)

// Options give Parse what it must not fetch itself. The zero value substitutes defaults only, reads no scripts and checks no code.
type Options struct {
	Vars    Lookup                                     // for ${VAR:default}, everywhere but in spout.kafka, in notify and in scripts
	Script  func(file string) (text string, err error) // reads a script that the document names; relative to the document
	Checker Checker                                    // checks expressions and scripts
}

// Checker knows the languages that users write code in. It is asked only about well-formed pieces; places that it reports are relative to the
// piece, from 1:1, and in characters.
type Checker interface {
	// Expr checks an expression over fields that yields a value of type want. It returns the fields that the expression mentions.
	Expr(source string, fields FieldSet, want string) (mentions []string, problems Problems)
	// Script checks a script. has reports whether it declares a function of that name; it is nil when the script has problems.
	Script(file, text string) (has func(function string) bool, problems Problems)
}

// FieldSet says what is known of the fields of the tuples on one stream.
type FieldSet struct {
	Types map[string]string // field -> number | string | bool | any
	Open  bool              // there may be other fields
}

// Parse reads a topology strictly. name is the document's name in places. All problems are collected, in the order of their places; with any, the
// topology is nil. What is merely doubtful is in the topology's Warnings.
func Parse(name string, source []byte, o Options) (*Topology, Problems) {
	r := &reader{options: o, vars: map[string]string{}, scripts: map[string]string{}}
	t := r.document(source)
	for _, list := range []*Problems{&r.problems, &r.warnings} {
		for i := range *list {
			if p := &(*list)[i].Place; p.File == "" {
				p.File = name
			}
		}
		list.Sort()
		if more := len(*list) - maxProblems; more > 0 {
			*list = append((*list)[:maxProblems:maxProblems], Problem{(*list)[maxProblems].Place, fmt.Sprintf("%d more problems follow", more), "correct those above first"})
		}
	}
	if len(r.problems) > 0 {
		return nil, r.problems
	}
	t.Scripts, t.Warnings = r.scripts, r.warnings
	t.Document = Document{Name: name, Source: string(source), Scripts: r.scripts, Vars: r.vars}
	return t, nil
}

// maxProblems are told at once; nobody reads more.
const maxProblems = 200

func (r *reader) document(source []byte) *Topology {
	root, lines, problem := parseTree(source)
	r.lines = lines
	if problem != nil {
		r.problems = append(r.problems, *problem)
		return nil
	}
	top := r.object(root, "the topology", shapes["topology"], nil)
	if top.bad {
		return nil
	}
	t := &Topology{Name: top.id("topology")}
	spout := r.spout(top, t)
	bolts := r.bolts(top)
	r.output(top, t)
	if n := top.node("params"); n != nil {
		t.Params, _ = r.params(n, "params")
	}
	t.Archive = r.archive(top)
	r.check(t, spout, bolts)
	for _, b := range bolts {
		t.Bolts = append(t.Bolts, b.Bolt)
	}
	return t
}

func (r *reader) params(n *node, what string) (map[string]any, bool) {
	if n.kind != mapping {
		r.fail(n.at, "write {name: value}", "%s must be a mapping of keys to values, not %s", what, n.describe())
		return nil, false
	}
	m, ok := r.any(n).(map[string]any)
	return m, ok
}

// spout reads the spout; its object is returned for places.
func (r *reader) spout(top object, t *Topology) object {
	n := top.node("spout")
	if n == nil {
		return object{reader: r, at: top.at, bad: true}
	}
	if n.kind == sequence && len(n.items) > 1 {
		r.fail(n.items[1].at, "other sources need a topology of their own", "a second spout: a topology has exactly one")
		n = n.items[0]
	}
	o := r.object(n, "the spout", shapes["spout"], nil)
	if o.bad {
		return o
	}
	s := &t.Spout
	s.ID = o.id("id")
	s.Stream = o.text("stream", "")
	s.Fields = o.fields("fields")
	s.Decode = o.choice("decode", "json", decoders)
	var at []Place
	s.Columns, at = o.texts("columns")
	for i, c := range s.Columns {
		if oneOf(c, s.Columns[:i]) {
			r.fail(at[i], "rename one", "the column %q is named twice", clip(c))
		}
	}
	switch {
	case s.Decode == "csv" && len(s.Columns) == 0:
		r.fail(o.place("decode"), "write columns: [device, ts, ...]", "decode: csv needs columns")
	case s.Decode != "csv" && o.has("columns"):
		r.fail(o.keys["columns"], "write decode: csv", "columns belong to decode: csv")
	}
	s.Key = o.field("key")
	s.Time = r.time(o)
	s.MaxPending = o.whole("max_pending", 20000, 1, 10_000_000)
	s.Timeout = o.duration("timeout", 30*time.Second, 100*time.Millisecond)
	s.Retry = r.retry(o)
	r.source(o, s)
	if n := o.node("kafka"); n != nil {
		s.Kafka = r.readKafka(n, t.Name)
	}
	if s.Decode == "csv" {
		for _, f := range []struct{ key, field string }{{"key", s.Key}, {"time", s.Time.Field}} {
			if f.field != "" && !oneOf(f.field, s.Columns) && len(s.Columns) > 0 {
				r.fail(o.place(f.key), suggest(f.field, s.Columns), "unknown field %q: it is no column", clip(f.field))
			}
		}
	}
	return o
}

const fieldHint = "write a name, or names joined by dots"

// field reads the path of a field.
func (o object) field(key string) string {
	s := o.text(key, "")
	if s != "" && !isField(s) {
		o.fail(o.place(key), fieldHint, "%q cannot be a field", clip(s))
		return ""
	}
	return s
}

// fields reads declared fields and their types.
func (o object) fields(key string) map[string]string {
	n := o.node(key)
	if n == nil {
		return nil
	}
	if n.kind != mapping {
		o.fail(n.at, "write {temperature: number, site: string}", "%s must be a mapping of fields to types, not %s", key, n.describe())
		return nil
	}
	out := map[string]string{}
	for _, p := range n.pairs {
		s, ok := o.reader.text(p.value, "the type of "+clip(p.key))
		switch {
		case !isField(p.key):
			o.fail(p.at, fieldHint, "%q cannot be a field", clip(p.key))
		case out[p.key] != "":
			o.fail(p.at, "remove one", "the field %q is declared twice", p.key)
		case p.value.null || ok && !oneOf(s, fieldTypes):
			hint := suggest(s, fieldTypes)
			if hint == "" {
				hint = "write " + orList(fieldTypes)
			}
			o.fail(p.value.at, hint, "%q is no type of a field", clip(s))
		case ok:
			out[p.key] = s
		}
	}
	return out
}

func (r *reader) time(spout object) TimeField {
	n := spout.node("time")
	if n == nil {
		return TimeField{Unit: "ms"}
	}
	o := r.object(n, "time", shapes["time"], nil)
	return TimeField{Field: o.field("field"), Unit: o.choice("unit", "ms", timeUnits), Lag: o.duration("lag", 0, 0)}
}

// DefaultRetry is what applies where a document says nothing.
func DefaultRetry() Retry {
	return Retry{Attempts: 5, Backoff: 100 * time.Millisecond, Ceiling: 10 * time.Second}
}

func (r *reader) retry(parent object) Retry {
	usual := DefaultRetry()
	n := parent.node("retry")
	if n == nil {
		return usual
	}
	o := r.object(n, "retry", shapes["retry"], nil)
	out := Retry{
		Attempts: o.whole("attempts", usual.Attempts, 1, 1000),
		Backoff:  o.duration("backoff", usual.Backoff, time.Millisecond),
		Ceiling:  o.duration("ceiling", usual.Ceiling, time.Millisecond),
	}
	if out.Ceiling < out.Backoff {
		if o.has("ceiling") {
			r.fail(o.place("ceiling"), fmt.Sprintf("write at least %v", out.Backoff), "the ceiling is shorter than the backoff")
		}
		out.Ceiling = out.Backoff
	}
	return out
}

func (r *reader) readKafka(n *node, topology string) Kafka {
	r.deferred = true
	defer func() { r.deferred = false }()
	o := r.object(n, "kafka", shapes["kafka"], nil)
	k := Kafka{
		Brokers: o.text("brokers", "${BOLTMESH_KAFKA_BROKERS:localhost:9092}"), Start: o.text("start", "earliest"), Group: o.text("group", "boltmesh-"+topology), Incarnation: o.text("incarnation", ""),
	}
	var at []Place
	k.Topics, at = o.texts("topics")
	for i, topic := range k.Topics {
		if oneOf(topic, k.Topics[:i]) {
			r.fail(at[i], "remove one", "the topic %q is named twice", clip(topic))
		}
	}
	if n := o.node("topics"); n != nil && n.kind == sequence && len(n.items) == 0 {
		r.fail(n.at, "write topics: [readings]", "topics is empty")
	}
	if !strings.Contains(k.Start, "${") && !validStart(k.Start) {
		r.fail(o.place("start"), "write earliest, latest, committed or a time such as 2026-01-31T00:00:00Z", "%q is no start", clip(k.Start))
	}
	if n := o.node("tls"); n != nil {
		t := r.object(n, "tls", shapes["tls"], nil)
		k.TLS = &TLS{CA: t.text("ca", ""), Cert: t.text("cert", ""), Key: t.text("key", ""), ServerName: t.text("server_name", ""), Insecure: t.flag("insecure")}
		if (k.TLS.Cert == "") != (k.TLS.Key == "") {
			r.fail(n.at, "write both or none", "cert and key belong together")
		}
	}
	if n := o.node("sasl"); n != nil {
		s := r.object(n, "sasl", shapes["sasl"], nil)
		k.SASL = &SASL{Mechanism: s.choice("mechanism", "", mechanisms), Username: s.text("username", ""), Password: s.text("password", "")}
	}
	return k
}

func validStart(s string) bool {
	if s == "" || s == "earliest" || s == "latest" || s == "committed" {
		return true
	}
	_, err := time.Parse(time.RFC3339, s)
	return err == nil
}

func (r *reader) output(top object, t *Topology) {
	t.Output = Output{Database: t.Name, Batch: 1000, Linger: 20 * time.Millisecond}
	n := top.node("output")
	if n == nil {
		return
	}
	o := r.object(n, "output", shapes["output"], nil)
	t.Output = Output{
		Database: o.text("database", t.Name), Batch: o.whole("batch", 1000, 1, 100_000),
		Linger: o.duration("linger", 20*time.Millisecond, 0), Tasks: o.whole("tasks", 0, 1, MaxTasks),
	}
	if d := t.Output.Database; d != "" && !isCollection(d) {
		r.fail(o.place("database"), "write letters, digits, - and _, at most 63", "%q cannot be the name of a database", clip(d))
	}
}

// isCollection allows what every store and every file system takes as a name.
func isCollection(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c != '-' && c != '_' && (c < '0' || c > '9')) {
			return false
		}
	}
	return s != "" && len(s) <= 63
}
