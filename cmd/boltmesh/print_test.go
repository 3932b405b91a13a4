package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	calls "github.com/boltmesh/boltmesh/pkg/call"
	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/spout"
)

// obeyed sets a terminal's title, clears it by the one-letter CSI, and turns the direction of writing.
const obeyed = "\x1b]0;mine\x07 \u009b2J \u202e"

// TestTerminalObeysNothing: what devices and bolts say reaches a terminal as text in every form that it is printed in.
func TestTerminalObeysNothing(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	worker := []member.Member{{Topology: "t", Node: "n", Worker: "w", LastError: "no reading: " + obeyed, ErrorAt: now.UnixMilli()}}
	answer := &calls.Answer{Replies: []spout.Reply{{Payload: json.RawMessage(`{"a":"` + "\u009b2J\u202e" + `"}`)}}}
	for name, write := range map[string]func(b *bytes.Buffer) error{
		"ps": func(b *bytes.Buffer) error {
			return (&cli{}).print(b, worker, func(t *tabwriter.Writer) { processes(t, worker, now) })
		},
		"ps -o json":   func(b *bytes.Buffer) error { return (&cli{output: "json"}).print(b, worker, nil) },
		"call":         func(b *bytes.Buffer) error { replies(b, answer); return nil },
		"call -o json": func(b *bytes.Buffer) error { return (&cli{output: "json"}).print(b, answer, nil) },
		"an error": func(b *bytes.Buffer) error {
			if code := run([]string{"try", obeyed + ".js"}, strings.NewReader(""), b, b); code != exitFailed {
				t.Errorf("exit %d", code)
			}
			return nil
		},
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		if s := b.String(); strings.ContainsAny(s, "\x1b\x07\u009b\u202e") || !strings.Contains(s, `\u009b2J`) || !strings.Contains(s, `\u202e`) {
			t.Errorf("%s: %q", name, s)
		}
		if back := []member.Member{}; name == "ps -o json" {
			if err := json.Unmarshal(b.Bytes(), &back); err != nil || back[0].LastError != worker[0].LastError {
				t.Errorf("%v: %v", err, back)
			}
		}
	}
}
