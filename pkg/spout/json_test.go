package spout

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

var documents = []string{
	"", " ", "{}", "[]", " { } ", "[ ]", "{", "[", "}", "]", "{]", "[}", "[1,]", "[,1]", "[1 2]", "{,}", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{\"a\" : 1 , \"b\" : [ { } , [ ] ] }", "{\"a\":1}x", "1 2",
	"{1:2}", "{\"a\":1 \"b\":2}", "[[[[]]]]", "[[[[]]]", "[{\"a\":[]}]", "[{\"a\":[}]", "true", "tru", "truex", "false", "null", "nul", "-", "-0", "0", "00", "01", "1.", ".1", "1.5", "1e", "1e5", "1E+5", "1e-", "-1.25e-10", "+1", "1e5.2",
	`""`, `"`, `"a`, `"\"`, `"\""`, `"\\"`, `"\x"`, `"\u00e4"`, `"\u00E4\n"`, `"\u00g4"`, `"\u00"`, "\"\n\"", "\"\x1f\"", "\"\x7f\"", "\"ä€😀\"", `{"a":"1234567\"890","b":"12345678\u00e4"}`, `"12345678`, `"1234567\`, `"123456789\`, "\"1234567\t\"",
	"\"\xff\"", "{\"a\"\n:\t1}", "{\"a\":1}\n", "\x00", "nulll", `{"a":{"b":{"c":[1,2,{"d":"e"}]}},"f":-0.5}`, `{"a":{}}`, `{"a":[]}`, `[{},{}]`, `[[],[]]`, `[{}`, `{"a":{}`, `{"`, `{"a`, `{"a":"`,
}

func FuzzValid(f *testing.F) {
	for _, d := range documents {
		f.Add([]byte(d))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, want := valid(b), json.Valid(b); got != want {
			t.Errorf("%q: %v, encoding/json says %v", b, got, want)
		}
	})
}

// TestValidAtEveryPlace puts each of 256 bytes at each place of a text that is longer than what is looked at at once.
func TestValidAtEveryPlace(t *testing.T) {
	const text = `{"name":"0123456789abcdef0123456789","more":[1,"x\u00e4y",null]}`
	for i := range text {
		for c := range 256 {
			b := []byte(text)
			b[i] = byte(c)
			if got, want := valid(b), json.Valid(b); got != want {
				t.Errorf("%q: %v, encoding/json says %v", b, got, want)
			}
		}
		if b := []byte(text)[:i]; valid(b) {
			t.Errorf("%q is valid", b)
		}
	}
}

// TestValidIsLinear: a document that is deep, or all escapes, takes no more than one that is not.
func TestValidIsLinear(t *testing.T) {
	const n = 1 << 20
	for name, d := range map[string]string{
		"arrays":  strings.Repeat("[", n) + strings.Repeat("]", n),
		"objects": strings.Repeat(`{"a":`, n/4) + "1" + strings.Repeat("}", n/4),
		"escapes": `"` + strings.Repeat(`\n`, n) + `"`,
	} {
		if !valid([]byte(d)) {
			t.Errorf("%s: not valid", name)
		}
	}
}

func BenchmarkValid(b *testing.B) {
	reading := []byte(`{"device":"device-0007","ts":1700000000000,"site":"site-07","line":2,"temperature":71.25,"humidity":37.5,"pressure":997.25,"voltage":232.1,"current":8.75,"rpm":1407,"status":"running","seq":7}`)
	opaque := fmt.Appendf(nil, `{"opaque":"%s"}`, strings.Repeat("aB3-", 60))
	for name, d := range map[string][]byte{"reading": reading, "opaque": opaque} {
		for by, f := range map[string]func([]byte) bool{"here": valid, "gjson": gjson.ValidBytes, "json": json.Valid} {
			b.Run(name+"/"+by, func(b *testing.B) {
				for b.Loop() {
					if !f(d) {
						b.Fatal("not valid")
					}
				}
			})
		}
	}
}
