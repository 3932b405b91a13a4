package service

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// road is where convoys go: it notes what arrives, and takes its time.
type road struct {
	took time.Duration
	err  error

	mu     sync.Mutex
	left   []time.Time // when
	frames []tuple.Frame
}

func (r *road) Publish(ctx context.Context, out []bolt.Outgoing) error {
	r.mu.Lock()
	r.left = append(r.left, time.Now())
	for _, o := range out {
		var f tuple.Frame
		if err := f.Decode(o.Data); err != nil {
			return err
		}
		r.frames = append(r.frames, f)
	}
	r.mu.Unlock()
	time.Sleep(r.took)
	return r.err
}

// take returns the frames since the last call.
func (r *road) take() []tuple.Frame {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.frames
	r.frames = nil
	return f
}

func newConvoy(r *road) *convoy {
	return &convoy{ctx: context.Background(), outbox: r, most: 100, start: func(f func()) { go f() }, joined: map[tuple.Origin]time.Time{}}
}

// travel has a partition send a root of so many tuples, one of them to either of two tasks.
func travel(ctx context.Context, c *convoy, partition tuple.Origin, tuples int) error {
	pack := func() *bolt.Packer {
		return &bolt.Packer{Revision: 1, Source: "in", Edges: []bolt.Edge{{To: "b", Stream: tuple.DefaultStream, Tasks: 2, All: true}}}
	}
	return c.carry(ctx, partition, tuples, pack, func(p *bolt.Packer) error {
		t := tuple.Tuple{ID: tuple.ID{byte(partition)}, Root: tuple.Root{Origin: partition}, Stream: tuple.DefaultStream}
		_, _, err := p.Route(&t)
		return err
	})
}

// together has partitions travel at the same time, and returns how long it took.
func together(t *testing.T, c *convoy, partitions ...tuple.Origin) time.Duration {
	t.Helper()
	began := time.Now()
	var wg sync.WaitGroup
	for _, p := range partitions {
		wg.Go(func() {
			if err := travel(t.Context(), c, p, 1); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	return time.Since(began)
}

// TestPartitionsTravelTogether checks that the roots of partitions which come at the same time share frames, a frame for each task, and wait for nobody once all
// are there.
func TestPartitionsTravelTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &road{took: time.Millisecond}
		c := newConvoy(r)
		together(t, c, 1, 2, 3) // they get to know each other
		r.take()
		if took := together(t, c, 1, 2, 3); took != r.took {
			t.Errorf("it took %v, storing %v of it", took, r.took)
		}
		frames := r.take()
		if len(frames) != 2 {
			t.Fatalf("%d frames for two tasks", len(frames))
		}
		for _, f := range frames {
			if len(f.Roots()) != 3 || len(f.Tuples) != 3 {
				t.Errorf("%d roots, %d tuples in a frame, want 3 of each", len(f.Roots()), len(f.Tuples))
			}
		}
	})
}

// TestConvoyWaitsForTheLate checks that a convoy waits for a partition that was with one of late, not for long, and no more once it has been away.
func TestConvoyWaitsForTheLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &road{}
		c := newConvoy(r)
		if took := together(t, c, 1); took != 0 {
			t.Errorf("the only partition waited %v", took)
		}
		together(t, c, 1, 2)
		if took := together(t, c, 1); took != lateness {
			t.Errorf("waited %v for the second, want %v", took, lateness)
		}
		began := time.Now()
		if err := travel(t.Context(), c, 1, c.most); err != nil || time.Since(began) != 0 {
			t.Errorf("as many tuples as a full root waited %v (%v)", time.Since(began), err)
		}
		time.Sleep(absence)
		if took := together(t, c, 1); took != 0 {
			t.Errorf("waited %v for one that has gone", took)
		}
	})
}

// TestConvoyOutlivesItsMembers checks that what is loaded is stored even when the partition that began is taken away.
func TestConvoyOutlivesItsMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &road{}
		c := newConvoy(r)
		together(t, c, 1, 2)
		time.Sleep(gather)
		r.take()
		ctx, cancel := context.WithTimeout(t.Context(), lateness/2)
		defer cancel()
		if err := travel(ctx, c, 1, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("taken away: %v", err)
		}
		if err := travel(t.Context(), c, 2, 1); err != nil {
			t.Error(err)
		}
		if frames := r.take(); len(frames) != 2 || len(frames[0].Roots()) != 2 {
			t.Errorf("%d frames were stored: %+v", len(frames), frames)
		}
	})
}

// TestAllHearThatAConvoyFailed checks that nobody counts as stored what is not.
func TestAllHearThatAConvoyFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &road{}
		c := newConvoy(r)
		together(t, c, 1, 2)
		r.err = errors.New("the drain is over")
		var wg sync.WaitGroup
		for p := range tuple.Origin(2) {
			wg.Go(func() {
				if err := travel(t.Context(), c, p+1, 1); !errors.Is(err, r.err) {
					t.Errorf("partition %d heard: %v", p, err)
				}
			})
		}
		wg.Wait()
	})
}

// TestPartitionsFetchAtTheSameMoments checks that pauses end at the same moments for all, whenever a fetch has brought something.
func TestPartitionsFetchAtTheSameMoments(t *testing.T) {
	p := &pace{}
	for _, took := range []time.Duration{0, 7 * time.Millisecond, time.Second} {
		for range 100 {
			p.note(took)
		}
		period := p.period()
		for ms := range 200 {
			came := started.Add(time.Duration(ms) * time.Millisecond)
			pause := p.pause(came, gatherFrom, 100)
			if next := came.Add(pause).Sub(started); next%period != 0 || pause <= period/4 || pause > 5*period/4 {
				t.Fatalf("records that came %v after the start: the next fetch %v later, periods are %v", came.Sub(started), pause, period)
			}
		}
	}
}
