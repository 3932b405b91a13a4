package rule

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

// Limits say when an alarm is raised and cleared. Both conditions of a side must hold; zero values ask for one reading and no duration.
type Limits struct {
	RaiseAfter, ClearAfter int   // consecutive readings
	RaiseFor, ClearFor     int64 // event time from the first of them to the last, ms
	Suppress               int64 // event time since the last raise that was notified, ms: raises before are muted
}

// Change is what a reading did to an alarm.
type Change int

// Changes.
const (
	Nothing Change = iota // as before, counters included
	Counted               // counters moved
	Raised
	Cleared
)

// Episode is the life of one alarm of one group: from its raise to its clear, and what is remembered between episodes. The zero value has had none.
type Episode struct {
	Number   int64 // counts the group's episodes, from 1
	Version  int64 // 1 when raised, 2 when cleared
	Open     bool
	RaisedAt int64 // event time of the reading that raised it, or processing time of the tick that found silence, ms
	Cleared  int64 // event time of the reading that cleared it, ms
	Readings int64 // from the first that counted towards the raise to the last
	Notify   bool  // its raise was not suppressed

	RaiseValue, ClearValue []byte // JSON, what the condition looked at in the readings that raised and cleared it; nil: nothing

	Streak   int   // consecutive readings that speak for a change
	Since    int64 // event time of the first of them, ms
	Notified int64 // event time of the last raise that was notified, ms
	Known    bool  // there was one

	Silent  bool  // the episode was raised by silence, not by the condition
	Noticed int64 // processing time of the last raise by silence that was notified, ms; 0: there was none
}

// Step takes in one reading with event time at: speaks says whether it speaks for a change, that is for the raise while the alarm is clear and for the
// clear while it is open. The caller adds the values of a raise or a clear.
func (e *Episode) Step(l Limits, speaks bool, at int64) Change {
	if e.Open {
		e.Readings++
	}
	if !speaks {
		if e.Streak == 0 && !e.Open {
			return Nothing
		}
		e.Streak, e.Since = 0, 0
		return Counted
	}
	if e.Streak == 0 {
		e.Since = at
	}
	e.Streak++
	after, lasting := max(l.RaiseAfter, 1), l.RaiseFor
	if e.Open {
		after, lasting = max(l.ClearAfter, 1), l.ClearFor
	}
	if e.Streak < after || at-e.Since < lasting {
		return Counted
	}
	if e.Open {
		e.Open, e.Version, e.Cleared = false, 2, at
		e.Streak, e.Since = 0, 0
		return Cleared
	}
	e.raise(at, int64(e.Streak), l.Suppress <= 0 || !e.Known || at-e.Notified >= l.Suppress)
	if e.Notify {
		e.Notified, e.Known = at, true
	}
	return Raised
}

// raise begins the next episode.
func (e *Episode) raise(at, readings int64, notify bool) {
	*e = Episode{
		Number: e.Number + 1, Version: 1, Open: true, RaisedAt: at, Readings: readings, Notify: notify,
		Notified: e.Notified, Known: e.Known, Noticed: e.Noticed,
	}
}

// Silence raises the alarm because nothing has been heard, at processing time at. An episode that is open already goes on as it is. Suppression goes by
// the raises for silence alone: those of the condition have event times.
func (e *Episode) Silence(l Limits, at int64) Change {
	if e.Open {
		return Nothing
	}
	e.raise(at, 0, l.Suppress <= 0 || e.Noticed == 0 || at-e.Noticed >= l.Suppress)
	e.Silent = true
	if e.Notify {
		e.Noticed = at
	}
	return Raised
}

// Hear clears an episode that silence raised; at is the event time of the reading that was heard.
func (e *Episode) Hear(at int64) Change {
	if !e.Open || !e.Silent {
		return Nothing
	}
	e.Open, e.Version, e.Cleared, e.Readings = false, 2, at, 1
	return Cleared
}

// ID names the group's current or last episode: the first 16 bytes of SHA-256 over alarm, group and number, as 32 hexadecimal digits.
func (e *Episode) ID(alarm, group string) string {
	b := []byte{'e'}
	for _, s := range [...]string{alarm, group} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	sum := sha256.Sum256(binary.LittleEndian.AppendUint64(b, uint64(e.Number)))
	return hex.EncodeToString(sum[:16])
}
