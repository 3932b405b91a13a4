package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/tap"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

func TestToolHelp(t *testing.T) {
	for _, verb := range []string{"tap", "top", "trace"} {
		help, _, _ := strings.Cut(ok(t, verb, "--help"), "Global Flags:")
		if !strings.Contains(help, "Examples:") {
			t.Errorf("%s: without an example", verb)
		}
		golden(t, "help/"+verb+".txt", help)
	}
}

func TestTapUsage(t *testing.T) {
	for line, want := range map[string]string{
		"tap rooms":                        "write TOPOLOGY/NODE",
		"tap rooms/":                       "write TOPOLOGY/NODE",
		"tap rooms/clean --sample 2":       "write one such as 0.1",
		"tap rooms/clean --sample 0":       "write one such as 0.1",
		"tap rooms/clean --count -1":       "not below 0",
		"tap rooms/clean --in --to output": "--to chooses",
	} {
		if code, out, errs := call(t, strings.Fields(line)...); code != exitUsage || !strings.Contains(errs, want) {
			t.Errorf("%s: exit %d, want 2 and %q: %s%s", line, code, want, out, errs)
		}
	}
}

// hostile is a payload that a terminal must not get as it is.
const hostile = "{\"n\":\"\x1b]0;mine\x07\u009b2J\u202egnp.exe \xff ü 火\"}"

func TestSeenLines(t *testing.T) {
	origin := tuple.OriginOf("rooms", "readings", "rooms", "", "2")
	seen := []tap.Seen{
		{
			At: time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC), From: "clean", To: "hot", Task: 3, Frame: "f", Revision: 2,
			Tuple: tuple.Tuple{
				ID: tuple.ID{1, 2}, Root: tuple.Root{Origin: origin, First: 40, Attempt: tuple.Attempt{Generation: 7, Count: 1}}, Offset: 44, Stream: "default", Key: "room-1",
				Time: 1700000000000, Trace: tuple.Trace{TraceID: [16]byte{9}}, Payload: []byte(hostile),
			},
		},
		{
			At: time.Date(2026, 1, 2, 3, 4, 5, 7e6, time.UTC), From: "clean", To: "output", Task: tuple.Shared,
			Tuple: tuple.Tuple{Stream: "late", Key: "a\nb", Group: "g", N: 4, Payload: []byte(`{"long":"` + strings.Repeat("x", 300) + `"}`)},
		},
		{From: "clean", To: "hot", Tuple: tuple.Tuple{Stream: "default", Payload: []byte("no JSON \x1b[31m")}},
	}
	var b bytes.Buffer
	w := seenWriter{out: &b, origins: control.Origins{}, clip: 80}
	for i := range seen {
		if err := w.write(&seen[i]); err != nil {
			t.Fatal(err)
		}
	}
	w.json = true
	for i := range seen {
		if err := w.write(&seen[i]); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range b.String() {
		if r != '\n' && unprintable(r) {
			t.Errorf("%U reaches the terminal", r)
		}
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	var first seenLine
	if err := json.Unmarshal([]byte(lines[4]), &first); err != nil || first.Attempt != "7.1" || first.Tuple != seen[0].ID {
		t.Errorf("%+v, %v", first, err)
	}
	golden(t, "tap.txt", b.String())
}

// live is a mesh with rooms applied, and readings to feed.
type live struct {
	*testing.T
	mesh *devMesh
}

// goLive starts it; spans go to the collector at otlp, if there is one.
func goLive(t *testing.T, otlp string) *live {
	t.Helper()
	file := filepath.Join(t.TempDir(), "topology.yaml")
	b, err := os.ReadFile("testdata/good.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	top, err := readTopology(file)
	if err != nil {
		t.Fatal(err)
	}
	mesh, err := startMesh(t.Context(), &devFlags{dataDir: t.TempDir(), once: true, otlp: otlp}, top, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := mesh.stop(); err != nil {
			t.Error(err)
		}
	})
	t.Setenv("BOLTMESH_NATS_URL", mesh.stack.NATSURL())
	t.Setenv("BOLTMESH_KAFKA_BROKERS", mesh.stack.KafkaBrokers()[0])
	if err := mesh.apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	everyone(t, mesh, 1)
	return &live{t, mesh}
}

// feed sends n readings of nine rooms, of the given temperature.
func (l *live) feed(n, temperature int) {
	l.Helper()
	var b strings.Builder
	b.WriteString("device,ts,temperature\n")
	for i := range n {
		fmt.Fprintf(&b, "room-%d,%d,%d\n", i%9, time.Now().UnixMilli()+int64(i), temperature)
	}
	if code, out, errs := callWith(l.T, b.String(), "feed", "rooms", "-"); code != exitOK {
		l.Fatalf("exit %d: %s%s", code, out, errs)
	}
}

// background runs a command line beside the test; wait returns what it wrote. It is interrupted when it has not ended by itself.
func (l *live) background(args ...string) (wait func() (stdout, stderr string)) {
	ctx, cancel := context.WithTimeout(l.Context(), time.Minute)
	var out, errs bytes.Buffer
	var done sync.WaitGroup
	done.Go(func() {
		root := newRoot()
		root.SetArgs(args)
		root.SetOut(&out)
		root.SetErr(&errs)
		if err := root.ExecuteContext(ctx); err != nil {
			fmt.Fprintln(&errs, err)
		}
	})
	return func() (string, string) {
		done.Wait()
		cancel()
		return out.String(), errs.String()
	}
}

// TestTap taps edges of a mesh that works, which loses nothing by it.
func TestTap(t *testing.T) {
	l := goLive(t, "")
	one := l.background("tap", "rooms/clean", "--device", "room-3", "--to", "totals", "--count", "5", "-o", "json")
	in := l.background("tap", "rooms/output", "--in", "--where", "temperature == 21 and device == 'room-4'", "--count", "3")
	ended := l.background("tap", "rooms/hot", "--for", "2s")
	sent := 0
	stop := time.After(50 * time.Second)
	finished := make(chan struct{})
	var stdout, table, nothing, errs string
	go func() {
		defer close(finished)
		stdout, _ = one()
		table, _ = in()
		nothing, errs = ended()
	}()
feeding:
	for { // until the taps are open and have seen enough
		l.feed(90, 21)
		sent += 90
		select {
		case <-finished:
			break feeding
		case <-stop:
			t.Fatal("the taps did not end")
		default:
		}
	}
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	if len(lines) != 5 {
		t.Fatalf("%d lines: %s", len(lines), stdout)
	}
	for _, text := range lines {
		if s := decode[seenLine](t, text); s.Device != "room-3" || s.From != "clean" || s.To != "totals" || !strings.HasPrefix(s.Origin, "rooms/") {
			t.Errorf("%s", text)
		}
	}
	if strings.Count(table, "room-4") != 6 || !strings.HasPrefix(table, "TIME") || !strings.Contains(table, "clean > output") {
		t.Errorf("%s", table)
	}
	if nothing != "" || errs != "" {
		t.Errorf("nothing is hot: %s%s", nothing, errs)
	}
	if code, _, errs := call(t, "tap", "room/clean"); code != exitFailed || !strings.Contains(errs, `did you mean "rooms"?`) {
		t.Errorf("exit %d: %s", code, errs)
	}
	if code, _, errs := call(t, "tap", "rooms/claen"); code != exitFailed || !strings.Contains(errs, `did you mean "clean"?`) {
		t.Errorf("exit %d: %s", code, errs)
	}
}
