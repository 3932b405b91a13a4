// Package tuple holds the value that moves through a topology: the tuple, its identity, and the frame that carries it.
// Every other package speaks in its words; docs/wire.md describes its bytes for other languages.
// It never does I/O, reads a clock or starts a goroutine.
package tuple

import (
	"hash/maphash"
	"strconv"
)

// Limits of one frame; a tuple larger than MaxFrameBytes travels alone, one larger than MaxPayload is refused.
const (
	// MaxTuples is the greatest number of tuples in one frame.
	MaxTuples = 1024
	// MaxRoots is the greatest number of different roots in one frame, and of different streams.
	MaxRoots = 256
	// TargetFrameBytes is where a frame is closed, unless its first tuple alone is larger.
	TargetFrameBytes = 128 << 10
	// MaxPayload is the greatest payload of one tuple, in bytes.
	MaxPayload = 900 << 10
	// MaxKey is the greatest length of a key, a group or a stream name, in bytes.
	MaxKey = 1 << 10
)

// Shared is the task number in ledger ids and frames for a node whose workers compete instead of owning tasks.
const Shared int32 = -1

// Tasks lists the tasks of a node that has so many; Shared alone where workers compete.
func Tasks(n int, shared bool) []int32 {
	if shared {
		return []int32{Shared}
	}
	tasks := make([]int32, n)
	for i := range tasks {
		tasks[i] = int32(i)
	}
	return tasks
}

// TaskName is how a task is called in subjects and to people: its number, or "any" for Shared.
func TaskName(task int32) string {
	if task == Shared {
		return "any"
	}
	return strconv.Itoa(int(task))
}

// ParseTask reads what TaskName wrote.
func ParseTask(name string) (int32, error) {
	if name == TaskName(Shared) {
		return Shared, nil
	}
	task, err := strconv.ParseUint(name, 10, 31)
	return int32(task), err
}

// DefaultStream is the name of a node's output when none is given.
const DefaultStream = "default"

// TickStream carries tick entries, from the tick log to every task of the nodes that are due.
const TickStream = "$tick"

// CommandStream carries what an operator asks of a node for one group, which the tuple's Group names, to the task that has the group.
const CommandStream = "$command"

// Origin identifies one input log: a Kafka partition of one incarnation of its topic, or a log of the topology's own.
type Origin uint64

// Position is a place in an origin. All descendants of a tuple inherit its position.
type Position struct {
	Origin Origin
	Offset int64
}

// Attempt says which emission of a root this is: the generation of the spout that owns the origin, and a count within it.
type Attempt struct {
	Generation uint32
	Count      uint32
}

// Root identifies one attempt of one spout batch. Its extent is part of no id: it may differ after a takeover.
type Root struct {
	Origin  Origin
	First   int64 // first offset of the batch
	Attempt Attempt
	Floor   int64 // the origin's floor when the frame was emitted: every offset below is fully processed
}

// Trace is the W3C trace context of a tuple; a zero TraceID means "not sampled".
type Trace struct {
	TraceID [16]byte
	SpanID  [8]byte
}

// Sampled says whether spans are recorded for the tuple.
func (t Trace) Sampled() bool { return t.TraceID != [16]byte{} }

// Tuple is one value on its way between two nodes.
type Tuple struct {
	ID      ID
	Root    Root
	Offset  int64  // within Root.Origin
	Stream  string // the emitting node's output
	Key     string // the device; may be empty
	Time    int64  // event time, milliseconds since the Unix epoch
	Group   string // emitting group, when the emitter is stateful
	N       uint64 // counter on (edge, emitting group, receiving key), from 1; 0 where the receiver has no gate
	Trace   Trace
	Payload []byte // a JSON object, untouched until somebody needs a field
}

// Position returns where the tuple came from.
func (t *Tuple) Position() Position { return Position{t.Root.Origin, t.Offset} }

// Frame is one JetStream message: tuples for one task (or for the competing workers) of one node.
type Frame struct {
	Revision uint32 // of the topology
	Source   string // node that emitted the tuples
	Tuples   []Tuple
	Keys     *Keys // that Decode may have met before; nil: keys alias the frame's bytes

	streams []string // of the tuples that Decode has read
	roots   []Root
	rest    reader // what Read has not read
}

// Keys are strings that were met of late, so that a key that is kept need not be copied with every tuple: devices send again and again. It is not safe for
// concurrent use.
type Keys [2048]string

// longestKept bounds what a key takes here: those of devices are short, and a record's may be as long as its sender likes.
const longestKept = 128

var keysSeed = maphash.MakeSeed()

// String returns b as a string, one that is here already if there is.
func (k *Keys) String(b []byte) string {
	if k == nil || len(b) > longestKept {
		return string(b)
	}
	s := &k[maphash.Bytes(keysSeed, b)%uint64(len(k))]
	if *s != string(b) {
		*s = string(b)
	}
	return *s
}
