// Package call asks a topology a question: a request becomes an entry of the topology's log of calls and so a root; what nodes emit on their stream reply
// is the answer, complete when the root is. The CLI, the HTTP endpoint and Go programs call with it, over a connection to NATS that they have.
// It never decides who works on a call, and never takes one twice: a call made again under its id is the same call.
package call

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/trace"
)

// DefaultTimeout is how long a call waits for its answer unless it says otherwise.
const DefaultTimeout = 30 * time.Second

const (
	again   = time.Second            // how often an owner is asked again that has not answered the call
	retry   = 100 * time.Millisecond // how often somebody is looked for who owns the calls
	whoWait = 2 * time.Second        // how long is waited for names when the deadline has passed
)

// Options say how to call. The zero value makes a new call and waits DefaultTimeout for its answer.
type Options struct {
	ID      string        // names the call: made again under its id it is not done again; default: one that is new
	Timeout time.Duration // default DefaultTimeout
	// Keep leaves the call and its answer where they are, for as long as answers stay there that nobody confirms (a minute): for a caller that
	// may crash, or give up for now, and make the call again under its ID.
	Keep bool
}

// Answer is what nodes have emitted to answer a call, all of it: in the order of node, key and JSON text, so that equal answers come in equal order.
type Answer struct {
	ID       string        `json:"id"`
	Position int64         `json:"position"` // in the topology's log of calls
	Replies  []spout.Reply `json:"replies"`
}

// Distinct drops replies whose JSON text another one has.
func (a *Answer) Distinct() {
	seen := map[string]bool{}
	a.Replies = slices.DeleteFunc(a.Replies, func(r spout.Reply) bool {
		before := seen[string(r.Payload)]
		seen[string(r.Payload)] = true
		return before
	})
}

// Errors of a call. Unanswered and Failed are types.
var (
	// ErrLost says that the call has been processed and its answer is lost: the spout worker that had it has stopped. Under another id it would be done again.
	ErrLost = errors.New("the call has been processed, and its answer is lost: the spout that had it has stopped")
	// ErrTooMany says that there were more replies than are gathered.
	ErrTooMany = fmt.Errorf("the call has been processed, and has more than %d replies or %d MiB of them, or with others under way more than %d MiB",
		spout.MaxReplies, spout.MaxReplyBytes>>20, spout.MaxGathered>>20)
	// ErrNoTaker says that no spout takes calls for the topology.
	ErrNoTaker = errors.New("no spout takes calls")
)

// UnansweredError says that the deadline has passed and who has not finished. The call goes on; its answer will be dropped.
type UnansweredError struct {
	ID      string
	After   time.Duration
	Holders []trace.Holder // one without a worker is a node where frames wait; one without a time owns the task where they do, and is silent
	Why     string         // when nobody holds it
}

// Error implements error.
func (e *UnansweredError) Error() string {
	said := fmt.Sprintf("call %s was not answered within %s: ", e.ID, e.After)
	if len(e.Holders) == 0 {
		return said + e.Why
	}
	var who []string
	for _, h := range e.Holders {
		if h.Worker == "" {
			who = append(who, fmt.Sprintf("frames wait for node %s, and no worker says that it works on them", h.Node))
			continue
		}
		if h.Since.IsZero() {
			who = append(who, fmt.Sprintf("frames wait for task %d of node %s, which worker %s owns, and it does not say that it works on them", h.Task, h.Node, h.Worker))
			continue
		}
		who = append(who, fmt.Sprintf("worker %s has it at node %s, for %s", h.Worker, h.Node, time.Since(h.Since).Round(time.Millisecond)))
	}
	slices.Sort(who)
	return said + strings.Join(slices.Compact(who), "; ")
}

// FailedError says that tuples of the call became dead letters, so that the answer lacks what would have come of them.
type FailedError struct {
	Failures []spout.Failure // spout.MaxFailures at most
	All      int             // how many there are, told or not
}

// Error implements error.
func (e *FailedError) Error() string {
	var all []string
	for _, f := range e.Failures[:min(len(e.Failures), 10)] {
		all = append(all, fmt.Sprintf("node %s on worker %s: %s (dead letter %s)", f.Node, f.Worker, f.Error, f.Letter))
	}
	if more := e.All - len(all); more > 0 {
		all = append(all, fmt.Sprintf("and %d more dead letters", more))
	}
	return "the call failed: " + strings.Join(all, "; ")
}

// Client makes calls. It is safe for concurrent use.
type Client struct{ conn *jetstream.Conn }

// New returns a client on a connection.
func New(conn *jetstream.Conn) *Client { return &Client{conn} }

// Call asks a topology a question, a JSON object, and waits for the whole answer. When ctx ends first the caller is forgotten and late replies are
// dropped. With a FailedError the answer holds what came nevertheless.
func (c *Client) Call(ctx context.Context, topology string, question json.RawMessage, o Options) (*Answer, error) {
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if err := check(question, &o); err != nil {
		return nil, err
	}
	w := &waiting{Client: c, topology: topology, options: o, parts: make(chan Part, 1024), taken: make(chan taken, 1)}
	inbox, stop, err := c.conn.Listen(ctx, w.hear)
	if err != nil {
		return nil, err
	}
	defer stop()
	w.request = Request{ID: o.ID, Payload: question, Inbox: inbox}
	waits, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	answer, err := w.wait(waits)
	if !o.Keep {
		defer w.forget()
	}
	if err != nil && waits.Err() != nil && ctx.Err() == nil {
		return nil, w.unanswered(ctx, err)
	}
	return answer, err
}

// Send makes a call whose answer nobody wants. It returns when the call has been taken: from then on it will be processed.
func (c *Client) Send(ctx context.Context, topology string, question json.RawMessage, o Options) (*Answer, error) {
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if err := check(question, &o); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	t, err := c.ask(ctx, topology, Request{ID: o.ID, Payload: question})
	if err != nil {
		return nil, err
	}
	return &Answer{ID: o.ID, Position: t.Position, Replies: []spout.Reply{}}, nil
}

func check(question []byte, o *Options) error {
	if o.ID == "" {
		o.ID = rand.Text()
	}
	if err := spout.CheckCallID(o.ID); err != nil {
		return err
	}
	return spout.CheckCall(question)
}

// ask sends a request to the owner of the calls until it is answered or ctx ends. To ask twice does no harm.
func (c *Client) ask(ctx context.Context, topology string, q Request) (t Taken, err error) {
	request, err := spout.JSON(q)
	if err != nil {
		return t, err
	}
	for nobody := false; ; {
		one, cancel := context.WithTimeout(ctx, 5*time.Second)
		answer, err := c.conn.Request(one, Subject(topology), request)
		cancel()
		if err == nil {
			if err = json.Unmarshal(answer, &t); err == nil && t.Error != "" {
				err = errors.New(t.Error)
			}
			return t, err
		}
		if errors.Is(err, jetstream.ErrTooLarge) {
			return t, err
		}
		nobody = nobody || errors.Is(err, jetstream.ErrNobody)
		select {
		case <-ctx.Done():
			if nobody {
				err = fmt.Errorf("%w for %s: is it applied, does its spout have calls: true, and does one run? (%w)", ErrNoTaker, topology, ctx.Err())
			}
			return t, err
		case <-time.After(retry):
		}
	}
}

// waiting is one call under way.
type waiting struct {
	*Client
	topology string
	options  Options
	request  Request
	parts    chan Part
	taken    chan taken
	was      *Taken // once the owner has taken it
}

type taken struct {
	Taken
	err error
}

func (w *waiting) hear(data []byte) {
	var p Part
	if json.Unmarshal(data, &p) != nil || p.ID != w.options.ID {
		return
	}
	select {
	case w.parts <- p:
	default: // it is asked for again
	}
}

// wait asks, and asks again in case the owner has changed or an answer got lost, until all parts have come.
func (w *waiting) wait(ctx context.Context) (*Answer, error) {
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	ask := func() {
		go func() {
			t, err := w.ask(asking, w.topology, w.request)
			w.taken <- taken{t, err}
		}()
	}
	ask()
	got := map[int]Part{}
	var lost <-chan time.Time
	for next := (<-chan time.Time)(nil); ; {
		select {
		case p := <-w.parts:
			if got[p.Part] = p; len(got) == p.Parts {
				return answerOf(w.options.ID, got)
			}
		case t := <-w.taken:
			if t.err != nil {
				return nil, t.err
			}
			w.was = &t.Taken
			if t.Lost && lost == nil { // unless it is just arriving
				lost = time.After(again)
			}
			next = time.After(again)
		case <-next:
			next = nil
			ask()
		case <-lost:
			return nil, ErrLost
		case <-ctx.Done():
			if w.was == nil { // it can say why nobody has taken the call
				return nil, (<-w.taken).err
			}
			return nil, ctx.Err()
		}
	}
}

func answerOf(id string, parts map[int]Part) (*Answer, error) {
	a := &Answer{ID: id, Position: parts[0].Position, Replies: []spout.Reply{}}
	var failures []spout.Failure
	for i := range len(parts) {
		a.Replies = append(a.Replies, parts[i].Replies...)
		failures = append(failures, parts[i].Failures...)
	}
	switch {
	case parts[0].TooMany:
		return nil, ErrTooMany
	case len(failures) > 0:
		return a, &FailedError{failures, max(len(failures), parts[0].Failed)}
	}
	return a, nil
}

// forget tells the owner that nobody waits any more; if that gets lost, the owner forgets by itself.
func (w *waiting) forget() {
	if q, err := json.Marshal(Request{Op: OpForget, ID: w.options.ID}); err == nil {
		_ = w.conn.Tell(Subject(w.topology), q)
	}
}

// unanswered finds out who has not finished.
func (w *waiting) unanswered(ctx context.Context, why error) error {
	e := &UnansweredError{ID: w.options.ID, After: w.options.Timeout}
	if w.was == nil {
		e.Why = why.Error()
		return e
	}
	ctx, cancel := context.WithTimeout(ctx, whoWait)
	defer cancel()
	t, err := w.ask(ctx, w.topology, Request{Op: OpWho, ID: w.options.ID, Payload: w.request.Payload})
	switch e.Holders = t.Holders; {
	case err != nil:
		e.Why = "and the spout that has taken it cannot be asked who has it: " + err.Error()
	case t.Paused:
		e.Why = "the topology is paused"
	case len(t.Holders) == 0:
		e.Why = "no worker says that it has it: it is on its way, or a worker that has it does not live"
	}
	return e
}
