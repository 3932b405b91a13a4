package service

import (
	"context"
	"math"
	"time"

	"github.com/boltmesh/boltmesh/pkg/ack"
	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/spout"
)

// tickOwner runs the topology's tick log while this worker holds its lease.
func (h *host) tickOwner(ctx context.Context) {
	nodes := ticks(h.plan)
	if len(nodes) > 0 {
		h.ownLog(ctx, spout.TickLog, func(stopping, hard context.Context) error { return h.tickLoop(stopping, hard, nodes) })
	}
}

// tickLoop owns the tick log until ctx ends.
func (h *host) tickLoop(ctx, hard context.Context, nodes []spout.Due) error {
	name := h.plan.Topology.Name
	generation, err := h.Logs.Raise(hard, name, spout.TickLog)
	if err != nil {
		return err
	}
	where := h.at()
	where.Task = -2 // no partition: the tick log
	deltas, stop, err := h.deltas(spout.TickOrigin(name), where)
	if err != nil {
		return err
	}
	defer stop()
	t, err := spout.NewTicker(hard, spout.Options{
		Where: where, Generation: generation, Revision: h.revision, Outbox: &staggered{h.outbox, spread(nodes)}, Clock: clock{}, Sink: h.Sink,
		Ledger: ack.Options{Timeout: h.plan.Topology.Spout.Timeout.Milliseconds()},
	}, name, h.Logs, nodes)
	if err != nil {
		return err
	}
	flush := &flush{requests: make(chan chan struct{}, 1)}
	unserve, err := h.Conn.Serve(control.FlushSubject(name), func([]byte) []byte { return flush.wait(hard) })
	if err != nil {
		return err
	}
	defer unserve()
	tick := time.NewTicker(spoutTick)
	defer tick.Stop()
	watermark, looked := int64(math.MinInt64), time.Time{}
	for n := 0; ; n++ {
		select {
		case ds := <-deltas:
			t.Apply(ds)
			drain(deltas, t.Apply)
			err = t.Settle(hard)
		case <-tick.C:
			if time.Since(looked) >= time.Second { // moving watermarks are worth a tick a second, no more
				looked = time.Now()
				alive, _ := h.roster.see()
				watermark = member.Watermark(watermark, alive, h.Source.Partitions())
			}
			switch err = t.Tick(hard); {
			case err != nil || ctx.Err() != nil:
			case h.told().paused:
				err = t.Rest(hard)
			default:
				err = t.Advance(hard, watermark)
			}
		case done := <-flush.requests:
			flush.begin(t.Levels(), done)
		case <-ctx.Done():
			if n, _ := t.Open(); n == 0 || hard.Err() != nil {
				return t.Settle(hard)
			}
			sleep(hard, spoutTick/10)
			drain(deltas, t.Apply)
			err = t.Tick(hard)
		}
		told := h.told()
		if err == nil && !told.paused {
			err = flush.step(hard, t)
		}
		if err != nil {
			return err
		}
		h.markLog(t.Mark(told.pause(), t.Length()))
	}
}

// spread is over how long the ticks of one moment are handed out: half of the shortest time between two.
func spread(nodes []spout.Due) time.Duration {
	shortest := time.Second // of the watermark's
	for _, n := range nodes {
		if n.Every > 0 {
			shortest = min(shortest, time.Duration(n.Every)*time.Millisecond)
		}
	}
	return shortest / 2
}

// staggered stores frames one after the other, spread over some time. A tick makes all tasks work at the same moment, with outputs that are stored at the same
// moment, and readings that come then would wait for all of that.
type staggered struct {
	bolt.Outbox
	over time.Duration
}

func (s *staggered) Publish(ctx context.Context, frames []bolt.Outgoing) error {
	for i := range frames {
		if i > 0 {
			sleep(ctx, s.over/time.Duration(len(frames)))
		}
		if err := s.Outbox.Publish(ctx, frames[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

// flush walks through the levels of the graph, one entry each, the next when the one before is done.
type flush struct {
	requests chan chan struct{}
	levels   []int
	done     []chan struct{}
}

// wait asks for a flush and returns when it is done: the answer to the request.
func (f *flush) wait(ctx context.Context) []byte {
	done := make(chan struct{})
	select {
	case f.requests <- done:
	case <-ctx.Done():
		return []byte("stopped")
	}
	select {
	case <-done:
		return []byte("flushed")
	case <-ctx.Done():
		return []byte("stopped")
	}
}

func (f *flush) begin(levels []int, done chan struct{}) {
	f.levels, f.done = levels, append(f.done, done)
}

func (f *flush) step(ctx context.Context, t *spout.Ticker) error {
	if len(f.done) == 0 || !t.Flushed() {
		return nil
	}
	if len(f.levels) == 0 {
		for _, d := range f.done {
			close(d)
		}
		f.done = nil
		return nil
	}
	level := f.levels[0]
	f.levels = f.levels[1:]
	return t.Flush(ctx, level)
}
