package control

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// DefaultTimeout bounds the waits of Apply and Delete.
const DefaultTimeout = time.Minute

// ApplyOptions say how a topology is applied. The zero value is what an operator wants of a new topology.
type ApplyOptions struct {
	Drain   bool          // allow nodes to disappear; what is in their inputs is processed first
	Timeout time.Duration // of the wait for what is under way, and of that for the workers; default DefaultTimeout
	// Tell is called with what a change waits for before it can be made, about ten times a second; it may be nil.
	Tell func(what string)
	// Patience is how long to wait, beyond the workers that are there, until every node is run by one; 0: not at all.
	Patience time.Duration
}

// Report says what Apply has done.
type Report struct {
	Topology  string        `json:"topology"`
	Revision  uint32        `json:"revision"`
	Unchanged bool          `json:"unchanged"`         // the document is the applied one: nothing was done
	Paused    bool          `json:"paused"`            // it was paused by somebody, and still is
	Pause     time.Duration `json:"pause_ns"`          // how long nothing was emitted, for the change
	Removed   []string      `json:"removed,omitempty"` // nodes
	Divided   []Divided     `json:"divided,omitempty"` // nodes with state whose number of tasks has changed
	Workers   []string      `json:"workers"`           // report the revision, as <worker>/<node>
	Silent    []string      `json:"silent,omitempty"`  // live workers that do not
	Idle      []string      `json:"idle,omitempty"`    // nodes that no worker runs
	Warning   string        `json:"warning,omitempty"`
}

// warn adds to the warning.
func (r *Report) warn(text string) {
	if r.Warning != "" && text != "" {
		text = r.Warning + "; " + text
	}
	r.Warning = cmp.Or(text, r.Warning)
}

// Apply validates a topology, creates the input streams of its nodes, makes it what the services run, and waits until every live worker reports it. One
// that runs already is changed without losing or doubling anything: emission stops, everything emitted is processed, the revision is switched, emission
// goes on. A change that cannot be made leaves what runs as it was; one that was interrupted leaves it paused, and whatever is applied next, the same document
// too, ends that pause. Workers that do not report in time are named in the report; that is no error.
func (c *Control) Apply(ctx context.Context, document topology.Document, o ApplyOptions) (Report, error) {
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	next := &Applied{Revision: 1, Topology: document}
	plan, err := next.Plan()
	if err != nil {
		return Report{}, err
	}
	name := plan.Topology.Name
	report := Report{Topology: name, Revision: 1}
	old, last, err := c.load(ctx, name)
	if err != nil && !errors.Is(err, ErrUnknown) {
		return report, err
	}
	change := change{Control: c, id: rand.Text(), name: name, next: next, plan: plan, old: old, last: last, options: o, report: &report}
	if old != nil {
		next.Revision, next.Paused = old.Revision+1, old.held()
		report.Revision, report.Paused = next.Revision, old.held()
		if alike(old.Topology, document) {
			*next = *old
			next.Topology = document
			report.Revision, report.Unchanged = old.Revision, true
			return report, change.keep(ctx)
		}
	}
	return report, change.run(ctx)
}

// alike reports whether two documents mean the same, whatever their comments and order.
func alike(a, b topology.Document) bool {
	x, problemsX := a.Parse(nil)
	y, problemsY := b.Parse(nil)
	return problemsX == nil && problemsY == nil && x.Fingerprint() == y.Fingerprint()
}

func equal(a, b topology.Document) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// change is one application of a topology.
type change struct {
	*Control
	id      string // see Applied.Change
	name    string
	next    *Applied
	plan    *topology.Plan
	old     *Applied // nil: it is new
	was     *topology.Plan
	last    uint64   // revision of its key
	pausing *pausing // once it is paused for the change
	options ApplyOptions
	report  *Report
}

func (c *change) run(ctx context.Context) error {
	removed, err := c.compare(ctx)
	if err != nil {
		return err
	}
	if err := c.conn.Provision(ctx, inputs(c.plan)); err != nil {
		return err
	}
	before, err := c.Members(ctx, c.name)
	if err != nil {
		return err
	}
	stopped := time.Now()
	if c.old != nil {
		warning, err := c.stop(ctx, before)
		if err != nil {
			return err
		}
		c.report.warn(warning)
		if err := c.divide(ctx, c.was); err != nil {
			return errors.Join(err, c.restore(ctx))
		}
	}
	c.next.AppliedAt, c.next.Rested = time.Now().UnixMilli(), c.old != nil
	resume := c.old != nil && !c.next.Paused
	if resume { // only when every worker runs the new revision: frames of another one are refused
		c.next.Paused, c.next.Change = true, c.id
	}
	if _, err = c.store(ctx, c.name, c.next, c.last); err != nil {
		return errors.Join(meanwhile(c.name, err), c.restore(ctx))
	}
	err = c.await(ctx, before)
	if resume {
		err = errors.Join(err, c.restore(ctx))
		c.report.Pause = time.Since(stopped)
	}
	if err != nil {
		return err
	}
	return c.clean(ctx, removed)
}

// clean removes what the change has left behind, unless somebody else has begun to change the topology: to that one it may be wanted again.
func (c *change) clean(ctx context.Context, removed []string) error {
	c.tidy(ctx)
	a, _, err := c.load(ctx, c.name)
	if err != nil {
		return err
	}
	if a.Revision != c.next.Revision || a.Change != "" {
		c.report.warn(fmt.Sprintf("the topology is being changed again, or has been: inputs that revision %d does not have are left as they are", c.next.Revision))
		return nil
	}
	if err := c.conn.Trim(ctx, inputs(c.plan)); err != nil {
		return err
	}
	return c.remove(ctx, removed)
}

// compare finds the nodes whose inputs are not wanted any more.
func (c *change) compare(ctx context.Context) (removed []string, err error) {
	removed, err = c.conn.Inputs(ctx, c.name)
	if err != nil {
		return nil, err
	}
	for _, in := range inputs(c.plan) {
		removed = slices.DeleteFunc(removed, func(node string) bool { return node == in.Node })
	}
	slices.Sort(removed)
	if c.old == nil {
		return removed, nil
	}
	if len(removed) > 0 && !c.options.Drain {
		return nil, fmt.Errorf("the change removes %s: apply it with --drain to process what is under way there and remove it, or keep it in the file",
			strings.Join(removed, ", "))
	}
	if c.was, err = c.old.Plan(); err != nil {
		return nil, fmt.Errorf("the applied revision %d cannot be read: delete it with `boltmesh delete %s` and apply again: %w", c.old.Revision, c.name, err)
	}
	c.report.Divided, err = divided(c.was, c.plan)
	return removed, err
}

// stop waits until nothing of the old revision is under way. A warning says when that is not certain.
func (c *change) stop(ctx context.Context, alive []member.Member) (warning string, err error) {
	if len(alive) == 0 {
		return c.shut(ctx)
	}
	return c.settled(c.quiesce(ctx, c.name, c.id, c.old, c.last, waiting{c.options.Timeout, c.options.Tell}))
}

// settled notes how the topology came to rest.
func (c *change) settled(p *pausing, warning string, err error) (string, error) {
	if err == nil {
		c.pausing, c.last = p, p.last
	}
	return warning, err
}

// shut is stop where nobody runs the old revision, unless somebody has just begun to.
func (c *change) shut(ctx context.Context) (warning string, err error) {
	p, err := c.hold(ctx, c.name, c.id, c.old, c.last)
	if err != nil {
		return "", errors.Join(err, c.restore(ctx))
	}
	err = p.close(ctx, true)
	var alive []member.Member
	if err == nil {
		alive, err = c.Members(ctx, c.name)
	}
	if err == nil && len(alive) > 0 {
		return c.settled(c.quiesce(ctx, c.name, c.id, &p.entry, p.last, waiting{c.options.Timeout, c.options.Tell}))
	}
	if err == nil {
		warning, err = c.left(ctx)
	}
	if err != nil {
		return "", errors.Join(err, p.end(ctx))
	}
	return c.settled(p, warning, nil)
}

// left refuses the change if something was left that the old revision has to process. A warning says when that is not certain.
func (c *change) left(ctx context.Context) (warning string, err error) {
	queued, err := c.queued(ctx, c.name)
	if err != nil {
		return "", err
	}
	if what := crowd(queued); what != "" {
		return "", fmt.Errorf("no worker runs revision %d of %s, and %s: start the services, so that this is processed before the change", c.old.Revision, c.name, what)
	}
	owned, err := c.leases.Keys(ctx, c.name+".own.>") // a worker that stops in an orderly manner leaves none
	if err != nil || len(owned) == 0 {
		return "", err
	}
	return "no worker runs, and the last ones did not stop in an orderly manner: " + unsure, nil
}

// unsure is what may happen when nobody could be asked whether everything emitted is processed.
const unsure = "readings that the old revision handled and did not report are handled again, by the new one"

// restore lets the topology go on, unless somebody had paused it.
func (c *change) restore(ctx context.Context) error {
	if c.pausing != nil {
		return c.pausing.end(ctx)
	}
	return c.release(ctx, c.name, c.id)
}

// await waits until the workers that were alive before report the new revision, then for nodes that nobody runs.
func (c *change) await(ctx context.Context, before []member.Member) error {
	var expected []string
	for _, m := range before {
		if slices.ContainsFunc(c.plan.Nodes, func(n topology.Node) bool { return n.ID == m.Node && n.RunBy(m.Kind, m.Version) }) {
			expected = append(expected, member.Key(c.name, m.Node, m.Worker))
		}
	}
	look := func() error {
		seen, err := c.members(ctx, c.name)
		c.report.Workers, c.report.Silent, c.report.Idle = roll(c.plan, seen, expected, c.next.Revision)
		return err
	}
	err := c.until(ctx, c.options.Timeout, func() (string, error) {
		err := look()
		return strings.Join(c.report.Silent, ", "), err
	})
	if err == nil && c.options.Patience > 0 {
		err = c.until(ctx, c.options.Patience, func() (string, error) {
			err := look()
			return strings.Join(c.report.Idle, ", "), err
		})
	}
	if errors.As(err, new(*lateError)) {
		return nil // the report names them
	}
	return err
}

// keep puts a document in place that means the same as the applied one: workers go on with the revision that they run. A change that was interrupted it
// completes: what was left paused goes on when the workers report the revision.
func (c *change) keep(ctx context.Context) error {
	if err := c.conn.Provision(ctx, inputs(c.plan)); err != nil {
		return err
	}
	interrupted := c.old.Change != ""
	if interrupted {
		c.next.Change = c.id // so that the other one, if it still runs, cannot be made
	}
	if interrupted || !equal(c.old.Topology, c.next.Topology) {
		if _, err := c.store(ctx, c.name, c.next, c.last); err != nil {
			return err
		}
	}
	if interrupted {
		alive, err := c.Members(ctx, c.name)
		if err == nil {
			err = c.await(ctx, alive)
		}
		if err = errors.Join(err, c.restore(ctx)); err != nil {
			return err
		}
	}
	seen, err := c.members(ctx, c.name)
	c.report.Workers, c.report.Silent, c.report.Idle = roll(c.plan, seen, nil, c.report.Revision)
	return err
}

// roll calls the roll: who reports the revision, who is expected or alive and does not, which nodes nobody runs.
func roll(plan *topology.Plan, seen map[string]member.Member, expected []string, revision uint32) (workers, silent, idle []string) {
	busy := map[string]bool{}
	for key, l := range seen {
		who := l.Worker + "/" + l.Node
		if l.Revision == revision {
			workers = append(workers, who)
			busy[l.Node] = true
			continue
		}
		if !slices.Contains(expected, key) {
			silent = append(silent, who)
		}
	}
	for _, key := range expected {
		if l, ok := seen[key]; !ok || l.Revision != revision {
			part := strings.SplitN(key, ".", 4) // <topology>.member.<node>.<worker>
			silent = append(silent, part[3]+"/"+part[2])
		}
	}
	for _, n := range plan.Nodes {
		if !busy[n.ID] {
			idle = append(idle, n.ID)
		}
	}
	slices.Sort(workers)
	slices.Sort(silent)
	return workers, silent, idle
}

// remove deletes what belongs to nodes that are gone.
func (c *change) remove(ctx context.Context, nodes []string) error {
	for _, n := range nodes {
		for _, filter := range []string{c.name + ".own." + n + ".>", member.DivisionKey(c.name, n)} {
			if err := c.forget(ctx, filter); err != nil {
				return err
			}
		}
	}
	c.report.Removed = nodes
	return c.conn.Remove(ctx, c.name, nodes)
}
