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
	oneTry     = 5 * time.Second        // a request that reaches a server without a leader is never answered
	shortTry   = 500 * time.Millisecond // of what an answer is worth waiting for, where everything waits for a leader
	betweenMin = 100 * time.Millisecond
)

// Longest pauses between attempts.
const (
	rising = 2 * time.Second
	steady = betweenMin
)

// Refusals that pass, though their status is that of a wrong request.
const (
	errNoPeers = 10005 // of a cluster in which fewer servers are known so far than copies are asked for
	errSecond  = 10099 // of a second consumer of an input, while the deletion of the first is on its way through the cluster
)

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
	return errors.As(err, &refused) && (refused.Code >= 500 || refused.ErrorCode == errNoPeers || refused.ErrorCode == errSecond)
}

// wait calls f until it succeeds, fails for good, or ctx ends; what is what f wants, for whoever is told of the waiting.
func (c *Conn) wait(ctx context.Context, what string, f func(context.Context) error) error {
	return repeat(ctx, what, rising, func() error {
		try, cancel := context.WithTimeout(ctx, oneTry)
		defer cancel()
		err := f(try)
		if ctx.Err() == nil {
			c.heard(err)
		}
		if err != nil && ctx.Err() == nil && passing(err) && c.waiting != nil {
			c.waiting(what, err)
		}
		return err
	})
}

// ask repeats a question until it is answered, fails for good, or ctx ends. Who asks while a cluster has no leader gets no answer, so it is asked again
// soon; ever less soon, as it may also be that the machine is slow.
func ask(ctx context.Context, what string, f func(context.Context) error) error {
	began := time.Now()
	return repeat(ctx, what, steady, func() error {
		try, cancel := context.WithTimeout(ctx, shortTry+time.Since(began)/8)
		defer cancel()
		return f(try)
	})
}

// repeat calls f until it succeeds, fails for good, or ctx ends, with pauses that double up to the longest.
func repeat(ctx context.Context, what string, longest time.Duration, f func() error) error {
	for pause := betweenMin; ; pause = min(2*pause, longest) {
		err := f()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%s: %w (last: %w)", what, ctx.Err(), err)
		case !passing(err):
			return fmt.Errorf("%s: %w", what, err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("%s: %w (last: %w)", what, ctx.Err(), err)
		}
	}
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
