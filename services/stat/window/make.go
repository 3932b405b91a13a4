package window

import (
	"context"
	"iter"

	"github.com/boltmesh/boltmesh/pkg/archive"
	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Statistic is what a node of kind stat runs.
type Statistic interface {
	bolt.Stateful
	bolt.Preparer
	// UsesArchive reports whether the statistic reads profiles of devices; SetArchive then says where they come from, before the first batch.
	UsesArchive() bool
	SetArchive(*archive.Reader)
}

// Make makes what a planned node runs: a statistic, or one of its two stages. The arguments are those of New.
func Make(spec topology.Bolt, group func(*tuple.Tuple) (string, bool), params map[string]any) (Statistic, error) {
	if spec.Stage == topology.StageFirst {
		return NewFirst(spec, group, params)
	}
	b, err := New(spec, group, params)
	switch {
	case err != nil:
		return nil, err
	case spec.Stage == topology.StageSecond && spec.Forwards():
		return &Forwarded{b}, nil
	case spec.Stage == topology.StageSecond:
		return &SecondStage{b}, nil
	}
	return b, nil
}

// UsesArchive implements Statistic: the first stage has done it.
func (s *SecondStage) UsesArchive() bool { return false }

// Prepare implements bolt.Preparer.
func (s *SecondStage) Prepare(context.Context, iter.Seq[*tuple.Tuple]) error { return nil }
