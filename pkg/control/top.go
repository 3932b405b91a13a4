package control

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// Glance is what was known of some topologies at a moment; two of them give Rates.
type Glance struct {
	at     time.Time
	sights []topologySight
}

type topologySight struct {
	Named
	plan *topology.Plan // nil when it cannot be read
	sight
}

// Glance looks at one applied topology, or at all when name is empty.
func (c *Control) Glance(ctx context.Context, name string) (*Glance, error) {
	var all []Named
	if name == "" {
		list, err := c.List(ctx)
		if err != nil {
			return nil, err
		}
		all = list
	} else {
		a, err := c.Get(ctx, name)
		if err != nil {
			return nil, err
		}
		all = []Named{{name, *a}}
	}
	g := &Glance{at: time.Now()}
	for _, n := range all {
		s, err := c.sight(ctx, n.Name)
		if err != nil {
			return nil, err
		}
		one := topologySight{Named: n, sight: s}
		if plan, err := n.Plan(); err == nil {
			one.plan = plan
		}
		g.sights = append(g.sights, one)
	}
	return g, nil
}

// Rates is what went on in a topology between two glances.
type Rates struct {
	Topology  string      `json:"topology"`
	State     string      `json:"state"` // running, paused or unreadable
	Revision  uint32      `json:"revision"`
	At        int64       `json:"at"`         // ms
	Seconds   float64     `json:"seconds"`    // measured for so long; leases tell once a second
	Workers   int         `json:"workers"`    // processes
	Records   float64     `json:"records"`    // that came into Kafka, a second
	Processed float64     `json:"processed"`  // of them fully processed, a second
	Lag       int64       `json:"lag"`        // records that are not
	Floor     int64       `json:"floor"`      // records below the floors
	End       int64       `json:"end"`        // records in the log
	Sources   int         `json:"partitions"` // that are read
	Latency   float64     `json:"latency_ms"` // mean, of a root from its emission until it was fully processed; 0 when none was
	Oldest    int64       `json:"oldest"`     // ms: when the oldest root under way was emitted; 0 when none is
	Watermark int64       `json:"watermark"`  // ms; 0 when unknown
	Nodes     []NodeRates `json:"nodes"`      // in the order of the plan
	Troubles  []Trouble   `json:"troubles"`   // the last error of each worker that had one, newest first
}

// NodeRates is a node's part in it.
type NodeRates struct {
	Node     string  `json:"node"`
	Kind     string  `json:"kind"`
	Workers  int     `json:"workers"`
	Tasks    int     `json:"tasks"`      // 0 where workers compete; of a spout: partitions
	In       float64 `json:"in"`         // tuples a second; of a spout: records that came
	Out      float64 `json:"out"`        // tuples a second; of a spout: records that it took
	Latency  float64 `json:"latency_ms"` // of a frame, waiting and being handled, in the mean; of a spout as Rates.Latency; 0 when none came
	Queued   uint64  `json:"queued"`     // frames that wait or are being handled
	Busy     float64 `json:"busy"`       // of the time of its loops: 1 is all that it can do
	Capacity float64 `json:"capacity"`   // tuples a second that it could handle with what it has; 0 when none came
	Failed   int64   `json:"failed"`     // tuples that became dead letters, since the workers started
	Hottest  *Hot    `json:"hottest,omitempty"`
}

// Trouble is the last error of a worker at a node.
type Trouble struct {
	Node   string `json:"node"`
	Worker string `json:"worker"`
	Error  string `json:"error"`
	At     int64  `json:"at"` // ms
}

// Since computes the rates between an earlier glance and this one. A topology, or a worker, that was not there before counts from when it came.
func (g *Glance) Since(before *Glance) []Rates {
	out := []Rates{}
	for i := range g.sights {
		now := &g.sights[i]
		then := topologySight{sight: sight{at: before.at}}
		if k := slices.IndexFunc(before.sights, func(s topologySight) bool { return s.Name == now.Name }); k >= 0 {
			then = before.sights[k]
		}
		out = append(out, now.since(&then))
	}
	return out
}

func (s *topologySight) since(then *topologySight) Rates {
	r := Rates{
		Topology: s.Name, Revision: s.Revision, State: "running", At: s.at.UnixMilli(), Seconds: s.at.Sub(then.at).Seconds(), Nodes: []NodeRates{}, Troubles: []Trouble{},
	}
	switch {
	case s.plan == nil:
		r.State = "unreadable"
		return r
	case s.Paused:
		r.State = "paused"
	}
	v := &adviser{plan: s.plan, before: then.sight, after: s.sight, target: 1, demand: 1}
	r.sum(s.alive)
	for i := range s.plan.Nodes {
		n := &s.plan.Nodes[i]
		if n.Kind == topology.KindSpout {
			r.Nodes = append(r.Nodes, v.spout(n, &r))
			continue
		}
		r.Nodes = append(r.Nodes, v.bolt(n))
	}
	return r
}

// sum adds up what the leases say of now.
func (r *Rates) sum(alive []member.Member) {
	workers, marks := map[string]bool{}, map[string]member.Mark{}
	for _, m := range alive {
		workers[m.Worker] = true
		if m.Oldest > 0 && (r.Oldest == 0 || m.Oldest < r.Oldest) {
			r.Oldest = m.Oldest
		}
		for _, k := range m.Marks {
			at := fmt.Sprint(k.Topic, "/", k.Partition)
			if other, two := marks[at]; !two || k.Floor > other.Floor { // two readers for a moment
				marks[at] = k
			}
		}
		if m.LastError != "" {
			r.Troubles = append(r.Troubles, Trouble{m.Node, m.Worker, m.LastError, m.ErrorAt})
		}
	}
	slices.SortFunc(r.Troubles, func(a, b Trouble) int {
		return cmp.Or(cmp.Compare(b.At, a.At), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Worker, b.Worker))
	})
	r.Workers, r.Sources = len(workers), len(marks)
	for _, k := range marks {
		r.Floor += k.Floor
		r.End += k.End
		r.Lag += max(0, k.End-k.Floor)
	}
	if w := member.Watermark(math.MinInt64, alive, len(marks)); w != math.MinInt64 {
		r.Watermark = w
	}
}

// spout sums the workers of the spout up, also for the topology as a whole.
func (v *adviser) spout(n *topology.Node, r *Rates) NodeRates {
	one := NodeRates{Node: n.ID, Kind: n.Kind, Tasks: r.Sources}
	var roots, took int64
	for i := range v.after.alive {
		m := &v.after.alive[i]
		if m.Node != n.ID || m.Leaving {
			continue
		}
		one.Workers++
		then, d := v.since(m)
		roots, took = roots+m.Roots-then.Roots, took+m.Took-then.Took
		one.Failed += m.Failed
		for _, k := range m.Marks {
			at := slices.IndexFunc(then.Marks, func(o member.Mark) bool { return o.Topic == k.Topic && o.Partition == k.Partition })
			if at < 0 || d <= 0 { // what it has just got was another's before
				continue
			}
			o := then.Marks[at]
			one.In += max(0, float64(k.End-o.End)/d)
			one.Out += max(0, float64(k.Next-o.Next)/d)
			r.Processed += max(0, float64(k.Floor-o.Floor)/d)
		}
	}
	if roots > 0 {
		one.Latency = float64(took) / float64(roots) / 1000
	}
	r.Records, r.Latency = one.In, one.Latency
	return one
}

// bolt sums the workers of a bolt up. Latency is by Little's law (L = lambda W, Operations Research 9, 1961): what is in the input, by what leaves it.
func (v *adviser) bolt(n *topology.Node) NodeRates {
	a := v.node(n)
	one := NodeRates{
		Node: n.ID, Kind: n.Kind, Workers: a.Replicas, Tasks: a.Tasks, In: a.Handled, Queued: v.after.queued[n.ID],
	}
	if h := a.Hottest; h != nil && a.Handled > 0 {
		hot := *h
		hot.Busy *= a.Handled / a.Arrival // as it is, not as it would be if it kept up
		one.Hottest = &hot
	}
	frames := 0.0
	for i := range v.after.alive {
		m := &v.after.alive[i]
		if m.Node != n.ID || m.Leaving {
			continue
		}
		then, d := v.since(m)
		if d > 0 {
			one.Out += max(0, float64(m.Out-then.Out)/d)
			frames += max(0, float64(m.Frames-then.Frames)/d)
		}
		one.Failed += m.Failed
	}
	if one.In > 0 && a.Loops > 0 {
		one.Busy = one.In * a.Service / 1e6 / float64(a.Loops)
	}
	if one.Busy > 0 {
		one.Capacity = one.In / one.Busy
	}
	if frames > 0 {
		waiting := float64(v.before.queued[n.ID]+one.Queued) / 2
		one.Latency = max(waiting/frames, one.In*a.Service/1e6/frames) * 1000
	}
	return one
}
