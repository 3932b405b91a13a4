package jetstream

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Limits of a node's input stream; they are the back-pressure.
const (
	framesPerSubject = 1024
	bytesPerStream   = 256 << 20
	sharedConsumer   = "shared"
)

// ackWait is after how long the server hands a frame out again. What a worker holds it says so of in time (keep), however long it takes, so this is only how
// long acknowledgements and frames are missed that were lost with a server or a worker: a full input stands still that long.
const ackWait = 10 * time.Second

// Input names a node's input to be provisioned.
type Input struct {
	Topology, Node string
	Shared         bool
}

// Provision creates or updates the input streams, and the consumer of shared ones, before any producer starts. It waits until they
// can be had, or ctx ends.
func (c *Conn) Provision(ctx context.Context, inputs []Input) error {
	for _, in := range inputs {
		name := StreamName(in.Topology, in.Node)
		s, err := c.stream(ctx, "stream "+name, jetstream.StreamConfig{
			Name: name, Subjects: []string{"bm." + in.Topology + "." + in.Node + ".*"},
			Description: "input of node " + in.Node + " of topology " + in.Topology,
			Retention:   jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew, DiscardNewPerSubject: true,
			MaxMsgsPerSubject: framesPerSubject, MaxBytes: bytesPerStream, MaxMsgs: -1,
			Storage: jetstream.FileStorage, Duplicates: 2 * time.Minute,
		})
		if err != nil {
			return err
		}
		if !in.Shared {
			continue
		}
		err = c.wait(ctx, "consumer of "+name, func(ctx context.Context) error {
			_, err := s.CreateOrUpdateConsumer(ctx, consumerConfig(sharedConsumer, "", framesPerSubject))
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// stream creates or updates a stream, and waits for it until ctx ends: a cluster that is being formed answers late.
func (c *Conn) stream(ctx context.Context, what string, config jetstream.StreamConfig) (s jetstream.Stream, err error) {
	err = c.wait(ctx, what, func(ctx context.Context) (err error) {
		if config.Replicas, err = c.copies(ctx, config.Name); err == nil {
			s, err = c.js.CreateOrUpdateStream(ctx, config)
		}
		return err
	})
	return s, err
}

// Remove deletes the input streams.
func (c *Conn) Remove(ctx context.Context, inputs []Input) error {
	for _, in := range inputs {
		if err := c.js.DeleteStream(ctx, StreamName(in.Topology, in.Node)); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			return err
		}
	}
	return nil
}

// Inputs lists the nodes of a topology that have an input stream.
func (c *Conn) Inputs(ctx context.Context, topology string) (nodes []string, err error) {
	prefix := StreamName(topology, "")
	l := c.js.StreamNames(ctx, jetstream.WithStreamListSubject("bm."+topology+".*.*"))
	for name := range l.Name() {
		if node, ok := strings.CutPrefix(name, prefix); ok {
			nodes = append(nodes, node)
		}
	}
	return nodes, l.Err()
}

// Queued returns how many frames wait in a node's input, those being handled included.
func (c *Conn) Queued(ctx context.Context, topology, node string) (frames uint64, err error) {
	s, err := c.js.Stream(ctx, StreamName(topology, node))
	if err != nil {
		return 0, err
	}
	return s.CachedInfo().State.Msgs, nil
}

// consumerConfig describes a durable pull consumer that hands out at most pending frames before the first of them is acknowledged.
func consumerConfig(name, subject string, pending int) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable: name, FilterSubject: subject, AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait,
		MaxDeliver: -1, MaxAckPending: pending, DeliverPolicy: jetstream.DeliverAllPolicy,
	}
}
