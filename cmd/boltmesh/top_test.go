package main

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/boltmesh/boltmesh/pkg/control"
)

// topModel is what the golden pictures show.
func topModel(now time.Time) []control.Rates {
	ms := now.UnixMilli()
	return []control.Rates{
		{
			Topology: "rooms", State: "running", Revision: 3, At: ms, Seconds: 3, Workers: 5, Records: 2104.2, Processed: 1998, Lag: 60_340, Floor: 12_345_678, End: 12_406_018,
			Sources: 4, Latency: 345.6, Oldest: ms - 12_300, Watermark: 1_700_000_000_000,
			Nodes: []control.NodeRates{
				{Node: "readings", Kind: "spout", Workers: 1, Tasks: 4, In: 2104.2, Out: 2001.7, Latency: 345.6},
				{Node: "clean", Kind: "convert", Workers: 2, In: 2001.1, Out: 2000.9, Latency: 4.23, Queued: 3, Busy: 0.21, Capacity: 9_529},
				{Node: "temperature-by-site-part", Kind: "stat", Workers: 1, Tasks: 8, In: 123_456, Out: 0.25, Latency: 45_678, Queued: 1024, Busy: 0.72, Capacity: 171_467, Hottest: &control.Hot{Task: 5, Busy: 0.99}},
				{Node: "hot", Kind: "alarm", Tasks: 8, Queued: 1_234_567, Failed: 12},
				{Node: "output", Kind: "output", Workers: 1, In: 2000.4, Latency: 8, Busy: 0.98, Capacity: 2041.2, Queued: 12, Failed: 0},
			},
			Troubles: []control.Trouble{
				{Node: "output", Worker: "output-1", Error: "insert: \x1b]0;mine\x07 connection refused by a server with a long name that does not fit", At: ms - 2000},
				{Node: "clean", Worker: "convert-2", Error: "long ago", At: ms - 120_000},
			},
		},
		{Topology: "words", State: "paused", Revision: 1, Nodes: []control.NodeRates{{Node: "lines", Kind: "spout"}}},
		{Topology: "older", State: "unreadable", Revision: 9},
	}
}

func TestTopFrames(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		file          string
		columns, rows int
		colour        bool
	}{{"top-80x24.txt", 80, 24, false}, {"top-130x40.txt", 130, 40, false}, {"top-80x24-colour.txt", 80, 24, true}, {"top-40x8.txt", 40, 8, false}} {
		p := page{rates: topModel(now), at: now, colour: c.colour}
		frame := p.frame(c.columns, c.rows)
		if len(frame) != c.rows {
			t.Errorf("%s: %d lines", c.file, len(frame))
		}
		text := strings.Join(frame, "\n") + "\n"
		for _, l := range frame {
			if n := utf8.RuneCountInString(l); !c.colour && n > max(c.columns, topWidth) {
				t.Errorf("%s: %d columns: %s", c.file, n, l)
			}
		}
		if c.colour {
			text = strings.ReplaceAll(text, "\x1b", "ESC") // so that looking at the file does nothing
		}
		golden(t, c.file, text)
	}
	once := strings.Join(topView{}.lines(topModel(now), now), "\n")
	if strings.Contains(once, "\x1b") || !strings.Contains(once, "temperature-by-site-part ") || !strings.Contains(once, "does not fit") {
		t.Error(once)
	}
}

func TestTopKeys(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	p := page{rates: topModel(now), at: now}
	p.frame(80, 8)
	for _, c := range []struct {
		key  string
		want int
	}{{"\x1b[B", 1}, {"j", 2}, {"\x1b[A", 1}, {"k", 0}, {"k", 0}, {" ", 7}, {"\x1b[5~", 0}, {"G", 14}, {"\x1b[B", 14}, {"g", 0}, {"x", 0}} {
		if !p.press(c.key) {
			t.Errorf("%q quits", c.key)
		}
		if p.frame(80, 8); p.top != c.want {
			t.Errorf("%q: line %d, want %d", c.key, p.top, c.want)
		}
	}
	for _, key := range []string{"q", "\x03", "\x1b"} {
		if p.press(key) {
			t.Errorf("%q does not quit", key)
		}
	}
	p.take(looked{err: control.ErrUnknown})
	if frame := p.frame(80, 24); !strings.Contains(frame[23], "no answer") || !strings.Contains(frame[0], "rooms") {
		t.Errorf("%q", frame)
	}
	if frame := (&page{said: "looking"}).frame(80, 3); strings.Join(frame, "|") != "||looking" {
		t.Errorf("%q", frame)
	}
}

func TestNumbers(t *testing.T) {
	for f, want := range map[float64]string{0: "0", 0.25: "0.2", 9.99: "10.0", 12.3: "12", 99_999: "99999", 123_456: "123k", 999_499: "999k", 1_234_567: "1.2M", 99_949_999: "99.9M", 123_456_789: "123M", 5e9: "5.0G"} {
		if got := rate(f); got != want {
			t.Errorf("%v: %s, want %s", f, got, want)
		}
	}
	for ms, want := range map[float64]string{-1: "0ms", 0.04: "0.0ms", 9.9: "9.9ms", 345: "345ms", 999: "999ms", 12_345: "12.3s", 99_949: "99.9s", 120_000: "2m", 7_200_000: "2h", 1e9: "12d"} {
		if got := short(ms); got != want {
			t.Errorf("%v: %s, want %s", ms, got, want)
		}
	}
}

// TestTopOnce asks a mesh that works.
func TestTopOnce(t *testing.T) {
	l := goLive(t, "")
	out := ok(t, "top", "--once")
	if !strings.Contains(out, "rooms  running  revision 1") || strings.Contains(out, "\x1b") {
		t.Error(out)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				l.feed(90, 50)
			}
		}
	}()
	var r control.Rates
	for end := time.Now().Add(time.Minute); r.Processed == 0 || r.Latency == 0 || r.Nodes[1].In == 0; {
		rates := decode[[]control.Rates](t, ok(t, "top", "rooms", "-o", "json"))
		if r = rates[0]; time.Now().After(end) {
			t.Errorf("%+v", r)
			break
		}
	}
	close(stop)
	<-done
	if len(r.Nodes) != 5 || r.Nodes[0].Kind != "spout" || r.Nodes[0].Out <= 0 || r.Workers != 5 || r.Sources != 4 || r.Floor <= 0 || r.End < r.Floor {
		t.Errorf("%+v", r)
	}
	for _, n := range r.Nodes[1:] {
		if n.Workers != 1 || n.In <= 0 || n.Busy <= 0 || n.Busy > 1.5 || n.Capacity < n.In/1.5 || n.Latency <= 0 {
			t.Errorf("%+v", n)
		}
	}
	if code, _, errs := call(t, "top", "room"); code != exitFailed || !strings.Contains(errs, `did you mean "rooms"?`) {
		t.Errorf("exit %d: %s", code, errs)
	}
}
