// Package trace holds the typed events that the engine reports while it runs: what was handled, emitted, completed, replayed, refused.
// The engine hands them to a Sink; pkg/observe turns them into logs, spans and metrics, tests count them.
// It never formats, samples or sends anything.
package trace

import (
	"time"

	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Sink receives events, in order per loop, from many loops at once. It must not block. The zero Sink discards.
type Sink func(Event)

// Emit hands e to the sink, if there is one.
func (s Sink) Emit(e Event) {
	if s != nil {
		s(e)
	}
}

// Event is one of the types of this package.
type Event interface{ event() }

// Where says which loop reports.
type Where struct {
	Topology, Node, Kind, Worker string
	Task                         int32 // tuple.Shared where workers compete; the Kafka partition in a spout
}

// Outcome is what became of a delivery.
type Outcome string

// The outcomes of a delivery.
const (
	Acked        Outcome = "acked"
	Dropped      Outcome = "dropped"       // below the floor, or applied before: only its delta (and recorded outputs) went out
	Held         Outcome = "held"          // ahead of its gate: its root will replay
	DeadLettered Outcome = "dead-lettered" // stored among the dead letters; handled as far as the ledger is concerned
)

// Handled reports one delivery of a sampled or failed tuple at one bolt.
type Handled struct {
	Where
	Tuple   tuple.ID
	Root    tuple.Root
	Offset  int64
	Key     string
	Stream  string
	Source  string      // node it came from
	Parent  tuple.Trace // span of the emitter
	Span    uint64      // this delivery's span id: its ledger id
	Emitted int
	Tries   int // executions, from 1
	Outcome Outcome
	Err     error

	Fetched, Begun, Executed time.Time // Begun..Executed: this tuple alone
	CommitBegun, Committed   time.Time // the batch's; zero for stateless bolts
	PublishBegun, Published  time.Time // the batch's
}

// Stepped sums one Step of a bolt up; metrics come from it.
type Stepped struct {
	Where
	Frames, Tuples, Emitted            int
	Acked, Dropped, Held, DeadLettered int
	Failed                             int // executions that returned an error, retried or not
	Execute, Commit, Publish           time.Duration
	At                                 time.Time
}

// Received reports one tuple that a spout accepted from its input and emitted (sampled ones only).
type Received struct {
	Where
	Tuple          tuple.ID
	Root           tuple.Root
	Offset         int64
	Key, Stream    string
	Topic          string
	Partition      int
	Parent         tuple.Trace // from the record's W3C headers; SpanID zero when the trace begins here
	Trace          tuple.Trace // as emitted: SpanID is this receive span's
	Begun, Emitted time.Time
}

// Emitted reports one root's emission, first or again.
type Emitted struct {
	Where
	Root     tuple.Root
	Records  int // taken from the input
	Accepted int // tuples emitted
	Skipped  int // records of other data streams: not its business
	Rejected int // records that could not be decoded: dead-lettered
	At       time.Time
}

// Completed reports a root whose tree is fully processed.
type Completed struct {
	Where
	Root    tuple.Root
	Next    int64         // offset behind the root's last
	Latency time.Duration // since its first emission
}

// Overdue reports a root that is being replayed because its tree was not complete in time.
type Overdue struct {
	Where
	Root    tuple.Root // with the attempt that timed out
	Age     time.Duration
	Holders []Holder // who had not reported, as far as is known
}

// Holder is a place where part of an overdue root was last seen.
type Holder struct {
	Node   string
	Task   int32
	Worker string
	Since  time.Time
}

// Progress reports how far an origin is.
type Progress struct {
	Where
	Origin    tuple.Origin
	Floor     int64     // offsets below are fully processed
	Next      int64     // next offset to emit
	Lag       int64     // records in the input behind Next; -1 unknown
	Open      int       // roots
	Oldest    time.Time // emission of the oldest open root; zero when none
	Watermark int64     // ms; math.MinInt64 when unknown
}

// Failed reports an error outside any tuple: a connection lost, a commit refused, a lease lost.
type Failed struct {
	Where
	Doing string
	Err   error
	Fatal bool // the loop stops
}

// Changed reports a change in what this worker does: a task claimed or released, a topology applied.
type Changed struct {
	Where
	What     string
	Revision uint32
	Epoch    uint64
}

// Cached reports how one of a worker's caches has served all its loops since the last report.
type Cached struct {
	Where
	Cache   string
	Hits    int64 // found
	Misses  int64 // not found
	Loads   int64 // round trips to what is behind the cache
	Entries int   // held now, approximately; below 0: the cache shares its room, and another event tells
}

func (Handled) event()   {}
func (Stepped) event()   {}
func (Received) event()  {}
func (Emitted) event()   {}
func (Completed) event() {}
func (Overdue) event()   {}
func (Progress) event()  {}
func (Failed) event()    {}
func (Changed) event()   {}
func (Cached) event()    {}
