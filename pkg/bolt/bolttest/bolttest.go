// Package bolttest drives one bolt through the real engine on memory transports: give it tuples or a tick, read what it emitted.
// Tests of bolts use it; so can the authors of custom bolts. It never starts a goroutine or a server.
package bolttest

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Origin of the tuples that a Harness feeds, and of its ticks.
const (
	Origin     tuple.Origin = 1
	TickOrigin tuple.Origin = 2
)

// Harness is a bolt in a loop of its own: task 0 of node "node" of topology "test".
type Harness struct {
	T       testing.TB
	Loop    *bolt.Loop
	Store   *state.Memory // of a stateful bolt
	Letters []*tuple.Letter
	Deltas  []tuple.Delta
	Floor   int64 // of Origin, carried by the frames that are fed
	Count   uint32
	Sink    trace.Sink         // set before the first Feed
	Commit  func(*state.Batch) // is shown what is committed to Store, if it is set
	Acked   int                // frames acknowledged
	Frames  []bolt.Outgoing    // published by the last Feed, Tick or Step

	options bolt.Options
	in      []bolt.Delivery
	out     []bolt.Outgoing
	next    int64
	ticks   int64
}

// New returns a harness. Every stream of streams (default: the default one) leads to a node "next" that shares its input.
func New(t testing.TB, b bolt.Bolt, streams ...string) *Harness {
	t.Helper()
	h := &Harness{T: t}
	if len(streams) == 0 {
		streams = []string{tuple.DefaultStream}
	}
	h.options = bolt.Options{
		Where: trace.Where{Topology: "test", Node: "node", Worker: "w"}, Revision: 1, Bolt: b,
		Inbox: (*inbox)(h), Outbox: (*outbox)(h), Deltas: (*deltas)(h), Letters: (*letters)(h), Clock: Clock{},
		Sink: func(e trace.Event) { h.Sink.Emit(e) },
	}
	for _, s := range streams {
		h.options.Edges = append(h.options.Edges, bolt.Edge{To: "next", Stream: s, Shared: true})
	}
	if _, stateful := b.(bolt.Stateful); stateful {
		h.Store = state.NewMemory()
	}
	h.Restart()
	return h
}

// Edges replaces where the bolt's output goes, and restarts it.
func (h *Harness) Edges(edges ...bolt.Edge) {
	h.options.Edges = edges
	h.Restart()
}

// Streams declares what the bolt may emit on, the default stream included, and restarts it; without arguments it may on any.
func (h *Harness) Streams(names ...string) {
	h.options.Streams = names
	h.Restart()
}

// Copies makes the harness the given task of a node of which every task gets every tuple, and restarts it.
func (h *Harness) Copies(task int32) {
	h.options.Copies, h.options.Where.Task = true, task
	h.Restart()
}

// Announced puts something before Letters, and restarts the bolt.
func (h *Harness) Announced(by func(bolt.Letters) bolt.Letters) {
	h.options.Letters = by(h.options.Letters)
	h.Restart()
}

// Outbox replaces where frames are published, and restarts the bolt: Feed, Tick and Step then return nothing.
func (h *Harness) Outbox(o bolt.Outbox) {
	h.options.Outbox = o
	h.Restart()
}

// Inner lets the loop run the bolts of further nodes, and restarts it. Letters that are nil are the harness's own.
func (h *Harness) Inner(nodes ...bolt.Inner) {
	h.options.Inner = slices.Clone(nodes)
	for i := range h.options.Inner {
		if in := &h.options.Inner[i]; in.Letters == nil {
			in.Letters = (*letters)(h)
		}
	}
	h.Restart()
}

// Restart gives the task to a new owner: what the next one knows comes from the store.
func (h *Harness) Restart() {
	h.T.Helper()
	ctx := context.Background()
	o := h.options
	if h.Store != nil {
		task := state.Task{Topology: "test", Node: "node"}
		epoch, err := h.Store.Claim(ctx, task)
		if err != nil {
			h.T.Fatal(err)
		}
		o.Own = &bolt.Ownership{Store: store{h.Store, h}, Task: task, Epoch: epoch, View: state.NewCache(state.CacheOptions{Plain: true}).Open(h.Store, task, epoch)}
	}
	loop, err := bolt.New(ctx, o)
	if err != nil {
		h.T.Fatal(err)
	}
	h.Loop = loop
}

// store shows what is committed.
type store struct {
	*state.Memory
	h *Harness
}

func (s store) Commit(ctx context.Context, t state.Task, epoch uint64, b *state.Batch) error {
	if s.h.Commit != nil {
		s.h.Commit(b)
	}
	return s.Memory.Commit(ctx, t, epoch, b)
}

// Feed hands tuples over in one frame from node "source", each at a new offset with an id of its own, unless it has one, and returns what came out.
func (h *Harness) Feed(tuples ...tuple.Tuple) []tuple.Tuple {
	h.T.Helper()
	for i := range tuples {
		t := &tuples[i]
		if t.Stream == "" {
			t.Stream = tuple.DefaultStream
		}
		if t.ID.IsZero() {
			t.Offset = h.next
			t.ID = tuple.RootID(tuple.Position{Origin: Origin, Offset: t.Offset})
			h.next++
		}
		t.Root = tuple.Root{Origin: Origin, First: t.Offset, Attempt: tuple.Attempt{Generation: 1, Count: h.Count}, Floor: h.Floor}
	}
	h.Push("source", tuples...)
	return h.Step()
}

// Tick hands one tick over and returns what came out. N is set here.
func (h *Harness) Tick(t bolt.Tick) []tuple.Tuple {
	h.T.Helper()
	t.N = h.ticks
	payload, err := json.Marshal(t)
	if err != nil {
		h.T.Fatal(err)
	}
	at := tuple.Position{Origin: TickOrigin, Offset: h.ticks}
	h.ticks++
	h.Push("spout", tuple.Tuple{
		ID: tuple.RootID(at), Offset: at.Offset, Stream: tuple.TickStream, Time: t.Time, Payload: payload,
		Root: tuple.Root{Origin: TickOrigin, First: at.Offset, Attempt: tuple.Attempt{Generation: 1, Count: h.Count}},
	})
	return h.Step()
}

// Push queues one frame as it is.
func (h *Harness) Push(source string, tuples ...tuple.Tuple) {
	h.T.Helper()
	f := tuple.Frame{Revision: 1, Source: source, Tuples: tuples}
	data, err := f.Append(nil)
	if err != nil {
		h.T.Fatal(err)
	}
	h.in = append(h.in, bolt.Delivery{Data: data})
}

// Step runs one batch and returns the tuples that were published.
func (h *Harness) Step() []tuple.Tuple {
	h.T.Helper()
	if _, err := h.Loop.Step(context.Background()); err != nil {
		h.T.Fatal(err)
	}
	return h.Published()
}

// Published returns and forgets the tuples that were published since the last call.
func (h *Harness) Published() (out []tuple.Tuple) {
	h.T.Helper()
	for _, o := range h.out {
		out = append(out, Tuples(h.T, o)...)
	}
	h.Frames, h.out = h.out, nil
	return out
}

// Tuples decodes a frame that was published.
func Tuples(t testing.TB, o bolt.Outgoing) []tuple.Tuple {
	t.Helper()
	var f tuple.Frame
	if err := f.Decode(o.Data); err != nil {
		t.Fatal(err)
	}
	return f.Tuples
}

// Loop returns a loop without a harness: what o leaves out is in memory, and what is published there is forgotten.
func Loop(t testing.TB, o bolt.Options) *bolt.Loop {
	t.Helper()
	h := &Harness{T: t}
	o.Revision = 1
	o.Where = trace.Where{Topology: "test", Node: "node", Worker: "w"}
	if o.Inbox == nil {
		o.Inbox = (*inbox)(h)
	}
	if o.Outbox == nil {
		o.Outbox = (*outbox)(h)
	}
	o.Deltas, o.Letters, o.Clock = (*deltas)(h), (*letters)(h), Clock{}
	l, err := bolt.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

type (
	inbox   Harness
	outbox  Harness
	deltas  Harness
	letters Harness
)

func (h *inbox) Fetch(context.Context, int) ([]bolt.Delivery, error) {
	in := h.in
	h.in = nil
	return in, nil
}

func (h *inbox) Ack(_ context.Context, ds []bolt.Delivery) error {
	h.Acked += len(ds)
	return nil
}

func (h *inbox) Working(context.Context, []bolt.Delivery) error { return nil }

func (h *outbox) Publish(_ context.Context, frames []bolt.Outgoing) error {
	h.out = append(h.out, frames...)
	return nil
}

func (h *deltas) Send(_ context.Context, _ tuple.Origin, ds []tuple.Delta) error {
	h.Deltas = append(h.Deltas, ds...)
	return nil
}

func (h *letters) Put(_ context.Context, l *tuple.Letter) error {
	h.Letters = append(h.Letters, l)
	return nil
}

func (h *letters) Known(_ context.Context, id tuple.ID) (bool, error) {
	return slices.ContainsFunc(h.Letters, func(l *tuple.Letter) bool { return l.ID == id }), nil
}

// Clock stands still and sleeps at once.
type Clock struct{}

// Now implements bolt.Clock.
func (Clock) Now() time.Time { return time.UnixMilli(1_000_000) }

// Sleep implements bolt.Clock.
func (Clock) Sleep(ctx context.Context, _ time.Duration) error { return ctx.Err() }

// Corrupt cuts the last queued frame short.
func (h *Harness) Corrupt() {
	d := &h.in[len(h.in)-1]
	d.Data = d.Data[:len(d.Data)-1]
}
