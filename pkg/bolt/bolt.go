// Package bolt runs one task of one bolt: it fetches frames, has the bolt execute their tuples, commits state, publishes what was emitted, reports to
// the ledger and acknowledges, in the order that PROTOCOL's guarantees rest on. Services build loops of it, meshtest drives it step by step; users
// implement Bolt. It never names a vendor, reads a clock of its own or starts a goroutine.
//
// # A bolt of your own
//
// A service is a main that hands a function to service.Main; the function makes the bolt of one task from the topology's node. In the topology it is
//
//	{id: odometer, kind: custom, service: odometer, from: rides, group: device, streams: {due: [km]}, every: 1m, config: {every_km: 100}}
//
// where streams declares what it emits on beside the default stream, and the fields (what comes on any other stream is a dead letter), group makes it stateful (with
// it the bolt must be Stateful, without it not), and config is yours. Such a service scales, retries, traces and counts exactly once as the built-in ones do, since the same loop runs it. examples/custom-bolt is one.
//
//   - Prepare is the function that builds the bolt; open there what it needs. Once per batch there is Preparer.
//   - Close is io.Closer: a bolt that has it is closed when its task is given up.
//   - A bolt with groupings of its own is a Grouper; along direct edges Collector.EmitTo names the task.
//   - Ticks come to stateful bolts, as Stateful.Tick or Keyed.Output: at the interval that the node names as every, else when the watermark has moved, and
//     at a flush. Time is a tuple, so what depends on it is replayed like the rest.
//   - A bolt without state may call another topology and wait for the answer: service.Node has Call. Which worker and which task it is for stand there too.
//
// # When a tuple counts as handled
//
// There is no call that acknowledges. The basic style is to return: nil acknowledges once the batch is committed and what it emitted is stored, an error is
// retried with backoff and then dead-lettered. Func and Keyed are in this style. Richer is what an error says: Retry asks for a pause, Reject gives up at
// once, Unavailable waits for as long as an outage lasts. A bolt that must look at a batch before it decides, such as one that writes in bulk, is a
// Finisher: it gathers in Execute, works in Finish and names there the tuples that failed; none is acknowledged before. What no style offers is to hold
// a tuple beyond its batch: whatever outlives it belongs into the state, where it is safe from crashes (docs/adr/0021-nobody-acknowledges-by-hand.md).
package bolt

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Bolt is what the author of a node writes. One loop calls it, never two at once for the same task.
type Bolt interface {
	// Execute handles t and emits through c. t, its key and its payload are only valid during the call: what is kept is cloned first, or it keeps the frame. An error that is neither Retry, Reject nor
	// Unavailable is retried with backoff up to the node's limit, then dead-lettered. A stateful bolt that returns an error must
	// have left its state as it was.
	Execute(ctx context.Context, t *tuple.Tuple, c *Collector) error
}

// Stateful is a bolt with keyed state: its tuples are applied exactly once, in order per group.
type Stateful interface {
	Bolt
	// Group returns the group that t belongs to; the router and the bolt use the same function. ok is false when t concerns no group (a field is
	// absent): it then counts as handled.
	Group(t *tuple.Tuple) (group string, ok bool)
	// Keys adds the state keys that Execute or Tick will read for group, so that a batch loads them in one round trip.
	Keys(group string, add func(key string))
	// Due says which entries of the agenda a tick concerns: those whose At is at most until. ok is false when the tick means nothing to it.
	Due(tick Tick) (until int64, ok bool)
	// Tick handles one due group. Its agenda entry has been removed; the bolt adds it again if it wants to be called again.
	Tick(ctx context.Context, tick Tick, group string, c *Collector) error
}

// Preparer is a bolt that looks at a batch before its tuples are executed, to load what they need in one round trip.
type Preparer interface {
	// Prepare gets the tuples of the batch in order, ticks left out; some of them may then not be executed. They are valid during the call. An error
	// is an outage: it is called again, with the same tuples, until it succeeds.
	Prepare(ctx context.Context, batch iter.Seq[*tuple.Tuple]) error
}

// Finisher is a bolt that does its work once per batch, after all tuples were executed and before anything is published.
type Finisher interface {
	// Finish completes the batch; after an error it is called again, with the same tuples, until it succeeds. Failures name the tuples (by their order of Execute in this batch) that cannot be handled; err concerns all.
	Finish(ctx context.Context, c *Collector) (failures []Failure, err error)
}

// Bulky is a Finisher that gains nothing by batches of more than so many tuples: there are about as many in each, if that many wait.
type Bulky interface {
	Finisher
	Enough() (tuples int)
}

// Patient is a bolt whose work nobody waits for, since it shows later anyway, with a tick or in a store: so long a batch may wait for more frames, if there is
// room for more. What there is comes to an end that much later; the larger batch costs fewer commits. The first batch does not wait.
type Patient interface {
	Bolt
	Patience() time.Duration
}

// Failure is one tuple of a batch that Finish could not handle.
type Failure struct {
	Index int
	Err   error
}

// Tick is an entry of the topology's tick log, as a bolt sees it.
type Tick struct {
	N         int64    `json:"n"`
	Time      int64    `json:"time"`      // processing time, ms
	Last      int64    `json:"last"`      // processing time of the entry before
	Watermark int64    `json:"watermark"` // event time below which every reading has been processed, ms; math.MinInt64 when unknown
	Flush     bool     `json:"flush"`     // everything open is to be emitted, whatever the time
	Nodes     []string `json:"nodes"`     // the nodes that are due; each gets the tick on all its tasks

	// Follows is set when Nodes are due for an earlier entry, since all that was emitted at it has been applied: to a bolt, time is then that entry's.
	Follows *Moment `json:"follows,omitempty"`
	Owed    []Owed  `json:"owed,omitempty"` // entries that nodes have still to follow, this one included
}

// Moment is what entry N of the tick log says of time.
type Moment struct {
	N         int64 `json:"n"`
	Time      int64 `json:"time"`
	Last      int64 `json:"last"`
	Watermark int64 `json:"watermark"`
}

// Owed is an entry that a node has to follow: it gets a tick of that moment when everything emitted at the entry is fully processed.
type Owed struct {
	Node string `json:"node"`
	Moment
}

// Emission is what a bolt gives to the collector.
type Emission struct {
	Stream  string // "" means tuple.DefaultStream
	Key     string // the device
	Time    int64  // event time, ms
	Payload []byte // a JSON object; the collector keeps it

	to int32 // the task named by EmitTo, from 1
}

// Collector takes what a bolt emits while it handles one tuple, and lends it the state of its task.
type Collector struct {
	group     string
	source    string
	emissions []Emission
	streams   []string // that it may emit on; nil: on any
	state     *state.View
	agenda    map[string]int64 // this batch's; strike marks a removal
}

// strike in an agenda map stands for a removed entry.
const strike = int64(-1 << 63)

// Emit hands e on along the node's edges. A stream that the node does not declare rejects the tuple: it would lead nowhere, and nobody would know.
// What a Stateful bolt has changed in its state by then stays changed; a Keyed has changed nothing yet.
func (c *Collector) Emit(e Emission) {
	if e.Stream == "" {
		e.Stream = tuple.DefaultStream
	}
	c.emissions = append(c.emissions, e)
}

// EmitTo hands e on as Emit does, and along direct edges to one task, counted from 0. Which one must follow from the tuple being handled, so that a
// replay names it again. An emission along a direct edge that names no task of the receiving node rejects the tuple.
func (c *Collector) EmitTo(task int32, e Emission) {
	e.to = task + 1
	c.Emit(e)
}

// declared rejects what was emitted on a stream that the node does not have.
func (c *Collector) declared() error {
	for i := range c.emissions {
		if err := c.declares(c.emissions[i].Stream); err != nil {
			return err
		}
	}
	return nil
}

func (c *Collector) declares(stream string) error {
	if c.streams == nil || slices.Contains(c.streams, stream) {
		return nil
	}
	return Reject(fmt.Errorf("emitted on the stream %q, which the node does not declare: it has %s", stream, strings.Join(c.streams, ", ")))
}

// Emitted returns what has been emitted for the tuple being handled so far. It is valid until the tuple is done.
func (c *Collector) Emitted() []Emission { return c.emissions }

// Group returns the group that is being handled.
func (c *Collector) Group() string { return c.group }

// Source returns the node that emitted the tuple being handled.
func (c *Collector) Source() string { return c.source }

// State returns the task's state; nil for bolts that are not Stateful.
func (c *Collector) State() *state.View { return c.state }

// Wake puts the current group on the task's agenda: Tick is called for it once a tick's until reaches at. It replaces an earlier at.
func (c *Collector) Wake(at int64) { c.agenda[c.group] = at }

// WakeFor is Wake for another group than the current one, which no other task of the node may have: Tick is called for it, and what it emits counts as
// emitted by it.
func (c *Collector) WakeFor(group string, at int64) { c.agenda[group] = at }

// Rest takes the current group off the agenda.
func (c *Collector) Rest() { c.agenda[c.group] = strike }

// retry, reject and unavailable classify an error.
type retry struct {
	error
	after time.Duration
}
type (
	reject      struct{ error }
	unavailable struct{ error }
)

func (e retry) Unwrap() error       { return e.error }
func (e reject) Unwrap() error      { return e.error }
func (e unavailable) Unwrap() error { return e.error }

// Retry marks err as worth another try, not before after; the tries count towards the node's limit.
func Retry(err error, after time.Duration) error { return retry{err, after} }

// Reject marks err as final: the tuple is dead-lettered at once.
func Reject(err error) error { return reject{err} }

// Unavailable marks err as the outage of a dependency: it is waited out, without limit, and never dead-letters anything. Errors of the state store need
// no mark: they wrap state.ErrUnavailable.
func Unavailable(err error) error { return unavailable{err} }

// IsUnavailable reports whether err, or one that it wraps, is an outage.
func IsUnavailable(err error) bool {
	return errors.As(err, new(unavailable)) || errors.Is(err, state.ErrUnavailable)
}

// IsReject reports whether err, or one that it wraps, is final.
func IsReject(err error) bool { return errors.As(err, new(reject)) }
