package script

import (
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/boltmesh/boltmesh/pkg/tuple"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func runtime(t testing.TB, src string) *Runtime {
	t.Helper()
	p, err := CompileJS("s.js", src)
	if err != nil {
		t.Fatal(err)
	}
	rt, err := NewRuntime(p, RuntimeOptions{Params: map[string]any{"limit": 100, "names": []string{"a"}}, Deadline: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return rt
}

func input(payload string) *Input {
	return &Input{
		Doc: NewDoc([]byte(payload)), ID: tuple.ID{1, 2, 3}, Device: "m-1", Stream: "readings", Time: 1700000000000,
		Archive:  map[string]any{"site": "hall", "model": map[string]any{"year": 2020}, "list": []any{1.0, "b"}},
		Previous: NewDoc([]byte(`{"temperature":99}`)),
	}
}

const small = `{"temperature":212,"site":"north","big":9007199254740993,"nested":{"a":[1,2,{"b":3}],"c":null},"1":"one"}`

func TestConvert(t *testing.T) {
	for _, c := range []struct {
		name, body string
		want       string // stream=payload, joined by blanks; or "!" and a part of the error
	}{
		{"nothing", ``, ""},
		{"null", `return null`, ""},
		{"untouched", `return t`, "=" + small},
		{"reading changes nothing", `t.nested.a[2].b; t.site = t.site; return t`, "=" + small},
		{
			"patched", `t.celsius = (t.temperature - 32) / 1.8; delete t.site; return t`,
			`={"temperature":212,"big":9007199254740993,"nested":{"a":[1,2,{"b":3}],"c":null},"1":"one","celsius":100}`,
		},
		{
			"nested change", `t.nested.a.push(4); t.nested.a[2].b = "x"; delete t.nested.c; return t`,
			`={"temperature":212,"site":"north","big":9007199254740993,"nested":{"a":[1,2,{"b":"x"},4]},"1":"one"}`,
		},
		{
			"assigned objects keep being references", `const o = {}; t.nested = o; o.x = [1, undefined, () => 1].length; return t`,
			`={"temperature":212,"site":"north","big":9007199254740993,"nested":{"x":3},"1":"one"}`,
		},
		{"undefined removes", `t.nested = undefined; t.big = undefined; return t`, `={"temperature":212,"site":"north","1":"one"}`},
		{
			"object", `return {a: t.temperature, b: {c: [t.site, null, undefined]}, d: undefined, e: t.nested.a, f: new Date(0), g: "é\n\"" }`,
			`={"a":212,"b":{"c":["north",null,null]},"e":[1,2,{"b":3}],"f":"1970-01-01T00:00:00.000Z","g":"é\n\""}`,
		},
		{"spread", `const {nested, big, ...rest} = t; return {...rest, n: 1.5e-7}`, `={"1":"one","temperature":212,"site":"north","n":1.5e-7}`},
		{"several", `return [{a: 1}, null, {a: 2}]`, `={"a":1} ={"a":2}`},
		{"emit", `ctx.emit({a: 1}); ctx.emit("other", t.nested.a[2]); return {z: 1}`, `={"a":1} other={"b":3} ={"z":1}`},
		{"emit is at once", `const o = {a: 1}; ctx.emit(o); o.a = 2; ctx.emit("s", o)`, `={"a":1} s={"a":2}`},
		{
			"keys", `return {k: Object.keys(t).join(), e: Object.entries(t.nested).length, i: "site" in t, h: t.hasOwnProperty("nope"), s: JSON.stringify(t.nested), f: (() => { const k = []; for (const x in t) k.push(x); return k.length })()}`,
			`={"k":"temperature,site,big,nested,1","e":2,"i":true,"h":false,"s":"{\"a\":[1,2,{\"b\":3}],\"c\":null}","f":5}`,
		},
		{
			"identity", `return {same: t.nested === t.nested, array: Array.isArray(t.nested.a), sum: t.nested.a.slice(0, 2).reduce((x, y) => x + y, 0)}`,
			`={"same":true,"array":true,"sum":3}`,
		},
		{
			"array methods", `const a = t.nested.a; a.pop(); a.unshift(9); a.sort((x, y) => x - y); a.splice(1, 1); return {a, b: a.map(x => x * 2), c: a.includes(9)}`,
			`={"a":[1,9],"b":[2,18],"c":true}`,
		},
		{
			"context", `return {d: ctx.device, t: ctx.time, s: ctx.stream, i: ctx.id, p: ctx.params.limit, n: ctx.params.names[0], a: ctx.archive.site, y: ctx.archive.model.year, l: ctx.archive.list, o: ctx.previous.temperature}`,
			`={"d":"m-1","t":1700000000000,"s":"readings","i":"01020300000000000000000000000000","p":100,"n":"a","a":"hall","y":2020,"l":[1,"b"],"o":99}`,
		},
		{"time", `return {n: Date.now(), d: new Date().toISOString()}`, `={"n":1700000000000,"d":"2023-11-14T22:13:20.000Z"}`},
		{"seeded", `return {r: ctx.random() !== Math.random(), in: Math.random() < 1}`, `={"r":true,"in":true}`},
		{"NaN", `t.x = 0 / 0; return t`, "!s.js:1:1: x: NaN has no JSON form"},
		{"Infinity", `return {x: {y: 1 / 0}}`, "!x: y: +Inf has no JSON form"},
		{"NaN for a while", `t.x = Infinity; t.x = 1; return {x: t.x}`, `={"x":1}`},
		{"cycle", `const o = {}; o.o = o; return o`, "!contains itself"},
		{"cycle through t", `t.t = t; return t`, "!contains itself"},
		{"a number", `return 3`, "!convert returned a number, not an object"},
		{"an array of numbers", `return [3]`, "!a number is not an object"},
		{"emit nothing", `ctx.emit()`, "!nothing is not an object"},
		{"a promise", `return Promise.resolve(t)`, "!promise"},
		{"a function", `return {f: () => 1}`, "!a function has no JSON form"},
		{"too large", `return {s: "x".repeat(1e6)}`, "!too large"},
		{"ctx is fixed", `ctx.foo = 1`, "!ctx.foo cannot be set"},
		{"the archive is fixed", `ctx.archive.model.year = 1`, "!read-only"},
		{"params are fixed", `"use strict"; ctx.params.names.push("b")`, "!TypeError"},
	} {
		t.Run(c.name, func(t *testing.T) {
			rt := runtime(t, "function convert(t, ctx) {"+c.body+"}")
			got, err := rt.Convert(input(small))
			if text, isError := strings.CutPrefix(c.want, "!"); isError {
				var at *Error
				if !errors.As(err, &at) || !strings.Contains(err.Error(), text) {
					t.Fatalf("got %v, %v; want an error with %q", shown(got), err, text)
				}
				return
			}
			if err != nil || shown(got) != c.want {
				t.Errorf("got  %s, %v\nwant %s", shown(got), err, c.want)
			}
		})
	}
}

func shown(outputs []Output) string {
	var parts []string
	for _, o := range outputs {
		parts = append(parts, o.Stream+"="+string(o.Payload))
	}
	return strings.Join(parts, " ")
}

func TestConvertTwiceIsTheSame(t *testing.T) {
	rt := runtime(t, `function convert(t, ctx) { return {a: Math.random(), b: ctx.random()} }`)
	first, err := rt.Convert(input(small))
	if err != nil {
		t.Fatal(err)
	}
	second, _ := rt.Convert(input(small))
	other := input(small)
	other.ID[5] = 1
	third, _ := rt.Convert(other)
	if shown(first) != shown(second) || shown(first) == shown(third) {
		t.Errorf("%s, %s, %s", shown(first), shown(second), shown(third))
	}
}

func TestReadingEndsWithItsCall(t *testing.T) {
	rt := runtime(t, `let kept; function convert(t) { if (kept) return {x: kept.site}; kept = t }`)
	if _, err := rt.Convert(input(small)); err != nil {
		t.Fatal(err)
	}
	if _, err := rt.Convert(input(small)); err == nil || !strings.Contains(err.Error(), "a call that has ended") {
		t.Error(err)
	}
}

func TestErrorsHaveAPlace(t *testing.T) {
	for _, c := range []struct{ src, want string }{
		{"function convert(t) {\n  return t.a.b\n}", "s.js:2:14: TypeError: Cannot read property 'b' of undefined"},
		{"function convert(t) {\n  if (t.site) {\n    throw new Error('no ' + t.site)\n  }\n}", "s.js:3:11: Error: no north"},
		{"function convert(t) {\n  throw 'text'\n}", "s.js:2:3: text"},
		{"const convert = t => helper(t)\nfunction helper(t) { return missing }", "s.js:2:29: ReferenceError: missing is not defined"},
		{"function convert(t) {\n  return [1].map(x => x.y.z)\n}", "s.js:2:27: TypeError: Cannot read property 'z' of undefined"},
		{"function convert(t, ctx) {\n  ctx.emit(3)\n}", "s.js:2:11: emit: a number is not an object"},
		{"function convert(t) { return JSON.parse('{') }", "s.js:1:40: SyntaxError: Unexpected end of JSON input (EOF)"},
	} {
		rt := runtime(t, c.src)
		if _, err := rt.Convert(input(small)); err == nil || err.Error() != c.want {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
	}
	for _, c := range []struct{ src, want string }{
		{"function convert(t) {\n  retrun t\n}", "s.js:2:10: Unexpected identifier"},
		{"let a = 1;\nlet a = 2;", "s.js:2:5: Identifier 'a' has already been declared"},
		{"function convert(t) {", "s.js:1:22: Unexpected end of input"},
		{strings.Repeat("(", 1000), "s.js:1:1: the script nests more than 500 brackets"},
	} {
		if _, err := CompileJS("s.js", c.src); err == nil || err.Error() != c.want {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
	}
	p, err := CompileJS("s.js", "let x = 1\nx.y.z()")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewRuntime(p, RuntimeOptions{}); err == nil || !strings.HasPrefix(err.Error(), "s.js:2:") {
		t.Error(err)
	}
	rt := runtime(t, "function when() { return true }")
	if _, err := rt.Convert(input(small)); err == nil || err.Error() != "s.js:1:1: the script declares no function convert" {
		t.Error(err)
	}
	if _, err := rt.Test(input(`[1]`)); !errors.Is(err, errNotObject) {
		t.Error(err)
	}
}

func TestHas(t *testing.T) {
	p, err := CompileJS("s.js", "function a() {}\nconst b = x => x, c = 3\nvar d = function () {}\n{ function e() {} }")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"a": true, "b": true, "c": false, "d": true, "e": false, "toString": false} {
		if p.Has(name) != want {
			t.Errorf("Has(%s) = %v", name, !want)
		}
	}
}

func TestWhenAndGroup(t *testing.T) {
	for _, c := range []struct{ src, want string }{
		{"return t.temperature > ctx.params.limit", "true"},
		{"return t.temperature > 300", "false"},
		{"if (t.missing === undefined) return; return true", ErrAbsent.Error()},
		{"return 1", "s.js:1:1: when returned a number, not true, false or nothing"},
	} {
		rt := runtime(t, "function when(t, ctx) {"+c.src+"}")
		ok, err := rt.Test(input(small))
		got := "false"
		if err != nil {
			got = err.Error()
		} else if ok {
			got = "true"
		}
		if got != c.want {
			t.Errorf("%s: %s", c.src, got)
		}
	}
	for _, c := range []struct{ src, want string }{
		{"return t.site + '/' + ctx.archive.site", "north/hall"},
		{"return t.temperature", "212"},
		{"return null", ErrAbsent.Error()},
		{"return {}", "s.js:1:1: group returned an object, not a string"},
	} {
		rt := runtime(t, "function group(t, ctx) {"+c.src+"}")
		got, err := rt.Group(input(small))
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %s", c.src, got)
		}
	}
}

func TestCompute(t *testing.T) {
	for _, c := range []struct {
		name, body, before, after string
		dirty                     bool
	}{
		{"nothing", ``, `{ "n":1}`, `{ "n":1}`, false},
		{"reading", `state.a.b[0]; state.n`, `{"n":1,"a":{"b":[1]}}`, `{"n":1,"a":{"b":[1]}}`, false},
		{"count", `state.n = (state.n || 0) + 1`, ``, `{"n":1}`, true},
		{"as it was", `state.n = 1`, `{"n":1}`, `{"n":1}`, false},
		{"deep", `state.a.b[1].c++`, `{"a":{"b":[1,{"c":2}]},"z":9007199254740993}`, `{"a":{"b":[1,{"c":3}]},"z":9007199254740993}`, true},
		{"push", `(state.last ??= []).push(t.temperature)`, ``, `{"last":[212]}`, true},
		{"array", `state.last.shift()`, `{"last":[1,2]}`, `{"last":[2]}`, true},
		{"from t", `state.t = t.nested`, ``, `{"t":{"a":[1,2,{"b":3}],"c":null}}`, true},
		{"delete", `delete state.a`, `{"a":1}`, `{}`, true},
		{"replace", `return {n: 5, old: state.n}`, `{"n":1}`, `{"n":5,"old":1}`, true},
		{"returned itself", `state.n++; return state`, `{"n":1}`, `{"n":2}`, true},
		{"other results are ignored", `return state.n++`, `{"n":1}`, `{"n":2}`, true},
		{"Infinity for a while", `state.min = Infinity; state.min = Math.min(state.min, t.temperature)`, ``, `{"min":212}`, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			rt := runtime(t, "function compute(t, state) {"+c.body+"}")
			s := NewState([]byte(c.before))
			if err := rt.Compute(input(small), s); err != nil {
				t.Fatal(err)
			}
			got, err := s.Bytes()
			if err != nil || string(got) != c.after || s.Dirty() != c.dirty {
				t.Errorf("%s, dirty %v, %v", got, s.Dirty(), err)
			}
		})
	}
	rt := runtime(t, "function compute(t, state) { state.a = {n: [t.x / t.y]} }")
	if err := rt.Compute(input(`{}`), NewState(nil)); err == nil || err.Error() != "s.js:1:1: the state: a: n: 0: NaN has no JSON form" {
		t.Error(err)
	}
	if err := rt.Compute(input(`{}`), NewState([]byte("[]"))); !errors.Is(err, errNotObject) {
		t.Error(err)
	}
}

func TestStateOutlivesRuntime(t *testing.T) {
	src := `function compute(t, s) { s.list ??= []; s.list.push({v: t.v}); s.list[0].v++ }`
	a, b := runtime(t, src), runtime(t, src)
	s := NewState(nil)
	for i := range 3 {
		if err := []*Runtime{a, b, a}[i].Compute(input(`{"v":1}`), s); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.Bytes(); err != nil || string(got) != `{"list":[{"v":4},{"v":1},{"v":1}]}` {
		t.Errorf("%s, %v", got, err)
	}
}

func TestOutputOf(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{"", ""},
		{"return null", ""},
		{"return {mean: state.sum / state.n, from: window.start}", `{"mean":2,"from":5}`},
		{"return [{a: 1}, {a: window.tags[0]}]", `{"a":1} {"a":"x"}`},
		{"return state", `{"n":2,"sum":4}`},
		{"state.n = 0; return {}", `{}`},
		{"return 'x'", "s.js:1:1: output returned a string, not an object, an array of objects or nothing"},
	} {
		rt := runtime(t, "function output(state, window) {"+c.body+"}")
		s := NewState([]byte(`{"n":2,"sum":4}`))
		list, err := rt.OutputOf(s, map[string]any{"start": 5, "tags": []string{"x"}})
		var parts []string
		for _, p := range list {
			parts = append(parts, string(p))
		}
		got := strings.Join(parts, " ")
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %s", c.body, got)
		}
		if strings.HasPrefix(c.body, "state") != s.Dirty() {
			t.Errorf("%s: dirty %v", c.body, s.Dirty())
		}
	}
}
