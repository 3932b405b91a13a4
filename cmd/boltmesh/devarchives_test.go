package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// limited is a mesh with an alarm whose threshold is each device's own.
type limited struct {
	*devMesh
	t   *testing.T
	f   *devFlags
	ts  int64
	cli []string // where its archive is
}

func newLimited(t *testing.T, unknown string) *limited {
	t.Helper()
	dir := t.TempDir()
	f := &devFlags{dataDir: filepath.Join(dir, "mesh"), topology: filepath.Join(dir, "topology.yaml"), archives: filepath.Join(dir, "machines.csv"), output: "json"}
	for name, text := range map[string]string{
		f.topology: `
topology: limits
archive: {name: machines, unknown_device: ` + unknown + `}
spout: {id: in, kafka: {topics: [in]}, key: device, time: {field: ts}}
bolts:
  - {id: placed, kind: convert, from: in, set: {site: archive.site}, save: readings}
  - {id: hot, kind: alarm, from: placed, when: v > archive.limit, save: alarms}
`,
		f.archives: "device,site,limit\na,north,100\nb,south,10\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(f.dataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	top, err := readTopology(f.topology)
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	m, err := startMesh(t.Context(), f, top, &stderr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.stop() })
	if err := m.apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &limited{devMesh: m, t: t, f: f, cli: []string{"--archive", "machines", "--sqlite", filepath.Join(f.dataDir, "state.db"), "--nats", m.nats}}
}

// feed hands one reading over, each later than the one before, and returns its time when it has gone through.
func (l *limited) feed(device string, v int) int64 {
	l.t.Helper()
	l.ts++
	l.f.feeds, l.f.stdin = []string{"-"}, strings.NewReader(fmt.Sprintf(`{"device":%q,"ts":%d,"v":%d}`+"\n", device, l.ts, v))
	if _, err := l.process(l.t.Context(), l.f, &bytes.Buffer{}); err != nil {
		l.t.Fatal(err)
	}
	return l.ts
}

// events lists what the alarm has told, in order of time, such as "a raise 5".
func (l *limited) events() (out []string) {
	l.t.Helper()
	type event struct {
		Device, Event string
		TS            int64
	}
	var all []event
	err := l.documents.Documents().Each(context.Background(), "alarms", func(body []byte) error {
		var e event
		if err := json.Unmarshal(body, &e); err != nil {
			return err
		}
		if e.Event != "" { // else it is an episode
			all = append(all, e)
		}
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
	slices.SortFunc(all, func(a, b event) int { return int(a.TS - b.TS) })
	for _, e := range all {
		out = append(out, fmt.Sprint(e.Device, " ", e.Event, " ", e.TS))
	}
	return out
}

// TestThresholdChanges: a limit changed by the command line counts for the readings that come a second later, and not for any from before.
func TestThresholdChanges(t *testing.T) {
	l := newLimited(t, "null")
	for range 3 {
		l.feed("a", 50) // below its limit
	}
	raised := []string{fmt.Sprint("b raise ", l.feed("b", 50))}
	l.feed("c", 1000) // nobody knows it: no limit
	if got := l.events(); !slices.Equal(got, raised) {
		t.Fatalf("before the change: %v, want %v", got, raised)
	}
	ok(t, append([]string{"archives", "set", "a", "limit=40"}, l.cli...)...)
	changed := time.Now()
	var at int64
	for len(l.events()) == len(raised) {
		fed := time.Now()
		if at = l.feed("a", 50); fed.Sub(changed) > time.Second && len(l.events()) == len(raised) {
			t.Fatalf("a reading that was fed %v after the change was judged by the old limit", fed.Sub(changed))
		}
	}
	raised = append(raised, fmt.Sprint("a raise ", at))
	l.feed("a", 50) // the episode is open
	raised = append(raised, fmt.Sprint("a clear ", l.feed("a", 40)))
	ok(t, append([]string{"archives", "delete", "b"}, l.cli...)...)
	for changed = time.Now(); time.Since(changed) < time.Second; { // a second: what is promised
		l.feed("c", 1)
	}
	l.feed("b", 5) // its limit is gone: a reading that is not judged clears nothing
	if got := l.events(); !slices.Equal(got, raised) {
		t.Errorf("events %v, want %v", got, raised)
	}
}

// TestUnknownDeviceIsRejected: its readings are dead letters that say what to do; once it is known, they can be replayed.
func TestUnknownDeviceIsRejected(t *testing.T) {
	l := newLimited(t, "reject")
	l.feed("a", 1)
	l.feed("c", 1)
	var found []struct{ Error, Node string }
	if err := json.Unmarshal([]byte(ok(t, "dlq", "ls", "limits", "--nats", l.nats, "-o", "json")), &found); err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 || found[0].Node != "placed" || !strings.Contains(found[0].Error, `the device "c" is not in the archive machines`) {
		t.Errorf("letters: %+v", found)
	}
	if n, err := l.documents.Documents().Count(context.Background(), "readings"); n != 1 || err != nil {
		t.Errorf("%d readings stored, %v", n, err)
	}
}
