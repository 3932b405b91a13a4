package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// QueuedTasks returns how many frames wait in a node's input by task, those being handled included; tuple.Shared stands for what workers compete for.
func (c *Conn) QueuedTasks(ctx context.Context, topology, node string) (frames map[int32]uint64, err error) {
	s, err := c.js.Stream(ctx, StreamName(topology, node))
	if err != nil {
		return nil, fmt.Errorf("input of %s: %w", node, err)
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(">"))
	if err != nil {
		return nil, fmt.Errorf("input of %s: %w", node, err)
	}
	frames = map[int32]uint64{}
	for subject, n := range info.State.Subjects {
		task, err := strconv.ParseInt(subject[strings.LastIndexByte(subject, '.')+1:], 10, 32)
		if err != nil {
			task = -1 // the shared subject is a word
		}
		frames[int32(task)] += n
	}
	return frames, nil
}

// Purge deletes the frames that wait for one task of a node.
func (c *Conn) Purge(ctx context.Context, topology, node string, task int32) error {
	s, err := c.js.Stream(ctx, StreamName(topology, node))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err == nil {
		err = s.Purge(ctx, jetstream.WithPurgeSubject(Subject(topology, node, task)))
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
