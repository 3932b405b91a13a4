package control

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Control is an operator's view of everything that is connected to one NATS. It is safe for concurrent use.
type Control struct {
	conn       *jetstream.Conn
	topologies *jetstream.Bucket
	leases     *jetstream.Bucket
}

// ErrUnknown says that no topology of that name is applied.
var ErrUnknown = errors.New("no such topology")

// poll is how often what cannot be watched is asked for.
const poll = 100 * time.Millisecond

// New opens the buckets, creating them if this is a NATS that no service has used yet.
func New(ctx context.Context, conn *jetstream.Conn) (*Control, error) {
	topologies, err := conn.Topologies(ctx)
	if err != nil {
		return nil, err
	}
	leases, err := conn.Leases(ctx)
	if err != nil {
		return nil, err
	}
	return &Control{conn, topologies, leases}, nil
}

// Get returns an applied topology; an error that wraps ErrUnknown names those that there are.
func (c *Control) Get(ctx context.Context, name string) (*Applied, error) {
	a, _, err := c.load(ctx, name)
	return a, err
}

func (c *Control) load(ctx context.Context, name string) (*Applied, uint64, error) {
	e, err := c.topologies.Load(ctx, name)
	if errors.Is(err, jetstream.ErrNotFound) {
		keys, _ := c.topologies.Keys(ctx, ">") // only for the message
		if slices.Sort(keys); len(keys) == 0 {
			return nil, 0, fmt.Errorf("%w: %s: none is applied", ErrUnknown, name)
		}
		return nil, 0, fmt.Errorf("%w: %s: applied are %s", ErrUnknown, name, strings.Join(keys, ", "))
	}
	if err != nil {
		return nil, 0, err
	}
	var a Applied
	if err := json.Unmarshal(e.Value, &a); err != nil {
		return nil, e.Revision, fmt.Errorf("topology %s was applied by another version: %w", name, err)
	}
	return &a, e.Revision, nil
}

// Named is an applied topology under its name.
type Named struct {
	Name string `json:"name"`
	Applied
}

// List returns the applied topologies by name.
func (c *Control) List(ctx context.Context) ([]Named, error) {
	keys, err := c.topologies.Keys(ctx, ">")
	if err != nil {
		return nil, err
	}
	slices.Sort(keys)
	var out []Named
	for _, k := range keys {
		a, err := c.Get(ctx, k)
		if errors.Is(err, ErrUnknown) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		out = append(out, Named{k, *a})
	}
	return out, nil
}

// Pause makes the spouts of a topology emit nothing new; what is under way is finished. changed is false if it was paused already.
func (c *Control) Pause(ctx context.Context, name string) (changed bool, err error) {
	return c.setPaused(ctx, name, true)
}

// Resume ends a pause. changed is false if there was none.
func (c *Control) Resume(ctx context.Context, name string) (changed bool, err error) {
	return c.setPaused(ctx, name, false)
}

func (c *Control) setPaused(ctx context.Context, name string, paused bool) (changed bool, err error) {
	for {
		a, last, err := c.load(ctx, name)
		if err != nil || a.Paused == paused && a.Change == "" {
			return false, err
		}
		a.Paused, a.Rested, a.Closed, a.Change = paused, false, false, "" // a change that is under way cannot be made any more
		_, err = c.store(ctx, name, a, last)
		if errors.Is(err, jetstream.ErrExists) {
			continue
		}
		return err == nil, err
	}
}

func (c *Control) store(ctx context.Context, name string, a *Applied, last uint64) (uint64, error) {
	plan, err := a.Plan()
	if err != nil {
		return 0, err
	}
	a.Nodes = outline(plan)
	value, err := json.Marshal(a)
	if err != nil {
		return 0, err
	}
	for tries := 0; ; tries++ {
		revision, err := c.topologies.Store(ctx, name, value, last, 0)
		if err == nil || !jetstream.Passing(err) && (tries == 0 || !errors.Is(err, jetstream.ErrExists)) {
			return revision, err
		}
		e, missing := c.topologies.Load(ctx, name) // an answer was lost: it may have been written
		if missing == nil && e.Revision != last && bytes.Equal(e.Value, value) {
			return e.Revision, nil
		}
		if tries == 4 || errors.Is(err, jetstream.ErrExists) || wait(ctx, poll) != nil {
			return 0, err
		}
	}
}

// Members returns the leases of the live workers of a topology, or of all topologies when name is empty, by topology, node and worker.
func (c *Control) Members(ctx context.Context, name string) ([]member.Member, error) {
	seen, err := c.members(ctx, name)
	if err != nil {
		return nil, err
	}
	out := make([]member.Member, 0, len(seen))
	for _, l := range seen {
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b member.Member) int {
		return strings.Compare(member.Key(a.Topology, a.Node, a.Worker), member.Key(b.Topology, b.Node, b.Worker))
	})
	return out, nil
}

// members returns the leases by key.
func (c *Control) members(ctx context.Context, name string) (map[string]member.Member, error) {
	if name == "" {
		name = "*"
	}
	keys, err := c.leases.Known(ctx, name+".member.>")
	if err != nil {
		return nil, err
	}
	out := map[string]member.Member{}
	for _, k := range keys {
		e, err := c.leases.Load(ctx, k)
		if errors.Is(err, jetstream.ErrNotFound) {
			continue // expired or released
		}
		if err != nil {
			return nil, err
		}
		var l member.Member
		if err := json.Unmarshal(e.Value, &l); err != nil {
			return nil, fmt.Errorf("lease %s: %w", k, err)
		}
		out[k] = l
	}
	return out, nil
}

// DeleteOptions say how a topology is deleted. The zero value stops it as it is.
type DeleteOptions struct {
	Drain   bool          // first stop emission and wait until everything emitted is processed
	Timeout time.Duration // of the drain, and of the wait until the workers have let go; default DefaultTimeout
}

// Delete takes a topology away: its entry, so that the workers stop, then its input streams with what is in them, and its leases. Kept are the stored
// documents, the state, the dead letters, and the offsets of its consumer group: applied again it goes on where it was.
func (c *Control) Delete(ctx context.Context, name string, o DeleteOptions) error {
	a, last, err := c.load(ctx, name)
	if errors.Is(err, ErrUnknown) {
		if left, _ := c.conn.Inputs(ctx, name); len(left) == 0 {
			return err
		}
		return c.clear(ctx, name) // an earlier deletion was interrupted
	}
	if err != nil && last == 0 {
		return err
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Drain && a != nil {
		p, _, err := c.quiesce(ctx, name, rand.Text(), a, last, waiting{timeout: o.Timeout})
		if err != nil {
			return err
		}
		last = p.last
	}
	if err := c.topologies.Delete(ctx, name, last); err != nil {
		return fmt.Errorf("%w: it was changed meanwhile; delete it again", err)
	}
	err = c.until(ctx, o.Timeout, func() (string, error) {
		alive, err := c.Members(ctx, name)
		return holders(alive), err
	})
	if err != nil && !errors.As(err, new(*lateError)) {
		return err
	}
	return errors.Join(c.clear(ctx, name), err)
}

func holders(alive []member.Member) string {
	var names []string
	for _, m := range alive {
		names = append(names, m.Worker+" still runs "+m.Node)
	}
	return strings.Join(names, ", ")
}

// clear removes streams and leases.
func (c *Control) clear(ctx context.Context, name string) error {
	nodes, err := c.conn.Inputs(ctx, name)
	if err != nil {
		return err
	}
	if err := c.conn.Remove(ctx, name, nodes); err != nil {
		return err
	}
	if err := c.conn.RemoveNotices(ctx, name); err != nil {
		return err
	}
	for _, filter := range []string{name + ".member.>", name + ".own.>", name + ".division.>"} {
		if err := c.forget(ctx, filter); err != nil {
			return err
		}
	}
	return nil
}

func (c *Control) forget(ctx context.Context, filter string) error {
	keys, err := c.leases.Keys(ctx, filter)
	if err != nil {
		return err
	}
	for _, k := range keys {
		if err := c.leases.Delete(ctx, k, 0); err != nil {
			return err
		}
	}
	return nil
}

// lateError says what was not as wanted when the time was over.
type lateError struct {
	after time.Duration
	what  string
}

func (e *lateError) Error() string {
	return fmt.Sprintf("not done after %s: %s", e.after, e.what)
}

// until asks again until missing returns "", which says that nothing is missing any more.
func (c *Control) until(ctx context.Context, timeout time.Duration, missing func() (string, error)) error {
	end := time.Now().Add(timeout)
	for {
		what, err := missing()
		if err != nil && ctx.Err() == nil && jetstream.Passing(err) {
			what, err = err.Error(), nil // NATS is away for a moment, or busy
		}
		if err != nil || what == "" {
			return err
		}
		if time.Now().After(end) {
			return &lateError{timeout, what}
		}
		if err := wait(ctx, poll); err != nil {
			return fmt.Errorf("%w: %s", err, what)
		}
	}
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// inputs lists the inputs that a plan needs.
func inputs(p *topology.Plan) (out []jetstream.Input) {
	for _, n := range p.Nodes {
		if n.Kind != topology.KindSpout {
			out = append(out, jetstream.Input{Topology: p.Topology.Name, Node: n.ID, Tasks: tuple.Tasks(n.Tasks, n.Shared)})
		}
	}
	if p.Topology.Spout.Calls {
		out = append(out, jetstream.Input{Topology: p.Topology.Name, Node: topology.ReplyNode, Tasks: tuple.Tasks(1, false)})
	}
	return out
}
