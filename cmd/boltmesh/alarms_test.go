package main

import (
	"io"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/feed"
)

func TestAlarmsHelp(t *testing.T) {
	for _, verb := range []string{"ls", "show", "ack", "clear"} {
		help, _, _ := strings.Cut(ok(t, "alarms", verb, "--help"), "Global Flags:")
		if !strings.Contains(help, "Examples:") {
			t.Error(verb, "is without an example")
		}
		golden(t, "help/alarms-"+verb+".txt", help)
	}
}

// TestAlarms raises, acknowledges and clears alarms by the command line, with everything behind it running.
func TestAlarms(t *testing.T) {
	const file = "testdata/alarms/topology.yaml"
	top, err := readTopology(file)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	mesh, err := startMesh(t.Context(), &devFlags{dataDir: dir, once: true}, top, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := mesh.stop(); err != nil {
			t.Error(err)
		}
	}()
	t.Setenv("BOLTMESH_NATS_URL", mesh.stack.NATSURL())
	t.Setenv("BOLTMESH_KAFKA_BROKERS", strings.Join(mesh.brokers, ","))
	t.Setenv("BOLTMESH_SQLITE", filepath.Join(dir, "state.db"))
	ok(t, "apply", file)
	fed := decode[feed.Result](t, ok(t, "feed", "press-hall", "testdata/alarms/readings.csv", "-o", "json"))
	if err := mesh.control.AwaitIdle(t.Context(), "press-hall", fed.Ends, nil); err != nil {
		t.Fatal(err)
	}

	list := func(args ...string) []control.Episode {
		t.Helper()
		return decode[[]control.Episode](t, ok(t, append([]string{"alarms", "ls", "-o", "json"}, args...)...))
	}
	if got := len(list()); got != 14 {
		t.Errorf("%d episodes: %+v", got, list())
	}
	if got := list("press-hall", "--open", "--severity", "critical"); len(got) != 1 || got[0].Alarm != "hot" || got[0].Group != "press-2" {
		t.Errorf("%+v", got)
	}
	if got := list("press-hall", "--node", "crowd", "--open"); len(got) != 2 || got[0].Group != "south\x1f3" || got[1].Group != "north\x1f4" {
		t.Errorf("%+v", got)
	}
	if got := list("--node", "passed"); len(got) != 4 {
		t.Errorf("what a convert node saves of an alarm: %+v", got)
	}
	out := ok(t, "alarms", "ack", "press-hall", "hot", "press-2", "--by", "ann", "--note", "on my way", "--request", "r1")
	if again := ok(t, "alarms", "ack", "press-hall", "hot", "press-2", "--by", "ann", "--note", "on my way", "--request", "r1"); out != "hot of press-2 acknowledged\n" || again != out {
		t.Errorf("%q, then %q", out, again)
	}
	ok(t, "alarms", "clear", "press-hall", "crowd", "south", "3", "--by", "bob", "--note", "counted anew")
	for line, want := range map[string]struct {
		code int
		said string
	}{
		"ack press-hall hot press-2":               {exitFailed, "has been acknowledged already by ann"},
		"ack press-hall hot press-9":               {exitFailed, "not acknowledged: hot of press-9: no open episode"},
		"clear press-hall crowd south 3":           {exitFailed, "not cleared: "},
		"ack press-hall hott press-2":              {exitFailed, "its alarms are hot, crowd, passed, untold"},
		"ack press-hall crowd north":               {exitFailed, "grouped by site, line: give 2 values"},
		"ack nowhere hot press-2":                  {exitFailed, "no such topology: nowhere"},
		"ack press-hall hot":                       {exitUsage, "it is written boltmesh alarms ack"},
		"ls nowhere":                               {exitFailed, "no such topology: nowhere"},
		"ls press-hall --node hott":                {exitFailed, "its alarms are crowd, hot, passed, untold"},
		"ls press-hall --node untold":              {exitFailed, "write save: alarms in the alarm"},
		"ls --limit 0":                             {exitUsage, "not a number of episodes"},
		"ls press-hall --sqlite /nowhere/state.db": {exitFailed, "--sqlite"},
		"show press-hall hot press-9":              {exitFailed, "see boltmesh alarms ls press-hall --node hot"},
		"show press-hall hot press-2 --number 9":   {exitFailed, "no episode 9"},
		"ack press-hall hot press-2 --nats nats://127.0.0.1:1 --timeout 300ms": {exitFailed, "BOLTMESH_NATS_URL"},
	} {
		code, out, errs := call(t, append([]string{"alarms"}, strings.Fields(line)...)...)
		if code != want.code || !strings.Contains(errs, want.said) {
			t.Errorf("alarms %s: exit %d, want %d and %q: %s%s", line, code, want.code, want.said, out, errs)
		}
	}

	now := regexp.MustCompile(`20[2-9]\d-\d\d-\d\dT\d\d:\d\d:\d\dZ`) // commands happen when they are given
	shown := now.ReplaceAllString(ok(t, "alarms", "show", "press-hall", "hot", "press-2"), "<now>               ")
	golden(t, "alarms/show.txt", shown)
	golden(t, "alarms/ls.txt", now.ReplaceAllString(ok(t, "alarms", "ls", "press-hall"), "<now>               "))
	e := decode[control.Episode](t, ok(t, "alarms", "show", "press-hall", "hot", "press-1", "--number", "1", "-o", "json"))
	if e.Number != 1 || e.State != "cleared" || len(e.History) != 4 || e.History[1].What != "change" {
		t.Errorf("%+v", e)
	}
}
