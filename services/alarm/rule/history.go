package rule

import "slices"

// MaxHistory is how many events an episode keeps.
const MaxHistory = 32

// Happening is one event in the life of an episode.
type Happening struct {
	What     Change
	At       int64  // event time of the reading, or the time of the tick or the command, ms
	Severity string // after it
	By, Note string // of a command
}

// happen appends to the history, in which each event is a version of the episode.
func (e *Episode) happen(what Change, severity string, h Happening) {
	e.Version++
	e.Severity = severity
	h.What, h.Severity = what, severity
	e.History = append(slices.Clone(e.History), h)
	if over := len(e.History) - MaxHistory; over > 0 {
		e.History, e.Omitted = e.History[over:], e.Omitted+int64(over)
	}
}

// state is the episode's state in events and documents.
func (e *Episode) state() string {
	switch {
	case !e.Open:
		return "cleared"
	case e.Acknowledged != 0:
		return "acknowledged"
	}
	return "open"
}
