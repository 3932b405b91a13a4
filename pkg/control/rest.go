package control

import (
	"context"
	"errors"
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

// waiting says how a topology is waited for.
type waiting struct {
	timeout time.Duration
	tell    func(string) // what is missing, at every look; may be nil
}

// hold writes the topology's entry as paused by a change, so that no other change that is under way can be made any more, nor that change clean up after it:
// both ask whether the entry is the one that they have written. A pause that somebody has asked for stays theirs.
func (c *Control) hold(ctx context.Context, name, change string, a *Applied, last uint64) (uint64, error) {
	paused := *a
	if !a.held() {
		paused.Paused, paused.Change = true, change
	}
	return c.store(ctx, name, &paused, last)
}

// release ends the pause of a change, if it still is that one's.
func (c *Control) release(ctx context.Context, name, change string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseWait)
	defer cancel()
	for {
		a, last, err := c.load(ctx, name)
		if err == nil {
			if a.Change != change || change == "" {
				return nil
			}
			a.Paused, a.Rested, a.Change = false, false, ""
			_, err = c.store(ctx, name, a, last)
		}
		if err == nil || !errors.Is(err, jetstream.ErrExists) && !jetstream.Passing(err) {
			return err
		}
		if wait(ctx, poll) != nil {
			return fmt.Errorf("it stays paused, boltmesh resume %s: %w", name, err)
		}
	}
}

// releaseWait bounds how long the end of a pause is tried, also after the command was interrupted.
const releaseWait = 15 * time.Second

// quiesce pauses a topology for a change and waits until every root is complete, every floor is where emission stopped, and every input is empty. It returns
// the revision of the topology's key, and a warning when that is not certain. When that takes too long, or ctx ends, the pause is taken back.
func (c *Control) quiesce(ctx context.Context, name, change string, a *Applied, last uint64, w waiting) (revision uint64, warning string, err error) {
	plan, err := a.Plan()
	if err != nil {
		return last, "", fmt.Errorf("revision %d: %w", a.Revision, err)
	}
	if last, err = c.hold(ctx, name, change, a, last); err != nil {
		return last, "", errors.Join(err, c.release(ctx, name, change))
	}
	r := &rest{Control: c, plan: plan, logs: logsOf(plan), until: time.Now().Add(w.timeout / 2)}
	err = c.until(ctx, w.timeout, func() (string, error) {
		what, err := r.missing(ctx)
		if err == nil && what != "" && w.tell != nil {
			w.tell(what)
		}
		return what, err
	})
	if err == nil && !r.spouts {
		r.warning = "no spout runs: " + unsure
	}
	if err == nil {
		return last, r.warning, nil
	}
	if e := c.release(ctx, name, change); e != nil {
		return last, "", errors.Join(fmt.Errorf("%s could not be brought to rest, nothing was changed: %w", name, err), e)
	}
	return last, "", fmt.Errorf("%s could not be brought to rest, nothing was changed, and it goes on as it was: %w", name, err)
}

// rest looks whether a topology that was told to pause is at rest.
type rest struct {
	*Control
	plan       *topology.Plan
	logs       []string
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
	missing := member.Unrest(r.seen, r.partitions, logs)
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
