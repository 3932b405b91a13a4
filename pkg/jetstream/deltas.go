package jetstream

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Deltas are not acknowledged: one that is lost is a root that is overdue and replayed. A server that dies loses many at once, so a sender remembers what it
// has sent of late, and sends it again when its connection is back, or when an owner of an origin asks whose own was lost. What comes twice is ignored.
const (
	recent      = 10 * time.Second
	recentBytes = 1 << 20 // of data
)

const (
	deltaPrefix = "bmdelta." // + topology.origin
	againPrefix = "bmagain." // + the same: whoever has sent deltas there shall do so again
)

func deltaSubject(topology string, o tuple.Origin) string {
	return fmt.Sprintf("%s%s.%016x", deltaPrefix, topology, uint64(o))
}

// Deltas sends ledger deltas of one topology. It implements bolt.Deltas.
type Deltas struct {
	conn     *Conn
	topology string
}

// Deltas returns the back channel of a topology.
func (c *Conn) Deltas(topology string) *Deltas { return &Deltas{c, topology} }

// Send implements bolt.Deltas.
func (d *Deltas) Send(ctx context.Context, origin tuple.Origin, deltas []tuple.Delta) error {
	nc, _, err := d.conn.lane.open(ctx)
	if err != nil {
		return err
	}
	if err := d.conn.sent.listen(nc); err != nil {
		return err
	}
	m := sent{time.Now(), deltaSubject(d.topology, origin), tuple.AppendDeltas(nil, deltas)}
	d.conn.sent.keep(m)
	return nc.Publish(m.subject, m.data)
}

// sent is a message with deltas.
type sent struct {
	at      time.Time
	subject string
	data    []byte
}

// sentLately is what a connection has sent of late.
type sentLately struct {
	mu        sync.Mutex
	listening bool
	queue     []sent
	bytes     int
}

// listen has what was sent repeated when somebody asks, from the first call on.
func (l *sentLately) listen(nc *nats.Conn) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listening {
		return nil
	}
	_, err := nc.Subscribe(againPrefix+">", func(m *nats.Msg) { l.repeat(nc, deltaPrefix+strings.TrimPrefix(m.Subject, againPrefix)) })
	if err != nil {
		return fmt.Errorf("listen for who asks for deltas: %w", err)
	}
	l.listening = true
	return nil
}

func (l *sentLately) keep(m sent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue, l.bytes = append(l.queue, m), l.bytes+len(m.data)
	for len(l.queue) > 1 && (l.bytes > recentBytes || m.at.Sub(l.queue[0].at) > recent) {
		l.bytes -= len(l.queue[0].data)
		l.queue[0] = sent{}
		l.queue = l.queue[1:]
	}
}

// repeat sends again what went to a subject, or everything if none is given.
func (l *sentLately) repeat(nc *nats.Conn, subject string) {
	l.mu.Lock()
	queue := append([]sent(nil), l.queue...)
	l.mu.Unlock()
	for _, m := range queue {
		if (subject == "" || m.subject == subject) && time.Since(m.at) < recent {
			_ = nc.Publish(m.subject, m.data) // the connection is lost again: there will be another call
		}
	}
}

// SubscribeDeltas calls f with every delta message for an origin, on one goroutine, until stop is called. Some come twice.
func (c *Conn) SubscribeDeltas(topology string, o tuple.Origin, f func([]tuple.Delta, error)) (stop func(), err error) {
	subject := deltaSubject(topology, o)
	sub, err := c.nc.Subscribe(subject, func(m *nats.Msg) { f(tuple.DecodeDeltas(m.Data)) })
	if err != nil {
		return nil, fmt.Errorf("subscribe to deltas: %w", err)
	}
	if err := sub.SetPendingLimits(1<<20, 256<<20); err != nil {
		return nil, err
	}
	if err := c.nc.FlushTimeout(5 * time.Second); err != nil { // nothing may be emitted before the server knows
		return nil, fmt.Errorf("subscribe to deltas: %w", err)
	}
	connected := c.nc.StatusChanged(nats.CONNECTED)
	go func() {
		for range connected { // the subscription is there again: it goes before the question
			_ = c.nc.Publish(againPrefix+strings.TrimPrefix(subject, deltaPrefix), nil)
		}
	}()
	return func() {
		c.nc.RemoveStatusListener(connected)
		_ = sub.Unsubscribe()
	}, nil
}

var _ bolt.Deltas = (*Deltas)(nil)
