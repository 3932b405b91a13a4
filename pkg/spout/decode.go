package spout

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// ahead is how far a reading's event time may lie in front of its record's before the watermark stops following it.
const ahead = 10 * time.Minute

// Record is one entry of a source, as it was stored there.
type Record struct {
	Offset int64
	Key    []byte
	Value  []byte // nil: a tombstone, which counts as processed
	Time   int64  // ms
	Stream string // the data stream it belongs to: its header `stream`, else its topic
	Parent string // W3C traceparent header
}

// Reading is a decoded record.
type Reading struct {
	Key     string
	Time    int64 // event time, ms
	Future  bool  // so far ahead of the record's time that the watermark must not follow
	Payload []byte
}

// Decoder turns records into readings as a topology's spout declares. It is not safe for concurrent use.
type Decoder struct {
	spec topology.Spout
	keys tuple.Keys // met of late
	key  string     // gjson path
	time string
}

// NewDecoder prepares spec, which has been validated.
func NewDecoder(spec topology.Spout) *Decoder {
	return &Decoder{spec: spec, key: path(spec.Key), time: path(spec.Time.Field)}
}

// path is the gjson path of a nested field written as a.b; nothing else in it has a meaning.
func path(field string) string {
	parts := strings.Split(field, ".")
	for i := range parts {
		parts[i] = gjson.Escape(parts[i])
	}
	return strings.Join(parts, ".")
}

// Accepts reports whether the record belongs to the data stream that the spout is for. Others are not its business.
func (d *Decoder) Accepts(r *Record) bool { return d.spec.Stream == "" || r.Stream == d.spec.Stream }

// Decode reads one record with a value. An error is final: the record is to be dead-lettered.
func (d *Decoder) Decode(r *Record) (out Reading, err error) {
	if len(r.Value) > tuple.MaxPayload {
		return out, fmt.Errorf("the record has %d bytes, at most %d can be carried", len(r.Value), tuple.MaxPayload)
	}
	switch d.spec.Decode {
	case "csv":
		out.Payload, err = d.csv(r.Value)
	case "raw":
		out.Payload, err = raw(r.Value)
	default:
		out.Payload, err = object(r.Value)
	}
	if err != nil {
		return out, err
	}
	if len(out.Payload) > tuple.MaxPayload { // names, escapes and base64 make it larger than the record was
		return out, fmt.Errorf("the record makes a payload of %d bytes, at most %d can be carried", len(out.Payload), tuple.MaxPayload)
	}
	if out.Key, err = d.device(r, out.Payload); err != nil {
		return out, err
	}
	if out.Time, err = d.eventTime(r, out.Payload); err != nil {
		return out, err
	}
	out.Future = out.Time > r.Time+ahead.Milliseconds()
	return out, nil
}

func object(b []byte) ([]byte, error) {
	if !utf8.Valid(b) {
		return nil, errors.New("not JSON: the text is not UTF-8")
	}
	if !valid(b) {
		return nil, fmt.Errorf("not JSON: %s", quote(b))
	}
	if bytes.TrimLeft(b, " \t\r\n")[0] != '{' { // valid JSON is not empty
		return nil, fmt.Errorf("a JSON object is wanted, not %s", quote(b))
	}
	return b, nil
}

// csv makes an object of a row: cells that read as JSON numbers become numbers, empty ones are absent.
func (d *Decoder) csv(b []byte) ([]byte, error) {
	if !utf8.Valid(b) {
		return nil, errors.New("not a CSV row: the text is not UTF-8")
	}
	rd := csv.NewReader(strings.NewReader(string(b)))
	rd.FieldsPerRecord = len(d.spec.Columns)
	row, err := rd.Read()
	if err != nil {
		return nil, fmt.Errorf("not a CSV row of %d columns: %w", len(d.spec.Columns), err)
	}
	if rest, err := rd.Read(); !errors.Is(err, io.EOF) { // nothing is dropped in silence
		return nil, fmt.Errorf("one CSV row to a record is wanted, behind it stands %s", quote([]byte(strings.Join(rest, ","))))
	}
	return Row(d.spec.Columns, row), nil
}

// Row is the JSON object that a CSV row stands for.
func Row(columns, row []string) []byte {
	out := []byte{'{'}
	for i, cell := range row {
		if cell == "" {
			continue
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		name, _ := json.Marshal(columns[i])
		out = append(append(out, name...), ':')
		if number(cell) {
			out = append(out, cell...)
			continue
		}
		text, _ := json.Marshal(cell)
		out = append(out, text...)
	}
	return append(out, '}')
}

// number reports whether s is a JSON number, so that it can be passed on as written.
func number(s string) bool {
	c := s[0]
	return (c == '-' || c >= '0' && c <= '9') && json.Valid([]byte(s))
}

func raw(b []byte) ([]byte, error) {
	if !utf8.Valid(b) {
		return json.Marshal(map[string][]byte{"raw_base64": b})
	}
	return json.Marshal(map[string]string{"raw": string(b)})
}

func (d *Decoder) device(r *Record, payload []byte) (string, error) {
	var key string
	field := d.spec.Key != "" && d.spec.Decode != "raw"
	if field {
		v := gjson.GetBytes(payload, d.key)
		if v.IsObject() || v.IsArray() {
			return "", fmt.Errorf("key field %q is not a plain value: %s", d.spec.Key, quote([]byte(v.Raw)))
		}
		key = v.String()
	} else {
		key = d.keys.String(r.Key)
	}
	switch {
	case key == "" && field:
		return "", fmt.Errorf("no device: key field %q is absent or empty", d.spec.Key)
	case key == "":
		return "", errors.New("no device: the record's key is absent or empty")
	case len(key) > tuple.MaxKey:
		return "", fmt.Errorf("the device id has %d bytes, at most %d", len(key), tuple.MaxKey)
	case !utf8.ValidString(key):
		return "", errors.New("the device id is not UTF-8")
	}
	return key, nil
}

func (d *Decoder) eventTime(r *Record, payload []byte) (int64, error) {
	if d.spec.Time.Field == "" || d.spec.Decode == "raw" {
		return r.Time, nil
	}
	v := gjson.GetBytes(payload, d.time)
	fail := func(why string) (int64, error) {
		return 0, fmt.Errorf("time field %q %s: %s", d.spec.Time.Field, why, quote([]byte(v.Raw)))
	}
	if !v.Exists() || v.Type == gjson.Null {
		return fail("is absent")
	}
	if d.spec.Time.Unit == "rfc3339" {
		t, err := time.Parse(time.RFC3339Nano, v.String())
		if err != nil {
			return fail("is not an RFC 3339 time")
		}
		return t.UnixMilli(), nil
	}
	unit := cmp.Or(d.spec.Time.Unit, "ms")
	per := map[string]float64{"s": 1e3, "ms": 1, "us": 1e-3, "ns": 1e-6}[unit]
	text := v.Raw
	if v.Type == gjson.String {
		text = v.Str
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return scale(n, unit, fail)
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || !(math.Abs(f*per) <= maxTime) { // NaN compares false
		return fail("is not a time in " + unit)
	}
	return int64(math.Floor(f * per)), nil
}

// maxTime bounds event times to what a calendar can show: the year 9999, in ms.
const maxTime = 253402300799999

func scale(n int64, unit string, fail func(string) (int64, error)) (int64, error) {
	switch unit {
	case "s":
		if n > maxTime/1000 || n < -maxTime/1000 {
			return fail("is out of range")
		}
		n *= 1000
	case "us":
		n = floorDiv(n, 1000)
	case "ns":
		n = floorDiv(n, 1_000_000)
	}
	if n > maxTime || n < -maxTime {
		return fail("is out of range")
	}
	return n, nil
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// quote shows the beginning of what was found.
func quote(b []byte) string {
	if len(b) > 60 {
		return strconv.Quote(string(b[:60])) + "..."
	}
	return strconv.Quote(string(b))
}
