package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/call"
	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/tests/servers"
)

// TestCompetingCalls: 15 tasks of 3 s over 3 workers, 5 each, then over 5 workers, 3 each; again while one of them is killed, and another joins; a message
// for three of them.
func TestCompetingCalls(t *testing.T) {
	t.Parallel() // with TestBackPressure: both mostly wait
	c := startCalled(t)
	workers := map[string]*servers.Process{}
	join := func(names ...string) {
		for _, name := range names {
			workers[name] = c.worker("foreman-b", name, "--fetch-frames", "1")
		}
	}
	join("b1", "b2", "b3")
	c.cli("apply", "testdata/tasks.yaml", "testdata/three.yaml")
	for _, round := range []int{3, 5} {
		if round == 5 {
			join("b4", "b5")
		}
		c.owners("tasks", "b", slices.Sorted(maps.Keys(workers))...)
		n := tally{called: c, by: map[string]int{}, first: map[string]time.Time{}}
		took := n.all(func() bool { return false })
		each, least := 15/round, time.Duration(15/round)*3*time.Second
		t.Logf("15 tasks of 3 s over %d workers took %v: %v", round, took.Round(time.Millisecond), n.by)
		if len(n.by) != round || slices.Max(slices.Collect(maps.Values(n.by))) > each || took < least || took > least+busy {
			t.Errorf("%v by %v, want %d by each of %d in %v, and not %v more", took, n.by, each, round, least, busy)
		}
	}
	c.three()

	// From here on there is always more to do than there are workers, until the one that joins has done something.
	time.AfterFunc(time.Second, workers["b1"].Kill)
	n := tally{called: c, by: map[string]int{}, first: map[string]time.Time{}}
	came := make(chan time.Time, 1)
	var joined sync.WaitGroup
	joined.Go(func() {
		c.worker("foreman-b", "b6", "--fetch-frames", "1")
		came <- time.Now()
	})
	began := time.Now()
	took := n.all(func() bool { return n.first["b6"].IsZero() && time.Since(began) < time.Minute })
	joined.Wait()
	waited := n.first["b6"].Sub(<-came)
	t.Logf("with one killed and one that joined: %v, %v: the first of b6 came %v after it was up", took.Round(time.Millisecond), n.by, waited.Round(time.Millisecond))
	if n.by["b1"] > 0 || n.by["b6"] == 0 || waited > 3*time.Second+busy {
		t.Errorf("%v, want none by b1, which was killed at its first, and some by b6, which joined, the first within %v", n.by, 3*time.Second+busy)
	}
	c.three()
}

// busy is what a machine that has other work may add.
const busy = 5 * time.Second

// tally counts who has done how many of the tasks.
type tally struct {
	*called
	mu    sync.Mutex
	by    map[string]int
	first map[string]time.Time // when each had done its first
}

// all has 15 tasks done, and each of the callers another one for as long as more says so. It returns how long that took.
func (n *tally) all(more func() bool) time.Duration {
	began := time.Now()
	var calls sync.WaitGroup
	for i := range 15 {
		calls.Go(func() {
			for again := true; again; {
				worker, err := n.task(i)
				n.mu.Lock()
				if err != nil {
					n.Error(err)
				} else if n.by[worker]++; n.by[worker] == 1 {
					n.first[worker] = time.Now()
				}
				again = err == nil && more()
				n.mu.Unlock()
			}
		})
	}
	calls.Wait()
	return time.Since(began)
}

// task has one done and returns who has done it.
func (n *tally) task(i int) (worker string, err error) {
	a, err := n.Call(n.Context(), "tasks", fmt.Appendf(nil, `{"msg":"task %d"}`, i), call.Options{Timeout: time.Minute})
	if err != nil {
		return "", err
	}
	var r struct{ Worker, Msg string }
	if len(a.Replies) == 1 {
		err = json.Unmarshal(a.Replies[0].Payload, &r)
	}
	if err != nil || r.Msg != fmt.Sprintf("task %d,from StreamWorkerB", i) {
		return "", fmt.Errorf("task %d: %s (%w)", i, a.Replies, err)
	}
	return r.Worker, nil
}

// three asks three of the workers, once they are three.
func (c *called) three() {
	c.Helper()
	c.until("three workers own a task each", "three", func(ms []member.Member) bool {
		have := map[int32]string{}
		for _, m := range ms {
			if m.Node == "b" && len(m.Tasks) == 1 {
				have[m.Tasks[0]] = m.Worker
			}
			if len(m.Tasks) > 1 {
				return false
			}
		}
		return len(have) == 3
	})
	a, err := c.Call(c.Context(), "three", json.RawMessage(`{"msg":"x"}`), call.Options{Timeout: 30 * time.Second})
	if err != nil {
		c.Fatal(err)
	}
	if len(a.Replies) != 3 {
		c.Errorf("%d replies, want 3: %s", len(a.Replies), a.Replies)
	}
	for i, r := range a.Replies {
		if want := fmt.Sprintf(`{"msg":"x,from StreamWorkerB","worker":"B%d"}`, i+1); string(r.Payload) != want {
			c.Errorf("reply %d: %s, want %s", i, r.Payload, want)
		}
	}
}
