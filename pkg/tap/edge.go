package tap

import (
	"fmt"
	"slices"
	"strings"

	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// receivers lists the nodes whose inputs the wanted tuples pass on their way.
func (o *Options) receivers(plan *topology.Plan) (nodes []string, err error) {
	name := plan.Topology.Name
	n, err := nodeOf(plan, o.Node)
	if err != nil {
		return nil, err
	}
	if o.In {
		if n.Kind == topology.KindSpout {
			return nil, fmt.Errorf("%s/%s is the spout: what comes to it is in Kafka; tap what it emits, without --in", name, n.ID)
		}
		return []string{n.ID}, o.known(streams(n.In, n.Ticks), "nothing comes to "+n.ID)
	}
	out := emitted(plan, n)
	if len(out) == 0 {
		return nil, fmt.Errorf("%s/%s emits to nobody: no node receives from it and it saves nothing", name, n.ID)
	}
	ticks := n.Kind == topology.KindSpout && slices.ContainsFunc(plan.Nodes, func(n topology.Node) bool { return n.Ticks })
	if err := o.known(streams(out, ticks), "nobody receives from "+n.ID); err != nil {
		return nil, err
	}
	if o.Stream == tuple.TickStream {
		for _, to := range plan.Nodes {
			if to.Ticks {
				out = append(out, topology.Edge{From: n.ID, To: to.ID, Stream: tuple.TickStream})
			}
		}
	}
	for _, e := range out {
		if (o.Stream == "" || e.Stream == o.Stream) && (o.To == "" || e.To == o.To) && !slices.Contains(nodes, e.To) {
			nodes = append(nodes, e.To)
		}
	}
	if len(nodes) == 0 {
		var to []string
		for _, e := range out {
			to = append(to, e.To)
		}
		return nil, fmt.Errorf("%s emits nothing to %q: it emits to %s", n.ID, o.To, strings.Join(compact(to), ", "))
	}
	return nodes, nil
}

// known checks the stream that is asked for.
func (o *Options) known(streams []string, problem string) error {
	if o.Stream == "" || slices.Contains(streams, o.Stream) {
		return nil
	}
	return fmt.Errorf("%s on the stream %q: there is %s", problem, o.Stream, strings.Join(streams, ", "))
}

func streams(edges []topology.Edge, ticks bool) (names []string) {
	for _, e := range edges {
		names = append(names, e.Stream)
	}
	if ticks {
		names = append(names, tuple.TickStream)
	}
	return compact(names)
}

func compact(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}

// emitted lists the edges that a node's tuples take, those of answers to calls included.
func emitted(plan *topology.Plan, n *topology.Node) []topology.Edge {
	out := slices.Clone(n.Out)
	if plan.Topology.Answers(n.Bolt) {
		out = append(out, topology.Edge{From: n.ID, To: topology.ReplyNode, Stream: topology.ReplyStream})
	}
	return out
}

// nodeOf finds a node of the plan.
func nodeOf(plan *topology.Plan, id string) (*topology.Node, error) {
	var ids []string
	for i := range plan.Nodes {
		if plan.Nodes[i].ID == id {
			return &plan.Nodes[i], nil
		}
		ids = append(ids, plan.Nodes[i].ID)
	}
	said := topology.Suggest(id, ids)
	if said == "" {
		said = "it has " + strings.Join(ids, ", ")
	}
	return nil, fmt.Errorf("%s has no node %q: %s", plan.Topology.Name, id, said)
}

// Unseen names the nodes to which a part of what is asked for may go without being seen, because a worker that runs both ends hands it on in memory.
func (o *Options) Unseen(plan *topology.Plan) (nodes []string) {
	n, err := nodeOf(plan, o.Node)
	if err != nil {
		return nil
	}
	edges, end := n.Out, func(e topology.Edge) string { return e.To }
	if o.In {
		edges, end = n.In, func(e topology.Edge) string { return e.From }
	}
	for _, e := range edges {
		if e.Local && (o.Stream == "" || e.Stream == o.Stream) {
			nodes = append(nodes, end(e))
		}
	}
	return compact(nodes)
}
