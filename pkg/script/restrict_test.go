package script

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestRunawayScripts(t *testing.T) {
	for _, c := range []struct{ name, body, want string }{
		{"loop", "while (true);", "longer than 50ms"},
		{"loop that catches", "while (true) try { throw 1 } catch (e) {} finally {}", "longer than 50ms"},
		{"promises", "const f = () => Promise.resolve().then(f); f()", "longer than 50ms"},
		{"generator", "function* g() { while (true) yield 1 }; for (const x of g());", "longer than 50ms"},
		{"growing string", "let s = 'x'; while (true) s = (s + s).slice(0, 1000)", "longer than 50ms"},
		{"recursion", "const f = n => 1 + f(n + 1); f(0)", "nests more than"},
		{"recursion through builtins", "const f = n => [n].map(f); f(0)", "too"},
		{"toString", "const o = {toString() { return '' + o }}; return '' + o", "nests more than"},
		{"getter in the result", "return {get x() { while (true); }}", "longer than 50ms"},
		{"toJSON in the result", "return {x: {toJSON() { return this }}}", "contains itself"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := CompileJS("s.js", "let calls = 0; function convert(t, ctx) { calls++; if (t.run) {"+c.body+"} return {calls} }")
			if err != nil {
				t.Fatal(err)
			}
			rt, err := NewRuntime(p, RuntimeOptions{Deadline: 50 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			_, err = rt.Convert(input(`{"run":true}`))
			var at *Error
			if !errors.As(err, &at) || !strings.Contains(err.Error(), c.want) {
				t.Fatal(err)
			}
			if strings.Contains(c.want, "longer") != errors.Is(err, ErrDeadline) {
				t.Errorf("not marked: %v", err)
			}
			if out, err := rt.Convert(input(`{}`)); err != nil || len(out) != 1 {
				t.Errorf("the next call: %v, %v", out, err)
			}
		})
	}
}

func TestHugeAllocations(t *testing.T) {
	for _, body := range []string{
		"'x'.repeat(2 ** 40)", "'x'.padStart(2 ** 40)", "'x'.padEnd(2 ** 40, 'ab')", "''.repeat(2 ** 50)",
		"new Array(1e9).fill(0)", "Array(1e9).join('x')", "Array.apply(null, {length: 1e9})", "[...Array(1e9)]",
		"Array.from({length: 1e9})", "const a = []; a.length = 1e9; a.fill(1)", "const a = []; a.length = 4e9; a.indexOf(1)",
		"new ArrayBuffer(1e12)", "new Uint8Array(1e12)", "new Float64Array({length: 1e12})", "new ([].constructor)(1e9)",
		"Array.prototype.concat.call({length: 2 ** 50}, 1)", "Array.prototype.forEach.call({length: 2 ** 50}, x => x)",
		"new Array(1e6).join('x'.repeat(1e6))", "const s = 'x'.repeat(1e6); Array(1000).fill(s).join()",
		"'x'.repeat(1e6).replaceAll('x', 'y'.repeat(1e6))", "'x'.repeat(1e6).replace(/x/g, 'y'.repeat(1e6))",
		"let a = []; for (let i = 0; i < 1e4; i++) a = [a]; '' + a", "const a = []; a.push(a); a.flat(Infinity)",
		"let o = {}; for (let i = 0; i < 1e4; i++) o = {o}; JSON.stringify(o)", "JSON.parse('['.repeat(1e5) + ']'.repeat(1e5))",
		"Reflect.apply(Math.max, null, {length: 1e9})", "t.list[1e9] = 1; if (t.list.length === 1) throw 1", "t.list.length = 1e9; if (t.list.length === 1) throw 1",
		"'x'.concat(...Array(1000).fill('x'.repeat(1e6)))",
	} {
		t.Run(body, func(t *testing.T) {
			rt := runtime(t, "function convert(t) {"+body+"}")
			_, err := rt.Convert(input(`{"list":[1]}`))
			var at *Error
			if !errors.As(err, &at) {
				t.Fatal(err)
			}
		})
	}
}

func TestRemovedAndKept(t *testing.T) {
	for _, c := range []struct{ code, want string }{
		{"typeof eval", `"undefined"`},
		{"typeof Function", `"undefined"`},
		{"typeof (() => 1).constructor", `"undefined"`},
		{"typeof (function* () {}).constructor", `"undefined"`},
		{"typeof (async () => 1).constructor", `"undefined"`},
		{"typeof require", `"undefined"`},
		{"new Array(3).fill(0).length + Array(1, 2).length + Array.of(1).length", `6`},
		{"[] instanceof Array && Array.isArray([]) && [].constructor === Array", `true`},
		{"class L extends Array {}; new L(2).length", `2`},
		{"Array.from('abc').reverse().join('')", `"cba"`},
		{"[[1, [2]], 3].flat().length", `3`},
		{"new Uint8Array([1, 2])[1] + new Uint8Array(new ArrayBuffer(8)).length", `10`},
		{"'ab'.padStart(4, '-') + 'x'.repeat(2) + 'aXa'.replace('X', m => m + m) + 'a.b'.split('.').length", `"--abxxaXXa2"`},
		{"Math.max.apply(null, [1, 3]) + Math.max(...[4, 2])", `7`},
		{"JSON.stringify(JSON.parse('{\"a\":[1,{}]}'), null, 1).length", `24`},
		{"[3, 1, 2].sort().map(String).concat(['x']).join('')", `"123x"`},
		{"[].fill.name + [].fill.length", `"fill1"`},
	} {
		head, tail, ok := strings.Cut(c.code, "; ")
		if !ok {
			head, tail = "", c.code
		}
		rt := runtime(t, "function convert(t) {"+head+"; return {r: "+tail+"} }")
		got, err := rt.Convert(input(`{}`))
		if err != nil || shown(got) != `={"r":`+c.want+`}` {
			t.Errorf("%s: %s, %v", c.code, shown(got), err)
		}
	}
}

func TestTimerFiresOnlyForItsCall(t *testing.T) {
	rt := runtime(t, "function convert(t) { return {} }")
	rt.watch.start(rt.vm, time.Hour)
	late := rt.watch.shot
	for range looks {
		late.fire() // at the very end of a call
	}
	if !rt.watch.stop() {
		t.Fatal("the interrupt went unnoticed")
	}
	rt.vm = nil
	late.fire() // between calls
	if _, err := rt.Convert(input(`{}`)); err != nil {
		t.Error(err)
	}
	rt.watch.start(rt.vm, time.Hour)
	late = rt.watch.shot
	late.timer.Stop() // as if it had gone off just now, and its goroutine had not run yet
	rt.watch.stop()
	rt.watch.start(rt.vm, time.Hour)
	for range looks {
		late.fire()
	}
	if rt.watch.stop() {
		t.Error("a late timer interrupted the next call")
	}
}

func TestAStallCostsOneSlice(t *testing.T) {
	rt := runtime(t, "function convert(t) { return {} }")
	rt.watch.start(rt.vm, time.Hour)
	rt.watch.shot.fire() // a stall longer than the deadline lets the timer go off once
	if rt.watch.stop() {
		t.Error("interrupted without having run for its deadline")
	}
}
