package service

import (
	"context"
	"sync"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// customYAML has as many tasks as there are devices in the test, so that one worker closes several bolts.
const customYAML = `
topology: tally
spout: {id: in, kafka: {topics: [readings]}, timeout: 5s}
bolts:
  - {id: count, kind: custom, service: tally, from: in, group: device, tasks: 4, every: 100ms}
`

// lives is what the bolts of a service have been through, by task.
type lives struct {
	mu     sync.Mutex
	built  map[int32]int
	closed map[int32]int
	ticks  map[string]int // by group
}

// living is a bolt of a user's own with all that one can have: state, ticks, Close.
type living struct {
	*bolt.Keyed[int]
	close func() error
}

func (l living) Close() error { return l.close() }

func (l *lives) build(_ context.Context, n Node) (bolt.Bolt, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.built[n.Task]++
	return living{
		Keyed: &bolt.Keyed[int]{
			GroupBy: n.Group,
			Update: func(_ context.Context, _ *tuple.Tuple, n *int, _ *bolt.Collector) error {
				*n++
				return nil
			},
			Output: func(_ context.Context, _ bolt.Tick, group string, _ *int, c *bolt.Collector) error {
				l.mu.Lock()
				defer l.mu.Unlock()
				l.ticks[group]++
				c.Wake(0)
				return nil
			},
		},
		close: func() error {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.closed[n.Task]++
			return nil
		},
	}, nil
}

// TestCustomTicksAndClose: a bolt of a user's own gets ticks at its interval while no reading comes and the watermark stays where it is, and each task's
// bolt is closed once when its worker stops.
func TestCustomTicksAndClose(t *testing.T) {
	m := newMesh(t)
	l := &lives{built: map[int32]int{}, closed: map[int32]int{}, ticks: map[string]int{}}
	m.worker(topology.KindSpout, "s1", nil)
	stop := m.worker("tally", "t1", l.build)
	m.apply(customYAML)
	m.source.add(0, `{}`)
	m.source.add(1, `{}`)
	m.until("every reading is processed", m.source.done)
	m.until("each group has had five ticks, of which at most two are the watermark's", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.ticks["d0"] >= 5 && l.ticks["d1"] >= 5
	})
	l.mu.Lock()
	if len(l.built) != 4 || len(l.closed) != 0 {
		t.Errorf("built %v, closed %v while the worker runs", l.built, l.closed)
	}
	l.mu.Unlock()
	stop()
	for task := range int32(4) {
		if l.built[task] != 1 || l.closed[task] != 1 {
			t.Errorf("task %d: built %d times, closed %d times", task, l.built[task], l.closed[task])
		}
	}
}
