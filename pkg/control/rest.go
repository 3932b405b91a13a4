package control

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// rest looks whether a topology that was told to pause is at rest.
type rest struct {
	*Control
	plan       *topology.Plan
	logs       []string
	pause      uint64    // see member.Log
	until      time.Time // how long a spout that has told of no partitions is waited for
	spouts     bool      // one has been seen: it, or its successor, must say that it rests
	partitions int       // as many as the spouts have ever told of
	seen       []member.Member
	warning    string
}

// missing looks once and says what keeps the topology from being at rest.
func (r *rest) missing(ctx context.Context) (string, error) {
	name := r.plan.Topology.Name
	all, err := r.members(ctx, name)
	if err != nil {
		return "", err
	}
	r.seen = slices.Collect(maps.Values(all))
	r.partitions = max(r.partitions, known(all))
	r.spouts = r.spouts || spouting(all)
	var logs []string
	if r.spouts {
		logs = r.logs
	}
	missing := member.Unrest(r.seen, r.partitions, logs, r.pause)
	if r.warning = ""; r.spouts && r.partitions == 0 && r.plan.Topology.Spout.Reads() {
		if time.Now().Before(r.until) { // it has just begun, and may have to take up what another one has emitted
			missing = append(missing, "no spout says yet which partitions there are")
		} else { // as for ever, when it is told of brokers that are none
			r.warning = "no spout says which partitions there are: " + unsure
		}
	}
	crowded, err := r.crowded(ctx)
	missing = append(missing, crowded...)
	slices.Sort(missing)
	return strings.Join(missing, ", "), err
}

// crowded names the inputs that are not empty, with who is to empty them. Frames for a task that the node does not have, late ones from when it had more,
// are thrown away: nobody would ever take them, and those who wait for what is in them send it again.
func (r *rest) crowded(ctx context.Context) (out []string, err error) {
	name := r.plan.Topology.Name
	queues, err := r.conn.Queues(ctx, name)
	if err != nil {
		return nil, err
	}
	for node, q := range queues {
		i := slices.IndexFunc(r.plan.Nodes, func(o topology.Node) bool { return o.ID == node })
		if i >= 0 && !r.plan.Nodes[i].Shared {
			if err := r.sweep(ctx, &r.plan.Nodes[i], q); err != nil {
				return nil, err
			}
		}
		if n := q.Sum(); n > 0 {
			out = append(out, fmt.Sprintf("%d frames wait for %s (%s)", n, node, runners(node, r.seen)))
		}
	}
	return out, nil
}

// sweep throws away the frames for tasks that a node does not have.
func (r *rest) sweep(ctx context.Context, n *topology.Node, q jetstream.Queue) error {
	for task := range q {
		if int(task) < n.Tasks {
			continue
		}
		if err := r.conn.Purge(ctx, r.plan.Topology.Name, n.ID, task); err != nil {
			return err
		}
		delete(q, task)
	}
	return nil
}

// runners says who handles a node's frames.
func runners(node string, seen []member.Member) string {
	var names []string
	for _, m := range seen {
		if m.Node == node {
			names = append(names, m.Worker)
		}
	}
	if len(names) == 0 {
		return "no worker runs it"
	}
	slices.Sort(names)
	return "run by " + strings.Join(names, ", ")
}

// logsOf names the logs that the spouts of a topology own.
func logsOf(plan *topology.Plan) []string {
	logs := []string{spout.ReplayLog}
	if plan.Topology.Spout.Calls {
		logs = append(logs, spout.CallLog)
	}
	if len(plan.Alarms()) > 0 {
		logs = append(logs, spout.CommandLog)
	}
	if slices.ContainsFunc(plan.Nodes, func(n topology.Node) bool { return n.Ticks }) {
		logs = append(logs, spout.TickLog)
	}
	return logs
}

// spouting reports whether a spout runs.
func spouting(seen map[string]member.Member) bool {
	for _, m := range seen {
		if m.Kind == topology.KindSpout {
			return true
		}
	}
	return false
}

// known is how many partitions the spouts say that there are.
func known(seen map[string]member.Member) (n int) {
	for _, m := range seen {
		n = max(n, m.Partitions)
	}
	return n
}
