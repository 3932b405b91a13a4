package kafka

import (
	"errors"
	"sync"

	"github.com/segmentio/kafka-go"
)

// committer commits the offsets of a generation's partitions: one request at a time, for all of them that wait. kafka-go has one connection to the group's
// coordinator, and of several that wait for answers there all but one spin until theirs has come.
type committer struct {
	send func(offsets map[string]map[int]int64) error

	sending sync.Mutex
	mu      sync.Mutex
	next    *commits // those that wait; nil: none does
}

// commits are sent together.
type commits struct {
	offsets    map[string]map[int]int64
	partitions int
	once       sync.Once
	err        error
}

// commit makes floor the offset of a partition, of which no other commit may be under way.
func (c *committer) commit(topic string, partition int, floor int64) error {
	own := c.join(topic, partition, floor)
	c.sending.Lock()
	defer c.sending.Unlock()
	own.once.Do(func() { // by the first of them; the others find it done
		c.mu.Lock()
		c.next = nil
		c.mu.Unlock()
		own.err = c.send(own.offsets)
	})
	if said := kafka.Error(0); own.partitions == 1 || !errors.As(own.err, &said) {
		return own.err // nil; or the coordinator is away, for all of them
	}
	return c.send(map[string]map[int]int64{topic: {partition: floor}}) // it may have been another one's fault
}

func (c *committer) join(topic string, partition int, floor int64) *commits {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next == nil {
		c.next = &commits{offsets: map[string]map[int]int64{}}
	}
	if c.next.offsets[topic] == nil {
		c.next.offsets[topic] = map[int]int64{}
	}
	c.next.offsets[topic][partition] = floor
	c.next.partitions++
	return c.next
}
