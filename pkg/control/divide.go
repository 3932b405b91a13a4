package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// DivideSubject is where a worker takes requests about the state of a node that it runs: a DivideRequest, answered by a DivideAnswer.
func DivideSubject(topology, node, worker string) string {
	return "bmctl." + topology + ".divide." + node + "." + worker
}

// DivideRequest asks for one of two things. Of a node at rest, to copy its state into another number of tasks, or, where that stays, to raise its floors.
// Of a node that runs, to drop what it kept under any other number.
type DivideRequest struct {
	Tasks  int                    `json:"tasks"`
	Floors map[tuple.Origin]int64 `json:"floors,omitempty"` // below them everything is processed
	Tidy   bool                   `json:"tidy,omitempty"`   // the second; Tasks is what the node has
	Entry  uint64                 `json:"entry,omitempty"`  // the revision of the topology's key: with another one nothing is dropped
}

// DivideAnswer says what was done, or why it was not.
type DivideAnswer struct {
	state.Moved
	Error string `json:"error,omitempty"`
}

// Divided is a node whose state was moved into another number of tasks.
type Divided struct {
	Node string `json:"node"`
	From int    `json:"from"`
	To   int    `json:"to"`
	state.Moved
}

// divided lists the nodes whose state a change divides anew, and refuses what cannot be done.
func divided(was, is *topology.Plan) (out []Divided, err error) {
	for _, n := range is.Nodes {
		i := slices.IndexFunc(was.Nodes, func(o topology.Node) bool { return o.ID == n.ID })
		if i < 0 || !n.Stateful || !was.Nodes[i].Stateful || was.Nodes[i].Tasks == n.Tasks {
			continue
		}
		o := &was.Nodes[i]
		alike := func(a, b topology.Edge) bool { return a.Grouping == b.Grouping && slices.Equal(a.By, b.By) }
		if o.Kind != n.Kind || !slices.Equal(o.Bolt.Group, n.Bolt.Group) || len(o.In) == 0 || len(n.In) == 0 || !alike(o.In[0], n.In[0]) {
			return nil, fmt.Errorf("the number of tasks of %s changes from %d to %d together with its kind, its group or what its edges divide by: "+
				"change the number first, by itself", n.ID, o.Tasks, n.Tasks)
		}
		if n.In[0].Grouping == topology.Custom {
			return nil, fmt.Errorf("%s cannot get another number of tasks: only the service that emits to it knows its grouping %q, by which its state is divided",
				n.ID, n.In[0].Custom)
		}
		out = append(out, Divided{Node: n.ID, From: o.Tasks, To: n.Tasks})
	}
	return out, nil
}

// divide has workers copy the state of the nodes that are divided anew, while everything rests. The floors of the other nodes with state are raised to
// where everything is processed: what they have recorded names tasks that are no more, and must not be emitted again.
func (c *change) divide(ctx context.Context, was *topology.Plan) error {
	if len(c.report.Divided) == 0 {
		return nil
	}
	floors, err := c.floors(ctx, was)
	if err != nil {
		return err
	}
	for _, n := range was.Nodes {
		if !n.Stateful {
			continue
		}
		q := DivideRequest{Tasks: n.Tasks, Floors: floors}
		i := slices.IndexFunc(c.report.Divided, func(d Divided) bool { return d.Node == n.ID })
		if i >= 0 {
			q.Tasks = c.report.Divided[i].To
		}
		a, err := c.askWorker(ctx, n.ID, c.old.Revision, q, c.withdraw)
		if err != nil {
			return fmt.Errorf("divide the state of %s: nothing was changed: %w", n.ID, err)
		}
		if i >= 0 {
			c.report.Divided[i].Moved = a.Moved
		}
	}
	return nil
}

// withdraw writes the topology's entry anew, as it is, and returns its revision: who was asked for something before must not do it any more. A worker that
// does not answer may have stood still, and go on when another one has done it and the change is made.
func (c *change) withdraw(ctx context.Context) (entry uint64, err error) {
	err = c.pausing.close(ctx, true)
	c.last = c.pausing.last
	return c.last, err
}

// floors returns those of all origins of a topology at rest. A spout that has just begun may not have told of its partitions yet: it is waited for.
func (c *change) floors(ctx context.Context, was *topology.Plan) (map[tuple.Origin]int64, error) {
	var seen []member.Member
	err := c.pausing.settle(ctx, waiting{timeout: c.options.Timeout}, func(ctx context.Context) (string, error) {
		all, err := c.members(ctx, c.name)
		if err != nil {
			return "", err
		}
		seen = slices.Collect(maps.Values(all))
		if !spouting(all) || was.Topology.Spout.Reads() && known(all) == 0 {
			return "no spout says how far everything is processed: start it", nil
		}
		return strings.Join(member.Unrest(seen, known(all), logsOf(was), c.pausing.begun), ", "), nil
	})
	c.last = c.pausing.last
	if err != nil {
		return nil, err
	}
	spout, out := was.Topology.Spout, map[tuple.Origin]int64{}
	for _, m := range seen {
		for _, k := range m.Marks {
			o := tuple.OriginOf(c.name, spout.ID, k.Topic, spout.Kafka.Incarnation, strconv.Itoa(k.Partition))
			out[o] = max(out[o], k.Floor)
		}
		for _, l := range m.Logs {
			o := tuple.OriginOf(c.name, l.Name)
			out[o] = max(out[o], l.Floor)
		}
	}
	return out, nil
}

// askWorker sends a request to a live worker that runs a node in a revision, to the next one when it refuses or dies. One that takes too long is the last
// that is asked: another would have to begin anew. entry is called before each, for the revision of the topology's key that the request names.
func (c *change) askWorker(
	ctx context.Context, node string, revision uint32, q DivideRequest, entry func(context.Context) (uint64, error),
) (a DivideAnswer, err error) {
	seen, err := c.Members(ctx, c.name)
	if err != nil {
		return a, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.options.Timeout)
	defer cancel()
	err = fmt.Errorf("no worker runs %s: start its service, which can read its state", node)
	for _, m := range seen {
		if m.Node != node || m.Leaving || m.Revision != revision {
			continue
		}
		if q.Entry, err = entry(ctx); err != nil {
			return a, err
		}
		if a, err = c.askOne(ctx, m, q); err == nil {
			return a, nil
		}
		err = fmt.Errorf("worker %s: %w", m.Worker, err)
		if ctx.Err() != nil {
			return a, fmt.Errorf("%w: it may need a longer --timeout than %s", err, c.options.Timeout)
		}
	}
	return a, err
}

// askOne waits for the answer of one worker, as long as it lives.
func (c *change) askOne(ctx context.Context, m member.Member, q DivideRequest) (a DivideAnswer, err error) {
	request, err := json.Marshal(q)
	if err != nil {
		return a, err
	}
	var answer []byte
	ctx, gone := context.WithCancelCause(ctx)
	defer gone(nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		answer, err = c.conn.Request(ctx, DivideSubject(c.name, m.Node, m.Worker), request)
	}()
	for misses := 0; ; {
		look := time.NewTimer(time.Second)
		select {
		case <-done:
			look.Stop()
			if err != nil && context.Cause(ctx) != nil {
				err = context.Cause(ctx)
			}
			if err == nil {
				err = json.Unmarshal(answer, &a)
			}
			if err == nil && a.Error != "" {
				err = errors.New(a.Error)
			}
			return a, err
		case <-look.C:
			if c.options.Tell != nil {
				c.options.Tell(fmt.Sprintf("worker %s copies the state of %s", m.Worker, m.Node))
			}
			all, err := c.members(ctx, c.name)
			if _, alive := all[member.Key(c.name, m.Node, m.Worker)]; err == nil && !alive {
				misses++
			}
			if misses > 3 { // not one that was late with a renewal
				gone(errors.New("it is gone"))
			}
		}
	}
}

// tidy has workers drop the state that divided nodes kept in their former tasks, and forgets leases and frames of tasks that are no more. What it leaves
// behind does no harm, so the change is done whether it succeeds or not.
func (c *change) tidy(ctx context.Context) {
	for _, d := range c.report.Divided {
		if err := c.tidyOne(ctx, d); err != nil {
			c.report.warn(fmt.Sprintf("what %s kept in %d tasks is still there beside what it keeps in %d: the next `boltmesh rebalance --tasks` removes it (%v)",
				d.Node, d.From, d.To, err))
		}
	}
}

func (c *change) tidyOne(ctx context.Context, d Divided) error {
	a, entry, err := c.load(ctx, c.name)
	if err != nil {
		return err
	}
	if a.Revision != c.next.Revision || a.Change != "" {
		return errors.New("the topology is being changed")
	}
	if _, err := c.askWorker(ctx, d.Node, a.Revision, DivideRequest{Tasks: d.To, Tidy: true}, func(context.Context) (uint64, error) { return entry, nil }); err != nil {
		return err
	}
	for task := d.To; task < topology.MaxTasks; task++ {
		if err := c.forget(ctx, member.OwnKey(c.name, d.Node, strconv.Itoa(task))); err != nil {
			return err
		}
	}
	return nil
}

// Divide gives a node of an applied topology another number of tasks, as Apply does when its document says so.
func (c *Control) Divide(ctx context.Context, name, node string, tasks int, o ApplyOptions) (Report, error) {
	a, err := c.Get(ctx, name)
	if err != nil {
		return Report{}, err
	}
	plan, err := a.Plan()
	if err != nil {
		return Report{}, err
	}
	i := slices.IndexFunc(plan.Nodes, func(n topology.Node) bool { return n.ID == node })
	switch {
	case i < 0:
		return Report{}, fmt.Errorf("%s has no node %s", name, node)
	case plan.Nodes[i].Bolt == nil:
		return Report{}, fmt.Errorf("%s is no bolt: the spout has as many tasks as its topics have partitions, and output takes `tasks` from the file", node)
	case tasks < 1 || tasks > topology.MaxTasks:
		return Report{}, fmt.Errorf("%d tasks: a node has 1 to %d", tasks, topology.MaxTasks)
	}
	next := a.Topology
	if plan.Nodes[i].Tasks != tasks {
		if next, err = next.WithTasks(node, tasks); err != nil {
			return Report{}, err
		}
	}
	report, err := c.Apply(ctx, next, o)
	if err == nil && report.Unchanged && plan.Nodes[i].Stateful { // an earlier one may have been interrupted before its end
		if o.Timeout <= 0 {
			o.Timeout = DefaultTimeout
		}
		again := change{Control: c, name: name, next: a, options: o, report: &Report{Divided: []Divided{{Node: node, From: tasks, To: tasks}}}}
		again.tidy(ctx)
	}
	return report, err
}
