package spout_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// stored is when every record of the tests was stored, in ms.
const stored = 1_700_000_000_000

// lastTime is the last millisecond of the year 9999.
const lastTime = 253402300799999

func timed(field, unit string) topology.Spout {
	return topology.Spout{Key: "id", Time: topology.TimeField{Field: field, Unit: unit}}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	const minute = 60_000
	plain := topology.Spout{Key: "id"}
	nested := topology.Spout{Key: "device.id", Time: topology.TimeField{Field: "at.start"}}
	row := topology.Spout{Decode: "csv", Columns: []string{"id", "ts", "value"}, Key: "id", Time: topology.TimeField{Field: "ts", Unit: "s"}}
	for _, c := range []struct {
		name    string
		spec    topology.Spout
		key     string // of the record
		value   string
		want    spout.Reading
		payload string // when it is not the value
		fails   string
	}{
		{name: "an object", spec: plain, value: `{"id":"m1","value":3}`, want: spout.Reading{Key: "m1", Time: stored}},
		{name: "white space stays", spec: plain, value: " {\"id\": \"m1\"}\n", want: spout.Reading{Key: "m1", Time: stored}},
		{name: "a numeric key", spec: plain, value: `{"id":9007199254740993}`, want: spout.Reading{Key: "9007199254740993", Time: stored}},
		{name: "an escaped key", spec: plain, value: `{"id":"\u00fc\n"}`, want: spout.Reading{Key: "ü\n", Time: stored}},
		{name: "the record's key", spec: topology.Spout{}, key: "m2", value: `{"id":"m1"}`, want: spout.Reading{Key: "m2", Time: stored}},
		{name: "nested fields", spec: nested, value: `{"device":{"id":"m1"},"at":{"start":12}}`, want: spout.Reading{Key: "m1", Time: 12}},
		{name: "a flat name is not a nested field", spec: nested, value: `{"device.id":"m1","at":{"start":12}}`, fails: "absent or empty"},
		{name: "signs in names mean nothing", spec: topology.Spout{Key: "a*?|#@"}, value: `{"ax":"no","a*?|#@":"m1"}`, want: spout.Reading{Key: "m1", Time: stored}},

		{name: "not JSON", spec: plain, value: `{"id":`, fails: "not JSON"},
		{name: "nothing", spec: plain, value: ``, fails: "not JSON"},
		{name: "two objects", spec: plain, value: `{"id":"a"}{"id":"b"}`, fails: "not JSON"},
		{name: "NaN", spec: plain, value: `{"id":"m1","value":NaN}`, fails: "not JSON"},
		{name: "an array", spec: plain, value: `[{"id":"m1"}]`, fails: "object is wanted"},
		{name: "null", spec: plain, value: `null`, fails: "object is wanted"},
		{name: "JSON that is not UTF-8", spec: plain, value: "{\"id\":\"m1\",\"x\":\"\xff\"}", fails: "UTF-8"},

		{name: "an empty key", spec: plain, key: "m2", value: `{"id":""}`, fails: `key field "id" is absent or empty`},
		{name: "a null key", spec: plain, value: `{"id":null}`, fails: "absent or empty"},
		{name: "no key", spec: plain, value: `{}`, fails: "absent or empty"},
		{name: "a record without a key", spec: topology.Spout{}, value: `{}`, fails: "the record's key is absent or empty"},
		{name: "an object as key", spec: plain, value: `{"id":{"a":1}}`, fails: "not a plain value"},
		{name: "a record's key that is not UTF-8", spec: topology.Spout{}, key: "\xff", value: `{}`, fails: "UTF-8"},
		{name: "the longest key", spec: topology.Spout{}, key: strings.Repeat("k", tuple.MaxKey), value: `{}`, want: spout.Reading{Key: strings.Repeat("k", tuple.MaxKey), Time: stored}},
		{name: "a longer key", spec: topology.Spout{}, key: strings.Repeat("k", tuple.MaxKey+1), value: `{}`, fails: "device id"},

		{name: "s", spec: timed("t", "s"), value: `{"id":"m","t":1700000000}`, want: spout.Reading{Key: "m", Time: stored}},
		{name: "a fraction of s", spec: timed("t", "s"), value: `{"id":"m","t":1.5}`, want: spout.Reading{Key: "m", Time: 1500}},
		{name: "ms", spec: timed("t", "ms"), value: `{"id":"m","t":1700000000000}`, want: spout.Reading{Key: "m", Time: stored}},
		{name: "us", spec: timed("t", "us"), value: `{"id":"m","t":1700000000000999}`, want: spout.Reading{Key: "m", Time: stored}},
		{name: "ns", spec: timed("t", "ns"), value: `{"id":"m","t":1700000000000999999}`, want: spout.Reading{Key: "m", Time: stored}},
		{name: "before 1970 is rounded down too", spec: timed("t", "us"), value: `{"id":"m","t":-1}`, want: spout.Reading{Key: "m", Time: -1}},
		{name: "a number in quotes", spec: timed("t", ""), value: `{"id":"m","t":"12"}`, want: spout.Reading{Key: "m", Time: 12}},
		{name: "an exponent", spec: timed("t", ""), value: `{"id":"m","t":1.7e12}`, want: spout.Reading{Key: "m", Time: stored}},
		{name: "RFC 3339", spec: timed("t", "rfc3339"), value: `{"id":"m","t":"2023-11-14T23:13:20.0009+01:00"}`, want: spout.Reading{Key: "m", Time: stored}},
		{name: "RFC 3339 without a zone", spec: timed("t", "rfc3339"), value: `{"id":"m","t":"2023-11-14T22:13:20"}`, fails: "not an RFC 3339 time"},
		{name: "RFC 3339 as a number", spec: timed("t", "rfc3339"), value: `{"id":"m","t":1700000000}`, fails: "not an RFC 3339 time"},
		{name: "no time", spec: timed("t", ""), value: `{"id":"m"}`, fails: "is absent"},
		{name: "a null time", spec: timed("t", ""), value: `{"id":"m","t":null}`, fails: "is absent"},
		{name: "a time that is true", spec: timed("t", ""), value: `{"id":"m","t":true}`, fails: "not a time in ms"},
		{name: "a time that is NaN", spec: timed("t", ""), value: `{"id":"m","t":"NaN"}`, fails: "not a time in ms"},
		{name: "a time that is infinite", spec: timed("t", "s"), value: `{"id":"m","t":"-Inf"}`, fails: "not a time in s"},
		{name: "an empty time", spec: timed("t", ""), value: `{"id":"m","t":""}`, fails: "not a time in ms"},
		{name: "the last time", spec: timed("t", ""), value: `{"id":"m","t":253402300799999}`, want: spout.Reading{Key: "m", Time: lastTime, Future: true}},
		{name: "a later time", spec: timed("t", ""), value: `{"id":"m","t":253402300800000}`, fails: "out of range"},
		{name: "ns taken for ms", spec: timed("t", "ms"), value: `{"id":"m","t":1700000000000000000}`, fails: "out of range"},
		{name: "ns taken for s", spec: timed("t", "s"), value: `{"id":"m","t":-1700000000000000000}`, fails: "out of range"},
		{name: "a time beyond 64 bits", spec: timed("t", ""), value: `{"id":"m","t":99999999999999999999}`, fails: "not a time in ms"},

		{name: "a little ahead", spec: timed("t", ""), value: js("t", stored+10*minute), want: spout.Reading{Key: "m", Time: stored + 10*minute}},
		{name: "too far ahead", spec: timed("t", ""), value: js("t", stored+10*minute+1), want: spout.Reading{Key: "m", Time: stored + 10*minute + 1, Future: true}},

		{name: "a CSV row", spec: row, value: "m1,12,1.50\n", want: spout.Reading{Key: "m1", Time: 12_000}, payload: `{"id":"m1","ts":12,"value":1.50}`},
		{name: "CSV cells that are not JSON numbers", spec: row, value: "007,12,NaN", want: spout.Reading{Key: "007", Time: 12_000}, payload: `{"id":"007","ts":12,"value":"NaN"}`},
		{name: "an empty CSV cell", spec: row, value: "m1,12,", want: spout.Reading{Key: "m1", Time: 12_000}, payload: `{"id":"m1","ts":12}`},
		{name: "a quoted CSV cell", spec: row, value: `m1,12,"a ""b"", c"`, want: spout.Reading{Key: "m1", Time: 12_000}, payload: `{"id":"m1","ts":12,"value":"a \"b\", c"}`},
		{name: "too few columns", spec: row, value: "m1,12", fails: "not a CSV row of 3 columns"},
		{name: "a bare quote", spec: row, value: `m1,12,a"b`, fails: "not a CSV row"},
		{name: "an empty CSV record", spec: row, value: "", fails: "not a CSV row"},
		{name: "two CSV rows", spec: row, value: "m1,12,1\nm2,13,2\n", fails: "one CSV row to a record"},
		{name: "an empty CSV key", spec: row, value: ",12,1", fails: "absent or empty"},
		{name: "an empty CSV time", spec: row, value: "m1,,1", fails: "is absent"},
		{name: "CSV that is not UTF-8", spec: row, value: "m\xff,12,1", fails: "UTF-8"},

		{name: "raw", spec: topology.Spout{Decode: "raw", Key: "id", Time: topology.TimeField{Field: "t"}}, key: "m2", value: `{"id":"m1"}`, want: spout.Reading{Key: "m2", Time: stored}, payload: `{"raw":"{\"id\":\"m1\"}"}`},
		{name: "raw bytes", spec: topology.Spout{Decode: "raw"}, key: "m2", value: "\xff\x00", want: spout.Reading{Key: "m2", Time: stored}, payload: `{"raw_base64":"/wA="}`},
		{name: "raw without a key", spec: topology.Spout{Decode: "raw"}, value: "a", fails: "the record's key is absent or empty"},

		{name: "the largest record", spec: plain, value: sized(tuple.MaxPayload), want: spout.Reading{Key: "m", Time: stored}},
		{name: "a larger record", spec: plain, value: sized(tuple.MaxPayload + 1), fails: "at most"},
		{name: "10 MB", spec: plain, value: sized(10 << 20), fails: "at most"},
		{name: "raw bytes that outgrow a payload", spec: topology.Spout{Decode: "raw"}, key: "m", value: strings.Repeat("\xff", tuple.MaxPayload), fails: "makes a payload"},
		{name: "a CSV row that outgrows a payload", spec: row, value: "m,12," + strings.Repeat("\x01", tuple.MaxPayload/2), fails: "makes a payload"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := spout.NewDecoder(c.spec).Decode(&spout.Record{Key: []byte(c.key), Value: []byte(c.value), Time: stored})
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Fatalf("got %v, want an error about %q", err, c.fails)
				}
				if len(err.Error()) > 300 {
					t.Errorf("the error has %d bytes", len(err.Error()))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.payload == "" {
				c.payload = c.value
			}
			if string(got.Payload) != c.payload {
				t.Errorf("payload %.200s, want %.200s", got.Payload, c.payload)
			}
			if got.Key != c.want.Key || got.Time != c.want.Time || got.Future != c.want.Future {
				t.Errorf("got key %q, time %d, future %v; want %q, %d, %v", got.Key, got.Time, got.Future, c.want.Key, c.want.Time, c.want.Future)
			}
		})
	}
}

// js is a reading of device m with one number.
func js(field string, n int64) string {
	b, _ := json.Marshal(map[string]any{"id": "m", field: n})
	return string(b)
}

// sized is a reading of device m that has n bytes.
func sized(n int) string {
	const frame = `{"id":"m","x":""}`
	return frame[:len(frame)-2] + strings.Repeat("x", n-len(frame)) + frame[len(frame)-2:]
}

func TestAccepts(t *testing.T) {
	t.Parallel()
	r := &spout.Record{Stream: "vibration"}
	for stream, want := range map[string]bool{"": true, "vibration": true, "heat": false} {
		if got := spout.NewDecoder(topology.Spout{Stream: stream}).Accepts(r); got != want {
			t.Errorf("a spout for %q accepts vibration: %v", stream, got)
		}
	}
}

// FuzzDecode: whatever a record holds, it is either refused or a reading that the mesh can carry and every later node can read.
func FuzzDecode(f *testing.F) {
	units := []string{"", "s", "us", "ns", "rfc3339"}
	for _, v := range []string{
		`{"a":{"id":"m1"},"t":12}`, `{"a":{"id":"m1"},"t":"2023-11-14T23:13:20Z"}`, `{"a":[],"t":1e400}`, `{"a":{"id":"\ud800"},"t":"NaN"}`,
		"m1,12,1.5", "\"a\nb\",-0,\"\"", "m1,1\n\nm2,2,2", "\xff", "",
	} {
		for unit := range units {
			f.Add([]byte(v), []byte("k"), uint8(unit))
		}
	}
	f.Fuzz(func(t *testing.T, value, key []byte, unit uint8) {
		at := topology.TimeField{Field: "t", Unit: units[int(unit)%len(units)]}
		for _, spec := range []topology.Spout{
			{Key: "a.id", Time: at},
			{Time: at},
			{},
			{Decode: "csv", Columns: []string{"id", "t", "value"}, Key: "id", Time: at},
			{Decode: "csv", Columns: []string{"\"\n"}},
			{Decode: "raw"},
		} {
			got, err := spout.NewDecoder(spec).Decode(&spout.Record{Key: key, Value: value, Time: stored})
			if err != nil {
				if len(err.Error()) > 1000 {
					t.Fatalf("%s: an error of %d bytes", spec.Decode, len(err.Error()))
				}
				continue
			}
			var object map[string]json.RawMessage
			if err := json.Unmarshal(got.Payload, &object); err != nil || object == nil || !utf8.Valid(got.Payload) {
				t.Fatalf("%s: payload %q: %v", spec.Decode, got.Payload, err)
			}
			if got.Key == "" || len(got.Key) > tuple.MaxKey || !utf8.ValidString(got.Key) || len(got.Payload) > tuple.MaxPayload {
				t.Fatalf("%s: key %q, %d bytes", spec.Decode, got.Key, len(got.Payload))
			}
			if got.Time > lastTime || got.Time < -lastTime {
				t.Fatalf("%s: time %d", spec.Decode, got.Time)
			}
		}
	})
}
