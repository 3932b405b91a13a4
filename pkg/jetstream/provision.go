package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Limits of a node's input stream; they are the back-pressure.
const (
	framesPerSubject = 1024
	bytesPerStream   = 256 << 20
	ackWait          = 30 * time.Second
	sharedConsumer   = "shared"
)

// Input names a node's input to be provisioned.
type Input struct {
	Topology, Node string
	Shared         bool
}

// Provision creates or updates the input streams, and the consumer of shared ones, before any producer starts.
func (c *Conn) Provision(ctx context.Context, inputs []Input) error {
	for _, in := range inputs {
		name := StreamName(in.Topology, in.Node)
		s, err := c.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
			Name: name, Subjects: []string{"bm." + in.Topology + "." + in.Node + ".*"},
			Description: "input of node " + in.Node + " of topology " + in.Topology,
			Retention:   jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew, DiscardNewPerSubject: true,
			MaxMsgsPerSubject: framesPerSubject, MaxBytes: bytesPerStream, MaxMsgs: -1,
			Storage: jetstream.FileStorage, Replicas: c.replicas, Duplicates: 2 * time.Minute,
		})
		if err != nil {
			return fmt.Errorf("create stream %s: %w", name, err)
		}
		if in.Shared {
			if _, err := s.CreateOrUpdateConsumer(ctx, consumerConfig(sharedConsumer, "", framesPerSubject)); err != nil {
				return fmt.Errorf("create consumer of %s: %w", name, err)
			}
		}
	}
	return nil
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
