package script

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
)

const reading = `{"device":"m-1","temperature":104.5,"pressure":3,"site":"north","ok":true,"note":null,"count":7,
"limits":{"high":100,"names":{"a b":1}},"tags":["x","y"],"values":[1,2,3],"cpu-load":0.5,"serial":9007199254740993}`

func env() *Env {
	return &Env{
		Doc: NewDoc([]byte(reading)), Device: "from-key", Time: 1700000000000, Stream: "readings",
		Archive: map[string]any{"site": "hall", "model": map[string]any{"year": 2020}, "a.b": int64(4)},
	}
}

func TestEval(t *testing.T) {
	for _, c := range []struct {
		src  string
		want any // an error is compared with errors.Is; a string beginning with "!" is part of an error's text
	}{
		{"temperature > 100", true},
		{"temperature > 104.5", false},
		{"(temperature - 32) / 1.8", (104.5 - 32) / 1.8},
		{"pressure % 2", 1.0},
		{"-pressure % 2", -1.0},
		{"temperature % 2", 0.5},
		{"7 / 2", 3.5},
		{"2 + 3", 5.0},
		{"pressure * 2 == 6", true},
		{"pressure in [1, 2, 3]", true},
		{"pressure in 1..5", true},
		{"site in ['north', 'south']", true},
		{"limits.high < temperature", true},
		{`limits["high"]`, 100.0},
		{`limits.names["a b"]`, 1.0},
		{`$env["cpu-load"] * 2`, 1.0},
		{"values[1]", 2.0},
		{"values[9]", "!out of range"},
		{"sum(values) / len(values)", 2.0},
		{"count(values, # > 1) % 2", 0.0},
		{"count > 3 && count(values, # > 1) == 2", true},
		{"filter(values, # >= pressure)", []any{3.0}},
		{"let x = temperature; x + x", 209.0},
		{"let x = site; x + x", "northnorth"},
		{"device", "m-1"},
		{"stream", "readings"},
		{"time / 1000", 1.7e9},
		{"archive.site", "hall"},
		{"archive.model.year - 20", 2000.0},
		{"archive.a.b", 4.0},
		{"archive.missing", nil},
		{"archive.missing > 3", ErrAbsent},
		{"missing", nil},
		{"missing > 3", ErrAbsent},
		{"missing == 3", ErrAbsent},
		{"missing != 'x'", ErrAbsent},
		{"not (missing in [1, 2])", ErrAbsent},
		{"missing contains 'x'", ErrAbsent},
		{"!missing", ErrAbsent},
		{"missing && ok", ErrAbsent},
		{"missing ? 1 : 2", ErrAbsent},
		{"len(missing) > 3", ErrAbsent},
		{"upper(missing)", ErrAbsent},
		{"max(missing, 3)", ErrAbsent},
		{"missing + 1", ErrAbsent},
		{"missing % 2", ErrAbsent},
		{"limits.low > 3", ErrAbsent},
		{"note > 3", ErrAbsent},
		{"note == nil", true},
		{"missing != nil", false},
		{"missing != nil && missing > 3", false},
		{"missing == nil || missing > 3", true},
		{"ok || missing > 3", true},
		{"(missing ?? 5) > 3", true},
		{"limits?.high", 100.0},
		{"nowhere?.high", nil},
		{"nowhere?.high == 3", false},
		{"site > 3", "!invalid operation"},
		{"any(values, # > 2)", true},
		{"reduce(1..200, #acc + #acc, 'x')", ErrTooLarge},
		{"let r = 1..1000; all(r, all(r, all(r, true)))", "!steps"},
		{"1..1000000000", "!memory"},
		{"repeat('x', 2000000)", ErrTooLarge},
		{"join(map(1..1000, repeat('x', 2000)), '')", ErrTooLarge},
		{"replace('a-b', '-', '+')", "a+b"},
	} {
		e, err := CompileExpr(c.src, ExprOptions{Open: true})
		if err != nil {
			t.Errorf("%s: %v", c.src, err)
			continue
		}
		got, err := e.Eval(env())
		switch want := c.want.(type) {
		case error:
			if !errors.Is(err, want) && (err == nil || !strings.Contains(err.Error(), want.Error())) {
				t.Errorf("%s: got %v, %v; want error %v", c.src, got, err, want)
			}
			continue
		case string:
			if text, isError := strings.CutPrefix(want, "!"); isError {
				var at *Error
				if !errors.As(err, &at) || !strings.Contains(err.Error(), text) {
					t.Errorf("%s: got %v, %v; want an error with %q", c.src, got, err, text)
				}
				continue
			}
		}
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %#v, %v; want %#v", c.src, got, err, c.want)
		}
	}
}

func TestEvalKinds(t *testing.T) {
	e, err := CompileExpr("missing", ExprOptions{Open: true, Want: Number})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.EvalNumber(env()); !errors.Is(err, ErrAbsent) {
		t.Errorf("an absent number: %v", err)
	}
	e, err = CompileExpr("site", ExprOptions{Open: true, Want: Bool})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.EvalBool(env()); err == nil || err.Error() != "1:1: the result is a string, not a bool" {
		t.Errorf("a string for a bool: %v", err)
	}
	if e, err = CompileExpr("1 / 0", ExprOptions{}); err != nil {
		t.Fatal(err)
	}
	if f, err := e.EvalNumber(&Env{}); err != nil || !math.IsInf(f, 1) {
		t.Errorf("1/0 = %v, %v", f, err)
	}
	if e, err = CompileExpr("temperature > 1", ExprOptions{Open: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Eval(&Env{Doc: NewDoc([]byte(`[1]`))}); !errors.Is(err, errNotObject) {
		t.Errorf("a payload that is no object: %v", err)
	}
}

func TestCompileErrors(t *testing.T) {
	fields := map[string]Type{"temperature": Number, "site": String, "ok": Bool, "limits.high": Number, "extra": Any}
	for _, c := range []struct {
		src  string
		want Type
		err  string // "" compiles
	}{
		{"temperature > 100", Bool, ""},
		{"temperature != nil && temperature % 2 == 0", Bool, ""},
		{"limits.high + extra.anything", Number, ""},
		{"archive.site == 'x'", Bool, ""},
		{"temprature > 100", Bool, `t.yaml:7:9: unknown field "temprature", did you mean "temperature"?`},
		{"ok && limits.hihg > 3", Bool, `t.yaml:7:15: unknown field "limits.hihg", did you mean "limits.high"?`},
		{"temperature.x > 3", Bool, `t.yaml:7:9: unknown field "temperature.x", did you mean "temperature"?`},
		{"temperature + site", Any, `t.yaml:7:21: invalid operation: + (mismatched types number and string)`},
		{"site % 2", Any, `t.yaml:7:14: % needs numbers, not string`},
		{"site > 3", Bool, `t.yaml:7:14: invalid operation: > (mismatched types string and number)`},
		{"temperature", Bool, `t.yaml:7:9: expected bool, but got number`},
		{"site", Number, `t.yaml:7:9: expected number, but got string`},
		{"temperature >", Bool, `t.yaml:7:21: unexpected end`},
		{"temperature > 1 &&\n  (site ==", Bool, `t.yaml:8:10: unexpected end`},
		{"roundd(temperature)", Any, `t.yaml:7:9: there is no function "roundd", did you mean "round"?`},
		{"now()", Any, `t.yaml:7:9: the clock cannot be read, write "time", the reading's own time in milliseconds`},
		{"$env", Any, `t.yaml:7:9: $env cannot be used as a whole, write $env["name"] for a field whose name is not an identifier`},
		{"", Any, `t.yaml:7:9: the expression is empty`},
		{strings.Repeat("1+", 300) + "1", Any, `t.yaml:7:9: the expression has more than 500 parts, move it to a script`},
	} {
		_, err := CompileExpr(c.src, ExprOptions{Fields: fields, Want: c.want, File: "t.yaml", Line: 7, Column: 9})
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != c.err {
			t.Errorf("%s\n got %s\nwant %s", c.src, got, c.err)
		}
	}
}

func TestFields(t *testing.T) {
	e, err := CompileExpr(`let x = a.b; x + c["d"] + max(e, 1) + sum(f, .g) + archive.h`, ExprOptions{Open: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(e.Fields(), " "); got != "a.b archive.h c.d e f" {
		t.Error(got)
	}
}

func FuzzCompileExpr(f *testing.F) {
	for _, s := range []string{"temperature > 100", "let x = a.b; filter(x, # > 3)", "a?.b ?? c", "$env['x']", "1..5 | map(# % 2)", "\x00", "a.b()", "{'a': 1}.a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src string) {
		e, err := CompileExpr(src, ExprOptions{Open: true})
		if err != nil {
			var at *Error
			if !errors.As(err, &at) || at.Line < 1 || at.Column < 1 {
				t.Fatalf("%q: no place in %v", src, err)
			}
			return
		}
		if _, err := e.Eval(env()); err != nil && err.Error() == "" {
			t.Fatalf("%q: an empty error", src)
		}
	})
}

func BenchmarkEvalPicked(b *testing.B) {
	e, err := CompileExpr("temperature > 100 && pressure < 5", ExprOptions{Open: true})
	if err != nil {
		b.Fatal(err)
	}
	ev := &Env{Doc: NewDoc(nil)}
	raw := []byte(twelve)
	b.ReportAllocs()
	for b.Loop() {
		ev.Doc.Reset(raw)
		if _, err := e.EvalBool(ev); err != nil {
			b.Fatal(err)
		}
	}
}
