package service

import (
	"context"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/trace"
)

// steady is a partition that always has so many records more.
type steady struct {
	Partition
	records int
	next    int64
}

func (s *steady) Start() int64 { return 0 }

func (s *steady) Next(context.Context) ([]spout.Record, int64, error) {
	s.next += int64(s.records)
	return make([]spout.Record, s.records), s.next, nil
}

// TestRecordsGather checks that only fetches which bring some records, and no full root, wait for more: a record that comes alone is not held up, nor is a
// backlog.
func TestRecordsGather(t *testing.T) {
	const root = 100
	for records, waits := range map[int]bool{1: false, gatherFrom - 1: false, gatherFrom: true, root/2 - 1: true, root / 2: false, root: false} {
		h := &host{convoy: &convoy{}, Worker: &Worker{Records: root}, plan: &topology.Plan{Topology: &topology.Topology{Spout: topology.Spout{MaxPending: 20_000}}}}
		ctx, cancel := context.WithCancel(t.Context())
		fetches := h.fetch(ctx, trace.Where{}, &steady{records: records})
		began, n := time.Now(), 0
		for ; n < 10; n++ {
			if f := <-fetches; len(f.records) != records {
				t.Fatalf("fetched %d records, want %d", len(f.records), records)
			}
		}
		cancel()
		// Nine pauses lie between the first hand-over and the tenth; a timer may be early by a little.
		if took := time.Since(began); waits != (took >= 8*gather) {
			t.Errorf("%d records a fetch: ten took %v, waiting %v wanted", records, took, waits)
		}
	}
}

// TestGatheringFollowsTheStoring checks that records gather for longer where it takes long to store a root, and no longer than the bound.
func TestGatheringFollowsTheStoring(t *testing.T) {
	p := &pace{}
	for _, c := range []struct{ took, want time.Duration }{
		{time.Millisecond, gather}, {8 * time.Millisecond, 2 * gather}, {15 * time.Millisecond, gatherMost}, {time.Second, gatherMost}, {time.Millisecond, gather},
	} {
		for range 100 {
			p.note(c.took)
		}
		if got := p.period(); got != c.want {
			t.Errorf("to store a root takes %v: gathering for %v, want %v", c.took, got, c.want)
		}
	}
}
