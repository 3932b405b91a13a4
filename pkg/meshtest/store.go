package meshtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

var errUnknown = bolt.Unavailable(errors.New("no answer from the store"))

// store is one actor's connection to the state store: every call yields, a read may fail, and a write may have an unknown outcome.
type store struct {
	*state.Memory
	m *mesh
	a *actor
}

// read is what happens before every read.
func (s store) read() error {
	s.a.yield()
	if s.m.chance(NoRead) {
		return errUnknown
	}
	return nil
}

// write does a write, of which the caller may never hear.
func (s store) write(do func() error) error {
	s.a.yield()
	if s.m.chance(UnknownCommit) {
		done := s.m.rng.IntN(2) == 0 && do() == nil
		s.m.note("%s: unknown outcome of a write (done: %v)", s.a.name, done)
		if s.m.broken.unknownIsSuccess {
			return nil
		}
		return errUnknown
	}
	err := do()
	s.a.yield()
	return err
}

func (s store) Claim(ctx context.Context, t state.Task) (epoch uint64, err error) {
	if s.m.broken.lateFence {
		s.a.yield()
		s.m.claimed[t]++
		return s.m.claimed[t], nil
	}
	err = s.write(func() error {
		epoch, err = s.Memory.Claim(ctx, t)
		s.m.fences[t] = epoch
		return err
	})
	return epoch, err
}

func (s store) Head(ctx context.Context, t state.Task) (h state.Head, err error) {
	if err = s.read(); err == nil {
		h, err = s.Memory.Head(ctx, t)
	}
	if s.m.broken.noFloors {
		h.Floors = nil
	}
	if s.m.broken.movesUnrest && s.a.name == mover {
		h.Applied = nil
	}
	return h, err
}

func (s store) Load(ctx context.Context, t state.Task, keys []string) ([][]byte, error) {
	if err := s.read(); err != nil {
		return nil, err
	}
	return s.Memory.Load(ctx, t, keys)
}

func (s store) Outputs(ctx context.Context, t state.Task, id tuple.ID) ([][]byte, error) {
	if err := s.read(); err != nil || s.m.broken.noOutputs {
		return nil, err
	}
	return s.Memory.Outputs(ctx, t, id)
}

func (s store) Walk(ctx context.Context, tasks []state.Task, cursor string, limit int) ([]state.Entry, string, error) {
	if err := s.read(); err != nil {
		return nil, "", err
	}
	return s.Memory.Walk(ctx, tasks, cursor, limit)
}

// Drop drops one task after the other.
func (s store) Drop(ctx context.Context, tasks []state.Claimed) error {
	for _, t := range tasks {
		if err := s.write(func() error { return s.Memory.Drop(ctx, []state.Claimed{t}) }); err != nil {
			return err
		}
	}
	return nil
}

func (s store) Due(ctx context.Context, t state.Task, until int64, after string, limit int) ([]state.Due, error) {
	if err := s.read(); err != nil {
		return nil, err
	}
	return s.Memory.Due(ctx, t, until, after, limit)
}

func (s store) Commit(ctx context.Context, t state.Task, epoch uint64, b *state.Batch) error {
	err := s.write(func() error {
		epoch, b := s.bend(ctx, t, epoch, b)
		return s.Memory.Commit(ctx, t, epoch, b)
	})
	if err == nil {
		s.m.bound(ctx, t)
	}
	return err
}

// bend makes of a commit what the broken rules make of it.
func (s store) bend(ctx context.Context, t state.Task, epoch uint64, b *state.Batch) (uint64, *state.Batch) {
	broken := &s.m.broken
	if broken.noFence {
		epoch = s.m.fences[t]
	}
	if broken.lateFence {
		for s.m.fences[t] < epoch {
			s.m.fences[t], _ = s.Memory.Claim(ctx, t)
		}
	}
	bent := *b
	if broken.slicesWithoutOutputs {
		bent.Apply = append([]state.Record(nil), b.Apply...)
		for i := range bent.Apply {
			if r := &bent.Apply[i]; r.Unfinished {
				r.Outputs = nil
			}
		}
	}
	return epoch, &bent
}

func (s store) Raise(ctx context.Context, topology, log string) (g uint32, err error) {
	err = s.write(func() error {
		g, err = s.Memory.Raise(ctx, topology, log)
		if log == spout.TickLog {
			s.m.generation = g
		}
		return err
	})
	return g, err
}

func (s store) Append(ctx context.Context, topology, log string, generation uint32, at int64, entry []byte) error {
	return s.write(func() error {
		if s.m.broken.ownCounter {
			_, length, _, _ := s.Memory.Read(ctx, topology, log, math.MaxInt64, 0)
			generation = s.m.generation
			if at < length {
				s.m.chain(at, entry)
				return nil // it takes the place of another entry: only the chain knows
			}
		}
		err := s.Memory.Append(ctx, topology, log, generation, at, entry)
		if err == nil {
			s.m.chain(at, entry)
		}
		return err
	})
}

// AppendOnce marks a letter as replayed and gives it its position in one step.
func (s store) AppendOnce(ctx context.Context, topology, log, once string, entry []byte) (at int64, added bool, err error) {
	err = s.write(func() error {
		if s.m.broken.appendThenMark {
			if _, marked := s.m.dealt[once]; marked {
				return nil
			}
			at, added, err = s.Memory.AppendOnce(ctx, topology, log, fmt.Sprint(once, " ", s.m.steps), entry)
			return err
		}
		at, added, err = s.Memory.AppendOnce(ctx, topology, log, once, entry)
		return err
	})
	if err == nil && s.m.broken.appendThenMark {
		err = s.write(func() error {
			s.m.dealt[once] = at
			return nil
		})
	}
	return at, added, err
}

// chain checks that each entry of the tick log follows on the one before it: no boundary is due twice or never.
func (m *mesh) chain(at int64, entry []byte) {
	var tick bolt.Tick
	if err := json.Unmarshal(entry, &tick); err != nil {
		m.fail("tick %d: %w", at, err)
		return
	}
	last := m.lastTick
	m.lastTick = tick
	if tick.N != at || at > 0 && (tick.N != last.N+1 || tick.Last != last.Time || tick.Time < last.Time || tick.Watermark < last.Watermark) {
		m.fail("tick %+v does not follow on %+v", tick, last)
	}
}

func (s store) Read(ctx context.Context, topology, log string, from int64, limit int) ([][]byte, int64, int64, error) {
	if err := s.read(); err != nil {
		return nil, 0, 0, err
	}
	entries, length, floor, err := s.Memory.Read(ctx, topology, log, from, limit)
	if s.m.broken.jumpingTicks && log == spout.TickLog && limit == 0 {
		floor = length
	}
	return entries, length, floor, err
}

func (s store) Advance(ctx context.Context, topology, log string, generation uint32, floor int64) error {
	return s.write(func() error { return s.Memory.Advance(ctx, topology, log, generation, floor) })
}

func (s store) SetFloor(ctx context.Context, topology, log string, generation uint32, floor int64) error {
	if log == spout.CallLog && (s.m.broken.staleAnswers && floor == 0 || s.m.broken.unwrittenFloors && floor > 0) {
		return nil
	}
	return s.write(func() error { return s.Memory.SetFloor(ctx, topology, log, generation, floor) })
}
