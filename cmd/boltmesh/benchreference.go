package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// What everything is compared with: messages of referenceBytes, of the kind that `transport` has, published without waiting, referencePending of them under way.
const (
	referenceBytes   = 256
	referencePending = 4096
	referenceStream  = "BENCH"
)

// bare opens JetStream as any program would.
func bare(url string) (*nats.Conn, jetstream.JetStream, error) {
	nc, err := nats.Connect(url, nats.Name("boltmesh-bench-reference"))
	if err != nil {
		return nil, nil, err
	}
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(referencePending))
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	return nc, js, nil
}

// reference publishes to one stream on files for d and returns how many messages were acknowledged in which time.
func reference(ctx context.Context, url string, d time.Duration) (n int, elapsed time.Duration, err error) {
	nc, js, err := bare(url)
	if err != nil {
		return 0, 0, err
	}
	defer nc.Close()
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: referenceStream, Subjects: []string{"bench"}, Storage: jetstream.FileStorage}); err != nil {
		return 0, 0, err
	}
	defer func() { _ = js.DeleteStream(context.WithoutCancel(ctx), referenceStream) }()
	payloads := opaque(referenceBytes, 0)
	began := time.Now()
	for ; n&0xff != 0 || time.Since(began) < d; n++ {
		if _, err := js.PublishAsync("bench", payloads[n%len(payloads)], jetstream.WithStallWait(10*time.Second)); err != nil {
			return 0, 0, fmt.Errorf("publish: %w", err)
		}
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	return n, time.Since(began), nil
}

// bareHops is the number of streams of the bare chain.
const bareHops = 3

// bareChain sends messages at a rate through a chain of streams, with nothing done to them, and counts how long each took from the moment that it was due.
func bareChain(ctx context.Context, url string, rate int, warm, d time.Duration) (*histogram, error) {
	nc, js, err := bare(url)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	h, from := &histogram{}, time.Now().Add(warm)
	var handled atomic.Int64
	for hop := range bareHops {
		name := fmt.Sprintf("BENCH%d", hop)
		c := jetstream.StreamConfig{Name: name, Subjects: []string{subject(hop)}, Storage: jetstream.FileStorage, Retention: jetstream.WorkQueuePolicy}
		if _, err := js.CreateStream(ctx, c); err != nil {
			return nil, err
		}
		defer func() { _ = js.DeleteStream(context.WithoutCancel(ctx), name) }()
		consumer, err := js.CreateConsumer(ctx, name, jetstream.ConsumerConfig{Durable: "c", AckPolicy: jetstream.AckExplicitPolicy})
		if err != nil {
			return nil, err
		}
		consuming, err := consumer.Consume(func(m jetstream.Msg) {
			if hop+1 < bareHops {
				if _, err := js.PublishAsync(subject(hop+1), m.Data()); err != nil {
					return // it comes again
				}
			} else {
				due := time.Unix(0, int64(binary.LittleEndian.Uint64(m.Data())))
				if due.After(from) {
					h.add(time.Since(due))
				}
				handled.Add(1)
			}
			_ = m.Ack() // an acknowledgement that is lost is a repetition, no more
		}, jetstream.PullExpiry(2*time.Second), jetstream.PullHeartbeat(500*time.Millisecond))
		if err != nil {
			return nil, err
		}
		defer consuming.Stop()
	}
	payloads, i := opaque(referenceBytes, 0), 0
	sent := paced(ctx, rate, warm+d, func(due []time.Time) error {
		for _, t := range due {
			payload := slices.Clone(payloads[i%len(payloads)])
			i++
			binary.LittleEndian.PutUint64(payload, uint64(t.UnixNano()))
			if _, err := js.PublishAsync(subject(0), payload); err != nil {
				return err
			}
		}
		return nil
	})
	n, err := sent()
	if err != nil {
		return nil, err
	}
	return h, until(ctx, func() bool { return handled.Load() >= n })
}

func subject(hop int) string { return fmt.Sprintf("bench%d", hop) }

// paced sends what is due, at a rate a second on an even schedule that does not wait for anything (an open loop), for d. The function that it returns
// waits for the end and says how many were sent.
func paced(ctx context.Context, rate int, d time.Duration, send func(due []time.Time) error) func() (int64, error) {
	step := time.Second / time.Duration(rate)
	next := time.Now().Truncate(time.Millisecond).Add(time.Millisecond)
	end := next.Add(d)
	var n int64
	done := make(chan error, 1)
	go func() {
		tick := time.NewTicker(min(step, time.Millisecond))
		defer tick.Stop()
		for next.Before(end) {
			select {
			case <-ctx.Done():
				done <- ctx.Err()
				return
			case <-tick.C:
			}
			var due []time.Time
			for now := time.Now(); !next.After(now) && next.Before(end); next = next.Add(step) {
				due = append(due, next)
			}
			if len(due) == 0 {
				continue
			}
			if err := send(due); err != nil {
				done <- err
				return
			}
			n += int64(len(due))
		}
		done <- nil
	}()
	return func() (int64, error) { err := <-done; return n, err }
}

// until looks every few milliseconds until f is true or ctx ends.
func until(ctx context.Context, f func() bool) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}
