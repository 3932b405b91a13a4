package service

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/call"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// askingYAML is a topology whose node a calls another, workersYAML, where each task of b answers.
const (
	askingYAML = `
topology: asking
spout: {id: asking, calls: true, timeout: 20s}
bolts:
  - {id: a, kind: custom, service: worker-a, from: {node: asking, stream: call}, streams: {reply: [all]}, retry: {attempts: 2, backoff: 10ms}}
`
	workersYAML = `
topology: workers
spout: {id: workers, calls: true, timeout: 20s}
bolts:
  - {id: b, kind: custom, service: worker-b, from: {node: workers, stream: call, grouping: all}, tasks: 2, streams: {reply: [msg]}}
`
)

// asks builds bolts that call workers and answer with all that these have answered.
func asks(after func(context.Context) error) Build {
	return func(_ context.Context, n Node) (bolt.Bolt, error) {
		return bolt.Func(func(ctx context.Context, t *tuple.Tuple, c *bolt.Collector) error {
			a, err := n.Call(ctx, t, "workers", json.RawMessage(t.Payload))
			if err != nil {
				return err
			}
			if err := after(ctx); err != nil {
				return err
			}
			var all []json.RawMessage
			for _, r := range a.Replies {
				all = append(all, r.Payload)
			}
			return c.EmitJSON(t, "reply", map[string]any{"all": all})
		}), nil
	}
}

// TestCallInBolt: a bolt calls and answers with what it has collected. Made again for the same tuple it is the same call, answered or not: nobody works twice.
// What fails in the topology that is called fails in the one that calls, and says where.
func TestCallInBolt(t *testing.T) {
	m := newMesh(t)
	var crash atomic.Bool
	var asked sync.Map // by message: how often b was
	release := make(chan struct{})
	m.worker("worker-a", "a1", asks(func(context.Context) error {
		if crash.CompareAndSwap(true, false) {
			return errors.New("something else fails when the answer is there")
		}
		return nil
	}))
	m.worker("worker-b", "b1", says("!", "reply", func(ctx context.Context, msg string) error {
		n, _ := asked.LoadOrStore(msg, &atomic.Int64{})
		n.(*atomic.Int64).Add(1)
		switch msg {
		case "bad":
			return bolt.Reject(errors.New("it is bad"))
		case "slow":
			select {
			case <-release:
			case <-ctx.Done():
			}
		}
		return ctx.Err()
	}))
	m.worker(topology.KindSpout, "s1", nil)
	m.apply(workersYAML)
	m.apply(askingYAML)
	c := m.client()
	ask := func(msg string) (string, error) {
		a, err := c.Call(t.Context(), "asking", json.RawMessage(`{"msg":"`+msg+`"}`), call.Options{})
		if err != nil {
			return "", err
		}
		if len(a.Replies) != 1 {
			t.Errorf("%d replies of a, want 1", len(a.Replies))
			return "", nil
		}
		return string(a.Replies[0].Payload), nil
	}
	times := func(msg string) int64 {
		n, _ := asked.LoadOrStore(msg, &atomic.Int64{})
		return n.(*atomic.Int64).Load()
	}
	want := func(msg string) {
		t.Helper()
		if got, err := ask(msg); err != nil || got != `{"all":[{"msg":"`+msg+`!"},{"msg":"`+msg+`!"}]}` || times(msg) != 2 {
			t.Errorf("%s: %s, %v; b was asked %d times", msg, got, err, times(msg))
		}
	}
	want("hello")
	crash.Store(true)
	want("again") // the second attempt finds the answer of the first one's call
	if crash.Load() {
		t.Error("the first attempt was none")
	}
	var failed *call.FailedError
	if _, err := ask("bad"); !errors.As(err, &failed) || failed.Failures[0].Node != "a" || !strings.Contains(err.Error(), "node b on worker b1: it is bad") {
		t.Errorf("a call in a call fails: %v", err)
	}
	time.AfterFunc(11*time.Second, func() { close(release) }) // longer than a frame may be held without a word
	want("slow")
}

// TestNobodyToCall: where a node cannot call, its tuple says so as a dead letter; it does not wait.
func TestNobodyToCall(t *testing.T) {
	in := &tuple.Tuple{Payload: []byte(`{}`)}
	for what, n := range map[string]Node{
		"there is nobody to call here": {Node: topology.Node{ID: "a"}},
		"keeps state":                  {Node: topology.Node{ID: "a", Stateful: true}, asking: &asking{}},
		"a JSON object is wanted":      {Node: topology.Node{ID: "a"}, asking: &asking{}},
	} {
		if _, err := n.Call(t.Context(), in, "workers", 7); !bolt.IsReject(err) || !strings.Contains(err.Error(), what) {
			t.Errorf("%v, want that it %s", err, what)
		}
	}
}
