package main

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// fakeTerminal is a pseudo-terminal: what is written to one end is read at the other.
type fakeTerminal struct {
	*testing.T
	keys, tty *os.File
	mu        sync.Mutex
	shown     strings.Builder
}

func openTerminal(t *testing.T) *fakeTerminal {
	t.Helper()
	keys, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = keys.Close() })
	fd := int(keys.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tty.Close() })
	x := &fakeTerminal{T: t, keys: keys, tty: tty}
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := keys.Read(b)
			if err != nil {
				return
			}
			x.mu.Lock()
			x.shown.Write(b[:n])
			x.mu.Unlock()
		}
	}()
	return x
}

func (x *fakeTerminal) resize(columns, rows uint16) {
	x.Helper()
	if err := unix.IoctlSetWinsize(int(x.tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}); err != nil {
		x.Fatal(err)
	}
}

func (x *fakeTerminal) press(keys string) {
	x.Helper()
	if _, err := x.keys.WriteString(keys); err != nil {
		x.Fatal(err)
	}
}

// await waits for a frame as wanted; frames begin where the cursor is sent home.
func (x *fakeTerminal) await(what string, wanted func(lines []string) bool) {
	x.Helper()
	var last []string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		x.mu.Lock()
		frames := strings.Split(x.shown.String(), "\x1b[H\x1b[K")
		x.mu.Unlock()
		last = strings.Split(frames[len(frames)-1], "\r\n\x1b[K")
		if wanted(last) {
			return
		}
	}
	x.Fatalf("%s: never shown; last %q", what, last)
}

// TestTopTerminal looks at a mesh in a terminal, resizes it, scrolls and quits.
func TestTopTerminal(t *testing.T) {
	goLive(t, "")
	t.Setenv("NO_COLOR", "1")
	x := openTerminal(t)
	x.resize(80, 24)
	before, err := term.GetState(int(x.tty.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan int, 1)
	go func() { ended <- run([]string{"top", "rooms"}, x.tty, x.tty, x.tty) }()
	x.await("a page", func(l []string) bool {
		return len(l) == 24 && strings.HasPrefix(l[0], "rooms  running") && strings.HasPrefix(l[4], "NODE") && strings.Contains(l[23], "q quits")
	})
	x.resize(60, 6)
	x.await("a smaller page", func(l []string) bool {
		return len(l) == 6 && strings.HasPrefix(l[0], "rooms  running") && strings.Contains(l[5], "lines 1 to 5 of 10")
	})
	x.press("\x1b[B")
	x.await("the next line", func(l []string) bool {
		return strings.HasPrefix(l[0], "came ") && strings.Contains(l[5], "lines 2 to 6")
	})
	x.press("q")
	select {
	case code := <-ended:
		if code != exitOK {
			t.Errorf("exit %d", code)
		}
	case <-time.After(time.Minute):
		t.Fatal("q does not quit")
	}
	after, err := term.GetState(int(x.tty.Fd()))
	if err != nil || !reflect.DeepEqual(after, before) {
		t.Errorf("the terminal is not as it was (%v)", err)
	}
	x.mu.Lock()
	all := x.shown.String()
	x.mu.Unlock()
	if !strings.HasPrefix(all, screenOn) || strings.Contains(all, bold) {
		t.Errorf("%q", all[:min(len(all), 200)])
	}
	for end := time.Now().Add(10 * time.Second); !strings.HasSuffix(all, screenOff); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("what was there before does not come back")
		}
		x.mu.Lock()
		all = x.shown.String()
		x.mu.Unlock()
	}
}

// TestTopIsInterrupted ends top from outside: its screen goes too.
func TestTopIsInterrupted(t *testing.T) {
	goLive(t, "")
	x := openTerminal(t)
	x.resize(80, 24)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	root := newRoot()
	root.SetArgs([]string{"top"})
	root.SetIn(x.tty)
	root.SetOut(x.tty)
	go func() { ended <- root.ExecuteContext(ctx) }()
	x.await("a page", func(l []string) bool { return strings.Contains(l[0], "rooms  running") })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
