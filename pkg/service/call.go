package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/boltmesh/boltmesh/pkg/ack"
	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/call"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

const (
	repliesAtOnce = 64          // frames of replies in one batch
	keepAnswers   = time.Minute // how long an answer stays that its caller has not confirmed
	keptBytes     = 64 << 20    // of such answers
	tellFailure   = 2 * time.Second
)

// callOwner runs the topology's log of calls while this worker holds its lease.
func (h *host) callOwner(ctx context.Context) {
	if h.plan.Topology.Spout.Calls {
		h.ownLog(ctx, spout.CallLog, h.callLoop)
	}
}

// callLoop owns the calls until ctx ends: it takes them, emits them, gathers the replies and answers.
func (h *host) callLoop(ctx, hard context.Context) error {
	name, spec := h.plan.Topology.Name, h.plan.Topology.Spout
	generation, err := h.Logs.Raise(hard, name, spout.CallLog)
	if err != nil {
		return err
	}
	where := h.at()
	where.Task = -4 // no partition: the log of calls
	deltas, stop, err := h.deltas(spout.LogOrigin(name, spout.CallLog), where)
	if err != nil {
		return err
	}
	defer stop()
	d := &desk{host: h, appended: make(chan struct{}, 1), callers: map[string]*caller{}}
	d.calls, err = spout.NewCalls(hard, spout.Options{
		Where: where, Generation: generation, Revision: h.revision, Outbox: h.outbox, Clock: clock{}, Sink: h.Sink, Holders: h.holders,
		Ledger: ack.Options{Timeout: spec.Timeout.Milliseconds()},
	}, name, h.Logs, spout.CallsOptions{Spec: spec, Edges: edges(h.plan, &h.node), Done: d.done, Letter: d.letter})
	if err != nil {
		return err
	}
	hearing, deaf := context.WithCancel(hard)
	defer deaf()
	replies, err := h.gather(hearing, d.calls, uint64(generation)) // before anything is emitted
	if err != nil {
		return err
	}
	defer func() {
		deaf()
		<-replies //nolint:errcheck // it has ended because it was told to
	}()
	for subject, answer := range map[string]func([]byte) []byte{
		call.Subject(name):       func(q []byte) []byte { return d.answer(hard, q) },
		call.FailedSubject(name): func(told []byte) []byte { return d.failed(hard, told) },
	} {
		unserve, err := h.Conn.Serve(subject, answer)
		if err != nil {
			return err
		}
		defer unserve()
	}
	return h.runLog(ctx, hard, d.calls.Log, deltas, d.appended, replies)
}

// gather takes the input of replies over and runs its loop until ctx ends. What comes out of the channel is why it has ended; then the channel is closed.
func (h *host) gather(ctx context.Context, calls *spout.Calls, epoch uint64) (<-chan error, error) {
	name := h.plan.Topology.Name
	var inbox *jetstream.Inbox
	err := h.provided(ctx, topology.ReplyNode, 0, func() (err error) {
		inbox, err = h.Conn.Take(ctx, name, topology.ReplyNode, 0, epoch, repliesAtOnce)
		return err
	})
	if err != nil {
		return nil, err
	}
	where := h.where(name, topology.ReplyNode)
	l, err := bolt.New(ctx, bolt.Options{
		Where: where, Revision: h.revision, Fetch: repliesAtOnce, Inbox: inbox, Outbox: h.outbox, Deltas: h.Conn.Deltas(name),
		Letters: spout.CallLetters{Letters: h.chained.of(h, topology.ReplyNode), Origin: calls.Origin, Tell: calls.Fail}, Clock: clock{}, Sink: h.Sink,
		Bolt: bolt.Func(func(_ context.Context, t *tuple.Tuple, c *bolt.Collector) error {
			if !json.Valid(t.Payload) { // or the whole answer could not be told
				return bolt.Reject(errors.New("the reply is not JSON"))
			}
			calls.Gather(t.Position(), spout.Reply{Node: c.Source(), ID: t.ID, Key: strings.Clone(t.Key), Payload: slices.Clone(t.Payload)})
			return nil
		}),
	})
	if err != nil {
		inbox.Close()
		return nil, err
	}
	ended := make(chan error, 1)
	go func() {
		defer close(ended)
		defer inbox.Close()
		for ctx.Err() == nil {
			if _, err := l.Step(ctx); err != nil && ctx.Err() == nil {
				ended <- fmt.Errorf("gather replies: %w", err)
				return
			}
		}
	}()
	return ended, nil
}

// desk is where callers come to while this worker owns the calls.
type desk struct {
	*host
	calls    *spout.Calls
	appended chan struct{}
	mu       sync.Mutex
	callers  map[string]*caller // by the call's id
	order    []*caller          // those with an answer, oldest first
	bytes    int                // of their answers
}

// caller is one call that somebody waits for, or has waited for.
type caller struct {
	id     string
	inbox  string // "": nobody
	at     int64
	taken  bool     // at is known
	answer [][]byte // once the call is processed
	bytes  int

	expires *time.Timer // with the answer: drops it
}

// answer answers a caller's request.
func (d *desk) answer(ctx context.Context, request []byte) []byte {
	var q call.Request
	var a call.Taken
	err := json.Unmarshal(request, &q)
	if err == nil {
		switch q.Op {
		case call.OpCall:
			a, err = d.take(ctx, q)
		case call.OpWho:
			a = d.who(ctx, q.ID)
		case call.OpForget:
			d.forget(q.ID)
		default:
			err = fmt.Errorf("a request to %q is not known to this version", q.Op)
		}
	}
	if err != nil {
		a.Error = err.Error()
	}
	b, err := json.Marshal(a)
	if err != nil {
		h := d.host
		h.failed(h.at(), "answer a call", err)
	}
	return b
}

// take takes a call, or finds that it was taken before.
func (d *desk) take(ctx context.Context, q call.Request) (a call.Taken, err error) {
	if err := spout.CheckCallID(q.ID); err != nil {
		return a, err
	}
	if err := spout.CheckCall(q.Payload); err != nil {
		return a, err
	}
	if q.Inbox != "" {
		d.mu.Lock()
		if d.callers[q.ID] == nil {
			d.callers[q.ID] = &caller{id: q.ID}
		}
		d.callers[q.ID].inbox = q.Inbox // before it can be done
		d.mu.Unlock()
	}
	a.Position, a.New, err = spout.AppendCall(ctx, d.Logs, d.plan.Topology.Name, spout.Call{
		ID: q.ID, Payload: q.Payload, At: time.Now().UnixMilli(), NoWait: q.Inbox == "",
	})
	if err != nil {
		d.untaken(q)
		return a, err
	}
	select {
	case d.appended <- struct{}{}:
	default:
	}
	if q.Inbox == "" {
		return a, nil
	}
	past := d.calls.Past(a.Position) // asked before looking for the answer, which is there before the call is past
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.callers[q.ID]
	if c == nil { // forgotten meanwhile
		return a, nil
	}
	c.at, c.taken = a.Position, true
	switch {
	case c.answer != nil:
		return a, d.send(c)
	case past:
		a.Lost = true
		delete(d.callers, q.ID)
	}
	return a, nil
}

// untaken forgets the caller whose call could not be taken; it asks again, or has gone.
func (d *desk) untaken(q call.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.callers[q.ID]; c != nil && !c.taken && c.inbox == q.Inbox {
		d.drop(c)
	}
}

// who says who has not finished a call.
func (d *desk) who(ctx context.Context, id string) (a call.Taken) {
	d.mu.Lock()
	c := d.callers[id]
	var known bool
	if c != nil {
		a.Position, known = c.at, c.taken && c.answer == nil
	}
	d.mu.Unlock()
	if !known {
		return a
	}
	a.Paused = d.told().paused
	for _, h := range d.holders(ctx, d.calls.Root(a.Position)) {
		if h.Worker != "" {
			a.Holders = append(a.Holders, h)
			continue
		}
		a.Holders = append(a.Holders, d.silent(ctx, h)...)
	}
	return a
}

// silent names the owners of the tasks of a node where frames wait, when nobody says that he works on them: they are frozen, or out of reach.
func (d *desk) silent(ctx context.Context, h trace.Holder) (found []trace.Holder) {
	frames, err := d.Conn.Queued(ctx, d.plan.Topology.Name, h.Node)
	for _, task := range slices.Sorted(maps.Keys(frames)) {
		if owner, _ := d.roster.owner(h.Node, strconv.Itoa(int(task))); task != tuple.Shared && owner.worker != "" {
			found = append(found, trace.Holder{Node: h.Node, Task: task, Worker: owner.worker})
		}
	}
	if err != nil || len(found) == 0 {
		return []trace.Holder{h}
	}
	return found
}

// forget drops a caller, and the replies to its call that come late.
func (d *desk) forget(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.callers[id]
	if c == nil {
		return
	}
	if c.taken && c.answer == nil {
		d.calls.Drop(c.at)
	}
	d.drop(c)
}

func (d *desk) drop(c *caller) {
	delete(d.callers, c.id)
	if c.expires != nil {
		c.expires.Stop()
	}
	if i := slices.Index(d.order, c); i >= 0 {
		d.order = slices.Delete(d.order, i, i+1)
		d.bytes -= c.bytes
	}
}

// done answers a call whose tree is complete. The answer stays for a while: it may have to be sent again.
func (d *desk) done(o spout.Outcome) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.callers[o.ID]
	if c == nil { // taken by a former owner: whoever waits will ask again
		c = &caller{id: o.ID}
		d.callers[o.ID] = c
	}
	c.at, c.taken = o.Position, true
	var err error
	if c.answer, err = call.Parts(o); err != nil {
		d.host.failed(d.at(), "answer a call", err)
		return
	}
	for _, b := range c.answer {
		c.bytes += len(b)
	}
	d.order, d.bytes = append(d.order, c), d.bytes+c.bytes
	c.expires = time.AfterFunc(keepAnswers, func() { d.expire(c) })
	if err := d.send(c); err != nil { // it is asked for again
		d.host.failed(d.at(), "answer a call", err)
	}
	for len(d.order) > 1 && d.bytes > keptBytes {
		d.drop(d.order[0])
	}
}

// expire drops a caller who has not confirmed its answer in time.
func (d *desk) expire(c *caller) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.callers[c.id] == c {
		d.drop(c)
	}
}

func (d *desk) send(c *caller) error {
	if c.inbox == "" {
		return nil
	}
	for _, b := range c.answer {
		if err := d.Conn.Tell(c.inbox, b); err != nil {
			return err
		}
	}
	return nil
}

// failed takes in what a worker tells of a dead letter. A former owner says nothing: another one answers, or the worker asks again.
func (d *desk) failed(ctx context.Context, told []byte) []byte {
	var f spout.Failed
	err := json.Unmarshal(told, &f)
	if err == nil {
		err = d.calls.Fail(ctx, f)
	}
	switch {
	case errors.Is(err, spout.ErrLater):
		return nil
	case err != nil:
		return []byte(err.Error())
	}
	return []byte("ok")
}

// letter finds a dead letter of the topology; nil when there is none.
func (d *desk) letter(ctx context.Context, node string, id tuple.ID) (*tuple.Letter, error) {
	l, _, err := d.letters.Load(ctx, d.plan.Topology.Name, node, id)
	if errors.Is(err, jetstream.ErrNotFound) {
		return nil, nil
	}
	return l, err
}

// lettersOf are a node's dead letters, of which the owner of the calls is told if the topology takes calls.
func (h *host) lettersOf(to bolt.Letters) bolt.Letters {
	if !h.plan.Topology.Spout.Calls {
		return to
	}
	return spout.CallLetters{Letters: to, Origin: spout.LogOrigin(h.plan.Topology.Name, spout.CallLog), Tell: h.tellFailed}
}

// tellFailed tells the owner of the calls of a dead letter.
func (h *host) tellFailed(ctx context.Context, f spout.Failed) error {
	told, err := json.Marshal(f)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, tellFailure)
	defer cancel()
	answer, err := h.Conn.Request(ctx, call.FailedSubject(h.plan.Topology.Name), told)
	if err == nil && string(answer) != "ok" {
		err = errors.New(string(answer))
	}
	return err
}
