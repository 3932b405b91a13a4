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
	ID         string          `json:"id"`
	Number     int64           `json:"number"`
	Version    int64           `json:"version"`
	State      string          `json:"state"`
	Reason     string          `json:"reason,omitempty"`
	RaisedAt   int64           `json:"raised_at"`
	ClearedAt  *int64          `json:"cleared_at,omitempty"`
	RaiseValue json.RawMessage `json:"raise_value,omitempty"`
	ClearValue json.RawMessage `json:"clear_value,omitempty"`
}

// cause is what raised or cleared an alarm: a reading, or a tick that found silence.
type cause struct {
	device string
	at     int64  // ms
	value  []byte // JSON, what the condition looked at; nil: nothing
}

// event completes e, which has just been raised or cleared, with what the condition looked at, and returns the payload that tells of it.
func (b *Bolt) event(by cause, group string, e *Episode) ([]byte, error) {
	value := by.value
	said := episode{ID: e.ID(b.id, group), Number: e.Number, Version: e.Version, State: "open", RaisedAt: e.RaisedAt}
	name := "raise"
	if e.Open {
		e.RaiseValue = value
	} else {
		e.ClearValue = value
		name, said.State, said.ClearedAt = "clear", "cleared", &e.Cleared
	}
	said.RaiseValue, said.ClearValue = e.RaiseValue, e.ClearValue
	if e.Silent {
		said.Reason = noData
	}

	d := &b.out
	d.Reset([]byte("{}"))
	d.Set("event", name)
	d.Set("alarm", b.id)
	d.Set("device", by.device)
	d.Set("group", group)
	if b.severity != "" {
		d.Set("severity", b.severity)
	}
	if e.Silent {
		d.Set("reason", noData)
	}
	d.Set("ts", by.at)
	switch {
	case value == nil:
	case len(b.fields) == 1:
		d.Set("value", json.RawMessage(value))
	default:
		d.Set("values", json.RawMessage(value))
	}
	d.Set("readings", e.Readings)
	d.Set("notify", e.Notify)
	d.Set("episode", said)
	payload, err := d.Bytes()
	if err != nil {
		return nil, bolt.Reject(fmt.Errorf("the event: %w", err))
	}
	return payload, nil
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
