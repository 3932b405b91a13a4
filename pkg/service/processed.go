package service

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
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

// commits are those of a partition, one at a time. Kafka's coordinator may take tens of milliseconds to answer, for which the partition's loop has no time.
type commits struct {
	partition Partition
	mu        sync.Mutex // held while one is under way
	durable   atomic.Int64
	next      chan int64 // unbuffered
	failed    chan error
}

func newCommits(p Partition) *commits {
	c := &commits{partition: p, next: make(chan int64), failed: make(chan error, 1)}
	c.durable.Store(p.Start())
	return c
}

// commit makes floor the group's offset, unless that is further already.
func (c *commits) commit(ctx context.Context, floor int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if floor <= c.durable.Load() {
		return nil
	}
	err := c.partition.Commit(ctx, floor)
	if err == nil {
		c.durable.Store(floor)
	}
	return err
}

// begin has floor committed by run, unless that is busy: then it is told again. It returns how far the group is, or an error of run's.
func (c *commits) begin(floor int64) (durable int64, err error) {
	select {
	case err = <-c.failed:
	default:
		select {
		case c.next <- floor:
		default:
		}
	}
	return c.durable.Load(), err
}

// run commits what begin is told until ended is closed.
func (c *commits) run(ctx context.Context, ended <-chan struct{}) {
	for {
		select {
		case floor := <-c.next:
			if err := c.commit(ctx, floor); err != nil {
				select {
				case c.failed <- err:
				default: // the one before has not been told yet
				}
			}
		case <-ended:
			return
		}
	}
}

// commits commits the floors of a partition and has the state store learn of them, once a second: what it holds is never more than Kafka has, unless
// somebody sets the group back. A note that fails is made up for by the next one. stop writes the last.
func (h *host) commits(ctx context.Context, where trace.Where, log string, generation uint32, p Partition) (c *commits, stop func()) {
	c = newCommits(p)
	last := int64(0)
	note := func(ctx context.Context) {
		floor := c.durable.Load()
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
	ended := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() { c.run(ctx, ended) })
	running.Go(func() {
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
	})
	return c, func() { close(ended); running.Wait() }
}
