package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// Queue says how many frames wait in a node's input by task, those being handled included; tuple.Shared stands for what workers compete for. A task for which
// none wait is not in it.
type Queue map[int32]uint64

// Sum is how many wait in all.
func (q Queue) Sum() (frames uint64) {
	for _, n := range q {
		frames += n
	}
	return frames
}

// Queued looks what waits in a node's input.
func (c *Conn) Queued(ctx context.Context, topology, node string) (Queue, error) {
	tasks, err := c.inputTasks(ctx, topology, node)
	if err != nil {
		return nil, fmt.Errorf("input of %s: %w", node, err)
	}
	q := Queue{}
	for _, task := range tasks {
		s, err := c.js.Stream(ctx, StreamName(topology, node, task))
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			continue // it has just been removed
		}
		if err != nil {
			return nil, fmt.Errorf("input of %s: %w", node, err)
		}
		if n := s.CachedInfo().State.Msgs; n > 0 {
			q[task] = n
		}
	}
	return q, nil
}

// Purge deletes the frames that wait for one task of a node.
func (c *Conn) Purge(ctx context.Context, topology, node string, task int32) error {
	s, err := c.js.Stream(ctx, StreamName(topology, node, task))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err == nil {
		err = s.Purge(ctx)
	}
	if err != nil {
		return fmt.Errorf("purge the input of task %d of %s: %w", task, node, err)
	}
	return nil
}

// Known lists the keys that match a filter, and some that are gone. Unlike Keys, which is told of each by a watch, it misses none that is being written again
// at this moment, as leases are all the time.
func (b *Bucket) Known(ctx context.Context, filter string) (keys []string, err error) {
	s, err := b.conn.js.Stream(ctx, "KV_"+b.name)
	if err != nil {
		return nil, fmt.Errorf("keys of %s: %w", b.name, err)
	}
	prefix := "$KV." + b.name + "."
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(prefix+filter))
	if err != nil {
		return nil, fmt.Errorf("keys of %s: %w", b.name, err)
	}
	for subject := range info.State.Subjects {
		keys = append(keys, strings.TrimPrefix(subject, prefix))
	}
	return keys, nil
}
