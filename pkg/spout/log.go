package spout

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// window is how many entries of a log are emitted beyond its durable floor: a new owner knows by it how far traces of its predecessor can reach.
const window = 16

// LogOrigin returns the origin of one of a topology's own logs.
func LogOrigin(topology, log string) tuple.Origin { return tuple.OriginOf(topology, log) }

// Log is one of a topology's own logs as a source: whoever owns it emits every entry from the durable floor on, in order, each as a root of its own. An
// entry's index is its position.
type Log struct {
	*Loop
	topology, name string
	logs           state.Logs
	length         int64
	next           int64 // next entry to emit
	window         int64 // see the constant
	keep           int64 // how many of the last entries stay when the floor has passed them
	entry          entryFunc
	before         func(ctx context.Context) error // what must have been done when the floor moves; nil: nothing
}

// entryFunc says what the entry at index at stands for. After an error it is asked again.
type entryFunc func(ctx context.Context, at int64, payload []byte) (emission, error)

// emission is what one entry of a log emits.
type emission struct {
	source string // node that the tuples come from
	edges  []bolt.Edge
	tuples []tuple.Tuple
}

// openLog reads where a log stands. The generation in o has been raised for it by the caller; o.Origin, o.Commit and o.Floor are set here.
func openLog(ctx context.Context, o Options, topology, name string, logs state.Logs, keep int64, entry entryFunc) (*Log, error) {
	l := &Log{topology: topology, name: name, logs: logs, window: window, keep: keep, entry: entry}
	_, length, floor, err := logs.Read(ctx, topology, name, math.MaxInt64, 0)
	if err != nil {
		return nil, fmt.Errorf("read the %s log: %w", name, err)
	}
	o.Origin, o.Floor = LogOrigin(topology, name), floor
	o.Commit = func(ctx context.Context, floor int64) error {
		return stale(logs.SetFloor(ctx, topology, name, o.Generation, min(floor, l.length-keep)))
	}
	l.Loop, l.length, l.next = New(o), length, floor
	return l, nil
}

// Settle commits the floor if it has moved since the last commit.
func (l *Log) Settle(ctx context.Context) error {
	if err := l.prepare(ctx); err != nil {
		return err
	}
	return l.Loop.Settle(ctx)
}

// Tick replays what is overdue and commits the floor if it has moved.
func (l *Log) Tick(ctx context.Context) error {
	if err := l.prepare(ctx); err != nil {
		return err
	}
	return l.Loop.Tick(ctx)
}

func (l *Log) prepare(ctx context.Context) error {
	if l.before == nil {
		return nil
	}
	return l.before(ctx)
}

// Length returns how many entries the log has had, as last read.
func (l *Log) Length() int64 { return l.length }

// Next returns the index behind everything emitted.
func (l *Log) Next() int64 { return l.next }

// Traces returns the index below which an earlier owner may have emitted what the log does not count as processed yet: call it before the first Pump.
func (l *Log) Traces() int64 { return min(l.length, l.Floor()+l.window) }

// Mark reports how far the log is, by its durable floor. One that is told to pause (pause is not 0: see member.Log) has stopped emitting when what lies below
// end is emitted.
func (l *Log) Mark(pause uint64, end int64) member.Log {
	if l.next < min(end, l.length) {
		pause = 0
	}
	return member.Log{Name: l.name, Floor: l.committed, Next: l.next, Length: l.length, Pause: pause}
}

// Flushed reports whether every entry of the log is fully processed.
func (l *Log) Flushed() bool { return l.Floor() == l.length }

// Look learns what has been appended.
func (l *Log) Look(ctx context.Context) error { return l.measure(ctx) }

// measure learns the log's length.
func (l *Log) measure(ctx context.Context) error {
	_, length, _, err := l.logs.Read(ctx, l.topology, l.name, math.MaxInt64, 0)
	if err != nil {
		return fmt.Errorf("read the %s log: %w", l.name, err)
	}
	l.length = length
	return nil
}

// Pump emits the log's entries that were not yet, at most window beyond the durable floor: Settle moves it.
func (l *Log) Pump(ctx context.Context) error { return l.PumpTo(ctx, l.length) }

// PumpTo is Pump for the entries below end.
func (l *Log) PumpTo(ctx context.Context, end int64) error {
	for l.next < min(end, l.length) && l.next < l.committed+l.window {
		entries, _, floor, err := l.logs.Read(ctx, l.topology, l.name, l.next, window)
		if err != nil {
			return fmt.Errorf("read the %s log from %d: %w", l.name, l.next, err)
		}
		if floor > l.next { // what was read begins at the floor: it must not be emitted under other positions
			return fmt.Errorf("%w: entry %d of the %s log is processed", ErrStale, l.next, l.name)
		}
		for _, e := range entries {
			if l.next >= min(end, l.committed+l.window) {
				return nil
			}
			out, err := l.entry(ctx, l.next, e)
			if err != nil {
				return err
			}
			l.next++
			if err := l.EmitFrom(ctx, out.source, l.next-1, l.next, out.edges, out.tuples); err != nil {
				return err
			}
		}
		if len(entries) == 0 {
			return fmt.Errorf("entry %d of %d is missing from the %s log", l.next, l.length, l.name)
		}
	}
	return nil
}

func stale(err error) error {
	if errors.Is(err, state.ErrFenced) {
		return errors.Join(ErrStale, err)
	}
	return err
}
