package jetstream

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Subjects that Overhear listens to.

// Frames is where the frames for all tasks of a node pass.
func Frames(topology, node string) string { return "bm." + topology + "." + node + ".*" }

// AllDeltas is where the deltas of all origins of a topology pass.
func AllDeltas(topology string) string { return "bmdelta." + topology + ".*" }

// passingMost is how many messages wait to be listened to; what passes while so many wait is lost to the ear. Frames are 128 KiB at most, as a rule.
const passingMost = 512

// Heard is a message that passed.
type Heard struct {
	Subject string
	ID      string // of a frame; the same again where a publish was repeated
	Data    []byte
}

// Ear hears what is published on some subjects while it is published, as any subscriber of NATS does: the messages are neither taken from a stream nor
// acknowledged nor kept, so nobody else is slower or gets less for it.
type Ear struct {
	ch   chan *nats.Msg
	subs []*nats.Subscription
	lost uint64 // of subscriptions that have ended
}

// Overhear begins to listen; the server knows of it when Overhear returns.
func (c *Conn) Overhear(ctx context.Context, subjects ...string) (*Ear, error) {
	e := &Ear{ch: make(chan *nats.Msg, passingMost)}
	for _, s := range subjects {
		sub, err := c.nc.ChanSubscribe(s, e.ch)
		if err != nil {
			e.Close()
			return nil, fmt.Errorf("listen to %s: %w", s, err)
		}
		e.subs = append(e.subs, sub)
	}
	if err := c.flush(ctx); err != nil {
		e.Close()
		return nil, fmt.Errorf("listen to %d subjects: %w", len(subjects), err)
	}
	return e, nil
}

// Next waits for the next message, or the end of ctx.
func (e *Ear) Next(ctx context.Context) (Heard, error) {
	select {
	case m := <-e.ch:
		return Heard{Subject: m.Subject, ID: m.Header.Get(jetstream.MsgIDHeader), Data: m.Data}, nil
	case <-ctx.Done():
		return Heard{}, ctx.Err()
	}
}

// Missed is how many messages passed while too many waited to be listened to.
func (e *Ear) Missed() uint64 {
	n := e.lost
	for _, s := range e.subs {
		if d, err := s.Dropped(); err == nil {
			n += uint64(d)
		}
	}
	return n
}

// Close stops listening. It must not be called while Next or Missed is.
func (e *Ear) Close() {
	e.lost = e.Missed()
	for _, s := range e.subs {
		_ = s.Unsubscribe()
	}
	e.subs = nil
}
