package script

import "testing"

func BenchmarkConvert(b *testing.B) {
	rt := runtime(b, `
function convert(t, ctx) {
  if (t.temperature === undefined || t.state !== "running") return
  t.celsius = Math.round((t.temperature - 32) / 1.8 * 100) / 100
  t.load = t.rpm / 1500
  t.hot = t.celsius > ctx.params.limit
  t.key = t.site + "/" + t.line
  delete t.vibration
  return t
}`)
	raw := []byte(twelve)
	in := input(twelve)
	b.ReportAllocs()
	for b.Loop() {
		in.Doc.Reset(raw)
		if out, err := rt.Convert(in); err != nil || len(out) != 1 {
			b.Fatal(err)
		}
	}
}

func BenchmarkConvertNewObject(b *testing.B) {
	rt := runtime(b, `const convert = (t, ctx) => ({device: t.device, ts: t.ts, celsius: (t.temperature - 32) / 1.8, site: t.site, ok: t.ok})`)
	raw := []byte(twelve)
	in := input(twelve)
	b.ReportAllocs()
	for b.Loop() {
		in.Doc.Reset(raw)
		if out, err := rt.Convert(in); err != nil || len(out) != 1 {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompute(b *testing.B) {
	rt := runtime(b, `
function compute(t, s) {
  const x = t.temperature
  if (s.n === undefined) { s.n = 0; s.sum = 0; s.min = x; s.max = x }
  s.n++
  s.sum += x
  if (x < s.min) s.min = x
  if (x > s.max) s.max = x
}`)
	raw := []byte(twelve)
	in := input(twelve)
	state := NewState(nil)
	b.ReportAllocs()
	for b.Loop() {
		in.Doc.Reset(raw)
		if err := rt.Compute(in, state); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNewRuntime(b *testing.B) {
	p, err := CompileJS("s.js", "function convert(t) { return t }")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := NewRuntime(p, RuntimeOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}
