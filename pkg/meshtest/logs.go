package meshtest

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// entries is one of the topology's own logs as its owner emits it.
type entries interface {
	Apply(deltas []tuple.Delta)
	Look(ctx context.Context) error
	Tick(ctx context.Context) error
	PumpTo(ctx context.Context, end int64) error
	Settle(ctx context.Context) error
	Open() (int, int64)
	Traces() int64
	Mark(pause uint64, end int64) member.Log
}

// emitLog emits what is in a log and what comes into it, as pkg/service does, until somebody else owns it, another revision is applied, or besides, which is called each
// time before anything is emitted, returns an error.
func (m *mesh) emitLog(a *actor, name string, log entries, inbox *[]tuple.Delta, current func() bool, besides func() error) error {
	if err := m.introduce(a, current(), member.Member{Logs: []member.Log{{Name: name}}}); err != nil {
		return err
	}
	ctx, traces := context.Background(), log.Traces()
	for {
		ds := *inbox
		*inbox = nil
		log.Apply(ds)
		end, pause := int64(math.MaxInt64), m.paused(a)
		if pause > 0 {
			end = traces
		}
		if a.draining > 0 {
			end = 0
		}
		if err := besides(); err != nil {
			return err
		}
		err := log.Look(ctx)
		if err == nil {
			err = log.Tick(ctx)
		}
		if err == nil {
			err = log.PumpTo(ctx, end)
		}
		if errors.Is(err, spout.ErrStale) {
			return err
		}
		m.renew(a, current(), member.Member{Logs: []member.Log{log.Mark(pause, traces)}})
		if n, _ := log.Open(); m.leaves(a, current(), n) {
			return errors.Join(errChanged, log.Settle(ctx))
		}
		a.sleep(20 * time.Millisecond)
	}
}
