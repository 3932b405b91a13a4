package spout

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// CallLog is the name of the log of calls among a topology's logs; its entries are of type Call.
const CallLog = "call"

// callWindow is how many calls may be under way at once: the entries emitted beyond the log's durable floor.
const callWindow = 1024

// MaxReplies and MaxReplyBytes bound what is gathered for one call, and MaxGathered what is for all that are under way; a call with more fails. A reply
// counts replyBytes beside what it consists of.
const (
	MaxReplies    = 100_000
	MaxReplyBytes = 64 << 20
	MaxGathered   = 256 << 20
	replyBytes    = 128
)

// MaxFailures is how many of a call's dead letters are told in full, and MaxCallID how long a call's id may be, in bytes.
const (
	MaxFailures = 100
	MaxCallID   = 128
)

// Call is one request.
type Call struct {
	ID      string          `json:"id"` // the caller's: a call made again under its id is the same call
	Payload json.RawMessage `json:"payload"`
	At      int64           `json:"at"` // ms: when it was taken
	NoWait  bool            `json:"no_wait,omitempty"`
}

// Reply is one tuple that was emitted to answer a call.
type Reply struct {
	Node    string          `json:"node"` // that emitted it
	ID      tuple.ID        `json:"id"`
	Key     string          `json:"key,omitempty"`
	Payload json.RawMessage `json:"payload"`
}

// Failure is a tuple of a call's tree that became a dead letter.
type Failure struct {
	Node   string   `json:"node"`
	Worker string   `json:"worker"`
	Letter tuple.ID `json:"letter"`
	Error  string   `json:"error"`
}

// Outcome is what became of a call: its tree is complete. Replies stand in the order of node, key and payload, so that equal answers come in equal order.
type Outcome struct {
	ID       string
	Position int64
	Replies  []Reply
	Failures []Failure // MaxFailures at most, those that came first
	Failed   int       // dead letters in all; of more than MaxReplies no more are counted
	TooMany  bool      // replies: more than are gathered, so there are none here
}

// CallsOptions say where calls go.
type CallsOptions struct {
	Spec  topology.Spout
	Edges []bolt.Edge // of the spout
	// Letter returns a dead letter of a node; nil when it is not there any more.
	Letter func(ctx context.Context, node string, id tuple.ID) (*tuple.Letter, error)
	// Keep is how many processed calls keep their ids, the youngest: a call made again under an older one is another call. Default 131,072.
	Keep int64
	// Done is told of each call whose tree is complete, unless nobody waits for it, by Settle and Tick, before the floor moves. An owner that was replaced tells
	// nothing.
	Done func(Outcome)
}

// Calls owns a topology's log of calls: each is emitted as a root, and what the tree emits to answer it is gathered until the root is complete. A reply is
// a delivery like any other: the loop that receives replies hands them to Gather before it reports them, so that a complete root has all of them.
type Calls struct {
	*Log
	CallsOptions
	keyed, plain *Decoder
	start        int64 // floor when the log was taken over
	mu           sync.Mutex
	emitted      int64 // index behind the last entry emitted
	forgot       int64 // ids of entries below are forgotten
	open         map[int64]*gathered
	complete     []int64 // of open: not told yet
	bytes        int     // of all in open
}

// gathered is what has come for a call so far.
type gathered struct {
	id       string
	replies  map[tuple.ID]Reply
	failures []Failure
	failed   map[letterAt]struct{}
	bytes    int
	tooMany  bool
}

// letterAt names a letter: one tuple may have some, at different nodes.
type letterAt struct {
	node string
	id   tuple.ID
}

// NewCalls reads where the log stands. The generation in o has been raised for the log CallLog by the caller; o.Commit, o.Floor and o.Sink are set here.
// What gathers replies must have been taken over before the first Pump: replies of this generation must reach no former owner.
func NewCalls(ctx context.Context, o Options, topology string, logs state.Logs, co CallsOptions) (*Calls, error) {
	c := &Calls{CallsOptions: co, open: map[int64]*gathered{}}
	spec := co.Spec
	spec.Decode, spec.Time.Field = "json", "" // a call is JSON and happens when it is taken, whatever readings are
	c.keyed = NewDecoder(spec)
	spec.Key = ""
	c.plain = NewDecoder(spec)
	said := o.Sink
	o.Sink = func(e trace.Event) {
		if done, ok := e.(trace.Completed); ok {
			c.complete = append(c.complete, done.Root.First)
		}
		said.Emit(e)
	}
	var err error
	if c.Log, err = openLog(ctx, o, topology, CallLog, logs, 0, c.emission); err != nil {
		return nil, err
	}
	c.window, c.start, c.emitted, c.before, c.durable = callWindow, c.next, c.next, c.tell, true
	if c.Keep <= 0 {
		c.Keep = 1 << 17
	}
	commit := c.Commit
	c.Commit = func(ctx context.Context, floor int64) error {
		if err := commit(ctx, floor); err != nil {
			return err
		}
		return c.forget(ctx, floor)
	}
	return c, nil
}

// forget forgets the ids of calls that have been processed long ago, now and then.
func (c *Calls) forget(ctx context.Context, floor int64) error {
	below := floor - c.Keep
	if below < c.forgot+max(c.Keep/32, 1) {
		return nil
	}
	if err := c.logs.Forget(ctx, c.topology, c.name, below); err != nil {
		return err
	}
	c.forgot = below
	return nil
}

// AppendCall adds a call to the log, once however often it is made, by whoever. It returns its position either way. It may be called concurrently with
// everything else.
func AppendCall(ctx context.Context, logs state.Logs, topology string, call Call) (at int64, added bool, err error) {
	if err := CheckCallID(call.ID); err != nil {
		return 0, false, err
	}
	entry, err := JSON(call)
	if err != nil {
		return 0, false, err
	}
	return logs.AppendOnce(ctx, topology, CallLog, call.ID, entry)
}

// JSON encodes v and leaves <, > and & as they are: a question and its replies come out as they went in, and no larger.
func JSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// CheckCallID says what keeps a text from naming a call.
func CheckCallID(id string) error {
	if id == "" || len(id) > MaxCallID {
		return fmt.Errorf("the call's id has %d bytes: give it 1 to %d", len(id), MaxCallID)
	}
	return nil
}

// CheckCall says what keeps a payload from being a call's.
func CheckCall(payload []byte) error {
	if len(payload) > tuple.MaxPayload {
		return fmt.Errorf("the call has %d bytes, at most %d can be carried", len(payload), tuple.MaxPayload)
	}
	_, err := object(payload)
	return err
}

func (c *Calls) emission(_ context.Context, at int64, payload []byte) (emission, error) {
	var call Call
	if err := json.Unmarshal(payload, &call); err != nil {
		return emission{}, fmt.Errorf("entry %d of the call log: %w", at, err)
	}
	said := trace.Emitted{Where: c.Where, Root: tuple.Root{Origin: c.Origin, First: at, Attempt: c.ledger.Attempt()}, Records: 1, Accepted: 1, At: c.Clock.Now()}
	record := Record{Offset: at, Key: []byte(call.ID), Value: call.Payload, Time: call.At}
	reading, err := c.keyed.Decode(&record)
	if err != nil { // it does not say which device it concerns
		reading, err = c.plain.Decode(&record)
	}
	if err != nil { // CheckCall has let it pass
		return emission{}, fmt.Errorf("entry %d of the call log: %w", at, err)
	}
	t := tuple.Tuple{
		ID: tuple.RootID(tuple.Position{Origin: c.Origin, Offset: at}), Offset: at, Stream: topology.CallStream,
		Key: reading.Key, Time: reading.Time, Payload: reading.Payload,
	}
	c.mu.Lock()
	c.emitted = at + 1
	if !call.NoWait {
		c.open[at] = &gathered{id: call.ID, replies: map[tuple.ID]Reply{}, failed: map[letterAt]struct{}{}}
	}
	c.mu.Unlock()
	c.Sink.Emit(said)
	return emission{c.Where.Node, c.Edges, []tuple.Tuple{t}}, nil
}

// Gather takes a reply in, once however often it comes. What belongs to no open call is dropped. It may be called concurrently with everything else, as
// may Fail and Lost.
func (c *Calls) Gather(at tuple.Position, r Reply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.open[at.Offset]
	if g == nil || at.Origin != c.Origin || g.tooMany {
		return
	}
	if _, again := g.replies[r.ID]; again {
		return
	}
	size := len(r.Payload) + len(r.Key) + len(r.Node) + replyBytes
	if len(g.replies) == MaxReplies || g.bytes+size > MaxReplyBytes || c.bytes+size > MaxGathered {
		c.bytes -= g.bytes
		g.tooMany, g.replies, g.bytes = true, nil, 0
		return
	}
	g.replies[r.ID] = r
	g.bytes += size
	c.bytes += size
}

// ErrLater says that a later owner must be told: this one has been replaced.
var ErrLater = errors.New("the calls have a later owner")

// Fail takes in that a tuple of a call's tree has a dead letter, once however often it is told.
func (c *Calls) Fail(ctx context.Context, told Failed) error {
	f := told.Failure
	if told.Generation > c.Generation {
		return ErrLater
	}
	if f.Error == "" && c.waits(told) {
		l, err := c.Letter(ctx, f.Node, f.Letter)
		switch {
		case err != nil:
			return err
		case l == nil:
			f.Error = "it became a dead letter, which was replayed or dropped since"
		default:
			f.Worker, f.Error = l.Worker, l.Error
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if g := c.open[told.Offset]; g != nil {
		g.fail(f)
	}
	return nil
}

// waits reports whether somebody waits for a call who has not been told of a failure.
func (c *Calls) waits(told Failed) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.open[told.Offset]
	return g != nil && !g.knows(told.Failure)
}

func (g *gathered) knows(f Failure) bool {
	_, known := g.failed[letterAt{f.Node, f.Letter}]
	return known
}

func (g *gathered) fail(f Failure) {
	if len(g.failed) > MaxReplies || g.knows(f) {
		return
	}
	g.failed[letterAt{f.Node, f.Letter}] = struct{}{}
	if len(g.failures) < MaxFailures {
		f.Error = tuple.CutError(f.Error)
		g.failures = append(g.failures, f)
	}
}

// Drop forgets an open call: replies that come later are dropped, and Done is not told of it.
func (c *Calls) Drop(at int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.close(at)
}

// close forgets an open call. c.mu is held.
func (c *Calls) close(at int64) {
	if g := c.open[at]; g != nil {
		c.bytes -= g.bytes
		delete(c.open, at)
	}
}

// Past reports whether the call at a position has been processed, so that Done will not be told of it any more.
func (c *Calls) Past(at int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return at < c.start || at < c.emitted && c.open[at] == nil
}

// Root returns the root of a call.
func (c *Calls) Root(at int64) tuple.Root { return tuple.Root{Origin: c.Origin, First: at} }

// tell tells Done of what is complete. An owner that does not know that it was replaced would find its roots complete too, for what the next one has processed is
// handled no more: but their replies are not with it. So the store is asked first.
func (c *Calls) tell(ctx context.Context) error {
	if len(c.complete) == 0 {
		return nil
	}
	if err := stale(c.logs.SetFloor(ctx, c.topology, c.name, c.Generation, 0)); err != nil { // moves nothing: only the owner may
		return err
	}
	for _, at := range c.complete {
		c.mu.Lock()
		g := c.open[at]
		if g == nil {
			c.mu.Unlock()
			continue
		}
		out := g.outcome(at)
		c.mu.Unlock()
		c.Done(out) // before it is past: whoever asks in between finds one or the other
		c.mu.Lock()
		c.close(at)
		c.mu.Unlock()
	}
	c.complete = c.complete[:0]
	return nil
}

func (g *gathered) outcome(at int64) Outcome {
	o := Outcome{ID: g.id, Position: at, TooMany: g.tooMany, Replies: make([]Reply, 0, len(g.replies))}
	for _, r := range g.replies {
		o.Replies = append(o.Replies, r)
	}
	slices.SortFunc(o.Replies, func(a, b Reply) int {
		return cmp.Or(strings.Compare(a.Node, b.Node), strings.Compare(a.Key, b.Key), strings.Compare(string(a.Payload), string(b.Payload)), slices.Compare(a.ID[:], b.ID[:]))
	})
	o.Failures, o.Failed = slices.Clone(g.failures), len(g.failed)
	slices.SortFunc(o.Failures, func(a, b Failure) int {
		return cmp.Or(strings.Compare(a.Node, b.Node), slices.Compare(a.Letter[:], b.Letter[:]))
	})
	return o
}
