package service

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

const groupingsYAML = `
topology: tally
spout: {id: in, kafka: {topics: [readings]}, timeout: 5s}
bolts:
  - {id: one, kind: custom, service: words, from: {node: in, grouping: none}}
  - {id: two, kind: custom, service: words, from: {node: one, grouping: local_or_shuffle}}
  - {id: named, kind: custom, service: words, tasks: 3, from: {node: two, grouping: direct}}
  - {id: count, kind: custom, service: tally, tasks: 4, group: device, from: {node: two, grouping: {custom: by-number}}}
`

// words appends three exclamation marks, at one and two; two's tuples go to the task that the number in their key names.
type words struct {
	node string
	got  func(node, word, key string)
}

func (w words) Execute(_ context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	var x struct{ Word string }
	if err := json.Unmarshal(t.Payload, &x); err != nil {
		return bolt.Reject(err)
	}
	if w.node == "two" && strings.HasPrefix(x.Word, "bad") {
		return bolt.Reject(fmt.Errorf("no word"))
	}
	w.got(w.node, x.Word, t.Key)
	if w.node == "named" {
		return nil
	}
	e := bolt.Emission{Key: t.Key, Payload: fmt.Appendf(nil, `{"word":%q}`, x.Word+"!!!")}
	var n int32
	if _, err := fmt.Sscanf(t.Key, "d%d", &n); err != nil {
		return err
	}
	c.EmitTo(n%3, e)
	return nil
}

func (words) Grouping(name string) (bolt.Grouping, bool) {
	return func(key string, tasks int32) int32 {
		var n int32
		_, _ = fmt.Sscanf(key, "d%d", &n)
		return n
	}, name == "by-number"
}

// TestGroupings runs none, local_or_shuffle, direct and custom between a user's own nodes: the exclamation topology in one worker process, and beside one
// that runs its second node alone and so gets it over the wire.
func TestGroupings(t *testing.T) {
	for name, nodes := range map[string][][]string{
		"one worker": {nil}, "two workers": {nil, nil}, "each node by itself": {{"one"}, {"two"}, {"named"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMesh(t)
			var mu sync.Mutex
			got := map[string]int{}
			count := func(node, word, key string) {
				mu.Lock()
				defer mu.Unlock()
				got[node+" "+word+" "+key]++
			}
			m.worker("spout", "s1", nil)
			for i, only := range nodes {
				m.workerOf("words", fmt.Sprint("w", i), only, func(_ context.Context, n Node) (bolt.Bolt, error) { return words{n.ID, count}, nil })
			}
			m.worker("tally", "t1", func(context.Context, Node) (bolt.Bolt, error) { return &tally{}, nil })
			m.apply(groupingsYAML)
			const devices, rounds = 6, 50
			for round := range rounds {
				for d := range devices {
					m.source.add(d, fmt.Sprintf(`{"word":"word%d"}`, round))
				}
			}
			for range devices {
				m.source.add(0, `{"word":"bad"}`)
			}
			m.until("everything is processed", m.source.done)
			mu.Lock()
			defer mu.Unlock()
			for round := range rounds {
				for d := range devices {
					if n := got[fmt.Sprintf("named word%d!!!!!! d%d", round, d)]; n != 1 {
						t.Errorf("word%d of d%d arrived %d times", round, d, n)
					}
				}
			}
			if n := m.total(); n != devices*rounds {
				t.Errorf("counted %d, want %d", n, devices*rounds)
			}
			checkTasks(t, m)
			checkChain(t, m, devices*rounds, devices, name == "each node by itself")
		})
	}
}

// checkTasks: tasks are where the keys' numbers say.
func checkTasks(t *testing.T, m *mesh) {
	t.Helper()
	tuples := map[string]int{}
	for _, e := range seen[trace.Stepped](m) {
		tuples[fmt.Sprint(e.Node, e.Task)] += e.Acked
	}
	for task, want := range map[string]int{"named0": 100, "named1": 100, "named2": 100, "count0": 100, "count1": 100, "count2": 50, "count3": 50} {
		if tuples[task] != want {
			t.Errorf("%s handled %d tuples, want %d", task, tuples[task], want)
		}
	}
}

// checkChain: the second node's tuples came without frames where both nodes were in one worker; either way its counts and letters are its own.
func checkChain(t *testing.T, m *mesh, words, bad int, wire bool) {
	t.Helper()
	var frames, acked, lettered int
	for _, e := range seen[trace.Stepped](m) {
		if e.Node == "two" {
			frames, acked, lettered = frames+e.Frames, acked+e.Acked, lettered+e.DeadLettered
		}
	}
	if acked != words || lettered != bad || frames > 0 != wire {
		t.Errorf("two: %d frames, %d acked, %d dead-lettered", frames, acked, lettered)
	}
	leases := m.leases()
	m.until("the leases tell", func() bool {
		in := int64(0)
		for i := range 3 {
			if e, err := leases.Load(t.Context(), member.Key("tally", "two", fmt.Sprint("w", i))); err == nil {
				var x member.Member
				if err := json.Unmarshal(e.Value, &x); err != nil {
					t.Fatal(err)
				}
				in += x.In
			}
		}
		return in == int64(words+bad)
	})
}

// TestWayBackOfDividedTuples: a letter of an edge that only the emitting service can divide goes to the task where it failed.
func TestWayBackOfDividedTuples(t *testing.T) {
	top, problems := topology.Parse("t.yaml", []byte(groupingsYAML), topology.Options{})
	if problems != nil {
		t.Fatal(problems)
	}
	plan, err := top.Plan()
	if err != nil {
		t.Fatal(err)
	}
	for node, tasks := range map[string]int32{"named": 3, "count": 4} {
		l := &tuple.Letter{Node: node, Source: "two", Stream: tuple.DefaultStream, Task: tasks - 1}
		if e, err := wayBack(plan, l); err != nil || !e.Direct || e.Task != tasks-1 || e.Custom != "" || e.Named {
			t.Errorf("%s: %+v, %v", node, e, err)
		}
		l.Task = tasks // before the node was given fewer
		if e, err := wayBack(plan, l); err == nil {
			t.Errorf("%s: %+v", node, e)
		}
	}
	l := &tuple.Letter{Node: "two", Source: "one", Stream: tuple.DefaultStream, Task: tuple.Shared} // rejected in a loop of one
	if e, err := wayBack(plan, l); err != nil || !e.Shared {
		t.Errorf("%+v, %v", e, err)
	}
}
