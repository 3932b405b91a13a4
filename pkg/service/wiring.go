package service

import (
	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Edges returns a node's outgoing edges as workers run them: for whoever runs a plan by other means, such as a rehearsal.
func Edges(plan *topology.Plan, n *topology.Node) []bolt.Edge { return edges(plan, n) }

// Ticks returns the nodes of a plan that want ticks, as the ticker needs them.
func Ticks(plan *topology.Plan) []spout.Due { return ticks(plan) }

// GroupOf returns what Node.Group is for a stateful node.
func GroupOf(b *topology.Bolt) func(*tuple.Tuple) (string, bool) { return groupOf(b) }
