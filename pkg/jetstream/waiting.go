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
	all, err := c.queues(ctx, topology, node)
	return all[node], err
}

// Queues looks what waits in the inputs of a topology, by node; those in which nothing waits are there too.
func (c *Conn) Queues(ctx context.Context, topology string) (map[string]Queue, error) {
	return c.queues(ctx, topology, "*")
}

func (c *Conn) queues(ctx context.Context, topology, nodes string) (map[string]Queue, error) {
	tasks := map[string][]int32{}
	err := c.inputStreams(ctx, Frames(topology, nodes), func(node string, task int32) { tasks[node] = append(tasks[node], task) })
	if err != nil {
		return nil, fmt.Errorf("inputs of %s: %w", topology, err)
	}
	all := map[string]Queue{}
	for node, tasks := range tasks {
		q := Queue{}
		all[node] = q
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
	}
	return all, nil
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
	prefix := b.prefix()
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(prefix+filter))
	if err != nil {
		return nil, fmt.Errorf("keys of %s: %w", b.name, err)
	}
	for subject := range info.State.Subjects {
		keys = append(keys, strings.TrimPrefix(subject, prefix))
	}
	return keys, nil
}
