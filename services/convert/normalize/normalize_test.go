package normalize

import (
	"strings"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

func expr(source string) *topology.Expr {
	return &topology.Expr{Source: source, At: topology.Place{Line: 12, Column: 12}}
}

func set(field, source string) topology.Assignment {
	return topology.Assignment{Field: field, Expr: *expr(source)}
}

func inline(text string) *topology.Script {
	return &topology.Script{Text: text, At: topology.Place{Line: 20, Column: 7}}
}

func TestConvert(t *testing.T) {
	const reading = `{"device":"m1","temperature":212,"note":"x","big":12345678901234567890}`
	for _, tt := range []struct {
		name string
		spec topology.Bolt
		in   string
		want []string // "stream payload" of each child
	}{
		{"nothing declared", topology.Bolt{}, ` {"a": 1.0}`, []string{`default  {"a": 1.0}`}},
		{"where true", topology.Bolt{Where: expr("temperature > 200")}, reading, []string{"default " + reading}},
		{"where false", topology.Bolt{Where: expr("temperature > 212")}, reading, nil},
		{"where absent", topology.Bolt{Where: expr("humidity > 1")}, reading, nil},
		{"where absent negated", topology.Bolt{Where: expr("not (humidity > 1)")}, reading, nil},
		{"where asks for presence", topology.Bolt{Where: expr("humidity == nil")}, reading, []string{"default " + reading}},
		{"where sees device, time and stream", topology.Bolt{Where: expr(`device == "m1" and time == 1000 and stream == "default"`)}, `{}`, []string{"default {}"}},
		{
			"set in order, drop last",
			topology.Bolt{
				Set:  []topology.Assignment{set("celsius", "(temperature - 32) / 1.8"), set("hot", "celsius >= 100"), set("label", `device + "!"`)},
				Drop: []string{"temperature", "note", "unknown"},
			},
			reading,
			[]string{`default {"device":"m1","big":12345678901234567890,"celsius":100,"hot":true,"label":"m1!"}`},
		},
		{
			"an absent input sets nothing",
			topology.Bolt{Set: []topology.Assignment{set("a", "humidity * 2"), set("b", "humidity"), set("temperature", "humidity + 1")}},
			reading,
			[]string{"default " + reading},
		},
		{
			"a script returns t",
			topology.Bolt{Script: inline("function convert(t) { t.n = ctxless(); return t }\nfunction ctxless() { return 1 }")},
			`{"a":1}`,
			[]string{`default {"a":1,"n":1}`},
		},
		{
			"a script returns t unchanged",
			topology.Bolt{Script: inline("function convert(t) { return t }")},
			`{"a": 1.50}`,
			[]string{`default {"a": 1.50}`},
		},
		{"a script returns nothing", topology.Bolt{Script: inline("function convert(t) {}")}, `{"a":1}`, nil},
		{
			"a script emits on streams, and set and drop apply to each",
			topology.Bolt{
				Script: inline(`function convert(t, ctx) { ctx.emit("bad", {a: 1, x: 0}); return [{a: 2}, {a: ctx.params.p, device: ctx.device}] }`),
				Set:    []topology.Assignment{set("b", "a + 1")}, Drop: []string{"x"},
			},
			`{}`,
			[]string{`bad {"a":1,"b":2}`, `default {"a":2,"b":3}`, `default {"a":7,"device":"m1","b":8}`},
		},
		{
			"where is asked before the script",
			topology.Bolt{Where: expr("a == 1"), Script: inline("function convert(t) { throw 1 }")},
			`{"a":2}`, nil,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.spec.ID = "clean"
			b, err := New(tt.spec, map[string]any{"p": 7})
			if err != nil {
				t.Fatal(err)
			}
			h := bolttest.New(t, b, tuple.DefaultStream, "bad")
			for range 2 { // nothing is kept from one to the next
				var got []string
				for _, o := range h.Feed(tuple.Tuple{Key: "m1", Time: 1000, Payload: []byte(tt.in)}) {
					if o.Key != "m1" || o.Time != 1000 {
						t.Errorf("key %q, time %d", o.Key, o.Time)
					}
					got = append(got, o.Stream+" "+string(o.Payload))
				}
				if strings.Join(got, "\n") != strings.Join(tt.want, "\n") {
					t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
				}
			}
			if len(h.Letters) > 0 {
				t.Errorf("dead letter: %s", h.Letters[0].Error)
			}
		})
	}
}

func TestRejected(t *testing.T) {
	for _, tt := range []struct {
		name string
		spec topology.Bolt
		in   string
		want string
	}{
		{"not an object", topology.Bolt{Drop: []string{"a"}}, `[1]`, "not a JSON object"},
		{"where of a wrong type", topology.Bolt{Where: expr("a > 1")}, `{"a":"x"}`, "12:"},
		{"set without a JSON form", topology.Bolt{Set: []topology.Assignment{set("b", "1 / a")}}, `{"a":0}`, "Inf"},
		{"a script that throws", topology.Bolt{Script: &topology.Script{File: "s.js", Text: "function convert(t) {\n  return t.a.b.c\n}"}}, `{}`, "s.js:2:"},
		{"an inline script that throws", topology.Bolt{Script: inline("function convert(t) {\n  throw new Error('so') }")}, `{}`, "21:"},
		{"a script that returns a number", topology.Bolt{Script: inline("function convert(t) { return 1 }")}, `{}`, "a number"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := New(tt.spec, nil)
			if err != nil {
				t.Fatal(err)
			}
			h := bolttest.New(t, b)
			if out := h.Feed(tuple.Tuple{Key: "m1", Payload: []byte(tt.in)}); len(out) != 0 {
				t.Errorf("emitted %s", out[0].Payload)
			}
			if len(h.Letters) != 1 || !strings.Contains(h.Letters[0].Error, tt.want) || h.Letters[0].Tries != 1 {
				t.Fatalf("letters %+v, want one with %q at the first try", h.Letters, tt.want)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		spec topology.Bolt
		want string
	}{
		{"where that is no bool", topology.Bolt{ID: "clean", Where: expr("1 + 1")}, "where of clean: 12:"},
		{"set that does not parse", topology.Bolt{ID: "clean", Set: []topology.Assignment{set("a", "1 +")}}, "set a of clean: 12:"},
		{"script without convert", topology.Bolt{ID: "clean", Script: inline("let x = 1")}, "20:1: the script declares no function convert"},
		{"script that does not parse", topology.Bolt{ID: "clean", Script: &topology.Script{File: "s.js", Text: "function ("}}, "s.js:1:"},
	} {
		if _, err := New(tt.spec, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

func BenchmarkSet(b *testing.B) {
	n, err := New(topology.Bolt{
		Where: expr("temperature != nil"), Set: []topology.Assignment{set("celsius", "(temperature - 32) / 1.8")}, Drop: []string{"note"},
	}, nil)
	if err != nil {
		b.Fatal(err)
	}
	raw := []byte(`{"device":"m1","ts":1386018900000,"temperature":212,"note":"x"}`)
	b.ReportAllocs()
	for b.Loop() {
		n.in.Reset(raw)
		n.env.Doc = &n.in
		if ok, err := n.where.EvalBool(&n.env); err != nil || !ok {
			b.Fatal(ok, err)
		}
		if _, err := n.finish(&n.in); err != nil {
			b.Fatal(err)
		}
	}
}
