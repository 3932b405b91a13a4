package meshtest

import (
	"context"
	"errors"
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

// put stores a frame at the end.
func (s *stream) put(data []byte) {
	s.sequence++
	s.messages = append(s.messages, &message{sequence: s.sequence, data: data})
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
	inbox *[]tuple.Delta // of a spout's ledger

	fetched   map[tuple.ID][]delivered // by frame: what a broken rule needs to know of a Step
	published []delivered
	floors    map[tuple.Origin]int64
	late      []*tuple.Letter // under lateLetters
	stored    int64
}

const ackWait = 5_000 // ms

// Fetch implements bolt.Inbox.
func (t *transport) Fetch(_ context.Context, most int) (out []bolt.Delivery, err error) {
	t.a.yield()
	s := t.m.stream(t.in)
	if s.epoch != t.epoch && !t.m.broken.zombiePulls {
		return nil, errReplaced
	}
	if t.m.now > t.stored {
		for _, l := range t.late {
			t.m.store(l)
		}
		t.late, t.stored = nil, t.m.now+500
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
	if t.m.broken.remaps() {
		t.watch(out)
	}
	return out, nil
}

// Ack implements bolt.Inbox.
func (t *transport) Ack(_ context.Context, ds []bolt.Delivery) error {
	t.a.yield()
	s := t.m.stream(t.in)
	if s.epoch != t.epoch && !t.m.broken.zombiePulls {
		return nil // a fire-and-forget message: the zombie does not learn that it was refused
	}
	for _, d := range ds {
		if t.m.chance(LostAck) {
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
	if t.m.broken.remaps() {
		frames = t.rewrite(frames)
	}
	for len(frames) > 0 {
		var refused []bolt.Outgoing
		for i, f := range frames {
			if t.publish(f) {
				continue
			}
			if t.m.broken.pipelined {
				refused = append(refused, f)
				continue
			}
			refused = frames[i:]
			break
		}
		if frames = refused; len(frames) > 0 {
			t.a.sleep(5 * time.Millisecond)
		}
	}
	return nil
}

// publish stores one frame and says whether its acknowledgement came back.
func (t *transport) publish(f bolt.Outgoing) bool {
	t.a.yield()
	s := t.m.stream(address{f.Node, f.Task})
	if t.m.Full > 0 && len(s.messages) >= t.m.Full || t.m.chance(Refuse) {
		return false
	}
	if id := t.msgID(f); !s.window[id] {
		s.window[id] = true
		s.put(f.Data)
	}
	t.a.yield() // a crash between the store and the acknowledgement
	return !t.m.chance(LostPubAck)
}

// Send implements bolt.Deltas.
func (t *transport) Send(_ context.Context, o tuple.Origin, ds []tuple.Delta) error {
	t.a.yield()
	if t.m.broken.remaps() {
		kept := ds[:0:0]
		for _, d := range ds {
			if d, some := t.remap(o, d); some {
				kept = append(kept, d)
			}
		}
		ds = kept
	}
	if t.m.chance(LostDelta) {
		t.m.note("deltas lost from %v", t.in)
		return nil
	}
	t.m.deltas = append(t.m.deltas, sent{o, ds})
	if t.m.chance(TwiceDelta) {
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
	if t.m.chance(NoLetter) {
		return errors.New("the dead letters cannot be reached")
	}
	if t.m.broken.lateLetters {
		t.late = append(t.late, l)
		return nil
	}
	t.m.store(l)
	return nil
}

// Known implements bolt.Letters.
func (t *transport) Known(_ context.Context, id tuple.ID) (bool, error) {
	if t.m.broken.noLookUp {
		return false, nil
	}
	return t.m.letters[letterKey(t.in.node, id)] != nil, nil
}

func letterKey(node string, id tuple.ID) string { return node + id.String() }

// store keeps a letter once per node and id.
func (m *mesh) store(l *tuple.Letter) {
	key := letterKey(l.Node, l.ID)
	if m.letters[key] == nil {
		m.letters[key] = l
		m.stored = append(m.stored, l)
	}
}
