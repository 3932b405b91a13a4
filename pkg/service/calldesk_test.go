package service

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/call"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// full is a store that takes nothing in.
type full struct{ state.Logs }

func (full) AppendOnce(context.Context, string, string, string, []byte) (int64, bool, error) {
	return 0, false, errors.New("the disk is full")
}

// TestDeskTakes: of a call that cannot be taken nothing stays.
func TestDeskTakes(t *testing.T) {
	plan := &topology.Plan{Topology: &topology.Topology{Name: "x"}}
	d := &desk{host: &host{Worker: &Worker{Logs: full{}}, plan: plan}, callers: map[string]*caller{}}
	for id, why := range map[string]string{"": "give it 1 to 128", strings.Repeat("x", 129): "give it 1 to 128", "fine": "the disk is full"} {
		if _, err := d.take(t.Context(), call.Request{ID: id, Payload: json.RawMessage(`{}`), Inbox: "somewhere"}); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("id %q: %v, want that %s", id, err, why)
		}
	}
	if len(d.callers) != 0 {
		t.Errorf("%d callers stay", len(d.callers))
	}
}

// TestAnswersExpire: an answer that nobody confirms stays for a minute, though no other comes; those that take too much room go before.
func TestAnswersExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{callers: map[string]*caller{}}
		d.done(spout.Outcome{ID: "a", Replies: []spout.Reply{{Node: "b", Payload: json.RawMessage(`{}`)}}})
		time.Sleep(keepAnswers - time.Second)
		synctest.Wait()
		d.mu.Lock()
		if d.callers["a"] == nil {
			t.Error("an answer goes before its time")
		}
		d.mu.Unlock()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		d.mu.Lock()
		if len(d.callers) != 0 || len(d.order) != 0 || d.bytes != 0 {
			t.Errorf("%d callers, %d answers, %d bytes stay", len(d.callers), len(d.order), d.bytes)
		}
		d.mu.Unlock()
		large := []spout.Reply{}
		for range 40 {
			large = append(large, spout.Reply{Node: "b", Payload: json.RawMessage(`{"x":"` + strings.Repeat("x", tuple.MaxPayload-8) + `"}`)})
		}
		d.done(spout.Outcome{ID: "b", Replies: large})
		d.done(spout.Outcome{ID: "c", Replies: large})
		d.mu.Lock()
		if d.callers["b"] != nil || d.callers["c"] == nil {
			t.Error("the older one of two large answers is to go")
		}
		d.mu.Unlock()
		d.forget("c")
	})
}

// TestLargestCall: the largest question is answered as it is, though an encoder of JSON would make six bytes of each of its characters; a tuple that
// fails with more text than a message holds fails with the beginning of it.
func TestLargestCall(t *testing.T) {
	m := newMesh(t)
	m.worker("worker-a", "a1", func(context.Context, Node) (bolt.Bolt, error) {
		return bolt.Func(func(_ context.Context, in *tuple.Tuple, c *bolt.Collector) error {
			if strings.HasPrefix(string(in.Payload), `{"bad`) {
				return bolt.Reject(errors.New(strings.Repeat("bad ", 1<<20)))
			}
			c.Emit(bolt.Emission{Stream: "reply", Key: in.Key, Time: in.Time, Payload: in.Payload})
			return nil
		}), nil
	})
	m.worker(topology.KindSpout, "s1", nil)
	m.apply(`
topology: echo
spout: {id: ask, calls: true, timeout: 20s}
bolts:
  - {id: a, kind: custom, service: worker-a, from: {node: ask, stream: call}, streams: {reply: [x]}}
`)
	c := m.client()
	question := json.RawMessage(`{"x":"` + strings.Repeat("<", tuple.MaxPayload-8) + `"}`)
	a, err := c.Call(t.Context(), "echo", question, call.Options{})
	if err != nil || len(a.Replies) != 1 || string(a.Replies[0].Payload) != string(question) {
		t.Errorf("%.200v: %d replies", err, len(a.Replies))
	}
	var failed *call.FailedError
	if _, err := c.Call(t.Context(), "echo", json.RawMessage(`{"bad":1}`), call.Options{}); !errors.As(err, &failed) || len(failed.Failures) != 1 || len(failed.Failures[0].Error) > tuple.MaxError {
		t.Errorf("%.200v", err)
	}
}

// forgotten waits until the owner of a topology's calls knows of nobody who waits for a call.
func (m *mesh) forgotten(name, id string, still bool) {
	m.t.Helper()
	conn, err := jetstream.Connect(m.t.Context(), jetstream.Options{URL: m.stack.NATSURL()})
	if err != nil {
		m.t.Fatal(err)
	}
	defer conn.Close()
	ask, err := json.Marshal(call.Request{Op: call.OpWho, ID: id})
	if err != nil {
		m.t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		var said call.Taken
		answer, err := conn.Request(m.t.Context(), call.Subject(name), ask)
		if err == nil {
			err = json.Unmarshal(answer, &said)
		}
		if err == nil && (said.Position > 0) == still {
			return
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("call %s: %+v (%v), want one that somebody waits for: %v", id, said, err, still)
		}
	}
}
