package rule

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
)

// Limits say when an alarm is raised and cleared, at each of its levels. Both conditions of a side must hold; zero values ask for one reading and no
// duration, and for one level without a severity.
type Limits struct {
	RaiseAfter, ClearAfter int   // consecutive readings
	RaiseFor, ClearFor     int64 // event time from the first of them to the last, ms
	Suppress               int64 // event time since the last raise that was notified, ms: raises before are muted

	Levels []string // severities, rising
	Quiet  string   // severity of an episode that silence raised

	Escalated string // severity of an episode that was escalated; "": none ever is
	Flapping  Flapping
}

// Change is what happened to an alarm.
type Change int

// Changes. Those from Raised on are events.
const (
	Nothing Change = iota // as before, counters included
	Counted               // counters moved
	Raised
	Changed // its severity, up or down
	Acknowledged
	Escalated
	Cleared
)

// names are what changes that are events are called, in event and history.
var names = [...]string{Raised: "raise", Changed: "change", Acknowledged: "ack", Escalated: "escalate", Cleared: "clear"}

// String returns the name of an event, "" for what is none.
func (c Change) String() string {
	if c < 0 || int(c) >= len(names) {
		return ""
	}
	return names[c]
}

// Episode is the life of one alarm of one group: from its raise to its clear, and what is remembered between episodes. The zero value has had none. Its
// slices are replaced, never written to, Tracks excepted.
type Episode struct {
	Number   int64 // counts the group's episodes, from 1
	Version  int64 // counts the events of the episode, from 1
	Open     bool
	RaisedAt int64 // event time of the reading that raised it, or processing time of the tick that found silence, ms
	Cleared  int64 // event time of the reading that cleared it, or the time of the command that did, ms
	Readings int64 // from the first that counted towards the raise to the last
	Notify   bool  // its raise was not muted

	RaiseValue, ClearValue []byte // JSON, what the condition looked at in the readings that raised and cleared it; nil: nothing

	Severity       string // now
	Acknowledged   int64  // time of the command that did so, ms; 0: nobody has
	AcknowledgedBy string
	Escalated      bool
	History        []Happening // the last MaxHistory events
	Omitted        int64       // events before those

	Tracks []Track // of the levels, rising; those behind the last are as new

	Notified int64   // event time of the last raise that was notified, ms
	Known    bool    // there was one
	Flapping bool    // it was raised too often
	Recent   []int64 // event times of the last raises, ms, oldest first

	Silent  bool  // the episode was raised by silence, not by the condition
	Noticed int64 // processing time of the last raise by silence that was notified, ms; 0: there was none
}

// Answer is what a reading says of one level.
type Answer int8

// Answers.
const (
	Unknown Answer = iota // a field that the level asks about is absent: nothing changes
	Against               // it speaks against a change of the level
	For                   // it speaks for one: that it holds, or that it no longer does if it holds now
)

// Step takes in one reading with event time at, by what it says of each level. The alarm is raised when a level comes to hold, changes with the highest
// that does, and is cleared when none does any more. The caller adds the values of a raise or a clear.
func (e *Episode) Step(l *Limits, said []Answer, at int64) Change {
	e.fit(len(said))
	judged, moved, since := false, false, 0
	for i, a := range said {
		t := &e.Tracks[i]
		if a == Unknown {
			continue
		}
		judged = true
		held, streak := t.Held, t.Streak+1
		moved = t.step(l, a == For, at) || moved
		if t.Held && !held {
			since = max(since, streak)
		}
	}
	if !judged {
		return Nothing
	}
	if e.Open {
		e.Readings++
	}
	switch top := e.top(); {
	case top > 0 && !e.Open:
		e.raise(l, at, int64(since))
		return Raised
	case top == 0 && e.Open:
		e.clear(at, Happening{})
		return Cleared
	case e.Open && e.severity(l) != e.Severity:
		e.happen(Changed, e.severity(l), Happening{At: at})
		return Changed
	case e.Open || moved:
		return Counted
	}
	return Nothing
}

// raise begins the next episode of the condition. What levels have counted stays.
func (e *Episode) raise(l *Limits, at, readings int64) {
	next := e.next(at)
	next.Tracks, next.Readings = e.Tracks, readings
	next.Notify = l.Suppress <= 0 || !e.Known || at-e.Notified >= l.Suppress
	if muted := next.flap(l.Flapping, at); muted {
		next.Notify = false
	}
	if next.Notify {
		next.Notified, next.Known = at, true
	}
	next.happen(Raised, next.severity(l), Happening{At: at})
	*e = next
}

// next is the episode after e, with what is remembered from one to the next.
func (e *Episode) next(at int64) Episode {
	return Episode{
		Number: e.Number + 1, Open: true, RaisedAt: at,
		Notified: e.Notified, Known: e.Known, Noticed: e.Noticed, Flapping: e.Flapping, Recent: e.Recent,
	}
}

func (e *Episode) clear(at int64, h Happening) {
	e.Open, e.Cleared = false, at
	h.At = at
	e.happen(Cleared, e.Severity, h)
}

// severity is that of the highest level that holds; once escalated it does not fall below that of the escalation.
func (e *Episode) severity(l *Limits) string {
	top := e.top()
	if e.Escalated && top < l.rank(l.Escalated) {
		return l.Escalated
	}
	switch {
	case e.Silent:
		return l.Quiet
	case top == 0 || top > len(l.Levels):
		return ""
	}
	return l.Levels[top-1]
}

// rank is the number of the level with a severity, from 1; one that no level has stands above all.
func (l *Limits) rank(severity string) int {
	if i := slices.Index(l.Levels, severity); i >= 0 {
		return i + 1
	}
	return len(l.Levels) + 1
}

// Silence raises the alarm because nothing has been heard, at processing time at. An episode that is open already goes on as it is. Suppression goes by
// the raises for silence alone: those of the condition have event times.
func (e *Episode) Silence(l *Limits, at int64) Change {
	if e.Open {
		return Nothing
	}
	next := e.next(at)
	next.Silent, next.Notify = true, l.Suppress <= 0 || e.Noticed == 0 || at-e.Noticed >= l.Suppress
	if next.Notify {
		next.Noticed = at
	}
	next.happen(Raised, l.Quiet, Happening{At: at})
	*e = next
	return Raised
}

// Hear clears an episode that silence raised; at is the event time of the reading that was heard.
func (e *Episode) Hear(at int64) Change {
	if !e.Open || !e.Silent {
		return Nothing
	}
	e.Readings = 1
	e.clear(at, Happening{})
	return Cleared
}

// Escalate raises the severity of an episode that nobody has acknowledged, at processing time at.
func (e *Episode) Escalate(l *Limits, at int64) Change {
	if !e.Waiting(l) {
		return Nothing
	}
	e.Escalated = true
	severity := e.severity(l)
	if severity == e.Severity { // a level has brought it there already
		return Counted
	}
	e.happen(Escalated, severity, Happening{At: at})
	return Escalated
}

// Waiting says whether the episode would be escalated in time.
func (e *Episode) Waiting(l *Limits) bool {
	return e.Open && l.Escalated != "" && !e.Escalated && e.Acknowledged == 0
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
