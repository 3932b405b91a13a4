package kafka

import (
	"errors"
	"io"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
)

// TestCommitsTravelTogether has partitions commit while one request is under way: they share the next one.
func TestCommitsTravelTogether(t *testing.T) {
	const partitions = 8
	begun, end := make(chan struct{}), make(chan struct{})
	requests, committed := 0, map[int]int64{} // one request at a time: no lock, the race detector looks
	c := &committer{send: func(offsets map[string]map[int]int64) error {
		if requests++; requests == 1 {
			close(begun)
			<-end
		}
		maps.Copy(committed, offsets["t"])
		return nil
	}}
	var all sync.WaitGroup
	for i := range partitions {
		all.Go(func() {
			if err := c.commit("t", i, int64(10*i)); err != nil {
				t.Error(err)
			}
		})
		if i == 0 {
			<-begun
		}
	}
	c.await(partitions - 1)
	close(end)
	all.Wait()
	if requests != 2 || len(committed) != partitions || committed[7] != 70 {
		t.Errorf("%d requests committed %v", requests, committed)
	}
	if err := c.commit("t", 7, 71); err != nil || requests != 3 || committed[7] != 71 {
		t.Errorf("the next one: %v, %d requests, %v", err, requests, committed)
	}
}

// TestCommitFails has one of several partitions that commit together be refused: the others are not told that theirs was. That the coordinator is away is
// told to all, who do not try it one by one.
func TestCommitFails(t *testing.T) {
	for _, c := range []struct {
		name             string
		err              error
		failed, requests int
	}{
		{"one is refused", kafka.UnknownTopicOrPartition, 1, 1 + 1 + 3},
		{"the coordinator is away", io.ErrUnexpectedEOF, 3, 1 + 1},
	} {
		begun, end := make(chan struct{}), make(chan struct{})
		requests := 0
		together := &committer{send: func(offsets map[string]map[int]int64) error {
			if requests++; requests == 1 {
				close(begun)
				<-end
			}
			if offsets["gone"] == nil {
				return nil
			}
			return c.err
		}}
		var all sync.WaitGroup
		var failed atomic.Int32
		for i, topic := range []string{"t", "t", "gone", "t"} {
			all.Go(func() {
				if err := together.commit(topic, i, 1); errors.Is(err, c.err) {
					failed.Add(1)
				} else if err != nil || topic == "gone" {
					t.Errorf("%s: %s/%d: %v", c.name, topic, i, err)
				}
			})
			if i == 0 {
				<-begun
			}
		}
		together.await(3)
		close(end)
		all.Wait()
		if requests != c.requests || int(failed.Load()) != c.failed {
			t.Errorf("%s: %d requests, %d failed, want %d and %d", c.name, requests, failed.Load(), c.requests, c.failed)
		}
	}
}

// await returns when so many wait.
func (c *committer) await(partitions int) {
	for waiting := 0; waiting < partitions; time.Sleep(time.Millisecond) {
		c.mu.Lock()
		if c.next != nil {
			waiting = c.next.partitions
		}
		c.mu.Unlock()
	}
}
