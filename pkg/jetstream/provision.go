package jetstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Limits of an input stream; they are the back-pressure. Of a stream with a limit below 32 MiB nats-server makes blocks of 4 MB, of any other 8 MB, which cost it
// more CPU.
const (
	framesPerStream = 1024
	bytesPerStream  = 24 << 20
	sharedConsumer  = "shared"
)

// ackWait is after how long the server hands a frame out again. What a worker holds it says so of in time (keep), however long it takes, so this is only how
// long acknowledgements and frames are missed that were lost with a server or a worker: a full input stands still that long.
const ackWait = 10 * time.Second

// errOverlap is the server's refusal of a stream whose subject another one has.
const errOverlap = 10065

// Input is a node's input: a stream for each task, or one that workers compete for, which tuple.Shared stands for.
type Input struct {
	Topology, Node string
	Tasks          []int32
}

// atOnce is how many requests about streams are under way together: in a cluster each takes its servers a while.
const atOnce = 8

// Provision creates or updates the streams of inputs, and the consumers of shared ones, before any producer starts. It waits until they can be had, or ctx
// ends.
func (c *Conn) Provision(ctx context.Context, inputs []Input) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var all sync.WaitGroup
	turns := make(chan struct{}, atOnce)
	for _, in := range inputs {
		for _, task := range in.Tasks {
			turns <- struct{}{}
			all.Go(func() {
				if err := c.provision(ctx, in, task); err != nil {
					stop(err) // the first counts: the others end because of it
				}
				<-turns
			})
		}
	}
	all.Wait()
	return context.Cause(ctx)
}

func (c *Conn) provision(ctx context.Context, in Input, task int32) error {
	name := StreamName(in.Topology, in.Node, task)
	s, err := c.stream(ctx, "stream "+name, jetstream.StreamConfig{
		Name: name, Subjects: []string{Subject(in.Topology, in.Node, task)},
		Description: "input of node " + in.Node + " of topology " + in.Topology,
		Retention:   jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew,
		MaxMsgs: framesPerStream, MaxBytes: bytesPerStream, Storage: jetstream.FileStorage, Duplicates: 2 * time.Minute,
	})
	if refused := (*jetstream.APIError)(nil); errors.As(err, &refused) && refused.ErrorCode == errOverlap {
		return fmt.Errorf("%w: remove the stream that has %s, perhaps that of a build from before each task had one", err, Subject(in.Topology, in.Node, task))
	}
	if err != nil || task != tuple.Shared {
		return err
	}
	return c.wait(ctx, "consumer of "+name, func(ctx context.Context) error {
		_, err := s.CreateOrUpdateConsumer(ctx, consumerConfig(sharedConsumer, framesPerStream))
		return err
	})
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

// Trim deletes the streams of nodes that their inputs do not have any more: those of tasks that are not, or what workers competed for.
func (c *Conn) Trim(ctx context.Context, inputs []Input) error {
	for _, in := range inputs {
		there, err := c.inputTasks(ctx, in.Topology, in.Node)
		if err != nil {
			return err
		}
		there = slices.DeleteFunc(there, func(task int32) bool { return slices.Contains(in.Tasks, task) })
		if err := c.removeStreams(ctx, in.Topology, in.Node, there); err != nil {
			return err
		}
	}
	return nil
}

// Remove deletes the streams of nodes.
func (c *Conn) Remove(ctx context.Context, topology string, nodes []string) error {
	for _, node := range nodes {
		tasks, err := c.inputTasks(ctx, topology, node)
		if err == nil {
			err = c.removeStreams(ctx, topology, node, tasks)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *Conn) removeStreams(ctx context.Context, topology, node string, tasks []int32) error {
	for _, task := range tasks {
		err := c.js.DeleteStream(ctx, StreamName(topology, node, task))
		if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			return fmt.Errorf("remove the input of %s: %w", node, err)
		}
	}
	return nil
}

// Inputs lists the nodes of a topology that have an input.
func (c *Conn) Inputs(ctx context.Context, topology string) (nodes []string, err error) {
	err = c.inputStreams(ctx, Frames(topology, "*"), func(node string, _ int32) {
		if !slices.Contains(nodes, node) {
			nodes = append(nodes, node)
		}
	})
	return nodes, err
}

// inputTasks lists the tasks of a node that have a stream; tuple.Shared stands for what workers compete for.
func (c *Conn) inputTasks(ctx context.Context, topology, node string) (tasks []int32, err error) {
	err = c.inputStreams(ctx, Frames(topology, node), func(_ string, task int32) { tasks = append(tasks, task) })
	return tasks, err
}

// inputStreams calls f for each stream whose subject matches a filter.
func (c *Conn) inputStreams(ctx context.Context, filter string, f func(node string, task int32)) error {
	l := c.js.StreamNames(ctx, jetstream.WithStreamListSubject(filter))
	for name := range l.Name() {
		if parts := strings.Split(name, "_"); len(parts) == 4 {
			if task, err := tuple.ParseTask(parts[3]); err == nil {
				f(parts[2], task)
			}
		}
	}
	return l.Err()
}

// consumerConfig describes a durable pull consumer that hands out at most pending frames before the first of them is acknowledged.
func consumerConfig(name string, pending int) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable: name, AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait,
		MaxDeliver: -1, MaxAckPending: pending, DeliverPolicy: jetstream.DeliverAllPolicy,
	}
}
