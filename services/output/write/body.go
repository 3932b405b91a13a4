package write

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/boltmesh/boltmesh/pkg/document"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// layout is RFC 3339 in UTC with milliseconds.
const layout = "2006-01-02T15:04:05.000Z"

// Times that layout can write, ms: the years 0 to 9999.
const (
	firstTime = -62_167_219_200_000
	lastTime  = 253_402_300_799_999
)

func timeOf(ms int64) (string, error) {
	if ms < firstTime || ms > lastTime {
		return "", fmt.Errorf("the time %d ms is not in the years 0 to 9999", ms)
	}
	return time.UnixMilli(ms).UTC().Format(layout), nil
}

// reserved are the fields that every document has from the tuple; a payload's own of the same name are left out.
var reserved = [...]string{"_id", "node", "device", "time"}

// body makes the document of a tuple: the reserved fields, ts, and the payload's fields in their order.
func (b *Bolt) body(t *tuple.Tuple, id, node string) ([]byte, error) {
	if err := b.doc.Err(); err != nil {
		return nil, err
	}
	at, err := timeOf(t.Time)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, len(t.Payload)+160)
	out = append(out, `{"_id":"`...)
	out = append(out, id...)
	out = append(out, `","node":`...)
	out = appendString(out, node)
	out = append(out, `,"device":`...)
	out = appendString(out, t.Key)
	out = append(out, `,"time":"`...)
	out = append(out, at...)
	out = append(out, '"')
	if _, ok := b.doc.Value("ts"); !ok {
		b.doc.Delete("ts") // null
		out = append(out, `,"ts":`...)
		out = strconv.AppendInt(out, t.Time, 10)
	}
	for _, f := range reserved {
		b.doc.Delete(f)
	}
	fields, err := b.doc.Bytes()
	if err != nil {
		return nil, err
	}
	fields = bytes.TrimSpace(fields)
	if fields = bytes.TrimSpace(fields[1:]); fields[0] != '}' {
		out = append(out, ',')
	}
	return append(out, fields...), nil
}

// appendString writes s as JSON.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(s) // a string always has a JSON form
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// event is what the output node reads of an alarm event.
type event struct {
	Event    string
	Alarm    string
	Group    string
	Severity string
	Episode  *struct {
		ID       string `json:"id"`
		Number   int64  `json:"number"`
		Version  int64  `json:"version"`
		State    string `json:"state"`
		Reason   string `json:"reason"`
		RaisedAt *int64 `json:"raised_at"`
		told
	}
}

// told is what an episode's document has as its events have it.
type told struct {
	AcknowledgedAt *int64          `json:"acknowledged_at,omitempty"`
	AcknowledgedBy string          `json:"acknowledged_by,omitempty"`
	Escalated      bool            `json:"escalated,omitempty"`
	Flapping       bool            `json:"flapping,omitempty"`
	ClearedAt      *int64          `json:"cleared_at,omitempty"`
	RaiseValue     json.RawMessage `json:"raise_value,omitempty"`
	ClearValue     json.RawMessage `json:"clear_value,omitempty"`
	History        json.RawMessage `json:"history,omitempty"`
	Omitted        int64           `json:"omitted,omitempty"`
}

// stored is an episode's document.
type stored struct {
	ID       string `json:"_id"`
	Node     string `json:"node"`
	Device   string `json:"device"`
	Time     string `json:"time"` // of the raise
	Alarm    string `json:"alarm"`
	Group    string `json:"group"`
	Severity string `json:"severity,omitempty"`
	Number   int64  `json:"number"`
	Version  int64  `json:"version"`
	State    string `json:"state"`
	Reason   string `json:"reason,omitempty"`
	RaisedAt int64  `json:"raised_at"`
	told
}

// events are what an alarm's events are called.
var events = [...]string{"raise", "change", "ack", "escalate", "clear"}

// episode makes the document of the episode that an alarm event carries. Whole is false for any other payload: alarm events are known by their shape,
// so that they are still known behind a convert node.
func (b *Bolt) episode(t *tuple.Tuple, node string) (d document.Document, whole bool, err error) {
	if name, _ := b.doc.Text("event"); !slices.Contains(events[:], name) {
		return d, false, nil
	}
	if _, ok := b.doc.Text("episode.id"); !ok {
		return d, false, nil
	}
	var e event
	if json.Unmarshal(t.Payload, &e) != nil || e.Episode == nil || e.Episode.ID == "" || e.Episode.Version < 1 || e.Episode.RaisedAt == nil {
		return d, false, nil
	}
	at, err := timeOf(*e.Episode.RaisedAt)
	if err != nil {
		return d, false, err
	}
	body, err := json.Marshal(stored{
		ID: e.Episode.ID, Node: node, Device: t.Key, Time: at, Alarm: e.Alarm, Group: e.Group, Severity: e.Severity,
		Number: e.Episode.Number, Version: e.Episode.Version, State: e.Episode.State, Reason: e.Episode.Reason, RaisedAt: *e.Episode.RaisedAt,
		told: e.Episode.told,
	})
	return document.Document{ID: e.Episode.ID, Version: e.Episode.Version, Body: body}, true, err
}
