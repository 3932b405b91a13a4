package main

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"

	calls "github.com/boltmesh/boltmesh/pkg/call"
)

// TestCall asks examples/reach by the command line, and what the spout serves over HTTP.
func TestCall(t *testing.T) {
	const file = "../../examples/reach/topology.yaml"
	top, err := readTopology(file)
	if err != nil {
		t.Fatal(err)
	}
	mesh, err := startMesh(t.Context(), &devFlags{dataDir: t.TempDir(), once: true}, top, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := mesh.stop(); err != nil {
			t.Error(err)
		}
	}()
	t.Setenv("BOLTMESH_NATS_URL", mesh.stack.NATSURL())
	ok(t, "apply", file)

	for link, want := range map[string]int{ // as Storm's example says
		"foo.com/blog/1": 16, "engineering.twitter.com/blog/5": 14, "tech.backtype.com/blog/123": 7, "example.com": 0,
	} {
		question, _ := json.Marshal(map[string]string{"url": link})
		out := ok(t, "call", "reach", string(question), "--distinct")
		if got := strings.Count(out, "\n"); got != want {
			t.Errorf("%s has reached %d, want %d: %s", link, got, want, out)
		}
		if again := ok(t, "call", "reach", string(question), "--distinct"); again != out {
			t.Errorf("%s: another order: %s, then %s", link, out, again)
		}
	}
	whole := decode[calls.Answer](t, ok(t, "call", "reach", `{"url":"foo.com/blog/1"}`, "-o", "json"))
	if len(whole.Replies) != 22 || whole.ID == "" || whole.Replies[0].Node != "followers" {
		t.Errorf("%d replies, want 22 before each follower is taken once: %+v", len(whole.Replies), whole)
	}
	if out := ok(t, "call", "reach", `{"url":"foo.com/blog/1"}`, "--no-wait"); out != "" {
		t.Errorf("an answer that nobody wants: %s", out)
	}
	sent := decode[calls.Answer](t, ok(t, "call", "reach", `{}`, "--no-wait", "--id", "once", "-o", "json"))
	if again := decode[calls.Answer](t, ok(t, "call", "reach", `{}`, "--no-wait", "--id", "once", "-o", "json")); again.Position != sent.Position {
		t.Errorf("made twice under one id it has positions %d and %d", sent.Position, again.Position)
	}

	for line, want := range map[string]struct {
		code int
		said string
	}{
		`reach {`:                         {exitUsage, "is not JSON"},
		`reach [1]`:                       {exitFailed, "a JSON object is wanted"},
		`reach {"url":1} --timeout 10s`:   {exitFailed, "dead letter"},
		`nowhere {} --timeout 1s`:         {exitFailed, "no spout takes calls for nowhere"},
		`reach {} --timeout 0s --no-wait`: {exitUsage, "not a time to wait"},
	} {
		code, out, errs := call(t, append([]string{"call"}, strings.Fields(line)...)...)
		if code != want.code || !strings.Contains(errs, want.said) {
			t.Errorf("call %s: exit %d, want %d and %q: %s%s", line, code, want.code, want.said, out, errs)
		}
	}

	res, err := http.Post("http://"+mesh.observer.Addr()+"/call/reach", "application/json", strings.NewReader(`{"url":"tech.backtype.com/blog/123"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var answer calls.Answer
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v", res.Status, err)
	}
	if answer.Distinct(); len(answer.Replies) != 7 {
		t.Errorf("over HTTP it has reached %d, want 7", len(answer.Replies))
	}
}
