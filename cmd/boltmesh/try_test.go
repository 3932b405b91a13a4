package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTry(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"convert.js": "function convert(t, ctx) {\n  if (t.bad) ctx.emit('bad', {why: t.bad.length.of})\n  return {c: (t.f - 32) / 1.8, over: t.f > ctx.params.limit}\n}\n",
		"stat.js":    "function compute(t, state) { if (t.n < 0) throw new Error('negative'); state.sum = (state.sum || 0) + t.n }\nfunction output(state, window) { return {group: window.group, sum: state.sum} }\n",
		"step.js":    "function when(t, ctx) { if (ctx.previous) return t.n - ctx.previous.n > 5; t.n = 99 }\n",
		"alarm.js":   "const when = (t, ctx) => t.n === undefined ? null : t.n > ctx.archive.limit\n",
		"none.js":    "const x = 1\n", "half.js": "function compute() {}\n", "torn.js": "function convert(t {}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	for _, c := range []struct {
		line, in  string
		code      int
		out, errs string
	}{
		{`convert.js --params {"limit":40}`, `{"f":50}` + "\n\n" + `{"f":32,"bad":"x"}`, exitOK, `{"c":10,"over":true}` + "\n" + "bad: {}\n" + `{"c":0,"over":false}` + "\n", ""},
		{`convert.js --params {"limit":40}`, `{"f":50,"bad":null}`, exitOK, `{"c":10,"over":true}` + "\n", ""},
		{"convert.js", `{"f":1,"bad":5}`, exitFailed, "", "reading 1: convert.js:2:"},
		{"convert.js", "nothing", exitFailed, "", "reading 1: not a JSON object: nothing"},
		{`convert.js --params {"limit":40}`, "{\n  \"f\": 50,\n  \"more\": {\n    \"a\": 1\n  }\n}\n{\"f\":32}\n", exitOK, `{"c":10,"over":true}` + "\n" + `{"c":0,"over":false}` + "\n", ""},
		{`--expr n>1 --kind filter`, "{\n  \"n\": 2\n}\n", exitOK, `{"n":2}` + "\n", ""},
		{`--expr n`, "{\n  \"n\": 2,\n  oops\n}\n{\"n\":3}\n", exitFailed, "3\n", "reading 1: not a JSON object: { (invalid character 'o'"},
		{`--expr n`, "{\"n\":1}\nnothing\n{\"n\":3}", exitFailed, "1\n3\n", "reading 2: not a JSON object: nothing"},
		{`--expr n`, `[{"n":1}]{"n":2} {"n":`, exitFailed, "2\n", "reading 1: not a JSON object: [{\"n\":1}]: write one object after the other\nreading 3: not a JSON object: {\"n\": (unexpected EOF)"},
		{"stat.js --state s.json", `{"device":"a","n":1}` + "\n" + `{"device":"b","n":5}` + "\n" + `{"device":"a","n":-1}` + "\n" + `{"device":"a","n":2}`, exitFailed, `{"group":"a","sum":3}` + "\n" + `{"group":"b","sum":5}` + "\n", "reading 3: stat.js:1:"},
		{"stat.js --state s.json", `{"device":"a","n":1}`, exitOK, `{"group":"a","sum":4}` + "\n", ""},
		{`alarm.js --archive {"limit":3}`, `{"n":4}` + "\n" + `{"n":3}` + "\n" + `{}`, exitOK, "true\nfalse\nnull\n", ""},
		{`step.js`, `{"device":"a","n":4}` + "\n" + `{"device":"b","n":20}` + "\n" + `{"device":"a","n":10}` + "\n" + `{"device":"a","n":11}`, exitOK, "null\nnull\ntrue\nfalse\n", ""},
		{`--expr n*2`, `{"n":4}` + "\n" + `{}`, exitOK, "8\nnull\n", ""},
		{`--expr n>archive.limit --kind filter --archive {"limit":3}`, `{"n":4,"x":"<"}` + "\n" + `{"n":1}` + "\n" + `{}`, exitOK, `{"n":4,"x":"<"}` + "\n", ""},
		{`--expr n>>2`, "", exitFailed, "", "--expr:1:"},
		{`--expr n>1`, `{"n":"x"}`, exitFailed, "", "reading 1: --expr:1:"},
		{"none.js", "", exitFailed, "", "declares none of convert, compute and when"},
		{"half.js", "", exitFailed, "", "needs a function output"},
		{"torn.js", "", exitFailed, "", "torn.js:1:"},
		{"convert.js --kind alarm", "", exitFailed, "", "needs a function when"},
		{"convert.js --kind bolt", "", exitUsage, "", "none of convert, stat, alarm"},
		{"convert.js --expr n", "", exitUsage, "", "either a script or --expr"},
		{"alarm.js --archive 5", "", exitUsage, "", "--archive"},
	} {
		code, out, errs := callWith(t, c.in, append([]string{"try"}, strings.Fields(c.line)...)...)
		if code != c.code || c.out != "" && out != c.out || !strings.Contains(errs, c.errs) {
			t.Errorf("try %s: exit %d (want %d)\n%s%s", c.line, code, c.code, out, errs)
		}
	}
}
