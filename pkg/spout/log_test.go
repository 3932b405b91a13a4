package spout_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// bench is a place for logs: what is published stays in frames, letters in letters.
type bench struct {
	t       *testing.T
	logs    *state.Memory
	frames  []tuple.Frame
	letters []*tuple.Letter
	nowhere bool // Route knows no way
	refuse  error
}

type clock struct{}

func (clock) Now() time.Time                             { return time.UnixMilli(1_000_000) }
func (clock) Sleep(context.Context, time.Duration) error { return nil }

func (b *bench) Publish(_ context.Context, out []bolt.Outgoing) error {
	for _, o := range out {
		var f tuple.Frame
		if err := f.Decode(o.Data); err != nil {
			return err
		}
		f.Source += ">" + o.Node + "/" + fmt.Sprint(o.Task) // the destination, for the test to see
		b.frames = append(b.frames, f)
	}
	return nil
}

func (b *bench) Put(_ context.Context, l *tuple.Letter) error {
	if b.refuse != nil {
		return b.refuse
	}
	b.letters = append(b.letters, l)
	return nil
}

func (b *bench) Known(_ context.Context, id tuple.ID) (bool, error) {
	return slices.ContainsFunc(b.letters, func(l *tuple.Letter) bool { return l.ID == id }), nil
}

// options are those of a new owner of a log.
func (b *bench) options(log string) spout.Options {
	g, err := b.logs.Raise(b.t.Context(), "test", log)
	if err != nil {
		b.t.Fatal(err)
	}
	return spout.Options{Where: trace.Where{Topology: "test", Node: "readings", Worker: "w"}, Generation: g, Revision: 3, Outbox: b, Clock: clock{}}
}

func (b *bench) replay() *spout.Replay {
	b.t.Helper()
	r, err := spout.NewReplay(b.t.Context(), b.options(spout.ReplayLog), "test", b.logs, spout.ReplayOptions{
		Decoder: spout.NewDecoder(topology.Spout{Key: "id"}), Letters: b,
		Edges: []bolt.Edge{{To: "clean", Stream: tuple.DefaultStream, Shared: true}},
		Route: func(l *tuple.Letter) (bolt.Edge, error) {
			if b.nowhere {
				return bolt.Edge{}, errors.New("no such node")
			}
			return bolt.Edge{To: l.Node, Stream: l.Stream, Tasks: 4, Direct: true, Task: 2, Gated: true}, nil
		},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

func (b *bench) append(l *tuple.Letter) (int64, bool) {
	b.t.Helper()
	l.Topology = "test"
	at, added, err := spout.Append(b.t.Context(), b.logs, l)
	if err != nil {
		b.t.Fatal(err)
	}
	return at, added
}

// handle reports every delivery of the published frames as handled, and forgets them.
func (b *bench) handle(l *spout.Log) {
	for _, f := range b.frames {
		_, to, _ := strings.Cut(f.Source, ">")
		node, number, _ := strings.Cut(to, "/")
		task, err := strconv.Atoi(number)
		check(b.t, err)
		for i, t := range f.Tuples {
			l.Apply([]tuple.Delta{{
				Frame: tuple.ID{1, byte(i)}, First: t.Root.First, Attempt: t.Root.Attempt, XOR: tuple.LedgerID(t.ID, tuple.NameOf(node), int32(task), t.Root.Attempt),
			}})
		}
	}
	b.frames = nil
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var failed = tuple.Letter{
	ID: tuple.ID{1}, Node: "stat", Task: 2, Source: "clean", Stream: "default", Key: "m1", Time: 5, Group: "m1", N: 7, Payload: []byte(`{"v":1}`),
	Origin: 9, Offset: 100, TraceID: tuple.ID{4}.String(),
}

// TestReplayOnce: however often a letter is replayed, by whichever owner, it has one position, and enters where it failed under a new id.
func TestReplayOnce(t *testing.T) {
	b := &bench{t: t, logs: state.NewMemory()}
	l := failed
	if at, added := b.append(&l); at != 0 || !added {
		t.Fatalf("at %d, %v", at, added)
	}
	r := b.replay()
	check(t, r.Pump(t.Context()))
	if at, added := b.append(&l); at != 0 || added {
		t.Errorf("again: at %d, %v", at, added)
	}
	check(t, r.Look(t.Context()))
	check(t, r.Pump(t.Context()))
	if len(b.frames) != 1 || len(b.frames[0].Tuples) != 1 || b.frames[0].Source != "clean>stat/2" || b.frames[0].Revision != 3 {
		t.Fatalf("frames %+v", b.frames)
	}
	first := b.frames[0].Tuples[0]
	origin := spout.LogOrigin("test", spout.ReplayLog)
	if first.ID != tuple.RootID(tuple.Position{Origin: origin}) || first.N != 0 || first.Key != "m1" || first.Time != 5 || string(first.Payload) != `{"v":1}` ||
		first.Trace.TraceID != (tuple.ID{4}) {
		t.Errorf("tuple %+v", first)
	}
	b.frames = nil
	successor := b.replay() // nothing was processed yet: the entry is emitted again, the same tuple in another generation
	check(t, successor.Pump(t.Context()))
	again := b.frames[0].Tuples[0]
	if again.ID != first.ID || again.Root.Attempt.Generation <= first.Root.Attempt.Generation {
		t.Errorf("again %+v", again)
	}
	b.handle(successor.Log)
	if !successor.Flushed() {
		t.Errorf("floor %d of %d", successor.Floor(), successor.Length())
	}
	check(t, successor.Settle(t.Context()))
	if err := r.Settle(t.Context()); err != nil {
		t.Errorf("the former owner has nothing to say: %v", err)
	}
	last := b.replay()
	check(t, last.Pump(t.Context()))
	if _, added := b.append(&l); added || len(b.frames) > 0 || last.Floor() != 1 {
		t.Errorf("processed, and replayed again: %v, frames %+v, floor %d", added, b.frames, last.Floor())
	}
}

// TestReplayOfARecord: a record that could not be decoded is decoded again; one that still cannot be is a letter again, and completes.
func TestReplayOfARecord(t *testing.T) {
	b := &bench{t: t, logs: state.NewMemory()}
	good := tuple.Letter{ID: tuple.ID{1}, Node: "readings", Payload: []byte(`{"id":"m1"}`), Time: 3, Origin: 9, Offset: 4, Topic: "topic", Error: "no device"}
	bad := tuple.Letter{ID: tuple.ID{2}, Node: "readings", Payload: []byte(`{`), Origin: 9, Offset: 5, Topic: "topic", Error: "not JSON"}
	b.append(&good)
	b.append(&bad)
	r := b.replay()
	b.refuse = errors.New("no route to host")
	if err := r.Pump(t.Context()); !errors.Is(err, b.refuse) || r.Next() != 1 {
		t.Fatalf("a letter that cannot be stored waits: %v, next %d", err, r.Next())
	}
	b.refuse = nil
	check(t, r.Pump(t.Context()))
	if len(b.frames) != 1 || b.frames[0].Source != "readings>clean/-1" || b.frames[0].Tuples[0].Key != "m1" || b.frames[0].Tuples[0].Time != 3 {
		t.Errorf("frames %+v", b.frames)
	}
	origin := spout.LogOrigin("test", spout.ReplayLog)
	if len(b.letters) != 1 || b.letters[0].ID != tuple.RootID(tuple.Position{Origin: origin, Offset: 1}) || b.letters[0].Origin != origin || b.letters[0].Offset != 1 {
		t.Fatalf("letters %+v", b.letters)
	}
	b.handle(r.Log)
	if !r.Flushed() {
		t.Errorf("floor %d of %d", r.Floor(), r.Length())
	}
	if at, added := b.append(b.letters[0]); at != 2 || !added { // the new letter can be replayed in its turn
		t.Errorf("at %d, %v", at, added)
	}
}

func TestReplayToANodeThatIsGone(t *testing.T) {
	b := &bench{t: t, logs: state.NewMemory(), nowhere: true}
	l := failed
	b.append(&l)
	r := b.replay()
	check(t, r.Pump(t.Context()))
	if len(b.letters) != 1 || b.letters[0].Node != "stat" || b.letters[0].Error != "no such node" || b.letters[0].Origin != r.Origin || len(b.frames) > 0 || !r.Flushed() {
		t.Errorf("letters %+v, frames %+v, floor %d", b.letters, b.frames, r.Floor())
	}
}

// TestLogWindow: a log is emitted in order, a window at a time; a pause holds back what no earlier owner can have emitted.
func TestLogWindow(t *testing.T) {
	b := &bench{t: t, logs: state.NewMemory()}
	const n = 40
	for i := range n {
		l := failed
		l.ID = tuple.ID{1, byte(i)}
		b.append(&l)
	}
	r := b.replay()
	if r.Traces() != 16 {
		t.Errorf("an earlier owner can have emitted %d", r.Traces())
	}
	check(t, r.PumpTo(t.Context(), 5))
	if r.Next() != 5 {
		t.Errorf("emitted %d, told 5", r.Next())
	}
	for i := int64(0); !r.Flushed(); i++ {
		check(t, r.Pump(t.Context()))
		if _, _, floor, err := b.logs.Read(t.Context(), "test", spout.ReplayLog, 0, 0); err != nil || r.Next() > floor+16 || i > n {
			t.Fatalf("next %d, durable floor %d (%v)", r.Next(), floor, err)
		}
		b.handle(r.Log)
		before := r.Next()
		check(t, r.Pump(t.Context()))
		if r.Next() != before {
			t.Errorf("emitted %d though a successor counts with %d", r.Next(), before)
		}
		check(t, r.Settle(t.Context()))
	}
}

// TestLogOfALaterOwner: an owner whose place in the log has been passed must not take the entries at the new floor for those that it was to emit.
func TestLogOfALaterOwner(t *testing.T) {
	b := &bench{t: t, logs: state.NewMemory()}
	for i := range 3 {
		l := failed
		l.ID = tuple.ID{1, byte(i)}
		b.append(&l)
	}
	old, later := b.replay(), b.replay()
	check(t, later.PumpTo(t.Context(), 2))
	b.handle(later.Log)
	check(t, later.Settle(t.Context()))
	if err := old.Pump(t.Context()); !errors.Is(err, spout.ErrStale) || len(b.frames) > 0 {
		t.Errorf("the old owner emitted %d frames: %v", len(b.frames), err)
	}
}

// TestTickerGoesOn: the next owner of the tick log knows the last entry, and emits from the durable floor on.
func TestTickerGoesOn(t *testing.T) {
	b := &bench{t: t, logs: state.NewMemory()}
	due := []spout.Due{{Node: "stat", Every: 10, Edge: bolt.Edge{To: "stat", Stream: tuple.TickStream, Tasks: 2, All: true}}}
	first, err := spout.NewTicker(t.Context(), b.options(spout.TickLog), "test", b.logs, due)
	check(t, err)
	check(t, first.Advance(t.Context(), 77))
	check(t, first.Flush(t.Context(), 0))
	b.handle(first.Log)
	check(t, first.Settle(t.Context()))
	next, err := spout.NewTicker(t.Context(), b.options(spout.TickLog), "test", b.logs, due)
	check(t, err)
	check(t, next.Tick(t.Context()))
	if len(b.frames) != 2 || next.Floor() != 1 || next.Length() != 2 {
		t.Fatalf("%d frames, floor %d of %d", len(b.frames), next.Floor(), next.Length())
	}
	var tick bolt.Tick
	check(t, json.Unmarshal(b.frames[0].Tuples[0].Payload, &tick))
	if tick.N != 1 || tick.Watermark != 77 || !tick.Flush {
		t.Errorf("tick %+v", tick)
	}
	if err := first.Flush(t.Context(), 0); !errors.Is(err, spout.ErrStale) {
		t.Errorf("the former owner appends: %v", err)
	}
}

// TestTickerRests: what a new owner emits again after a pause is due nowhere, and nothing that is due meanwhile is forgotten.
func TestTickerRests(t *testing.T) {
	b := &bench{t: t, logs: state.NewMemory()}
	due := []spout.Due{{Node: "stat", Every: 10, Edge: bolt.Edge{To: "stat", Stream: tuple.TickStream, Tasks: 1, All: true}}}
	now := int64(1000)
	open := func() *spout.Ticker {
		t.Helper()
		b.frames = nil
		o := b.options(spout.TickLog)
		o.Clock = &reader{now: now}
		k, err := spout.NewTicker(t.Context(), o, "test", b.logs, due)
		check(t, err)
		return k
	}
	first := open()
	check(t, first.Flush(t.Context(), 0))
	check(t, first.Rest(t.Context()))
	if first.Length() != 1 {
		t.Error("rests before its entry is processed")
	}
	if m := first.Mark(3, 1); m.Rests(3) {
		t.Errorf("says that it rests: %+v", m)
	}
	b.handle(first.Log)
	check(t, first.Settle(t.Context()))
	for range 2 {
		check(t, first.Rest(t.Context()))
	}
	check(t, first.Settle(t.Context()))
	if m := first.Mark(3, 2); first.Length() != 2 || !m.Rests(3) || m.Rests(4) {
		t.Fatalf("at rest: %+v, %d entries", m, first.Length())
	}
	now += 10
	next := open()
	check(t, next.Tick(t.Context()))
	if len(b.frames) != 0 || !next.Flushed() {
		t.Fatalf("%d frames after the pause", len(b.frames))
	}
	check(t, next.Advance(t.Context(), 0))
	if len(b.frames) != 1 {
		t.Errorf("%d frames of the tick that became due", len(b.frames))
	}
}

// TestLetteredRecordIsNotReadAgain: a spout that begins below a record that was buried leaves it alone, whatever it would make of it now.
func TestLetteredRecordIsNotReadAgain(t *testing.T) {
	b := &bench{t: t, logs: state.NewMemory()}
	records := []spout.Record{
		{Offset: 0, Value: []byte(`{"id":"m1"}`)},
		{Offset: 1, Value: []byte(`{"name":"m2"}`), Key: []byte{0xff}, Parent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
	}
	var said []trace.Emitted
	read := func(key string) {
		t.Helper()
		o := b.options("kafka")
		o.Origin, o.Commit = 5, func(context.Context, int64) error { return nil }
		o.Sink = func(e trace.Event) {
			if x, ok := e.(trace.Emitted); ok {
				said = append(said, x)
			}
		}
		p := spout.NewPartition(o, spout.PartitionOptions{
			Topic: "topic", Letters: b, Decoder: spout.NewDecoder(topology.Spout{Key: key}), Edges: []bolt.Edge{{To: "clean", Stream: "default", Shared: true}},
		})
		check(t, p.Offer(t.Context(), records, 2))
	}
	read("id")
	if len(b.letters) != 1 || b.letters[0].TraceID != "0af7651916cd43dd8448eb211c80319c" || string(b.letters[0].Record) != "\xff" {
		t.Fatalf("letters %+v", b.letters)
	}
	b.letters[0].Error = "the first"
	read("id")   // not a second letter
	read("name") // which only the buried one has
	if got := said[len(said)-1]; len(b.letters) != 2 || got.Accepted != 0 || got.Skipped != 1 || got.Rejected != 1 || said[1].Skipped != 1 {
		t.Errorf("%+v, letters %+v", said, b.letters)
	}
}
