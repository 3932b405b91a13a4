package meshtest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// errReplaced ends the pull of an owner whose consumer was deleted.
var errReplaced = errors.New("the consumer has been replaced")

// stream is the input of one task, or of competing workers: a WorkQueue subject with its one consumer.
type stream struct {
	messages []*message // not acknowledged, by sequence
	sequence int
	epoch    uint64            // of the consumer
	window   map[tuple.ID]bool // ids within the duplicate window
}

type message struct {
	sequence  int
	data      []byte
	delivered bool
	since     int64
}

type address struct {
	node string
	task int32
}

func (m *mesh) stream(to address) *stream {
	s := m.streams[to]
	if s == nil {
		s = &stream{window: map[tuple.ID]bool{}}
		m.streams[to] = s
		m.addresses = append(m.addresses, to)
	}
	return s
}

// take makes epoch's owner the consumer's: everything unacknowledged is delivered again.
func (s *stream) take(epoch uint64) {
	s.epoch = epoch
	for _, x := range s.messages {
		x.delivered = false
	}
}

// transport is what one actor sees of the broker. It implements bolt.Inbox, Outbox, Deltas and Letters.
type transport struct {
	m     *mesh
	a     *actor
	in    address
	epoch uint64
}

const ackWait = 5_000 // ms

// Fetch implements bolt.Inbox.
func (t *transport) Fetch(_ context.Context, most int) (out []bolt.Delivery, err error) {
	t.a.yield()
	s := t.m.stream(t.in)
	if s.epoch != t.epoch {
		return nil, errReplaced
	}
	most = 1 + t.m.rng.IntN(min(most, 4))
	for _, x := range s.messages {
		if x.delivered && t.m.now-x.since > ackWait {
			x.delivered = false
		}
		if !x.delivered && len(out) < most {
			x.delivered, x.since = true, t.m.now
			out = append(out, bolt.Delivery{Data: x.data, Token: x.sequence})
		}
	}
	if len(out) == 0 {
		t.a.sleep(20 * time.Millisecond)
	}
	return out, nil
}

// Ack implements bolt.Inbox.
func (t *transport) Ack(_ context.Context, ds []bolt.Delivery) error {
	t.a.yield()
	s := t.m.stream(t.in)
	if s.epoch != t.epoch {
		return nil // a fire-and-forget message: the zombie does not learn that it was refused
	}
	for _, d := range ds {
		if t.m.chance(t.m.faults.LostAck) {
			t.m.note("ack lost on %v", t.in)
			continue
		}
		for i, x := range s.messages {
			if x.sequence == d.Token.(int) {
				s.messages = append(s.messages[:i:i], s.messages[i+1:]...)
				break
			}
		}
	}
	return nil
}

// Working implements bolt.Inbox.
func (t *transport) Working(context.Context, []bolt.Delivery) error {
	t.a.yield()
	return nil
}

// Publish implements bolt.Outbox: one frame after the other, each repeated until it is acknowledged.
func (t *transport) Publish(_ context.Context, frames []bolt.Outgoing) error {
	for _, f := range frames {
		for !t.publish(f) {
			t.a.sleep(5 * time.Millisecond)
		}
	}
	return nil
}

// publish stores one frame and says whether its acknowledgement came back.
func (t *transport) publish(f bolt.Outgoing) bool {
	t.a.yield()
	if t.m.chance(t.m.faults.Refuse) {
		return false
	}
	s := t.m.stream(address{f.Node, f.Task})
	if !s.window[f.ID] {
		s.window[f.ID] = true
		s.sequence++
		s.messages = append(s.messages, &message{sequence: s.sequence, data: f.Data})
	}
	t.a.yield() // a crash between the store and the acknowledgement
	return !t.m.chance(t.m.faults.LostPubAck)
}

// Send implements bolt.Deltas.
func (t *transport) Send(_ context.Context, o tuple.Origin, ds []tuple.Delta) error {
	t.a.yield()
	if t.m.chance(t.m.faults.LostDelta) {
		t.m.note("deltas lost from %v", t.in)
		return nil
	}
	t.m.deltas = append(t.m.deltas, sent{o, ds})
	if t.m.chance(t.m.faults.TwiceDelta) {
		t.m.deltas = append(t.m.deltas, sent{o, ds})
	}
	return nil
}

type sent struct {
	origin tuple.Origin
	deltas []tuple.Delta
}

// Put implements bolt.Letters.
func (t *transport) Put(_ context.Context, l *tuple.Letter) error {
	t.a.yield()
	key := fmt.Sprint(l.Node, l.ID)
	if t.m.letters[key] == nil {
		t.m.letters[key] = l
	}
	return nil
}
