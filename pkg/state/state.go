// Package state is keyed state with an owner: the contract of a durable store, a bounded local cache of committed values in front of it, and a
// store in memory. The engine loads, commits and recovers stateful bolts through it; pkg/redis and pkg/sqlite implement it, statetest.Run checks them.
// It never decides what a value means, and never holds an uncommitted value for longer than one batch.
package state

import (
	"context"
	"errors"
	"fmt"

	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Errors that every Store returns, and a View, wrapped.
var (
	// ErrFenced: a later owner has claimed the task, or a later generation the origin. Stop: publish nothing, acknowledge nothing.
	ErrFenced = errors.New("fenced: a later owner has taken over")
	// ErrConflict: the log is not as long as the caller believed. Read it again.
	ErrConflict = errors.New("the log has a different length")
	// ErrUnavailable: a View could not load from its store. That is an outage to be waited out, not the fault of the tuple being handled.
	ErrUnavailable = errors.New("the state store is not available")
)

// Task names one partition of a stateful node, the unit of ownership: its keys, floors and applied ids commit together.
type Task struct {
	Topology, Node string
	Index          int32
}

// TaskOf names a task of a node that is divided into tasks. The number of tasks is part of the name: with another number each key is in another
// place, so what was kept under one division is never taken for a part of another.
func TaskOf(topology, node string, tasks int, index int32) Task {
	return Task{Topology: topology, Node: fmt.Sprintf("%s~%d", node, tasks), Index: index}
}

// Claimed is a task with its owner's epoch, as Claim has returned it.
type Claimed struct {
	Task
	Epoch uint64
}

// String returns topology/node/index.
func (t Task) String() string { return fmt.Sprintf("%s/%s/%d", t.Topology, t.Node, t.Index) }

// Store keeps what must survive a worker. Any error other than ErrFenced from Commit means that its outcome is unknown.
type Store interface {
	// Claim raises the task's fence by one and returns it: the caller's epoch, at least 1. Commits of earlier epochs are refused from then on.
	Claim(ctx context.Context, t Task) (epoch uint64, err error)
	// Head returns the floors and the applied ids: exactly those that do not lie below their floor. Call it after Claim, before taking messages.
	Head(ctx context.Context, t Task) (Head, error)
	// Load returns the values of keys in their order, nil where there is none, in one round trip.
	Load(ctx context.Context, t Task, keys []string) ([][]byte, error)
	// Outputs returns what was recorded for an applied id, slices in order; none for an id that is not applied. Of one below its floor it may return
	// what is left.
	Outputs(ctx context.Context, t Task, id tuple.ID) ([][]byte, error)
	// Due returns at most limit entries of the task's agenda that lie after the cursor and whose At is at most until, ordered by key.
	Due(ctx context.Context, t Task, until int64, after string, limit int) ([]Due, error)
	// Walk returns some of the keys of tasks, of one topology, with their values, about limit, and where to go on: "" begins, and as next says that there are
	// no more. A key that is there all the time comes at least once, in no order; a page may be empty. A store that has to look at everything to find a
	// task's keys does so once for all tasks.
	Walk(ctx context.Context, tasks []Task, cursor string, limit int) (page []Entry, next string, err error)
	// Commit applies b in one transaction, provided the fence still is epoch. It keeps nothing of b.
	Commit(ctx context.Context, t Task, epoch uint64, b *Batch) error
	// Drop deletes everything of tasks, of one topology, except their fences, which stay so that no owner from before is taken for one after. Of a task whose
	// fence is not the epoch any more it deletes nothing from then on, and returns ErrFenced: what a later owner writes is never dropped.
	Drop(ctx context.Context, tasks []Claimed) error
	Close() error
}

// Head is what an owner must know of a task before it handles a message.
type Head struct {
	Floors  map[tuple.Origin]int64
	Applied map[tuple.ID]Applied
}

// Applied says that an id has been applied, where it came from, and how far when it is handled in slices.
type Applied struct {
	Position   tuple.Position
	Slices     int    // recorded outputs: slices 0..Slices-1; 0 means it emitted nothing
	Unfinished bool   // a tick whose later slices are still to come
	Cursor     string // of a tick in slices: the last key handled, never empty while it is unfinished
}

// Batch is one commit. Keys are the user's, any bytes; the store adds its own prefix. The parts apply in the order of the fields, so that a key
// both set and deleted is gone, and of two entries for one key the later one counts.
type Batch struct {
	Set    []Entry
	Delete []string
	// Floors are absolute; a store keeps the greater of old and new. With a floor it forgets what was applied below, at once or later: Head does not
	// show it. So what is forgotten and the floor by which its tuples are dropped are one and the same fact, and no commit has to list ids.
	Floors map[tuple.Origin]int64
	Apply  []Record // none below its floor
	Agenda []Due    // added or moved
	Strike []string // agenda keys removed
}

// Empty reports whether committing b would change nothing but floors.
func (b *Batch) Empty() bool {
	return len(b.Set)+len(b.Delete)+len(b.Apply)+len(b.Agenda)+len(b.Strike) == 0
}

// Entry is a key with its value.
type Entry struct {
	Key   string
	Value []byte
}

// Record marks one id as applied and keeps what it emitted, to be emitted again when the id comes again. Of one id, the position stays, Slices never
// falls, and a cursor never becomes empty again: what says more than a position is followed only by what does.
type Record struct {
	ID tuple.ID
	Applied
	Outputs []byte // of slice Applied.Slices-1; nil when the id (or this slice) emitted nothing and Slices did not grow
}

// Due is an entry of a task's agenda: a key that wants attention once the clock it is measured by reaches At.
type Due struct {
	Key string
	At  int64 // within ±2^53, as floors and offsets are: a store may compare them as doubles
}

// Logs keeps what a spout must remember: a generation per origin, and short logs of the topology's own (ticks, replayed dead letters, calls).
type Logs interface {
	// Raise increments the generation of an origin (by its log's name) and returns it.
	Raise(ctx context.Context, topology, log string) (generation uint32, err error)
	// Append adds entry at index at, provided that the generation is the current one, which is at least 1, and the log's length is at: ErrFenced or
	// else ErrConflict.
	Append(ctx context.Context, topology, log string, generation uint32, at int64, entry []byte) error
	// AppendOnce adds entry at the end unless once was given before; it returns the index either way, and whether it is new.
	AppendOnce(ctx context.Context, topology, log, once string, entry []byte) (at int64, added bool, err error)
	// Forget forgets the names that AppendOnce was given for entries below: given again, such a name is new. The entries stay. A lower one than before
	// changes nothing; names from before a store knew how to forget may stay for ever.
	Forget(ctx context.Context, topology, log string, below int64) error
	// Read returns at most limit entries with the log's length and floor. The first one has index max(from, floor): what lies below is forgotten.
	Read(ctx context.Context, topology, log string, from int64, limit int) (entries [][]byte, length, floor int64, err error)
	// SetFloor raises the log's floor, provided the generation is the current one; a lower floor changes nothing, one beyond the log's length is
	// ErrConflict. Entries below it are forgotten, their indexes never reused.
	SetFloor(ctx context.Context, topology, log string, generation uint32, floor int64) error
	// Advance is SetFloor for a log whose entries are kept elsewhere, a Kafka partition: the floor may lie beyond the length, which then follows it.
	Advance(ctx context.Context, topology, log string, generation uint32, floor int64) error
	// DropLogs deletes all logs of a topology. Their generations are raised and stay: an owner from before can never be taken for one after.
	DropLogs(ctx context.Context, topology string) error
}
