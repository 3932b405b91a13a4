package jetstream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// notedStream remembers which notices were delivered: one message per (topology, node, event, target).
const notedStream = "BM_noted"

// Bounds of what is kept of notices. Beyond them the oldest are forgotten.
const (
	noticesAge    = 7 * 24 * time.Hour
	noticesBytes  = 256 << 20        // of one topology
	noticesWindow = 10 * time.Minute // in which the server knows an event that comes again
	notedAge      = 7 * 24 * time.Hour
	notedBytes    = 64 << 20 // of all topologies, about 400,000 deliveries
)

// NoticesStream is the stream of a topology's notices.
func NoticesStream(topology string) string { return "BMN_" + topology }

// NoticeSubject is where the notices of a topology come that a node declares for subject.
func NoticeSubject(topology, subject string) string { return "bmnotice." + topology + "." + subject }

// Notices tell of a node's events by NATS, and remember which events were told at all.
type Notices struct {
	conn           *Conn
	noted          jetstream.Stream
	topology, node string
}

// Notices opens the topology's stream of notices and the notes of deliveries, creating them if need be. It waits until they can be had, or ctx ends.
func (c *Conn) Notices(ctx context.Context, topology, node string) (*Notices, error) {
	_, err := c.stream(ctx, "stream of notices", jetstream.StreamConfig{
		Name: NoticesStream(topology), Subjects: []string{NoticeSubject(topology, ">")}, Description: "notices of topology " + topology,
		Storage: jetstream.FileStorage, Discard: jetstream.DiscardOld, MaxAge: noticesAge, MaxBytes: noticesBytes, MaxMsgs: -1, Duplicates: noticesWindow,
	})
	if err != nil {
		return nil, err
	}
	noted, err := c.stream(ctx, "notes of notices", jetstream.StreamConfig{
		Name: notedStream, Subjects: []string{"bmnoted.>"}, Description: "notices that were delivered", AllowDirect: true,
		Storage: jetstream.FileStorage, Discard: jetstream.DiscardOld, MaxAge: notedAge, MaxBytes: notedBytes, MaxMsgs: -1, MaxMsgsPerSubject: 1,
	})
	if err != nil {
		return nil, err
	}
	return &Notices{c, noted, topology, node}, nil
}

// Publish stores an event at a subject of the topology. The same id is stored once within ten minutes.
func (n *Notices) Publish(ctx context.Context, subject, id string, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, ackPatience)
	defer cancel()
	msg := nats.NewMsg(NoticeSubject(n.topology, subject))
	msg.Data = body
	if _, err := n.conn.js.PublishMsg(ctx, msg, jetstream.WithMsgID(id)); err != nil {
		return fmt.Errorf("publish on %s: %w", msg.Subject, err)
	}
	return nil
}

func (n *Notices) subject(key string) string {
	return "bmnoted." + n.topology + "." + n.node + "." + key
}

// Noted reports whether Note was called for key, by whichever worker.
func (n *Notices) Noted(ctx context.Context, key string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, ackPatience)
	defer cancel()
	_, err := n.noted.GetLastMsgForSubject(ctx, n.subject(key))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Note remembers key for a week, within the bounds of the stream.
func (n *Notices) Note(ctx context.Context, key string) error {
	ctx, cancel := context.WithTimeout(ctx, ackPatience)
	defer cancel()
	_, err := n.conn.js.Publish(ctx, n.subject(key), nil)
	return err
}

// RemoveNotices deletes the stream of a topology's notices.
func (c *Conn) RemoveNotices(ctx context.Context, topology string) error {
	if err := c.js.DeleteStream(ctx, NoticesStream(topology)); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("delete the notices of %s: %w", topology, err)
	}
	return nil
}
