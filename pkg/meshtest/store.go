package meshtest

import (
	"context"
	"errors"

	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

var errUnknown = errors.New("no answer from the store")

// store is one actor's connection to the state store: every call yields, and a commit may have an unknown outcome.
type store struct {
	*state.Memory
	m *mesh
	a *actor
}

func (s store) unknown() bool { return s.m.chance(s.m.faults.UnknownCommit) }

func (s store) Claim(ctx context.Context, t state.Task) (uint64, error) {
	s.a.yield()
	return s.Memory.Claim(ctx, t)
}

func (s store) Head(ctx context.Context, t state.Task) (state.Head, error) {
	s.a.yield()
	return s.Memory.Head(ctx, t)
}

func (s store) Load(ctx context.Context, t state.Task, keys []string) ([][]byte, error) {
	s.a.yield()
	return s.Memory.Load(ctx, t, keys)
}

func (s store) Outputs(ctx context.Context, t state.Task, id tuple.ID) ([][]byte, error) {
	s.a.yield()
	return s.Memory.Outputs(ctx, t, id)
}

func (s store) Due(ctx context.Context, t state.Task, until int64, after string, limit int) ([]state.Due, error) {
	s.a.yield()
	return s.Memory.Due(ctx, t, until, after, limit)
}

func (s store) Commit(ctx context.Context, t state.Task, epoch uint64, b *state.Batch) error {
	s.a.yield()
	if s.unknown() {
		if s.m.rng.IntN(2) == 0 {
			_ = s.Memory.Commit(ctx, t, epoch, b)
		}
		s.m.note("unknown outcome of a commit of %s", t)
		return errUnknown
	}
	err := s.Memory.Commit(ctx, t, epoch, b)
	if err == nil {
		s.m.bound(ctx, t)
	}
	s.a.yield()
	return err
}

func (s store) Raise(ctx context.Context, topology, log string) (uint32, error) {
	s.a.yield()
	return s.Memory.Raise(ctx, topology, log)
}

func (s store) Append(ctx context.Context, topology, log string, generation uint32, at int64, entry []byte) error {
	s.a.yield()
	if s.unknown() {
		if s.m.rng.IntN(2) == 0 {
			_ = s.Memory.Append(ctx, topology, log, generation, at, entry)
		}
		return errUnknown
	}
	err := s.Memory.Append(ctx, topology, log, generation, at, entry)
	s.a.yield()
	return err
}

func (s store) Read(ctx context.Context, topology, log string, from int64, limit int) ([][]byte, int64, int64, error) {
	s.a.yield()
	return s.Memory.Read(ctx, topology, log, from, limit)
}

func (s store) SetFloor(ctx context.Context, topology, log string, generation uint32, floor int64) error {
	s.a.yield()
	return s.Memory.SetFloor(ctx, topology, log, generation, floor)
}
