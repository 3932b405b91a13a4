// Package devstack runs the two brokers of a topology inside this process: a NATS server with JetStream and a Kafka
// broker, both speaking their real protocols on loopback ports and keeping their data in one directory.
// The dev command and tests start it, then connect with the same clients that production uses.
// It is never reached from a service, never opens a port beyond 127.0.0.1 and never prints.
package devstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// DefaultPartitions is how many partitions a topic gets when Options names no number.
const DefaultPartitions = 4

// Options says where the stack keeps its data and what it offers. Only Dir is required.
type Options struct {
	// Dir holds all data, in the sub-directories nats and kafka; it is created when missing. One stack at a time may
	// use it: a second Start on it fails while the first runs.
	Dir string

	// NATSPort and KafkaPort are TCP ports on 127.0.0.1; zero lets the system choose, which is what a test wants.
	// Clients that outlive a restart of the stack need the port that they knew.
	NATSPort, KafkaPort int

	// Topics exist after Start, each with KafkaPartitions partitions. A topic that Dir already holds stays as it is,
	// its number of partitions too. Any other topic is created on first use.
	Topics []string

	// KafkaPartitions is the number of partitions of new topics; zero means DefaultPartitions.
	KafkaPartitions int

	// KafkaMaxBytes is the largest batch of records, in bytes, that the broker accepts; zero means Kafka's own
	// default, 1,048,588.
	KafkaMaxBytes int

	// Produced is told of each batch of records, of whatever topic, that has come to the Kafka broker, right before it
	// is stored. It must not wait for anything. nil: nobody is told.
	Produced func(partition int32, records int)

	// NoKafka leaves the broker out; KafkaBrokers then returns nothing.
	NoKafka bool

	// SyncInterval is how long JetStream may keep an acknowledged message from the disk (in the page cache, where it
	// survives the death of this process but not of the machine); zero means the server's default, two minutes.
	SyncInterval time.Duration

	// SyncAlways makes both brokers fsync every write before they acknowledge it. It overrides SyncInterval.
	SyncAlways bool

	// Warn receives what the brokers complain about, such as a full disk, one line a call and possibly from several
	// goroutines at once; nil drops it.
	Warn func(line string)
}

// Stack is a running pair of brokers. Its methods may be called from any goroutine.
type Stack struct {
	nats   *natsBroker
	kafka  *kafkaBroker
	unlock func() error
}

// Start runs the brokers and returns once both accept clients. The context bounds the start only; the stack runs until
// Close. On an error nothing is left running.
func Start(ctx context.Context, o Options) (*Stack, error) {
	if o.Dir == "" {
		return nil, errors.New("devstack: no data directory given")
	}
	if o.KafkaPartitions == 0 {
		o.KafkaPartitions = DefaultPartitions
	}
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("devstack: %w", err)
	}
	o.Dir = dir
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("devstack: %w", err)
	}
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("devstack: %s is in use by another stack: %w", dir, err)
	}
	s := &Stack{unlock: unlock}
	if err := s.start(ctx, o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Stack) start(ctx context.Context, o Options) error {
	var err error
	if s.nats, err = startNATS(ctx, o); err != nil {
		return fmt.Errorf("devstack: nats: %w", err)
	}
	if o.NoKafka {
		return nil
	}
	if s.kafka, err = startKafka(o); err != nil {
		return fmt.Errorf("devstack: kafka: %w", err)
	}
	return nil
}

// NATSURL is where clients reach NATS, as nats://127.0.0.1:port.
func (s *Stack) NATSURL() string { return s.nats.url }

// KafkaBrokers are the bootstrap addresses of Kafka, each as host:port.
func (s *Stack) KafkaBrokers() []string {
	if s.kafka == nil {
		return nil
	}
	return s.kafka.cluster.ListenAddrs()
}

// Close stops both brokers after they have written everything to Dir. Clients should be closed first, lest they
// reconnect in vain. A second call does nothing.
func (s *Stack) Close() error {
	if s.kafka != nil {
		s.kafka.close()
	}
	if s.nats != nil {
		s.nats.close()
	}
	if s.unlock == nil {
		return nil
	}
	unlock := s.unlock
	s.unlock = nil
	return unlock()
}
