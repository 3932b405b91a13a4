package observe

import (
	"slices"
	"time"
)

// Journey is the way of one reading, or of a tick, through a topology: a tree of hops for each emission of it.
type Journey struct {
	Trace string `json:"trace,omitempty"` // 32 hexadecimal digits; "" where it is not known
	Link  string `json:"link,omitempty"`  // where a browser shows the trace
	Hops  []*Hop `json:"hops"`
}

// Hop is the emission of a tuple by a spout, or one delivery of a tuple at a bolt.
type Hop struct {
	Node       string    `json:"node"`
	Kind       string    `json:"kind,omitempty"`
	Task       string    `json:"task"` // "any" where workers compete; the partition in a spout
	Worker     string    `json:"worker,omitempty"`
	From       string    `json:"from,omitempty"` // node that emitted the tuple
	Stream     string    `json:"stream,omitempty"`
	Tuple      string    `json:"tuple"`
	Device     string    `json:"device,omitempty"`
	Generation int64     `json:"generation"` // of the spout that emitted the reading
	Attempt    int64     `json:"attempt"`    // from 0
	Tries      int       `json:"tries,omitempty"`
	Outcome    string    `json:"outcome"` // emitted, one of trace.Outcome, or as said by whoever tells
	Error      string    `json:"error,omitempty"`
	At         time.Time `json:"at"`
	Took       Micros    `json:"took_us"`
	Stages     []Stage   `json:"stages,omitempty"`
	Emitted    int       `json:"emitted"`
	Topic      string    `json:"topic,omitempty"` // of a spout
	Offset     int64     `json:"offset,omitempty"`
	Below      []*Hop    `json:"below,omitempty"` // deliveries of what was emitted, by time
}

// Stage is a part of a hop.
type Stage struct {
	Name string `json:"name"` // consume, execute, commit or publish
	Took Micros `json:"took_us"`
}

// Micros is a duration in microseconds.
type Micros int64

// Duration converts it.
func (m Micros) Duration() time.Duration { return time.Duration(m) * time.Microsecond }

// Each calls f with every hop, those above before those below, as long as f returns true.
func (j *Journey) Each(f func(h *Hop) bool) { each(j.Hops, f) }

func each(hops []*Hop, f func(h *Hop) bool) bool {
	for _, h := range hops {
		if !f(h) || !each(h.Below, f) {
			return false
		}
	}
	return true
}

// Has reports whether a hop of the tree below h, or h, is of the tuple.
func (h *Hop) Has(tuple string) bool {
	return !each([]*Hop{h}, func(h *Hop) bool { return h.Tuple != tuple })
}

// Sort brings the hops into the order in which they began.
func (j *Journey) Sort() {
	var order func(hops []*Hop)
	order = func(hops []*Hop) {
		slices.SortStableFunc(hops, func(a, b *Hop) int { return a.At.Compare(b.At) })
		for _, h := range hops {
			order(h.Below)
		}
	}
	order(j.Hops)
}
