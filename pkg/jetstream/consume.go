package jetstream

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// patience is how long Fetch waits for a first frame, and lull when there is one to be acknowledged.
const (
	patience = 500 * time.Millisecond
	lull     = 50 * time.Millisecond
)

// A pull is told that its consumer is alive in this rhythm, and is repeated when it is not told for two of them. After so many pulls in vain the owner of a
// task makes a new consumer, as that takes a moment, and servers sometimes take 10 s or more to agree on a leader of one that has lost it.
const (
	heartbeat = 500 * time.Millisecond
	inVain    = 5
)

// ahead is how many batches a loop may have fetched: the one that it works on, and the next.
const ahead = 2

// Inbox is a consumer of one task's frames, or of a shared input. It implements bolt.Inbox.
type Inbox struct {
	nc       *nats.Conn
	lost     func() bool // whether the connection was interrupted since the task was taken; nil for a shared input, which has no order
	gap      atomic.Bool // a delivery is missing, or the consumer is silent
	messages jetstream.MessagesContext
	ready    chan jetstream.Msg
	last     jetstream.Msg // handled, and not acknowledged yet: see Ack
	failed   chan error
	stop     sync.Once
	done     chan struct{}
	closing  chan struct{}

	mu   sync.Mutex
	held map[string]jetstream.Msg // by reply subject: handed over by the server and not acknowledged, those in ready included
}

// Passing reports whether an error is one that waiting mends, such as those of a cluster that elects a leader.
func Passing(err error) bool { return errors.Is(err, ErrInterrupted) || passing(err) }

// Take makes this worker the only consumer of a task: it replaces the consumers of earlier epochs by one of its own, which ends their pulls and
// refuses their acknowledgements. Delivery starts again at the first frame that is not acknowledged. The state store's fence must have been raised
// before. While a cluster elects leaders Take goes on trying, and gives up in time for whoever owns tasks to look whether this one is still its own.
func (c *Conn) Take(ctx context.Context, topology, node string, task int32, epoch uint64, batch int) (*Inbox, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*oneTry)
	defer cancel()
	nc, js, err := c.lane.open(ctx)
	if err != nil {
		return nil, err
	}
	settle(nc) // what was acknowledged here must not come again
	reconnects := nc.Stats().Reconnects
	r := replacement{
		Conn: c, via: js, stream: StreamName(topology, node, task), prefix: fmt.Sprintf("t%d-e%d-", task, epoch),
		config: consumerConfig("", ahead*batch),
	}
	// How far it is need not survive the server: whoever comes back to one that was away takes the task anew. On file it would be written ten times a second.
	r.config.MemoryStorage = true
	var consumer jetstream.Consumer
	err = repeat(ctx, fmt.Sprintf("take task %d of %s", task, r.stream), steady, func() (err error) {
		consumer, err = r.try(ctx)
		return err
	})
	if err != nil {
		return nil, missing(err)
	}
	lost := func() bool { return nc.Stats().Reconnects != reconnects }
	return open(nc, consumer, batch, slack, lost)
}

// settle waits until the server has taken in all acknowledgements, if it is there: requests go over the other connection, and would overtake them.
func settle(nc *nats.Conn) {
	if nc.IsConnected() {
		_ = nc.FlushTimeout(shortTry)
	}
}

// replacement is the replacing of a task's consumers by a new one.
type replacement struct {
	*Conn
	via            jetstream.JetStream // the connection that the frames come over
	stream, prefix string
	config         jetstream.ConsumerConfig
	tries          int
}

// try makes one attempt. A request is lost when it reaches a cluster without a meta leader. So is the answer to a deletion, and to a creation, when the
// consumer's own leader is to give it and was on a server that has just died: the deletion is carried out all the same, and of the new consumer another one
// is made, whose leader the cluster draws anew. As the server refuses a second consumer of the stream, the one that is created is the only one.
func (r *replacement) try(ctx context.Context) (jetstream.Consumer, error) {
	var old []string
	copies := 0
	err := ask(ctx, "consumers", func(ctx context.Context) (err error) {
		old, copies, err = r.consumers(ctx, r.stream) // also one of this epoch, from before an interruption or an attempt that was not answered
		return err
	})
	if err != nil {
		return nil, err
	}
	removal, creation := oneTry, oneTry
	if r.tries++; copies > 1 {
		// 1, 2, 1, 4, 1, 2, 1, 8 times as long: mostly short, as one of three leaders drawn is the dead server, and sometimes long, as a machine may be slow.
		once := r.creations.patience()
		removal, creation = once/4, min(oneTry, once*time.Duration(r.tries&-r.tries))
	}
	for _, n := range old {
		remove, cancel := context.WithTimeout(ctx, removal)
		err := r.js.DeleteConsumer(remove, r.stream, n)
		cancel()
		if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) && !passing(err) {
			return nil, fmt.Errorf("replace consumer %s: %w", n, err)
		}
	}
	began := time.Now()
	create, cancel := context.WithTimeout(ctx, creation)
	defer cancel()
	// A name of its own for each attempt: one that is there already would not begin again at the first frame.
	r.config.Durable = r.prefix + rand.Text()[:8]
	consumer, err := r.via.CreateConsumer(create, r.stream, r.config)
	if err != nil {
		return nil, fmt.Errorf("create consumer %s: %w", r.config.Durable, err)
	}
	r.creations.took(time.Since(began))
	return consumer, nil
}

// creations remembers how long the creation of a consumer takes of late.
type creations struct{ usual atomic.Int64 }

// patience is how long an answer is worth waiting for.
func (c *creations) patience() time.Duration {
	usual := time.Duration(c.usual.Load())
	if usual == 0 {
		return oneTry // nothing is known yet
	}
	return min(oneTry, max(shortTry, 4*usual))
}

func (c *creations) took(d time.Duration) {
	usual := time.Duration(c.usual.Load())
	if usual == 0 {
		usual = d
	}
	c.usual.Store(int64((7*usual + d) / 8)) // one of two that do so at once may be lost
}

// consumers lists those of a stream, and says how many copies of the stream there are.
func (c *Conn) consumers(ctx context.Context, stream string) (found []string, copies int, err error) {
	s, err := c.js.Stream(ctx, stream)
	if err != nil {
		return nil, 0, err
	}
	names := s.ConsumerNames(ctx)
	for n := range names.Name() {
		found = append(found, n)
	}
	return found, s.CachedInfo().Config.Replicas, names.Err()
}

// Join competes for the frames of a shared input.
func (c *Conn) Join(ctx context.Context, topology, node string, batch int) (*Inbox, error) {
	nc, js, err := c.lane.open(ctx)
	if err != nil {
		return nil, err
	}
	consumer, err := sharedOf(ctx, js, topology, node)
	if err != nil {
		return nil, err
	}
	return open(nc, consumer, batch, 1, nil)
}

// sharedOf returns the consumer of a shared input.
func sharedOf(ctx context.Context, js jetstream.JetStream, topology, node string) (jetstream.Consumer, error) {
	consumer, err := js.Consumer(ctx, StreamName(topology, node, tuple.Shared), sharedConsumer)
	if err != nil {
		return nil, fmt.Errorf("shared consumer of %s/%s: %w", topology, node, missing(err))
	}
	return consumer, nil
}

// ErrNoInput says that an input's stream is gone, or the consumer that workers share: Provision makes them.
var ErrNoInput = errors.New("the input is not there")

// missing makes ErrNoInput of what the server says.
func missing(err error) error {
	if errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrConsumerNotFound) {
		return fmt.Errorf("%w: %w", ErrNoInput, err)
	}
	return err
}

// slack is how much larger the client's channel of an owned task is than what the server hands out before an acknowledgement: heartbeats and other status
// messages take places in it too, and what finds no place is dropped.
const slack = 4

func open(nc *nats.Conn, consumer jetstream.Consumer, batch, slack int, lost func() bool) (*Inbox, error) {
	// The heartbeat bounds how long a lost wake-up can stall a pull; a missing one (a busy machine) makes the client pull again.
	m, err := consumer.Messages(jetstream.PullMaxMessages(slack*ahead*batch), jetstream.PullExpiry(2*time.Second), jetstream.PullHeartbeat(heartbeat),
		jetstream.WithMessagesErrOnMissingHeartbeat(true))
	if err != nil {
		return nil, fmt.Errorf("pull: %w", err)
	}
	in := &Inbox{
		nc: nc, lost: lost, messages: m, ready: make(chan jetstream.Msg, ahead*batch+1), failed: make(chan error, 1), done: make(chan struct{}),
		closing: make(chan struct{}), held: map[string]jetstream.Msg{},
	}
	go in.pump()
	go in.keep(ackWait / 3)
	return in, nil
}

// pump moves messages from the pull to where Fetch can see how many there are. The server numbers what it hands out to a consumer: when a number is
// missing the client has dropped a message, and the frames behind it must not overtake it.
func (in *Inbox) pump() {
	defer close(in.done)
	silent := 0 // pulls in vain
	for delivery := uint64(1); ; delivery++ {
		m, err := in.messages.Next()
		for ; errors.Is(err, jetstream.ErrNoHeartbeat); m, err = in.messages.Next() {
			if silent++; silent == inVain {
				in.gap.Store(true)
			}
		}
		silent = 0
		if err != nil {
			in.failed <- err
			close(in.ready)
			return
		}
		if in.lost != nil {
			if meta, err := m.Metadata(); err != nil || meta.Sequence.Consumer != delivery {
				in.gap.Store(true)
			}
		}
		in.mu.Lock()
		in.held[m.Reply()] = m
		in.mu.Unlock()
		in.ready <- m
	}
}

// keep tells the server again and again that what is held is still being worked on. Without it a batch that a slow store holds up for longer than
// ackWait, and what waits behind the batch, would be handed to others, who would be held up by the same store: more work the slower it is.
func (in *Inbox) keep(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			in.mu.Lock()
			held := slices.Collect(maps.Values(in.held))
			in.mu.Unlock()
			for _, m := range held {
				_ = m.InProgress() // the server is away: what it has handed out comes again
			}
		case <-in.closing:
			return
		}
	}
}

// Errors of Fetch, for the owner of a task.
var (
	// ErrReplaced says that the consumer is gone: another owner has taken the task.
	ErrReplaced = errors.New("the consumer has been replaced by another owner's")
	// ErrInterrupted says that the connection was lost and is back, that a delivery is missing, or that the consumer is silent. What the server had handed out
	// may never have arrived, and it would wait for the acknowledgement of that while the frames behind go first: the task must be taken again. Of a shared
	// input, only that the consumer is silent.
	ErrInterrupted = errors.New("frames may have been lost on their way: the task begins again at the first frame that is not acknowledged")
)

// Fetch implements bolt.Inbox.
func (in *Inbox) Fetch(ctx context.Context, most int) ([]bolt.Delivery, error) {
	out, err := in.fetch(ctx, most)
	if in.gap.Load() || in.lost != nil && in.lost() { // asked last: what came over the new connection must not get out
		return nil, ErrInterrupted
	}
	return out, err
}

func (in *Inbox) fetch(ctx context.Context, most int) ([]bolt.Delivery, error) {
	m, err := in.first(ctx)
	if m == nil || err != nil {
		return nil, err
	}
	out := []bolt.Delivery{{Data: m.Data(), Token: m}}
	for len(out) < most {
		select {
		case m, ok := <-in.ready:
			if !ok {
				return out, nil
			}
			out = append(out, bolt.Delivery{Data: m.Data(), Token: m})
		default:
			return out, nil
		}
	}
	return out, nil
}

// first waits for a frame; nil when none comes in time.
func (in *Inbox) first(ctx context.Context) (jetstream.Msg, error) {
	wait := patience
	if in.last != nil {
		wait = lull
	}
	over := time.NewTimer(wait)
	defer over.Stop()
	select {
	case m, ok := <-in.ready:
		if !ok {
			return nil, in.why()
		}
		return m, nil
	case <-over.C:
		return nil, in.ackLast()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// why says what has ended the pull.
func (in *Inbox) why() error {
	select {
	case err := <-in.failed:
		in.failed <- err
		if errors.Is(err, jetstream.ErrConsumerDeleted) || errors.Is(err, jetstream.ErrConsumerNotFound) {
			if in.lost == nil { // nobody replaces what workers share
				return fmt.Errorf("%w: %w", ErrNoInput, err)
			}
			return ErrReplaced
		}
		return fmt.Errorf("pull: %w", err)
	default:
		return errors.New("the inbox is closed")
	}
}

// Ack implements bolt.Inbox. The acknowledgements travel behind everything this connection has sent before. That of the last one waits for the next Ack, or for a
// lull: an acknowledged frame is removed, and of a stream that becomes empty the server removes the file and makes another, which costs more than the frame.
func (in *Inbox) Ack(_ context.Context, ds []bolt.Delivery) error {
	for _, d := range ds {
		if err := in.ackLast(); err != nil {
			return err
		}
		in.last = d.Token.(jetstream.Msg)
	}
	return nil
}

func (in *Inbox) ackLast() error {
	m := in.last
	if m == nil {
		return nil
	}
	in.last = nil
	in.mu.Lock()
	delete(in.held, m.Reply())
	in.mu.Unlock()
	if err := m.Ack(); err != nil {
		return fmt.Errorf("acknowledge: %w", err)
	}
	return nil
}

// Working implements bolt.Inbox.
func (in *Inbox) Working(_ context.Context, ds []bolt.Delivery) error { return working(ds) }

// working asks the server for more time with deliveries.
func working(ds []bolt.Delivery) error {
	for _, d := range ds {
		if err := d.Token.(jetstream.Msg).InProgress(); err != nil {
			return err
		}
	}
	return nil
}

// Close ends the pull; what was fetched and not acknowledged is delivered again, to whoever comes next. When it returns the server knows what was. It must not
// be called while Fetch or Ack is.
func (in *Inbox) Close() {
	in.stop.Do(func() {
		_ = in.ackLast() // the connection is closed: the frame is handed out again
		close(in.closing)
		in.messages.Stop()
		go func() { // let pump finish a hand-over
			for range in.ready {
			}
		}()
		<-in.done
		settle(in.nc)
	})
}

var _ bolt.Inbox = (*Inbox)(nil)
