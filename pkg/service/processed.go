package service

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/trace"
)

// kafkaLog names a partition among the topology's logs: its generation is raised there, and its floor noted.
func (h *host) kafkaLog(topic string, partition int) string {
	return fmt.Sprintf("kafka/%s/%d/%s", topic, partition, h.plan.Topology.Spout.Kafka.Incarnation)
}

// processed returns the floor of a partition as noted last.
func (h *host) processed(ctx context.Context, topic string, partition int) (floor int64, err error) {
	_, _, floor, err = h.Logs.Read(ctx, h.plan.Topology.Name, h.kafkaLog(topic, partition), math.MaxInt64, 0)
	return floor, err
}

// noted wraps the commits of a partition so that the state store learns of them, once a second: what it holds is never more than Kafka has, unless
// somebody sets the group back. A note that fails is made up for by the next one. stop writes the last.
func (h *host) noted(ctx context.Context, where trace.Where, log string, generation uint32, p Partition) (commit func(context.Context, int64) error, stop func()) {
	var committed atomic.Int64
	committed.Store(p.Start())
	last := int64(0)
	note := func(ctx context.Context) {
		floor := committed.Load()
		if floor == last {
			return
		}
		err := h.Logs.Advance(ctx, h.plan.Topology.Name, log, generation, floor)
		if err == nil {
			last = floor
		} else if ctx.Err() == nil && !errors.Is(err, state.ErrFenced) {
			h.failed(where, "note the floor", err)
		}
	}
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			note(ctx)
			select {
			case <-tick.C:
			case <-ended:
				final, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
				defer cancel()
				note(final)
				return
			}
		}
	}()
	commit = func(ctx context.Context, floor int64) error {
		err := p.Commit(ctx, floor)
		if err == nil {
			committed.Store(floor)
		}
		return err
	}
	return commit, func() { close(ended); <-done }
}
