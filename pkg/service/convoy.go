package service

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

const (
	gatherFrom  = 4                     // records of one fetch, from which on they gather
	gather      = 10 * time.Millisecond // from one fetch to the next, about, or two or four times as long
	gatherTimes = 2                     // as long as it takes to store a root, at least
	gatherMost  = 40 * time.Millisecond
	lateness    = 5 * time.Millisecond // how long a convoy waits for partitions that were with one of late
	absence     = 2 * gatherMost       // for how long a partition that is with none is still waited for
)

// gathers reports whether a root of so many records is small where there could be more: of records that come one by one each is emitted at once, by itself, and full roots
// follow one another. Those between cost frames and commits, however small they are: so records gather for them, and partitions share their frames.
func gathers(records, root int) bool { return records >= gatherFrom && records < root/2 }

// pace knows how long it takes of late until a root is stored, by the mean of some. The partitions of a worker share it.
type pace struct{ took atomic.Int64 }

// note counts one more.
func (p *pace) note(took time.Duration) {
	p.took.Store((7*p.took.Load() + int64(took)) / 8)
}

// period is how long records gather: for some times as long as it takes to store a root, so that where processors are scarce batches grow until they are not.
// How long roots take to be processed would not say that: a bolt that is patient adds to it on purpose.
func (p *pace) period() time.Duration {
	period := gather
	for period < gatherTimes*time.Duration(p.took.Load()) && period < gatherMost {
		period *= 2
	}
	return period
}

// started is when all partitions of the process began to count periods, so that they fetch at the same moments.
var started = time.Now()

// pause is how long after a fetch that brought so many records at a moment the next one begins: at once, or with the others, and when there may be some again.
func (p *pace) pause(came time.Time, records, root int) time.Duration {
	if !gathers(records, root) {
		return 0
	}
	period := p.period()
	since := came.Sub(started) + period/4
	return since.Truncate(period) + period - came.Sub(started)
}

// convoy has the small roots of a worker's partitions travel in the same frames: one for each task, instead of one for each task and partition. A convoy leaves when
// every partition that travelled of late is with it, when it has as many tuples as a full root, or 5 ms after the first.
type convoy struct {
	ctx    context.Context // of storing: it outlives a partition that is taken away
	outbox bolt.Outbox
	most   int // tuples
	pace   pace
	start  func(f func()) // on a goroutine that somebody waits for

	mu      sync.Mutex
	loading *departure // nil: nobody waits
	spare   *bolt.Packer
	joined  map[tuple.Origin]time.Time // when a partition was last with one
}

// departure is one convoy.
type departure struct {
	pack    *bolt.Packer
	members int
	tuples  int
	full    chan struct{} // closed when it need not wait
	done    chan struct{} // closed when all is stored, or err says why not
	err     error
}

// carry implements spout.Options.Carry for a partition.
func (c *convoy) carry(ctx context.Context, partition tuple.Origin, tuples int, pack func() *bolt.Packer, load func(*bolt.Packer) error) error {
	c.mu.Lock()
	d := c.loading
	if d == nil {
		d = c.open(pack)
	}
	if err := load(d.pack); err != nil {
		c.mu.Unlock()
		return err
	}
	d.members++
	d.tuples += tuples
	c.joined[partition] = time.Now()
	if d.members >= c.expected() || d.tuples >= c.most {
		c.loading = nil
		close(d.full)
	}
	c.mu.Unlock()
	select {
	case <-d.done:
		return d.err
	case <-ctx.Done(): // what is loaded travels on
		return ctx.Err()
	}
}

// open begins to load a convoy.
func (c *convoy) open(pack func() *bolt.Packer) *departure {
	d := &departure{pack: c.spare, full: make(chan struct{}), done: make(chan struct{})}
	if c.spare = nil; d.pack == nil {
		d.pack = pack()
	}
	d.pack.Reset()
	c.loading = d
	c.start(func() { c.leave(d) })
	return d
}

// expected is how many partitions were with a convoy of late.
func (c *convoy) expected() int {
	for p, at := range c.joined {
		if time.Since(at) > absence {
			delete(c.joined, p)
		}
	}
	return len(c.joined)
}

// leave stores what a convoy has, when it is complete or late.
func (c *convoy) leave(d *departure) {
	defer close(d.done)
	late := time.NewTimer(lateness)
	defer late.Stop()
	select {
	case <-d.full:
	case <-late.C:
	}
	c.mu.Lock()
	if c.loading == d {
		c.loading = nil
	}
	frames := d.pack.Take()
	c.spare = d.pack
	c.mu.Unlock()
	began := time.Now()
	if d.err = c.outbox.Publish(c.ctx, frames); d.err == nil {
		bolt.Spend(c.outbox, frames)
		c.pace.note(time.Since(began))
	}
}
