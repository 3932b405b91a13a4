package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// knownMost bounds the ids that are remembered of one node, 48 bytes each. Beyond it the oldest are forgotten: what they stand for lies below the floor
// by then, since a tuple comes again within minutes or not at all.
const knownMost = 1 << 18

// NodeLetters is the dead letters of one node. It implements bolt.Letters: the ids are kept in memory by watching the stream from the first question on.
type NodeLetters struct {
	*Letters
	topology, node string

	current atomic.Uint64 // the connection's count of breaks, plus one, at which ids were last complete; 0: never
	some    atomic.Bool   // ids is not empty
	mu      sync.Mutex
	ids     map[tuple.ID]struct{}
	order   []tuple.ID    // of ids, a ring once it is full
	oldest  int           // in order
	seen    uint64        // every message up to here is in ids
	moved   chan struct{} // closed and replaced when seen grows
	stop    context.CancelFunc
	done    chan struct{}
}

// Of returns a node's letters. Close ends the watch.
func (l *Letters) Of(topology, node string) *NodeLetters {
	return &NodeLetters{Letters: l, topology: topology, node: node, ids: map[tuple.ID]struct{}{}, moved: make(chan struct{})}
}

// Known implements bolt.Letters. Letters of other workers are seen a moment after they were stored; after the connection was lost the first
// question waits until nothing is missing.
func (n *NodeLetters) Known(ctx context.Context, id tuple.ID) (bool, error) {
	if now := n.conn.breaks.Load() + 1; n.current.Load() != now {
		if err := n.catchUp(ctx); err != nil {
			return false, err
		}
		n.current.Store(now)
	}
	if !n.some.Load() {
		return false, nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	_, known := n.ids[id]
	return known, nil
}

// Close ends the watch. The letters must not be asked any more.
func (n *NodeLetters) Close() {
	n.mu.Lock()
	stop, done := n.stop, n.done
	n.mu.Unlock()
	if stop != nil {
		stop()
		<-done
	}
}

func (n *NodeLetters) subjects() []string {
	return []string{letterSubject(n.topology, n.node, "*"), dealtSubject(n.topology, n.node, "*")}
}

// catchUp returns when everything that the stream holds now is in ids.
func (n *NodeLetters) catchUp(ctx context.Context) error {
	n.watch()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		last, err := n.last(ctx)
		if err != nil {
			return err
		}
		n.mu.Lock()
		seen, moved := n.seen, n.moved
		n.mu.Unlock()
		if seen >= last {
			return nil
		}
		select {
		case <-moved:
		case <-time.After(500 * time.Millisecond): // the last one may have been dropped since
		case <-ctx.Done():
			return fmt.Errorf("read the dead letters of %s: %w", n.node, ctx.Err())
		}
	}
}

// last returns the sequence of the newest message about the node; 0 when there is none.
func (n *NodeLetters) last(ctx context.Context) (last uint64, err error) {
	for _, s := range n.subjects() {
		err := ask(ctx, "dead letters of "+n.node, func(ctx context.Context) error {
			m, err := n.stream.GetLastMsgForSubject(ctx, s)
			if err == nil {
				last = max(last, m.Sequence)
			}
			return err
		})
		if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
			return 0, err
		}
	}
	return last, nil
}

// watch starts the goroutine that reads the stream, once.
func (n *NodeLetters) watch() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stop != nil {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	n.stop, n.done = stop, make(chan struct{})
	go func() {
		defer close(n.done)
		for ctx.Err() == nil {
			_ = n.read(ctx) // Known says that it cannot be caught up with
			if ctx.Err() == nil {
				select {
				case <-time.After(250 * time.Millisecond):
				case <-ctx.Done():
				}
			}
		}
	}()
}

// read takes in everything about the node, from the stream's beginning, until ctx ends or the watch breaks.
func (n *NodeLetters) read(ctx context.Context) error {
	follow := follower{
		conn: n.conn, stream: lettersStream, config: jetstream.ConsumerConfig{FilterSubjects: n.subjects(), HeadersOnly: true},
		take: func(m jetstream.Msg, meta *jetstream.MsgMetadata) { n.take(meta.Sequence.Stream, m.Subject()) },
	}
	return follow.run(ctx)
}

func (n *NodeLetters) take(sequence uint64, subject string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if id, err := tuple.ParseID(subject[strings.LastIndexByte(subject, '.')+1:]); err == nil {
		n.remember(id)
	}
	if sequence > n.seen {
		n.seen = sequence
		close(n.moved)
		n.moved = make(chan struct{})
	}
}

func (n *NodeLetters) remember(id tuple.ID) {
	if _, known := n.ids[id]; known {
		return
	}
	n.ids[id] = struct{}{}
	n.some.Store(true)
	if len(n.order) < knownMost {
		n.order = append(n.order, id)
		return
	}
	delete(n.ids, n.order[n.oldest])
	n.order[n.oldest] = id
	n.oldest = (n.oldest + 1) % knownMost
}

var _ bolt.Letters = (*NodeLetters)(nil)
