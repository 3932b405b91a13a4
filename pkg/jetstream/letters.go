package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// lettersStream keeps the dead letters of all topologies, and what became of them: one message per (topology, node, id) each, the first one stays.
const lettersStream = "BM_dead_letters"

const (
	letterPrefix = "bmdead."  // + topology.node.id: the letter
	dealtPrefix  = "bmdealt." // + the same: what was done with it; it outlives the letter
)

func letterSubject(topology, node, id string) string {
	return letterPrefix + topology + "." + node + "." + id
}

func dealtSubject(topology, node, id string) string {
	return dealtPrefix + topology + "." + node + "." + id
}

// Letters is the dead-letter stream.
type Letters struct {
	conn   *Conn
	stream jetstream.Stream
}

// Letters opens the dead-letter stream, creating it if need be. It waits until the stream can be had, or ctx ends.
func (c *Conn) Letters(ctx context.Context) (*Letters, error) {
	s, err := c.stream(ctx, "dead-letter stream", jetstream.StreamConfig{
		Name: lettersStream, Subjects: []string{letterPrefix + ">", dealtPrefix + ">"}, Description: "tuples that could not be handled",
		Storage: jetstream.FileStorage,
		Discard: jetstream.DiscardNew, DiscardNewPerSubject: true, MaxMsgsPerSubject: 1, MaxMsgs: -1, MaxBytes: -1,
	})
	if err != nil {
		return nil, err
	}
	return &Letters{c, s}, nil
}

// errStored is the server's refusal of a second message on a subject that holds one.
const errStored = 10077

// Put stores a letter, once per (topology, node, id).
func (l *Letters) Put(ctx context.Context, letter *tuple.Letter) error {
	subject := letterSubject(letter.Topology, letter.Node, letter.ID.String())
	err := l.put(ctx, subject, letter)
	if errors.Is(err, ErrTooLarge) && len(letter.Payload) > cutPayload { // base64 makes it larger than the tuple was: without this its root would never be complete
		short := *letter
		short.Size, short.Payload = max(letter.Size, len(letter.Payload)), letter.Payload[:cutPayload]
		return l.put(ctx, subject, &short)
	}
	return err
}

// cutPayload is how much is kept of a payload that makes a letter too large for the server.
const cutPayload = 4 << 10

func (l *Letters) put(ctx context.Context, subject string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err = l.conn.js.Publish(ctx, subject, b)
	var refused *jetstream.APIError
	if errors.As(err, &refused) && refused.ErrorCode == errStored {
		return nil // it has been stored before
	}
	return err
}

// Load returns a letter; ErrNotFound when there is none.
func (l *Letters) Load(ctx context.Context, topology, node string, id tuple.ID) (letter *tuple.Letter, sequence uint64, err error) {
	m, err := l.stream.GetLastMsgForSubject(ctx, letterSubject(topology, node, id.String()))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, 0, ErrNotFound
	}
	if err != nil {
		return nil, 0, fmt.Errorf("dead letter %s of %s: %w", id, node, err)
	}
	letter = &tuple.Letter{}
	if err := json.Unmarshal(m.Data, letter); err != nil {
		return nil, 0, fmt.Errorf("dead letter %s of %s: %w", id, node, err)
	}
	return letter, m.Sequence, nil
}

// Count returns the number of dead letters of a topology.
func (l *Letters) Count(ctx context.Context, topology string) (n int, err error) {
	return l.count(ctx, letterSubject(topology, "*", "*"))
}

func (l *Letters) count(ctx context.Context, filter string) (n int, err error) {
	info, err := l.stream.Info(ctx, jetstream.WithSubjectFilter(filter))
	if err != nil {
		return 0, fmt.Errorf("dead-letter stream: %w", err)
	}
	return len(info.State.Subjects), nil
}

// Each calls f with every dead letter of a topology, oldest first, until f returns an error.
func (l *Letters) Each(ctx context.Context, topology string, f func(sequence uint64, letter *tuple.Letter) error) error {
	return l.each(ctx, letterSubject(topology, "*", "*"), func(sequence uint64, subject string, data []byte) error {
		var letter tuple.Letter
		if err := json.Unmarshal(data, &letter); err != nil {
			return fmt.Errorf("dead letter %s: %w", subject, err)
		}
		return f(sequence, &letter)
	})
}

// each calls f with the messages that match filter and are there now, oldest first.
func (l *Letters) each(ctx context.Context, filter string, f func(sequence uint64, subject string, data []byte) error) error {
	n, err := l.count(ctx, filter)
	if err != nil || n == 0 {
		return err
	}
	c, err := l.stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{FilterSubjects: []string{filter}})
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
			meta, err := m.Metadata()
			if err != nil {
				return err
			}
			if err := f(meta.Sequence.Stream, m.Subject(), m.Data()); err != nil {
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

// Dealt says what became of a dead letter. It is kept for ever: the letter's tuple must not be handled under its old position, should it come again.
type Dealt struct {
	Position int64 `json:"position"` // in the replay log
	Dropped  bool  `json:"dropped,omitempty"`
	At       int64 `json:"at"` // ms
}

// LetterKey names a dead letter of a topology.
type LetterKey struct {
	Node string   `json:"node"`
	ID   tuple.ID `json:"id"`
}

// Deal notes what became of a letter; what was noted first stays.
func (l *Letters) Deal(ctx context.Context, topology string, k LetterKey, d Dealt) error {
	if err := l.put(ctx, dealtSubject(topology, k.Node, k.ID.String()), d); err != nil {
		return fmt.Errorf("note what became of dead letter %s: %w", k.ID, err)
	}
	return nil
}

// Dealt returns what became of the letters of a topology, of those that anything was done with.
func (l *Letters) Dealt(ctx context.Context, topology string) (map[LetterKey]Dealt, error) {
	out := map[LetterKey]Dealt{}
	err := l.each(ctx, dealtSubject(topology, "*", "*"), func(_ uint64, subject string, data []byte) error {
		part := strings.Split(subject, ".")
		id, err := tuple.ParseID(part[len(part)-1])
		if err != nil {
			return fmt.Errorf("%s: %w", subject, err)
		}
		var d Dealt
		if err := json.Unmarshal(data, &d); err != nil {
			return fmt.Errorf("%s: %w", subject, err)
		}
		out[LetterKey{part[len(part)-2], id}] = d
		return nil
	})
	return out, err
}
