package control

import "github.com/boltmesh/boltmesh/pkg/topology"

// Node is a node of the plan as plain JSON: what a service in a language without a parser for topologies has to know to run it, or to emit to it.
type Node struct {
	ID       string         `json:"id"`
	Kind     string         `json:"kind"`
	Service  string         `json:"service"`            // kind of service that runs it
	Build    string         `json:"build,omitempty"`    // only workers of this version run it
	Tasks    int            `json:"tasks"`              // of a shared node: loops of one worker, at most
	Shared   bool           `json:"shared,omitempty"`   // workers compete for one subject
	Stateful bool           `json:"stateful,omitempty"` // it keeps state
	Config   map[string]any `json:"config,omitempty"`   // of a custom node
	In       []Edge         `json:"in,omitempty"`
	Out      []Edge         `json:"out,omitempty"`
}

// Edge is one edge of the plan.
type Edge struct {
	From     string   `json:"from"`
	To       string   `json:"to"`
	Stream   string   `json:"stream"`
	Grouping string   `json:"grouping"`
	By       []string `json:"by,omitempty"` // the fields of the key
	Tasks    int      `json:"tasks"`        // of the receiving node
	Shared   bool     `json:"shared,omitempty"`
}

// outline writes a plan out.
func outline(p *topology.Plan) (nodes []Node) {
	receivers := map[string]*topology.Node{}
	for i := range p.Nodes {
		receivers[p.Nodes[i].ID] = &p.Nodes[i]
	}
	edges := func(from []topology.Edge) (out []Edge) {
		for _, e := range from {
			to := receivers[e.To]
			out = append(out, Edge{From: e.From, To: e.To, Stream: e.Stream, Grouping: e.Grouping, By: e.By, Tasks: to.Tasks, Shared: to.Shared})
		}
		return out
	}
	for _, n := range p.Nodes {
		o := Node{
			ID: n.ID, Kind: n.Kind, Service: n.Service, Build: n.Build, Tasks: n.Tasks, Shared: n.Shared, Stateful: n.Stateful, In: edges(n.In), Out: edges(n.Out),
		}
		if n.Bolt != nil {
			o.Config = n.Bolt.Config
		}
		if p.Topology.Answers(n.Bolt) {
			o.Out = append(o.Out, Edge{From: n.ID, To: topology.ReplyNode, Stream: topology.ReplyStream, Grouping: topology.Global, Tasks: 1})
		}
		nodes = append(nodes, o)
	}
	return nodes
}
