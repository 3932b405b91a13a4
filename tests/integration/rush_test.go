package integration

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/boltmesh/boltmesh/pkg/service"
	"github.com/boltmesh/boltmesh/pkg/spout"
)

// rush is a log of several partitions in memory, each written by a producer and read by the spout.
type rush struct {
	partitions [producers]*lane
	quit       chan struct{}
	writing    sync.WaitGroup
}

func newRush() *rush {
	r := &rush{quit: make(chan struct{})}
	for i := range r.partitions {
		r.partitions[i] = &lane{index: i, grown: make(chan struct{})}
	}
	return r
}

// begin starts the producers, rate tuples a second together.
func (r *rush) begin(rate int) {
	for _, l := range r.partitions {
		r.writing.Go(func() {
			const every = 5 * time.Millisecond
			tick := time.NewTicker(every)
			defer tick.Stop()
			began := time.Now()
			for n := 0; ; {
				select {
				case now := <-tick.C:
					for due := int(now.Sub(began).Seconds() * float64(rate) / producers); n < due; n++ {
						l.write(n)
					}
					l.tell()
				case <-r.quit:
					return
				}
			}
		})
	}
}

func (r *rush) end() { close(r.quit); r.writing.Wait() }

// processed is how many tuples are.
func (r *rush) processed() (n int64) {
	for _, l := range r.partitions {
		l.mu.Lock()
		n += l.floor
		l.mu.Unlock()
	}
	return n
}

func (r *rush) done() bool {
	for _, l := range r.partitions {
		l.mu.Lock()
		behind := l.floor < int64(len(l.records))
		l.mu.Unlock()
		if behind {
			return false
		}
	}
	return true
}

// sent is how many tuples there are of each device: their numbers go from 1 up.
func (r *rush) sent() map[string]int64 {
	out := map[string]int64{}
	for _, l := range r.partitions {
		for _, rec := range l.records {
			out[string(rec.Key)]++
		}
	}
	return out
}

// Partitions implements service.Source.
func (r *rush) Partitions() int { return producers }

// Run implements service.Source.
func (r *rush) Run(stop, hard context.Context, _ service.SourceOptions, handle func(context.Context, service.Partition)) error {
	var all sync.WaitGroup
	for _, l := range r.partitions {
		all.Go(func() { handle(hard, l) })
	}
	all.Wait()
	<-stop.Done()
	return nil
}

// lane is one partition.
type lane struct {
	index int
	next  int64 // to be read

	mu      sync.Mutex
	records []spout.Record
	floor   int64
	grown   chan struct{}
}

func (l *lane) write(n int) {
	device := fmt.Sprintf("device-%d-%d", l.index, n%scaleKeys)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, spout.Record{
		Offset: int64(n), Key: []byte(device), Value: fmt.Appendf(nil, `{"device":%q,"seq":%d}`, device, n/scaleKeys+1), Time: time.Now().UnixMilli(), Stream: "scale",
	})
}

func (l *lane) tell() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.grown)
	l.grown = make(chan struct{})
}

func (l *lane) Topic() string              { return "scale" }
func (l *lane) Index() int                 { return l.index }
func (l *lane) Start() int64               { return 0 }
func (l *lane) Look(context.Context) error { return nil }

func (l *lane) End() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int64(len(l.records))
}

func (l *lane) Next(ctx context.Context) ([]spout.Record, int64, error) {
	for {
		l.mu.Lock()
		records, grown := l.records[l.next:], l.grown
		l.mu.Unlock()
		if len(records) > 0 {
			records = records[:min(len(records), 500)]
			l.next += int64(len(records))
			return records, l.next, nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return nil, l.next, ctx.Err()
		}
	}
}

func (l *lane) Commit(_ context.Context, floor int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.floor = max(l.floor, floor)
	return nil
}
