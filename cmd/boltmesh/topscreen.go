package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/boltmesh/boltmesh/pkg/control"
)

// page is what a terminal shows of top, and from which line on.
type page struct {
	rates  []control.Rates
	at     time.Time // of the rates
	said   string    // in the last line, instead of the keys
	colour bool
	top    int // first line shown
	rows   int // lines shown last
	lines  int // that there were last
}

// take takes in a look; one that failed leaves what was seen before, and says why.
func (p *page) take(l looked) {
	if l.err != nil {
		p.said = "no answer, shown is what was before: " + printable(l.err.Error())
		return
	}
	p.rates, p.at, p.said = l.rates, time.Now(), ""
}

// press takes a key; false says to quit.
func (p *page) press(key string) bool {
	switch key {
	case "q", "Q", "\x03", "\x04", "\x1b": // Ctrl-C, Ctrl-D, Esc
		return false
	case "\x1b[A", "\x1bOA", "k":
		p.top--
	case "\x1b[B", "\x1bOB", "j":
		p.top++
	case "\x1b[5~":
		p.top -= p.rows
	case "\x1b[6~", " ":
		p.top += p.rows
	case "\x1b[H", "g":
		p.top = 0
	case "\x1b[F", "G":
		p.top = p.lines
	}
	return true
}

// frame draws the page for a terminal of so many columns and rows.
func (p *page) frame(columns, rows int) []string {
	v := topView{width: max(columns, 20), colour: p.colour}
	var all []string
	if !p.at.IsZero() {
		all = v.lines(p.rates, p.at)
	}
	p.lines, p.rows = len(all), max(rows-1, 1)
	p.top = max(0, min(p.top, p.lines-p.rows))
	shown := all[p.top:min(p.top+p.rows, len(all))]
	out := append([]string{}, shown...)
	for len(out) < p.rows {
		out = append(out, "")
	}
	last := p.said
	if last == "" {
		last = p.at.Format("15:04:05") + "  q quits"
		if p.lines > p.rows {
			last += fmt.Sprintf("  lines %d to %d of %d: the arrow keys scroll", p.top+1, p.top+len(shown), p.lines)
		}
	}
	return append(out, v.clip(last, faint))
}

// screen is a terminal that shows one page, on its other screen: what was there before comes back at the end.
type screen struct {
	in, out *os.File
	before  *term.State
	keys    chan string
}

// What a terminal is told: its other screen, without a cursor, lines that are too long cut; and back.
const (
	screenOn  = "\x1b[?1049h\x1b[?25l\x1b[?7l"
	screenOff = "\x1b[?7h\x1b[?25h\x1b[?1049l"
)

func openScreen(in, out *os.File) (*screen, error) {
	before, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return nil, fmt.Errorf("the terminal: %w", err)
	}
	s := &screen{in: in, out: out, before: before, keys: make(chan string, 16)}
	go s.read()
	_, err = io.WriteString(out, screenOn)
	return s, err
}

// read passes keys on until the terminal is closed; nothing else ends a read of it.
func (s *screen) read() {
	defer close(s.keys)
	b := make([]byte, 64)
	for {
		n, err := s.in.Read(b)
		if err != nil {
			return
		}
		s.keys <- string(b[:n]) // a key's letters come at once
	}
}

// draw shows the page as it fits now.
func (s *screen) draw(p *page) error {
	columns, rows, err := term.GetSize(int(s.out.Fd()))
	if err != nil || columns <= 0 || rows <= 0 {
		columns, rows = 80, 24
	}
	_, err = io.WriteString(s.out, "\x1b[H\x1b[K"+strings.Join(p.frame(columns, rows), "\r\n\x1b[K")) // cleared first: behind a full line the cursor stands on its last letter
	return err
}

func (s *screen) close() error {
	_, err := io.WriteString(s.out, screenOff)
	if e := term.Restore(int(s.in.Fd()), s.before); err == nil {
		err = e
	}
	return err
}
