package service

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// TestWhatIsCommittedIsNoted: a spout leaves behind how far Kafka was told that each partition is processed, and its successor can ask for it.
func TestWhatIsCommittedIsNoted(t *testing.T) {
	m := newMesh(t)
	m.worker("tally", "w", func(context.Context, Node) (bolt.Bolt, error) { return &tally{}, nil })
	stop := m.worker(topology.KindSpout, "s", nil)
	m.apply(fmt.Sprintf(tallyYAML, "5s"))
	for i := range 100 {
		m.source.add(i, `{}`)
	}
	m.until("everything is processed", m.source.done)
	stop()
	for i, committed := range m.source.committed {
		log := fmt.Sprintf("kafka/readings/%d/", i)
		if _, _, floor, err := m.store.Read(t.Context(), "tally", log, 0, 0); err != nil || floor != committed || floor != 50 {
			t.Errorf("partition %d: noted %d (%v), committed %d, want 50", i, floor, err, committed)
		}
	}
}

// slow is a partition of a group whose coordinator answers when it is told to.
type slow struct {
	Partition
	asked  chan int64
	answer chan error
}

func (p *slow) Start() int64 { return 10 }

func (p *slow) Commit(_ context.Context, floor int64) error {
	p.asked <- floor
	return <-p.answer
}

// TestCommitsDoNotHoldUp: while a commit is under way another one is neither begun nor waited for, unless somebody wants it done. None goes back, and that one has
// failed is told once.
func TestCommitsDoNotHoldUp(t *testing.T) {
	p := &slow{asked: make(chan int64), answer: make(chan error)}
	c, ended := newCommits(p), make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() { c.run(t.Context(), ended) })
	begin := func(floor int64) (err error) { // until it is under way
		t.Helper()
		for {
			if _, err = c.begin(floor); err != nil {
				return err
			}
			select {
			case got := <-p.asked:
				if got != floor {
					t.Errorf("asked to commit %d, want %d", got, floor)
				}
				return nil
			case <-time.After(time.Millisecond):
			}
		}
	}
	durable := func(want int64) {
		t.Helper()
		c.mu.Lock() // nothing is under way
		defer c.mu.Unlock()
		if got := c.durable.Load(); got != want {
			t.Errorf("%d is durable, want %d", got, want)
		}
	}
	durable(10)
	if err := begin(20); err != nil {
		t.Fatal(err)
	}
	if got, err := c.begin(30); got != 10 || err != nil { // does not wait, and is not kept
		t.Errorf("while one is under way: %d is durable (%v), want 10", got, err)
	}
	p.answer <- nil
	durable(20)
	if err := begin(40); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- c.commit(t.Context(), 50) }()
	p.answer <- nil
	if got := <-p.asked; got != 50 {
		t.Errorf("asked to commit %d behind 40, want 50", got)
	}
	p.answer <- nil
	if err := <-done; err != nil {
		t.Error(err)
	}
	durable(50)
	if err := c.commit(t.Context(), 45); err != nil { // if it asked it would wait for an answer
		t.Error(err)
	}
	if err := begin(60); err != nil {
		t.Fatal(err)
	}
	p.answer <- spout.ErrStale
	durable(50)
	for len(c.failed) == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := begin(60); !errors.Is(err, spout.ErrStale) {
		t.Errorf("one that failed is told as %v", err)
	}
	if err := begin(60); err != nil {
		t.Errorf("it is told twice: %v", err)
	}
	p.answer <- nil
	close(ended)
	running.Wait()
	durable(60)
}
