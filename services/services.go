// Package services is the table of what boltmesh's own services build: one function per kind. Each service's main names its entry, `boltmesh dev` uses all
// of them in one process. It never configures or runs anything itself.
package services

import (
	"context"
	"sync/atomic"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/service"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/services/alarm/rule"
	"github.com/boltmesh/boltmesh/services/convert/normalize"
	"github.com/boltmesh/boltmesh/services/output/write"
	"github.com/boltmesh/boltmesh/services/spout/kafka"
	"github.com/boltmesh/boltmesh/services/stat/window"
)

// Convert builds the bolt of a convert node.
func Convert(ctx context.Context, n service.Node) (bolt.Bolt, error) {
	b, err := normalize.New(*n.Bolt, n.Plan.Topology.Params)
	if err == nil && b.UsesArchive() && n.Archive != nil {
		b.Archive, err = n.Archive(ctx)
	}
	return b, err
}

// Stat builds the bolt of a stat node.
func Stat(ctx context.Context, n service.Node) (bolt.Bolt, error) {
	b, err := window.Make(*n.Bolt, n.Group, n.Plan.Topology.Params)
	if err != nil || !b.UsesArchive() || n.Archive == nil {
		return b, err
	}
	profiles, err := n.Archive(ctx)
	b.SetArchive(profiles)
	return b, err
}

// Alarm builds the bolt of an alarm node.
func Alarm(ctx context.Context, n service.Node) (bolt.Bolt, error) {
	b, err := rule.New(*n.Bolt, n.Group, n.Plan.Topology.Params)
	if err == nil && b.UsesArchive() && n.Archive != nil {
		b.Archive, err = n.Archive(ctx)
	}
	return b, err
}

// Output builds the bolt of an output node, or of one that notifies.
func Output(_ context.Context, n service.Node) (bolt.Bolt, error) {
	if n.Kind == topology.KindNotify {
		return notifying(n)
	}
	return write.New(write.Options{Topology: n.Plan.Topology.Name, Output: n.Plan.Topology.Output, Edges: n.In, Store: n.Documents})
}

// Kafka is the source of a spout service.
type Kafka struct{ partitions atomic.Int64 }

// Partitions implements service.Source.
func (k *Kafka) Partitions() int { return int(k.partitions.Load()) }

// Run implements service.Source.
func (k *Kafka) Run(stop, hard context.Context, o service.SourceOptions, handle func(context.Context, service.Partition)) error {
	g := &kafka.Group{
		Kafka: o.Kafka, ID: o.Group, Records: o.Records, Failed: o.Failed, Processed: o.Processed,
		Handle: func(ctx context.Context, p *kafka.Partition) { handle(ctx, p) },
	}
	return g.Run(stop, hard, &k.partitions)
}
