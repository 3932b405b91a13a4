package jetstream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Peek looks at frames that wait for a task, the oldest first, without taking them: up to most of them, and for so long. Of what comes and goes
// between two looks it sees nothing.
func (c *Conn) Peek(ctx context.Context, topology, node string, task int32, most int, d time.Duration) (frames [][]byte, err error) {
	s, err := c.js.Stream(ctx, StreamName(topology, node, task))
	if err != nil {
		return nil, fmt.Errorf("stream of %s/%s: %w", topology, node, err)
	}
	end := time.Now().Add(d)
	for next := uint64(1); len(frames) < most; {
		m, err := s.GetMsg(ctx, next, jetstream.WithGetMsgSubject(Subject(topology, node, task)))
		switch {
		case err == nil:
			frames, next = append(frames, m.Data), m.Sequence+1
			continue
		case !errors.Is(err, jetstream.ErrMsgNotFound):
			return frames, fmt.Errorf("look at what waits for %s/%d: %w", node, task, err)
		case !time.Now().Before(end):
			return frames, nil
		}
		select {
		case <-time.After(d / 50):
		case <-ctx.Done():
			return frames, ctx.Err()
		}
	}
	return frames, nil
}
