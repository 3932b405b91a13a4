package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// lettersStream keeps the dead letters of all topologies: one message per (topology, node, id), the first one stays.
const lettersStream = "BM_dead_letters"

func letterSubject(topology, node, id string) string {
	return "bmdead." + topology + "." + node + "." + id
}

// Letters is the dead-letter stream. It implements bolt.Letters.
type Letters struct {
	conn   *Conn
	stream jetstream.Stream
}

// Letters opens the dead-letter stream, creating it if need be.
func (c *Conn) Letters(ctx context.Context) (*Letters, error) {
	s, err := c.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: lettersStream, Subjects: []string{"bmdead.>"}, Description: "tuples that could not be handled",
		Storage: jetstream.FileStorage, Replicas: c.replicas,
		Discard: jetstream.DiscardNew, DiscardNewPerSubject: true, MaxMsgsPerSubject: 1, MaxMsgs: -1, MaxBytes: -1,
	})
	if err != nil {
		return nil, fmt.Errorf("dead-letter stream: %w", err)
	}
	return &Letters{c, s}, nil
}

// errStored is the server's refusal of a second message on a subject that holds one.
const errStored = 10077

// Put implements bolt.Letters.
func (l *Letters) Put(ctx context.Context, letter *tuple.Letter) error {
	b, err := json.Marshal(letter)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err = l.conn.js.Publish(ctx, letterSubject(letter.Topology, letter.Node, letter.ID.String()), b)
	var refused *jetstream.APIError
	if errors.As(err, &refused) && refused.ErrorCode == errStored {
		return nil // it has been stored before
	}
	return err
}

// Count returns the number of dead letters of a topology.
func (l *Letters) Count(ctx context.Context, topology string) (n int, err error) {
	info, err := l.stream.Info(ctx, jetstream.WithSubjectFilter(letterSubject(topology, "*", "*")))
	if err != nil {
		return 0, fmt.Errorf("dead-letter stream: %w", err)
	}
	return len(info.State.Subjects), nil
}

// Each calls f with every dead letter of a topology, oldest first, until f returns an error.
func (l *Letters) Each(ctx context.Context, topology string, f func(sequence uint64, letter *tuple.Letter) error) error {
	n, err := l.Count(ctx, topology)
	if err != nil || n == 0 {
		return err
	}
	c, err := l.stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{FilterSubjects: []string{letterSubject(topology, "*", "*")}})
	if err != nil {
		return err
	}
	for n > 0 {
		batch, err := c.Fetch(min(n, 500), jetstream.FetchMaxWait(2*time.Second))
		if err != nil {
			return err
		}
		got := 0
		for m := range batch.Messages() {
			got++
			var letter tuple.Letter
			if err := json.Unmarshal(m.Data(), &letter); err != nil {
				return fmt.Errorf("dead letter %s: %w", m.Subject(), err)
			}
			meta, err := m.Metadata()
			if err != nil {
				return err
			}
			if err := f(meta.Sequence.Stream, &letter); err != nil {
				return err
			}
		}
		if n -= got; got == 0 {
			return batch.Error()
		}
	}
	return nil
}

// Delete removes one dead letter.
func (l *Letters) Delete(ctx context.Context, sequence uint64) error {
	return l.stream.DeleteMsg(ctx, sequence)
}

var _ bolt.Letters = (*Letters)(nil)
