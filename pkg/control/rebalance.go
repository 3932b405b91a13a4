package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/partition"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// RebalanceOptions say what is rebalanced. The zero value rebalances every node, after looking at it for DefaultWindow.
type RebalanceOptions struct {
	Node    string        // "": every node whose tasks have owners
	Window  time.Duration // for how long the load of the tasks is measured
	DryRun  bool          // only say what would move
	Timeout time.Duration // of the wait until everything has moved; default DefaultTimeout
}

// DefaultWindow is for how long Rebalance measures: leases tell once a second.
const DefaultWindow = 5 * time.Second

// Balance is what Rebalance has found and done at one node.
type Balance struct {
	Node   string        `json:"node"`
	Moves  []Move        `json:"moves"`
	Before []WorkersLoad `json:"before"`
	After  []WorkersLoad `json:"after"` // as it would be with the load that was measured
}

// Move is one task that changes hands.
type Move struct {
	Task int32   `json:"task"`
	From string  `json:"from"`
	To   string  `json:"to"`
	Load float64 `json:"load"`           // tuples a second
	Late bool    `json:"late,omitempty"` // it had not arrived when the time was over
}

// WorkersLoad is what one worker has of a node.
type WorkersLoad struct {
	Worker string  `json:"worker"`
	Tasks  int     `json:"tasks"`
	Load   float64 `json:"load"` // tuples a second
}

// Rebalance measures what each task has to do and moves tasks between the live workers so that it is even, as far as few moves go. A task moves as it
// does when a worker joins: its owner finishes its batch and releases it, and the next takes it at once.
func (c *Control) Rebalance(ctx context.Context, name string, o RebalanceOptions) ([]Balance, error) {
	if o.Window <= 0 {
		o.Window = DefaultWindow
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	a, err := c.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	plan, err := a.Plan()
	if err != nil {
		return nil, err
	}
	nodes, err := owned(plan, o.Node)
	if err != nil {
		return nil, err
	}
	first, err := c.Members(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := wait(ctx, o.Window); err != nil {
		return nil, err
	}
	second, err := c.Members(ctx, name)
	if err != nil {
		return nil, err
	}
	out := []Balance{}
	for _, n := range nodes {
		r := rebalance{Control: c, topology: name, node: n.ID, alive: second, workers: member.Candidates(n.ID, second), loads: make([]float64, n.Tasks)}
		for t := range r.loads {
			r.loads[t] = rate(ownerOf(n.ID, int32(t), first), ownerOf(n.ID, int32(t), second), o.Window, time.Now())
		}
		b, err := r.run(ctx, o)
		if err != nil {
			return out, err
		}
		out = append(out, b)
	}
	return out, nil
}

// owned lists the nodes whose tasks have owners.
func owned(plan *topology.Plan, only string) (nodes []topology.Node, err error) {
	var names []string
	for _, n := range plan.Nodes {
		if n.Kind == topology.KindSpout || n.Shared {
			continue
		}
		names = append(names, n.ID)
		if only == "" || n.ID == only {
			nodes = append(nodes, n)
		}
	}
	if only != "" && len(nodes) == 0 {
		return nil, fmt.Errorf("no node %s has tasks with owners: those that do are %s", only, strings.Join(names, ", "))
	}
	return nodes, nil
}

// rate is how many tuples a second a task handles: between two looks or, where it has changed hands since the first, since then.
func rate(before, after Ownership, window time.Duration, now time.Time) float64 {
	if before.Epoch == after.Epoch {
		return float64(max(0, after.In-before.In)) / window.Seconds()
	}
	if since := now.Sub(time.UnixMilli(after.Since)); since > time.Second {
		return float64(after.In) / since.Seconds()
	}
	return 0
}

// rebalance is that of one node.
type rebalance struct {
	*Control
	topology, node string
	alive          []member.Member
	workers        []string
	loads          []float64 // by task
	owners         []string  // by task
}

func (r *rebalance) run(ctx context.Context, o RebalanceOptions) (Balance, error) {
	b := Balance{Node: r.node, Moves: []Move{}, Before: []WorkersLoad{}, After: []WorkersLoad{}}
	if len(r.workers) == 0 {
		return b, nil
	}
	if err := r.look(ctx); err != nil {
		return b, err
	}
	target := partition.Even(r.node, r.owners, r.workers, r.loads)
	b.Before, b.After = r.sum(r.owners), r.sum(target)
	for task, to := range target {
		if from := r.owners[task]; from != to && slices.Contains(r.workers, from) { // of a task that nobody has, there is nothing to move
			b.Moves = append(b.Moves, Move{Task: int32(task), From: from, To: to, Load: r.loads[task]})
		}
	}
	if o.DryRun || len(b.Moves) == 0 {
		return b, nil
	}
	if err := r.write(ctx, target); err != nil {
		return b, err
	}
	return b, r.await(ctx, b.Moves, o.Timeout)
}

// write tells the workers, all moves at once: between two of them the tasks would not be divided evenly, and the workers would mend that.
func (r *rebalance) write(ctx context.Context, target []string) error {
	d := member.Division{Workers: map[string]int64{}, Tasks: target}
	for _, m := range r.alive {
		if slices.Contains(r.workers, m.Worker) && m.Node == r.node {
			d.Workers[m.Worker] = m.Since
		}
	}
	value, err := json.Marshal(d)
	if err != nil {
		return err
	}
	key := member.DivisionKey(r.topology, r.node)
	e, err := r.leases.Load(ctx, key)
	if err != nil && !errors.Is(err, jetstream.ErrNotFound) {
		return err
	}
	_, err = r.leases.Store(ctx, key, value, e.Revision, 0)
	return err
}

func (r *rebalance) key(task int) string { return member.OwnKey(r.topology, r.node, fmt.Sprint(task)) }

// look reads the claims.
func (r *rebalance) look(ctx context.Context) error {
	r.owners = make([]string, len(r.loads))
	for task := range r.owners {
		e, err := r.leases.Load(ctx, r.key(task))
		if err != nil && !errors.Is(err, jetstream.ErrNotFound) {
			return err
		}
		r.owners[task] = string(e.Value)
	}
	return nil
}

// await waits until every task has arrived, and marks those that have not.
func (r *rebalance) await(ctx context.Context, moves []Move, timeout time.Duration) error {
	err := r.until(ctx, timeout, func() (string, error) {
		missing := ""
		for i := range moves {
			e, err := r.leases.Load(ctx, r.key(int(moves[i].Task)))
			if err != nil && !errors.Is(err, jetstream.ErrNotFound) {
				return "", err
			}
			// Also when it has gone to somebody else meanwhile: then a worker has left, and this is over.
			owner := string(e.Value)
			if moves[i].Late = owner == moves[i].From || owner == ""; moves[i].Late {
				missing = fmt.Sprintf("task %d of %s has not moved to %s", moves[i].Task, r.node, moves[i].To)
			}
		}
		return missing, nil
	})
	if errors.As(err, new(*lateError)) {
		return nil // the report names them
	}
	return err
}

// sum says what each worker has.
func (r *rebalance) sum(owners []string) []WorkersLoad {
	out := make([]WorkersLoad, len(r.workers))
	for i, w := range slices.Sorted(slices.Values(r.workers)) {
		out[i].Worker = w
		for task, owner := range owners {
			if owner == w {
				out[i].Tasks++
				out[i].Load += r.loads[task]
			}
		}
	}
	return out
}
