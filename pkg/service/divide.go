package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/partition"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// separator divides the parts of a group of several fields, as KeyOf writes it.
const separator = "\x1f"

// tasksIn names the node's tasks under a number of them.
func (h *host) tasksIn(tasks int) (out []state.Task) {
	for i := range int32(tasks) {
		out = append(out, state.TaskOf(h.plan.Topology.Name, h.node.ID, tasks, i))
	}
	return out
}

// consumer is the epoch by which a task's consumer is named. Under another number of tasks epochs begin anew, and a former owner must not find a consumer
// under the name of its own.
func (h *host) consumer(epoch uint64) uint64 {
	if h.node.Stateful {
		return uint64(h.node.Tasks)<<40 | epoch
	}
	return epoch
}

// placeOf returns the function that says in which of a stateful node's tasks a group is: the router's, by what its edges divide by.
func placeOf(n *topology.Node, tasks int) (func(group string) (int, error), error) {
	if len(n.In) == 0 || n.Bolt == nil || !n.Stateful {
		return nil, errors.New("it keeps no state")
	}
	e := &n.In[0] // all edges into a stateful node divide alike
	if e.Grouping == topology.Global {
		return func(string) (int, error) { return int(partition.Task("all", tasks)), nil }, nil
	}
	if e.Grouping != topology.Fields {
		return nil, fmt.Errorf("only the emitting service knows its grouping %s", e.Grouping)
	}
	if n.Bolt.Stage == topology.StageFirst { // a share of a group is called by the task that it began in: any task can have it that no other has
		return func(g string) (int, error) {
			number, _, _ := strings.Cut(g, separator)
			task, err := strconv.Atoi(number)
			return task % tasks, err
		}, nil
	}
	group := n.Bolt.Group
	if len(group) == 0 {
		group = []string{"device"}
	}
	if slices.Equal(group, e.By) {
		return func(g string) (int, error) { return int(partition.Task(g, tasks)), nil }, nil
	}
	return func(g string) (int, error) {
		parts := strings.Split(g, separator)
		if len(parts) != len(group) {
			return 0, fmt.Errorf("a value in it holds the separator U+001F, so its task cannot be told")
		}
		key := make([]string, len(e.By))
		for i, field := range e.By {
			at := slices.Index(group, field)
			if at < 0 {
				return 0, fmt.Errorf("%s is not part of it", field)
			}
			key[i] = parts[at]
		}
		return int(partition.Task(strings.Join(key, separator), tasks)), nil
	}, nil
}

// answerDivide takes requests to copy the node's state into another number of tasks, one at a time, until stop is called, which waits for the last.
func (h *host) answerDivide() (stop func(), err error) {
	if !h.node.Stateful {
		return func() {}, nil
	}
	var one sync.Mutex
	ctx, cancel := context.WithCancel(h.hard)
	unserve, err := h.Conn.Serve(control.DivideSubject(h.plan.Topology.Name, h.node.ID, h.Name), func(request []byte) []byte {
		one.Lock()
		defer one.Unlock()
		var a control.DivideAnswer
		var q control.DivideRequest
		err := json.Unmarshal(request, &q)
		switch {
		case err != nil:
		case q.Tasks < 1 || q.Tasks > topology.MaxTasks:
			err = fmt.Errorf("%d tasks", q.Tasks)
		case q.Tidy:
			err = h.tidy(ctx, q)
		case q.Tasks == h.node.Tasks:
			err = state.RaiseFloors(ctx, h.Store, h.tasksIn(q.Tasks), q.Floors)
		default:
			a.Moved, err = h.divide(ctx, q)
		}
		if err != nil {
			h.failed(h.at(), "divide the state", err)
			a.Error = err.Error()
		}
		answer, err := json.Marshal(a)
		if err != nil {
			h.failed(h.at(), "answer", err)
		}
		return answer
	})
	if err != nil {
		cancel()
		return nil, err
	}
	return func() {
		unserve()
		cancel()
		one.Lock() // until the last is answered
		defer one.Unlock()
	}, nil
}

// divide copies the state of the node, which is at rest, into another number of tasks. Nobody reads these before the revision is switched.
func (h *host) divide(ctx context.Context, q control.DivideRequest) (state.Moved, error) {
	if !h.told().paused {
		return state.Moved{}, errors.New("the topology is not paused")
	}
	place, err := placeOf(&h.node, q.Tasks)
	if err != nil {
		return state.Moved{}, err
	}
	b, err := h.build(ctx, tuple.Shared)
	if err != nil {
		return state.Moved{}, fmt.Errorf("build: %w", err)
	}
	defer h.close(bolt.Options{Where: h.at(), Bolt: b})
	of, ok := b.(bolt.Divisible)
	if !ok {
		return state.Moved{}, fmt.Errorf("the service %s does not tell whose its keys are (bolt.Divisible), so its state cannot be divided anew", h.node.Service)
	}
	group := bolt.Groups(of)
	m, err := state.Move{
		From: h.tasksIn(h.node.Tasks), To: h.tasksIn(q.Tasks), Group: place, Floors: q.Floors, Still: h.still(q),
		Key: func(key string) (int, error) {
			g, ok := group(key)
			if !ok {
				return 0, errors.New("the bolt does not know it")
			}
			return place(g)
		},
	}.Run(ctx, h.Store)
	if err == nil {
		h.Sink.Emit(trace.Changed{Where: h.at(), What: fmt.Sprintf("state copied into %d tasks", q.Tasks), Revision: h.revision})
	}
	return m, err
}

// tidy drops what the node kept under other numbers of tasks than the one that it has. Somebody may be about to give it one of these: whoever changes a
// topology begins by writing its entry.
func (h *host) tidy(ctx context.Context, q control.DivideRequest) error {
	if q.Tasks != h.node.Tasks {
		return fmt.Errorf("it has %d tasks here, not %d", h.node.Tasks, q.Tasks)
	}
	var left []state.Task
	for n := 1; n <= topology.MaxTasks; n++ {
		if n != q.Tasks {
			left = append(left, h.tasksIn(n)...)
		}
	}
	return state.Tidy(ctx, h.Store, left, h.still(q))
}

// still returns the function that says, by an error, that the topology's entry is not the one that a request names any more: somebody else was asked, or it is
// being changed, or has been.
func (h *host) still(q control.DivideRequest) func(context.Context) error {
	return func(ctx context.Context) error {
		bucket, err := h.Conn.Topologies(ctx)
		if err != nil {
			return err
		}
		e, err := bucket.Load(ctx, h.plan.Topology.Name)
		if err != nil {
			return err
		}
		if e.Revision != q.Entry {
			return fmt.Errorf("the topology has been changed meanwhile (its key is at revision %d, the request names %d)", e.Revision, q.Entry)
		}
		return nil
	}
}
