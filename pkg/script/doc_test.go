package script

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// twelve is a typical reading.
const twelve = `{"device":"machine-17","ts":1700000000000,"temperature":104.53,"pressure":3.2,"humidity":41,"vibration":0.013,"rpm":1480,"state":"running","site":"north","line":7,"ok":true,"serial":9007199254740993}`

func TestDoc(t *testing.T) {
	d := NewDoc([]byte(`{ "a" : 1.50, "b":{"c":{"d":"x"},"e":[1,{"f":2}]},"n":null,"b.x":7, "big":9007199254740993, "\u0061b":true }`))
	for _, c := range []struct {
		path string
		want any
	}{
		{"a", 1.5},
		{"b.c.d", "x"},
		{"n", nil},
		{"missing", nil},
		{"b.x", 7.0},
		{"b.c.missing", nil},
		{"a.b", nil},
		{"ab", true},
		{"b.e", []any{1.0, map[string]any{"f": 2.0}}},
		{"b.c", map[string]any{"d": "x"}},
		{"", nil},
		{".", nil},
		{"big", 9007199254740992.0},
	} {
		got, ok := d.Value(c.path)
		if ok != (c.want != nil) || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %#v, %v", c.path, got, ok)
		}
	}
	same, err := d.Bytes()
	if err != nil || &same[0] != &d.raw[0] {
		t.Errorf("reading changed the bytes: %s, %v", same, err)
	}
	d.Set("a", 1.5) // what it was
	d.Set("z", "new\n")
	d.Set("y", int64(math.MaxInt64))
	d.Delete("n")
	d.Delete("missing")
	d.Set("ab", map[string]any{"k": []int{1}})
	got, err := d.Bytes()
	want := `{"a":1.50,"b":{"c":{"d":"x"},"e":[1,{"f":2}]},"b.x":7,"big":9007199254740993,"\u0061b":{"k":[1]},"z":"new\n","y":9223372036854775807}`
	if err != nil || string(got) != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
	if v, _ := d.Value("ab.k"); !reflect.DeepEqual(v, []any{1.0}) {
		t.Errorf("a value that was set: %v", v)
	}
	d.Set("n", 1)
	if got := strings.Join(d.Keys(), " "); got != "a b b.x big ab z y n" {
		t.Error(got)
	}
}

func TestDocErrors(t *testing.T) {
	for _, raw := range []string{
		"", " ", "[]", "1", `"x"`, "null", "{", `{"a"}`, `{"a":}`, `{"a":1,}`, `{"a":1}x`, `{"a":01}`, "{\"a\":\"\x01\"}", `{"a":"\x"}`, `{"a":"\u12"}`,
		`{"a":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}`,
	} {
		d := NewDoc([]byte(raw))
		if _, ok := d.Value("a"); ok {
			t.Errorf("%.40q has a value", raw)
		}
		d.Set("b", 1)
		d.Delete("a")
		if _, err := d.Bytes(); !errors.Is(err, errNotObject) || d.Err() == nil {
			t.Errorf("%.40q: %v", raw, err)
		}
	}
	for _, v := range []any{math.NaN(), math.Inf(1), func() {}, map[string]any{"x": math.NaN()}} {
		d := NewDoc([]byte(`{}`))
		d.Set("a", v)
		if _, err := d.Bytes(); err == nil || !strings.HasPrefix(err.Error(), "a: ") {
			t.Errorf("%v: %v", v, err)
		}
	}
	var zero Doc
	if zero.Err() == nil {
		t.Error("the zero Doc has no error")
	}
}

func TestDocTwiceTheSameName(t *testing.T) {
	d := NewDoc([]byte(`{"a":1,"b":2,"a":3}`))
	if v, _ := d.Number("a"); v != 3 {
		t.Error(v)
	}
	d.Set("b", 4)
	if got, _ := d.Bytes(); string(got) != `{"a":3,"b":4}` {
		t.Errorf("%s", got)
	}
	d.Delete("a")
	if _, ok := d.Value("a"); ok {
		t.Error("deleted, and still there")
	}
}

func TestDocResetKeepsMemory(t *testing.T) {
	d, raw := NewDoc(nil), []byte(twelve)
	if n := testing.AllocsPerRun(100, func() {
		d.Reset(raw)
		d.Number("temperature")
		d.Number("missing")
	}); n > 1 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzDoc(f *testing.F) {
	for _, s := range []string{twelve, reading, `{"a":{"b":[1,2,{"c":null}]}}`, `{"\u0000\ud800":"\ud83d\ude00"}`, `{"a":1e999}`, "{\"\xff\":1,\"\xfe\":2}", `{"":{"":1}}`} {
		f.Add([]byte(s), "a")
	}
	f.Fuzz(func(t *testing.T, raw []byte, name string) {
		d := NewDoc(raw)
		var want map[string]any
		valid := json.Valid(raw) && json.Unmarshal(raw, &want) == nil && want != nil
		if huge := strings.Count(string(raw), "[")+strings.Count(string(raw), "{") >= maxDepth; huge {
			return
		}
		if outOfRange := json.Valid(raw) && !valid && d.Err() == nil; outOfRange {
			return // encoding/json refuses 1e999, which is valid JSON
		}
		if (d.Err() == nil) != valid {
			t.Fatalf("%q: %v, but encoding/json says %v", raw, d.Err(), valid)
		}
		if !valid {
			return
		}
		if got := d.root.value(); !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: %v, want %v", raw, got, want)
		}
		for _, k := range d.Keys() {
			if d.root.slot(k) == nil {
				t.Fatalf("%q: key %q is not found", raw, k)
			}
		}
		d.Set(name, 1)
		out, err := d.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		name = strings.ToValidUTF8(name, "\ufffd")
		_ = name
		var got map[string]any
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatalf("%q became %q: %v", raw, out, err)
		}
		d.Delete(name)
		if _, err := d.Bytes(); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkDocPick(b *testing.B) {
	d, raw := NewDoc(nil), []byte(twelve)
	b.ReportAllocs()
	for b.Loop() {
		d.Reset(raw)
		if _, ok := d.Number("rpm"); !ok {
			b.Fatal("absent")
		}
	}
}

// TestDocExpect: what is expected decides how much is indexed, never what is found.
func TestDocExpect(t *testing.T) {
	names := rapid.SampledFrom([]string{"a", "b", "ab", "a.b", "a.b.c", "b.a", "c", "\\u0061", "temperature", "device"})
	paths := rapid.SampledFrom([]string{"a", "b", "ab", "a.b", "a.b.c", "b.a", "c", "temperature", "device", "", ".", "a.", ".a", "x"})
	rapid.Check(t, func(t *rapid.T) {
		object := func(value func() string) string {
			var b strings.Builder
			for i := range rapid.IntRange(0, 6).Draw(t, "fields") {
				if i > 0 {
					b.WriteByte(',')
				}
				b.WriteString(`"` + names.Draw(t, "name") + `":` + value())
			}
			return "{" + b.String() + "}"
		}
		scalar := func() string {
			return rapid.SampledFrom([]string{"1", "2.5", `"x"`, "null", "true", "[1]"}).Draw(t, "value")
		}
		raw := []byte(object(func() string {
			if rapid.Bool().Draw(t, "nested") {
				return object(scalar)
			}
			return scalar()
		}))
		if rapid.IntRange(0, 9).Draw(t, "cut") == 0 {
			raw = raw[:len(raw)-1]
		}
		plain, sparing := &Doc{}, &Doc{}
		sparing.Expect(rapid.SliceOfN(paths, 1, 4).Draw(t, "expected")...)
		for range 2 { // the second time in the same memory
			plain.Reset(raw)
			sparing.Reset(raw)
			for range rapid.IntRange(1, 6).Draw(t, "steps") {
				p := paths.Draw(t, "path")
				switch rapid.IntRange(0, 5).Draw(t, "step") {
				case 0:
					plain.Set(p, 7)
					sparing.Set(p, 7)
				case 1:
					plain.Delete(p)
					sparing.Delete(p)
				default:
					v, ok := plain.Value(p)
					if got, found := sparing.Value(p); found != ok || !reflect.DeepEqual(got, v) {
						t.Fatalf("%s of %s: %v, %v, want %v, %v", p, raw, got, found, v, ok)
					}
				}
			}
			want, bad := plain.Bytes()
			if got, err := sparing.Bytes(); string(got) != string(want) || (err == nil) != (bad == nil) {
				t.Fatalf("%s became %s, %v, want %s, %v", raw, got, err, want, bad)
			}
		}
	})
}
