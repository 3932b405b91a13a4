package rule

import (
	"encoding/json"
	"fmt"
)

// kept is a group's record as Show shows it.
type kept struct {
	State      string          `json:"state"` // open or clear
	Number     int64           `json:"number"`
	Reason     string          `json:"reason,omitempty"`
	RaisedAt   int64           `json:"raised_at,omitempty"`
	ClearedAt  int64           `json:"cleared_at,omitempty"`
	Readings   int64           `json:"readings,omitempty"`
	Streak     int             `json:"streak,omitempty"`
	Since      int64           `json:"since,omitempty"`
	RaiseValue json.RawMessage `json:"raise_value,omitempty"`
}

// Show returns as JSON what is kept for a group: whether its alarm is open or clear, the number of episodes, and the streak that speaks for a change. read
// returns what is stored under one of the keys of Keys; nil: nothing is kept.
func (b *Bolt) Show(group string, read func(key string) []byte) ([]byte, error) {
	raw := read(stateKey + b.id + "-" + group)
	if raw == nil {
		return nil, nil
	}
	v, err := decode(raw)
	if err != nil {
		return nil, err
	}
	r := v.(*record)
	k := kept{
		State: "clear", Number: r.Number, RaisedAt: r.RaisedAt, ClearedAt: r.Cleared, Readings: r.Readings, Streak: r.Streak, Since: r.Since,
		RaiseValue: r.RaiseValue,
	}
	if r.Open {
		k.State = "open"
	}
	if r.Silent {
		k.Reason = noData
	}
	return json.Marshal(k)
}

// Seed returns what is stored for a group whose alarm begins as Show shows it.
func (b *Bolt) Seed(group string, shown []byte) (values map[string][]byte, due int64, err error) {
	var k kept
	if err := json.Unmarshal(shown, &k); err != nil || k.State != "open" && k.State != "clear" {
		return nil, 0, fmt.Errorf("write {state: open} or {state: clear, streak: 2}, the alarm of the group %q", group)
	}
	r := &record{Episode: Episode{
		Number: k.Number, Open: k.State == "open", RaisedAt: k.RaisedAt, Cleared: k.ClearedAt, Readings: k.Readings, Streak: k.Streak, Since: k.Since,
		RaiseValue: k.RaiseValue, Silent: k.Reason == noData, Notify: true,
	}}
	if r.Open {
		r.Number, r.Version = max(r.Number, 1), 1
	}
	raw, err := r.Append(nil)
	return map[string][]byte{stateKey + b.id + "-" + group: raw}, 0, err
}
