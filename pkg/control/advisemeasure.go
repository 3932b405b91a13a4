package control

import (
	"context"
	"slices"
	"time"

	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// AdviseOptions say how advice is made. Key is required.
type AdviseOptions struct {
	Window time.Duration // measured for so long; default DefaultAdviseWindow
	Target float64       // utilisation to advise for; default DefaultTarget
	// Key returns the function that reads the key formed by some fields, as the services divide by it.
	Key func(by []string) func(t *tuple.Tuple) (key string, ok bool)
}

// Defaults of AdviseOptions. At 70 % a server has room for what comes unevenly: a queue in front of one that is busy all the time grows without end.
const (
	DefaultAdviseWindow = 10 * time.Second
	DefaultTarget       = 0.7
)

// How much of what waits for a hot task is looked at, and for how long.
const (
	lookFrames = 64
	lookFor    = time.Second
)

// Advise measures a topology for a while and says what its nodes need.
func (c *Control) Advise(ctx context.Context, name string, o AdviseOptions) (*Advice, error) {
	if o.Window <= 0 {
		o.Window = DefaultAdviseWindow
	}
	if o.Target <= 0 {
		o.Target = DefaultTarget
	}
	applied, err := c.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	v := &adviser{target: o.Target}
	if v.plan, err = applied.Plan(); err != nil {
		return nil, err
	}
	if v.before, err = c.sight(ctx, name); err != nil {
		return nil, err
	}
	if err := wait(ctx, o.Window); err != nil {
		return nil, err
	}
	if v.after, err = c.sight(ctx, name); err != nil {
		return nil, err
	}
	a := &Advice{Topology: name, Seconds: v.after.at.Sub(v.before.at).Seconds(), Target: o.Target, Notes: append([]string{}, Spare(v.after.alive)...)}
	v.flows(a)
	var spout *topology.Node
	for i := range v.plan.Nodes {
		n := &v.plan.Nodes[i]
		if n.Kind == topology.KindSpout {
			spout = n
			continue
		}
		one := v.node(n)
		if h := one.Hottest; h != nil && (h.uneven(n.Tasks) || h.Busy > o.Target) {
			if err := c.look(ctx, name, n, h, o.Key); err != nil {
				return nil, err
			}
		}
		one.say(o.Target)
		a.Nodes = append(a.Nodes, one)
	}
	if spout != nil {
		a.Nodes = slices.Insert(a.Nodes, 0, v.source(spout, a))
	}
	return a, nil
}

func (c *Control) sight(ctx context.Context, name string) (s sight, err error) {
	if s.alive, err = c.Members(ctx, name); err != nil {
		return s, err
	}
	s.at = time.Now()
	s.queued, err = c.queued(ctx, name)
	return s, err
}

// look finds the most frequent key among the tuples that wait for a task.
func (c *Control) look(ctx context.Context, name string, n *topology.Node, h *Hot, key func([]string) func(*tuple.Tuple) (string, bool)) error {
	frames, err := c.conn.Peek(ctx, name, n.ID, h.Task, lookFrames, lookFor)
	if err != nil {
		return err
	}
	seen := map[string]int{}
	for _, data := range frames {
		var f tuple.Frame
		if f.Decode(data) != nil {
			continue // another version's, or damaged: the workers say so
		}
		for k := range f.Tuples {
			t := &f.Tuples[k]
			i := slices.IndexFunc(n.In, func(e topology.Edge) bool { return e.From == f.Source && e.Stream == t.Stream && len(e.By) > 0 })
			if i < 0 {
				continue
			}
			by := n.In[i].By
			text, ok := key(by)(t)
			if !ok {
				continue
			}
			h.Looked++
			seen[text]++
			if m := seen[text]; m > seen[h.Key] || h.Key == "" {
				h.Key, h.By = text, by
			}
		}
	}
	if h.Looked > 0 {
		h.KeyShare = float64(seen[h.Key]) / float64(h.Looked)
	}
	return nil
}
