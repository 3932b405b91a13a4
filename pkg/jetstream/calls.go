package jetstream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/boltmesh/boltmesh/pkg/bolt"
)

// ErrNobody says that nobody serves a subject now.
var ErrNobody = nats.ErrNoResponders

// ErrTooLarge says that the server takes no messages of this size: to send it again does not help.
var ErrTooLarge = nats.ErrMaxPayload

// Listen calls f, on one goroutine, with every message on a subject of this connection's own until stop is called. The server knows of it when Listen
// returns.
func (c *Conn) Listen(ctx context.Context, f func(data []byte)) (subject string, stop func(), err error) {
	subject = c.nc.NewInbox()
	sub, err := c.nc.Subscribe(subject, func(m *nats.Msg) { f(m.Data) })
	if err != nil {
		return "", nil, fmt.Errorf("listen: %w", err)
	}
	if err := c.flush(ctx); err != nil {
		_ = sub.Unsubscribe()
		return "", nil, fmt.Errorf("listen: %w", err)
	}
	return subject, func() { _ = sub.Unsubscribe() }, nil
}

// Tell sends a message that may get lost.
func (c *Conn) Tell(subject string, data []byte) error {
	if err := c.nc.Publish(subject, data); err != nil {
		return fmt.Errorf("tell %s: %w", subject, err)
	}
	return nil
}

// Single is an inbox of a shared input that takes one frame at a time and has none waiting behind it. It implements bolt.Inbox.
type Single struct {
	consumer jetstream.Consumer
	mu       sync.Mutex
	held     jetstream.Msg
	stop     sync.Once
	closing  chan struct{}
}

// JoinSingly is Join for slow work: frames are handed to whoever is free, one after the other.
func (c *Conn) JoinSingly(ctx context.Context, topology, node string) (*Single, error) {
	_, js, err := c.lane.open(ctx)
	if err != nil {
		return nil, err
	}
	consumer, err := sharedOf(ctx, js, topology, node)
	if err != nil {
		return nil, err
	}
	in := &Single{consumer: consumer, closing: make(chan struct{})}
	go in.keep(ackWait / 3)
	return in, nil
}

var _ bolt.Inbox = (*Single)(nil)

// Fetch implements bolt.Inbox.
func (in *Single) Fetch(ctx context.Context, _ int) ([]bolt.Delivery, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m, err := in.consumer.Next(jetstream.FetchMaxWait(patience))
	switch {
	case errors.Is(err, nats.ErrTimeout), errors.Is(err, jetstream.ErrNoMessages):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("pull: %w", err)
	}
	in.mu.Lock()
	in.held = m
	in.mu.Unlock()
	return []bolt.Delivery{{Data: m.Data(), Token: m}}, nil
}

// keep tells the server that what is held is still being worked on.
func (in *Single) keep(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			in.mu.Lock()
			if in.held != nil {
				_ = in.held.InProgress() // the server is away: it hands the frame out again
			}
			in.mu.Unlock()
		case <-in.closing:
			return
		}
	}
}

// Ack implements bolt.Inbox.
func (in *Single) Ack(_ context.Context, ds []bolt.Delivery) error {
	in.mu.Lock()
	in.held = nil
	in.mu.Unlock()
	for _, d := range ds {
		if err := d.Token.(jetstream.Msg).Ack(); err != nil {
			return fmt.Errorf("acknowledge: %w", err)
		}
	}
	return nil
}

// Working implements bolt.Inbox.
func (in *Single) Working(_ context.Context, ds []bolt.Delivery) error { return working(ds) }

// Close gives up what was fetched and not acknowledged: it is delivered again.
func (in *Single) Close() { in.stop.Do(func() { close(in.closing) }) }
