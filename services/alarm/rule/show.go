package rule

import (
	"encoding/json"
	"fmt"
)

// kept is a group's record as Show shows it.
type kept struct {
	State      string          `json:"state"` // open, acknowledged or clear
	Number     int64           `json:"number"`
	Severity   string          `json:"severity,omitempty"`
	Reason     string          `json:"reason,omitempty"`
	RaisedAt   int64           `json:"raised_at,omitempty"`
	ClearedAt  int64           `json:"cleared_at,omitempty"`
	Readings   int64           `json:"readings,omitempty"`
	Streak     int             `json:"streak,omitempty"` // of the first level
	Since      int64           `json:"since,omitempty"`
	Levels     []counted       `json:"levels,omitempty"` // if there are several
	RaiseValue json.RawMessage `json:"raise_value,omitempty"`
}

// counted is what is kept of one level.
type counted struct {
	Held   bool  `json:"held"`
	Streak int   `json:"streak,omitempty"`
	Since  int64 `json:"since,omitempty"`
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
	k := kept{State: "clear", Number: r.Number, RaisedAt: r.RaisedAt, ClearedAt: r.Cleared, Readings: r.Readings, RaiseValue: r.RaiseValue}
	if r.Open {
		k.State, k.Severity = r.state(), r.Severity
	}
	if r.Silent {
		k.Reason = noData
	}
	switch {
	case len(b.levels) > 1:
		for _, t := range r.Tracks {
			k.Levels = append(k.Levels, counted(t))
		}
	case len(r.Tracks) > 0:
		k.Streak, k.Since = r.Tracks[0].Streak, r.Tracks[0].Since
	}
	return json.Marshal(k)
}

// Seed returns what is stored for a group whose alarm begins as Show shows it.
func (b *Bolt) Seed(group string, shown []byte) (values map[string][]byte, due int64, err error) {
	var k kept
	if err := json.Unmarshal(shown, &k); err != nil || k.State != "open" && k.State != "acknowledged" && k.State != "clear" {
		return nil, 0, fmt.Errorf("write {state: open} or {state: clear, streak: 2}, the alarm of the group %q", group)
	}
	r := &record{Episode: Episode{
		Number: k.Number, Open: k.State != "clear", RaisedAt: k.RaisedAt, Cleared: k.ClearedAt, Readings: k.Readings,
		RaiseValue: k.RaiseValue, Silent: k.Reason == noData, Notify: true,
	}}
	r.fit(len(b.levels))
	for i := range min(len(k.Levels), len(r.Tracks)) {
		r.Tracks[i] = Track(k.Levels[i])
	}
	if len(k.Levels) == 0 && len(r.Tracks) > 0 {
		r.Tracks[0] = Track{Held: r.Open && !r.Silent, Streak: k.Streak, Since: k.Since}
	}
	if r.Open {
		r.Number, r.Version = max(r.Number, 1), 1
	}
	if k.State == "acknowledged" {
		r.Acknowledged = 1
	}
	raw, err := r.Append(nil)
	return map[string][]byte{stateKey + b.id + "-" + group: raw}, 0, err
}
