package rule

import (
	"encoding/json"
	"fmt"

	"github.com/boltmesh/boltmesh/pkg/bolt"
)

// noData is the "reason" of an episode that silence raised; others have none.
const noData = "no_data"

// episode is the "episode" of an event, whole each time, so that the one with the higher version replaces the other wherever both are stored.
type episode struct {
	ID             string          `json:"id"`
	Number         int64           `json:"number"`
	Version        int64           `json:"version"`
	State          string          `json:"state"`
	Reason         string          `json:"reason,omitempty"`
	RaisedAt       int64           `json:"raised_at"`
	AcknowledgedAt int64           `json:"acknowledged_at,omitempty"`
	AcknowledgedBy string          `json:"acknowledged_by,omitempty"`
	Escalated      bool            `json:"escalated,omitempty"`
	Flapping       bool            `json:"flapping,omitempty"`
	ClearedAt      *int64          `json:"cleared_at,omitempty"`
	RaiseValue     json.RawMessage `json:"raise_value,omitempty"`
	ClearValue     json.RawMessage `json:"clear_value,omitempty"`
	History        []entry         `json:"history"`
	Omitted        int64           `json:"omitted,omitempty"`
}

// entry is one event of an episode's "history".
type entry struct {
	What     string `json:"what"`
	At       int64  `json:"at"`
	Severity string `json:"severity,omitempty"`
	By       string `json:"by,omitempty"`
	Note     string `json:"note,omitempty"`
}

// cause is what an event comes of: a reading, a tick or a command.
type cause struct {
	device   string
	at       int64  // ms
	value    []byte // JSON, what the condition looked at; nil: nothing
	by, note string // of a command
}

// emit tells of what has just happened to e, if that is an event.
func (b *Bolt) emit(what Change, by cause, c *bolt.Collector, e *Episode) error {
	if what.String() == "" {
		return nil
	}
	payload, err := b.event(what, by, c.Group(), e)
	if err != nil {
		return err
	}
	c.Emit(bolt.Emission{Key: by.device, Time: by.at, Payload: payload})
	return nil
}

// event completes e with what the condition looked at, if it has just been raised or cleared, and returns the payload that tells of it.
func (b *Bolt) event(what Change, by cause, group string, e *Episode) ([]byte, error) {
	switch what {
	case Raised:
		e.RaiseValue = by.value
	case Cleared:
		e.ClearValue = by.value
	}
	d := &b.out
	d.Reset([]byte("{}"))
	d.Set("event", what.String())
	d.Set("alarm", b.id)
	d.Set("device", by.device)
	d.Set("group", group)
	if e.Severity != "" {
		d.Set("severity", e.Severity)
	}
	if what == Changed || what == Escalated {
		d.Set("previous_severity", e.before())
	}
	if e.Silent {
		d.Set("reason", noData)
	}
	d.Set("ts", by.at)
	switch {
	case by.value == nil:
	case len(b.fields) == 1:
		d.Set("value", json.RawMessage(by.value))
	default:
		d.Set("values", json.RawMessage(by.value))
	}
	d.Set("readings", e.Readings)
	d.Set("notify", e.Notify)
	if e.flaps() {
		d.Set("flapping", true)
	}
	if by.by != "" {
		d.Set("by", by.by)
	}
	if by.note != "" {
		d.Set("note", by.note)
	}
	d.Set("episode", e.told(b.id, group))
	payload, err := d.Bytes()
	if err != nil {
		return nil, bolt.Reject(fmt.Errorf("the event: %w", err))
	}
	return payload, nil
}

// told is the episode as events carry it.
func (e *Episode) told(alarm, group string) episode {
	said := episode{
		ID: e.ID(alarm, group), Number: e.Number, Version: e.Version, State: e.state(), RaisedAt: e.RaisedAt,
		AcknowledgedAt: e.Acknowledged, AcknowledgedBy: e.AcknowledgedBy, Escalated: e.Escalated, Flapping: e.flaps(),
		RaiseValue: e.RaiseValue, ClearValue: e.ClearValue, Omitted: e.Omitted,
	}
	if !e.Open {
		said.ClearedAt = &e.Cleared
	}
	if e.Silent {
		said.Reason = noData
	}
	for _, h := range e.History {
		said.History = append(said.History, entry{h.What.String(), h.At, h.Severity, h.By, h.Note})
	}
	return said
}

// flaps says whether the episode belongs to an alarm that flaps; silence is counted by no one.
func (e *Episode) flaps() bool { return e.Flapping && !e.Silent }

// before is the severity before the last event.
func (e *Episode) before() string {
	if n := len(e.History); n > 1 {
		return e.History[n-2].Severity
	}
	return ""
}

// value returns what the condition looked at: the value of its only field, or an object of those of several that are present; nil when there is none.
func (b *Bolt) value() ([]byte, error) {
	values := make(map[string]any, len(b.fields))
	var last any
	for _, f := range b.fields {
		if v, ok := b.doc.Value(f); ok {
			values[f], last = v, v
		}
	}
	if len(values) == 0 {
		return nil, nil
	}
	shown := any(values)
	if len(b.fields) == 1 {
		shown = last
	}
	raw, err := json.Marshal(shown)
	if err != nil {
		return nil, bolt.Reject(fmt.Errorf("the values of the condition: %w", err))
	}
	return raw, nil
}
