package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/tap"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// seenWriter prints deliveries, one a line.
type seenWriter struct {
	out     io.Writer
	origins control.Origins
	clip    int
	json    bool
	widths  [3]int // of edge, root and device: they grow with what comes
	headed  bool
}

// seenLine is a delivery as JSON.
type seenLine struct {
	At       time.Time       `json:"at"`
	From     string          `json:"from"`
	Stream   string          `json:"stream"`
	To       string          `json:"to"`
	Task     int32           `json:"task"` // -1 where workers compete
	Device   string          `json:"device"`
	Tuple    tuple.ID        `json:"tuple"`
	Origin   string          `json:"origin"`
	Offset   int64           `json:"offset"`
	Root     int64           `json:"root"` // its first offset
	Attempt  string          `json:"attempt"`
	Revision uint32          `json:"revision"`
	Time     int64           `json:"time"` // of the event, ms
	Group    string          `json:"group,omitempty"`
	N        uint64          `json:"n,omitempty"`
	Trace    string          `json:"trace,omitempty"`
	Payload  json.RawMessage `json:"payload"`
}

func (w *seenWriter) write(s *tap.Seen) error {
	if w.json {
		return w.writeJSON(s)
	}
	edge := s.From
	if s.Stream != tuple.DefaultStream {
		edge += ":" + s.Stream
	}
	edge += " > " + s.To
	if s.Task != tuple.Shared {
		edge += fmt.Sprint("/", s.Task)
	}
	cells := [3]string{printable(edge), fmt.Sprint(w.origins.Name(s.Root.Origin), "@", s.Offset), printable(s.Key)}
	if !w.headed {
		w.headed = true
		if err := w.line("TIME", [3]string{"EDGE", "ROOT", "DEVICE"}, "TRY", fmt.Sprintf("%-32s", "TUPLE"), "PAYLOAD", cells); err != nil {
			return err
		}
	}
	return w.line(s.At.Format("15:04:05.000"), cells, fmt.Sprint(s.Root.Attempt.Count), s.ID.String(), w.payload(s), cells)
}

// line writes a row; the columns are as wide as the widest cell so far, those of next included.
func (w *seenWriter) line(at string, cells [3]string, try, id, payload string, next [3]string) error {
	for i := range cells {
		w.widths[i] = max(w.widths[i], utf8.RuneCountInString(cells[i]), utf8.RuneCountInString(next[i]))
		cells[i] += strings.Repeat(" ", w.widths[i]-utf8.RuneCountInString(cells[i]))
	}
	_, err := fmt.Fprintf(w.out, "%-12s  %s  %s  %-3s  %s  %s  %s\n", at, cells[0], cells[1], try, cells[2], id, payload)
	return err
}

// payload is what is shown of a payload: not so much that a line gets long, and nothing that a terminal would obey.
func (w *seenWriter) payload(s *tap.Seen) string {
	text := string(s.Payload)
	if w.clip > 0 && len(text) > 8*w.clip {
		text = text[:8*w.clip]
	}
	text = printable(text)
	if w.clip > 0 && utf8.RuneCountInString(text) > w.clip {
		text = string([]rune(text)[:w.clip]) + "…"
	}
	return text
}

func (w *seenWriter) writeJSON(s *tap.Seen) error {
	l := seenLine{
		At: s.At, From: s.From, Stream: s.Stream, To: s.To, Task: s.Task, Device: s.Key, Tuple: s.ID, Origin: w.origins.Name(s.Root.Origin), Offset: s.Offset,
		Root: s.Root.First, Attempt: fmt.Sprint(s.Root.Attempt.Generation, ".", s.Root.Attempt.Count), Revision: s.Revision, Time: s.Time, Group: s.Group, N: s.N,
		Payload: s.Payload,
	}
	if s.Trace.Sampled() {
		l.Trace = tuple.ID(s.Trace.TraceID).String()
	}
	if !json.Valid(l.Payload) {
		l.Payload, _ = json.Marshal(string(s.Payload)) // a text always encodes
	}
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w.out, printable(string(b))+"\n")
	return err
}

// printable replaces what a terminal would obey, or show as something else than it is, by what JSON writes for it: control characters, those that turn
// the direction of writing, bytes that are no UTF-8.
func printable(s string) string {
	if strings.IndexFunc(s, unprintable) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case !unprintable(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

func unprintable(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }
