package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/call"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// foremanYAML is the foreman's: A hands what it is asked on to every B, and each B answers.
const foremanYAML = `
topology: foreman
spout: {id: foreman, calls: true, timeout: 2s}
bolts:
  - {id: a, kind: custom, service: worker-a, from: {node: foreman, stream: call}}
  - {id: b, kind: custom, service: worker-b, from: {node: a, grouping: all}, tasks: 2, streams: {reply: [msg]}}
`

// says builds bolts that add a text to the field msg and emit it on a stream.
func says(text, stream string, work func(ctx context.Context, msg string) error) Build {
	return func(context.Context, Node) (bolt.Bolt, error) {
		return bolt.Func(func(ctx context.Context, t *tuple.Tuple, c *bolt.Collector) error {
			var in struct{ Msg string }
			if err := json.Unmarshal(t.Payload, &in); err != nil {
				return bolt.Reject(err)
			}
			if err := work(ctx, in.Msg); err != nil {
				return err
			}
			return c.EmitJSON(t, stream, map[string]string{"msg": in.Msg + text})
		}), nil
	}
}

func idle(context.Context, string) error { return nil }

// client connects somebody who calls.
func (m *mesh) client() *call.Client {
	m.t.Helper()
	conn, err := jetstream.Connect(m.t.Context(), jetstream.Options{URL: m.stack.NATSURL()})
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(conn.Close)
	return call.New(conn)
}

// TestForeman: ten calls one after the other, then ten at once, each answered by every B; A is asked once for each, and a call made again under its id is
// the same call.
func TestForeman(t *testing.T) {
	m := newMesh(t)
	var as, bs atomic.Int64
	count := func(n *atomic.Int64) func(context.Context, string) error {
		return func(context.Context, string) error { n.Add(1); return nil }
	}
	m.worker("worker-a", "a1", says(",from StreamWorkerA", "", count(&as)))
	for _, b := range []string{"b1", "b2"} {
		m.worker("worker-b", b, says(",from StreamWorkerB", "reply", count(&bs)))
	}
	stop := m.worker(topology.KindSpout, "s1", nil)
	m.apply(foremanYAML)
	c := m.client()
	ask := func(i int, id string) error {
		a, err := c.Call(t.Context(), "foreman", fmt.Appendf(nil, `{"msg":"hello%d"}`, i), call.Options{ID: id})
		if err != nil {
			return err
		}
		want := fmt.Sprintf(`{"msg":"hello%d,from StreamWorkerA,from StreamWorkerB"}`, i)
		if len(a.Replies) != 2 || string(a.Replies[0].Payload) != want || string(a.Replies[1].Payload) != want || a.Replies[0].Node != "b" {
			return fmt.Errorf("call %d: %s", i, a.Replies)
		}
		return nil
	}
	for i := range 10 {
		began := time.Now()
		if err := ask(i, ""); err != nil {
			t.Fatal(err)
		}
		t.Logf("call %d took %v", i, time.Since(began))
	}
	if as.Load() != 10 || bs.Load() != 20 {
		t.Errorf("A was called %d times and B %d, want 10 and 20", as.Load(), bs.Load())
	}
	var all sync.WaitGroup
	for i := range 10 {
		all.Go(func() {
			if err := ask(i, fmt.Sprint("again-", i)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for deadline := time.Now().Add(20 * time.Second); ; { // that the answer was taken is told on the side: until it is known, it is answered as before
		err := ask(0, "again-0")
		if errors.Is(err, call.ErrLost) {
			break
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("a call made again when its answer was taken: %v, want ErrLost", err)
		}
	}
	stop()
	m.worker(topology.KindSpout, "s2", nil)
	if err := ask(11, ""); err != nil {
		t.Fatal(err)
	}
	if as.Load() != 21 || bs.Load() != 42 {
		t.Errorf("A was called %d times and B %d, want 21 and 42", as.Load(), bs.Load())
	}
}

// TestCallFails: a rejected tuple, a deadline, a caller that gives up, and one that wants no answer.
func TestCallFails(t *testing.T) {
	m := newMesh(t)
	release, sent := make(chan struct{}), make(chan string, 1)
	m.worker("worker-a", "a1", says("", "", idle))
	m.worker("worker-b", "b1", says("", "reply", func(ctx context.Context, msg string) error {
		switch msg {
		case "bad":
			return bolt.Reject(errors.New("it is bad"))
		case "slow":
			select {
			case <-release:
			case <-ctx.Done():
				return ctx.Err()
			}
		case "sent":
			select {
			case sent <- msg:
			default:
			}
		}
		return nil
	}))
	m.worker(topology.KindSpout, "s1", nil)
	m.apply(strings.Replace(foremanYAML, "timeout: 2s", "timeout: 30s", 1))
	c := m.client()
	var failed *call.FailedError
	if _, err := c.Call(t.Context(), "foreman", json.RawMessage(`{"msg":"bad"}`), call.Options{}); !errors.As(err, &failed) || len(failed.Failures) != 2 ||
		failed.Failures[0].Node != "b" || failed.Failures[0].Worker != "b1" || !strings.Contains(err.Error(), "it is bad") {
		t.Errorf("a rejected call: %v", err)
	}
	var late *call.UnansweredError
	if _, err := c.Call(t.Context(), "foreman", json.RawMessage(`{"msg":"slow"}`), call.Options{Timeout: time.Second}); !errors.As(err, &late) ||
		len(late.Holders) == 0 || late.Holders[0].Node != "b" || late.Holders[0].Worker != "b1" {
		t.Errorf("a call that takes too long: %v", err)
	} else {
		t.Log(err)
	}
	giveUp, cancel := context.WithCancel(t.Context())
	gave := make(chan error, 1)
	go func() {
		_, err := c.Call(giveUp, "foreman", json.RawMessage(`{"msg":"slow"}`), call.Options{ID: "given-up"})
		gave <- err
	}()
	m.forgotten("foreman", "given-up", true)
	cancel()
	if err := <-gave; !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that gives up: %v", err)
	}
	m.forgotten("foreman", "given-up", false) // though the call is still worked on
	close(release)
	if _, err := c.Send(t.Context(), "foreman", json.RawMessage(`{"msg":"sent"}`), call.Options{}); err != nil {
		t.Fatal(err)
	}
	<-sent
	if _, err := c.Call(t.Context(), "foreman", json.RawMessage(`[1]`), call.Options{}); err == nil {
		t.Error("a list is taken as a call")
	}
	if _, err := c.Call(t.Context(), "nobody", json.RawMessage(`{}`), call.Options{Timeout: time.Second}); err == nil || !strings.Contains(err.Error(), "no spout takes calls") {
		t.Errorf("a topology that is not there: %v", err)
	}
}
