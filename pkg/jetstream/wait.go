package jetstream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// How a server, or a cluster that is just being formed, is waited for.
const (
	oneTry     = 5 * time.Second // a request that reaches a server without a leader is never answered
	betweenMin = 100 * time.Millisecond
	betweenMax = 2 * time.Second
)

// errNoPeers is the refusal of a cluster in which fewer servers are known so far than copies are asked for. Its status is that of a wrong request.
const errNoPeers = 10005

// passing reports whether an error is one that waiting mends: nobody answers, or a server says that it cannot now.
func passing(err error) bool {
	for _, e := range []error{
		context.DeadlineExceeded, nats.ErrTimeout, nats.ErrNoResponders, nats.ErrNoServers, nats.ErrDisconnected, jetstream.ErrNoStreamResponse,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	var refused *jetstream.APIError
	return errors.As(err, &refused) && (refused.Code >= 500 || refused.ErrorCode == errNoPeers)
}

// wait calls f until it succeeds, fails for good, or ctx ends; what is what f wants, for whoever is told of the waiting.
func (c *Conn) wait(ctx context.Context, what string, f func(context.Context) error) error {
	for pause := betweenMin; ; pause = min(2*pause, betweenMax) {
		try, cancel := context.WithTimeout(ctx, oneTry)
		err := f(try)
		cancel()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%s: %w (last: %w)", what, ctx.Err(), err)
		case !passing(err):
			return fmt.Errorf("%s: %w", what, err)
		}
		if c.waiting != nil {
			c.waiting(what, err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("%s: %w (last: %w)", what, ctx.Err(), err)
		}
	}
}

// request repeats one step of taking a task while a cluster elects leaders, since beginning with the first step again would undo those that the cluster has
// carried out without an answer getting through. Each may be repeated. It gives up in time for whoever owns tasks to look whether this one is still its own.
func (c *Conn) request(ctx context.Context, what string, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 3*oneTry)
	defer cancel()
	return c.wait(ctx, what, f)
}

// copies is how many of a stream there should be: never fewer than there are, or a client whose configuration does not know that it talks to a cluster
// would remove the others.
func (c *Conn) copies(ctx context.Context, stream string) (int, error) {
	s, err := c.js.Stream(ctx, stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return c.replicas, nil
	}
	if err != nil {
		return 0, err
	}
	return max(c.replicas, s.CachedInfo().Config.Replicas), nil
}
