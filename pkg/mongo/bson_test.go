package mongo

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// FuzzBSON checks that any JSON object is either refused or comes back as JSON, the same at every further turn.
func FuzzBSON(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"_id":"a","time":"2026-11-21T09:32:52Z","n":[1,2.5,{"x":null}]}`, `{"a":{"b":{"c":[[],{}]}},"":""}`, `{"a":1,"a":2}`,
		`{"n":-0,"m":1e308,"big":18446744073709551616}`, `{"t":"\ud800","time":"9999-12-31T23:59:59Z"}`, `[`, `{"a"`, "{\"\xff\":\"a\xff\xfeb\"}", `{"a\u0000b":1}`, `{"\ud83d\ude00":"\ud83dx"}`, `{"time":"0000-01-01T00:00:00Z"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, object []byte) {
		if !json.Valid(object) {
			return // Check has refused it
		}
		raw, err := appendBSON(nil, object)
		if err != nil {
			return
		}
		if err := bson.Raw(raw).Validate(); err != nil {
			t.Fatalf("invalid BSON: %v", err)
		}
		first, err := appendJSON(nil, raw)
		if err != nil || !json.Valid(first) {
			t.Fatalf("%q is no JSON (%v)", first, err)
		}
		var in, out map[string]any
		if err := errors.Join(json.Unmarshal(object, &in), json.Unmarshal(first, &out)); err != nil {
			t.Fatalf("%q became %q (%v)", object, first, err)
		}
		delete(in, "time") // may have become a date
		delete(out, "time")
		if !reflect.DeepEqual(in, out) {
			t.Fatalf("%q became %q", object, first)
		}
		if raw, err = appendBSON(nil, first); err != nil {
			t.Fatalf("%q went out but not in again: %v", first, err)
		}
		if second, err := appendJSON(nil, raw); err != nil || string(second) != string(first) {
			t.Fatalf("%q became %q (%v)", first, second, err)
		}
	})
}

func BenchmarkBSON(b *testing.B) {
	body := []byte(`{"_id":"0123456789abcdef0123456789abcdef","time":"2026-11-21T09:32:52.123Z","device":"m1","temperature":85.92649821,"n":22695}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := appendBSON(nil, body); err != nil {
			b.Fatal(err)
		}
	}
}
