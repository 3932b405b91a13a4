// Package spouttest is the conformance suite of what spouts keep in a store beside the partitions of Kafka: the log of calls.
// The memory store and every adapter run it in their tests, with an owner of the log that emits into memory. It never looks behind state.Logs.
package spouttest

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/ack"
	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Run checks one implementation of state.Logs, empty or not: each test has a topology of its own.
func Run(t *testing.T, open func(t *testing.T) state.Logs) {
	for i, c := range []struct {
		name string
		test func(*desk)
	}{
		{"a call is answered", testAnswered},
		{"an owner that comes after", testSuccessor},
		{"floors that frames carry", testFloor},
		{"ids are forgotten", testForgotten},
		{"what is gathered", testGathered},
		{"what is gathered is bounded", testBounded},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.test(&desk{T: t, logs: open(t), topology: fmt.Sprintf("calls-%d", i)})
		})
	}
}

// desk owns the calls of a topology with one node, b, whose work is done by the tests.
type desk struct {
	*testing.T
	logs     state.Logs
	topology string
	keep     int64
	calls    *spout.Calls
	frames   []tuple.Frame // emitted to b and not handled yet
	done     []spout.Outcome
}

type clock struct{}

func (clock) Now() time.Time                             { return time.UnixMilli(1_000_000) }
func (clock) Sleep(context.Context, time.Duration) error { return nil }

// Publish implements bolt.Outbox.
func (d *desk) Publish(_ context.Context, out []bolt.Outgoing) error {
	for _, o := range out {
		var f tuple.Frame
		if err := f.Decode(o.Data); err != nil {
			return err
		}
		d.frames = append(d.frames, f)
	}
	return nil
}

// own takes the log over.
func (d *desk) own() {
	d.Helper()
	generation, err := d.logs.Raise(d.Context(), d.topology, spout.CallLog)
	if err != nil {
		d.Fatal(err)
	}
	d.frames = nil
	d.calls, err = spout.NewCalls(d.Context(), spout.Options{
		Where: trace.Where{Topology: d.topology, Node: "ask"}, Generation: generation, Revision: 1, Outbox: d, Clock: clock{},
		Ledger: ack.Options{Timeout: 1 << 40},
	}, d.topology, d.logs, spout.CallsOptions{
		Spec: topology.Spout{ID: "ask", Calls: true, Decode: "json"}, Keep: d.keep,
		Edges: []bolt.Edge{{To: "b", Stream: topology.CallStream, Shared: true}},
		Done:  func(o spout.Outcome) { d.done = append(d.done, o) },
	})
	if err != nil {
		d.Fatal(err)
	}
}

// call makes a call.
func (d *desk) call(id string, at int64, added bool) {
	d.Helper()
	got, isNew, err := spout.AppendCall(d.Context(), d.logs, d.topology, spout.Call{ID: id, Payload: json.RawMessage(`{"id":"` + id + `"}`), At: 1})
	if err != nil || got != at || isNew != added {
		d.Fatalf("call %s: at %d, new %v (%v); want %d, %v", id, got, isNew, err, at, added)
	}
}

func (d *desk) pump() {
	d.Helper()
	if err := errors.Join(d.calls.Look(d.Context()), d.calls.Pump(d.Context())); err != nil {
		d.Fatal(err)
	}
}

// work is handle, and the floor moves.
func (d *desk) work(nodes ...string) {
	d.Helper()
	d.handle(nodes...)
	if err := d.calls.Settle(d.Context()); err != nil {
		d.Fatal(err)
	}
}

// handle handles what was emitted: each call has one reply for each node that is named.
func (d *desk) handle(nodes ...string) {
	frames := d.frames
	d.frames = nil
	for _, f := range frames {
		for i := range f.Tuples {
			t := &f.Tuples[i]
			for _, n := range nodes {
				d.calls.Gather(t.Position(), spout.Reply{Node: n, ID: tuple.ChildID(t.ID, tuple.Emitter{Node: tuple.NameOf(n)}, 0, 0), Payload: t.Payload})
			}
			handled := tuple.LedgerID(t.ID, tuple.NameOf("b"), tuple.Shared, t.Root.Attempt)
			d.calls.Apply([]tuple.Delta{{Frame: tuple.FrameID(tuple.NameOf("b"), tuple.Shared, []uint64{handled}), First: t.Root.First, Attempt: t.Root.Attempt, XOR: handled}})
		}
	}
}

// answered wants the next outcome.
func (d *desk) answered(id string, replies int) {
	d.Helper()
	if len(d.done) == 0 || d.done[0].ID != id || len(d.done[0].Replies) != replies {
		d.Fatalf("outcomes %+v, want %s with %d replies first", d.done, id, replies)
	}
	d.done = d.done[1:]
}

func testAnswered(d *desk) {
	d.call("a", 0, true) // before there is an owner
	d.own()
	d.call("b", 1, true)
	d.call("a", 0, false)
	d.pump()
	if len(d.frames) != 2 || d.frames[0].Tuples[0].Stream != topology.CallStream || string(d.frames[0].Tuples[0].Payload) != `{"id":"a"}` {
		d.Fatalf("emitted %+v", d.frames)
	}
	if d.calls.Past(0) {
		d.Error("an open call is past")
	}
	d.work("y", "x")
	if d.done[0].Replies[0].Node != "x" {
		d.Errorf("replies in another order: %+v", d.done[0].Replies)
	}
	d.answered("a", 2)
	d.answered("b", 2)
	if !d.calls.Past(1) {
		d.Error("a call that is answered is not past")
	}
	d.call("a", 0, false)
	d.pump()
	if len(d.frames) != 0 {
		d.Error("a call made again is done again")
	}
}

func testSuccessor(d *desk) {
	d.own()
	for i := range int64(3) {
		d.call(fmt.Sprint(i), i, true)
	}
	d.pump()
	later := d.frames[1:]
	d.frames = d.frames[:1]
	d.work("b")
	d.answered("0", 1)
	former := d.calls
	d.own()
	d.pump()
	d.work("b")
	d.answered("1", 1)
	d.answered("2", 1)
	if !d.calls.Past(0) {
		d.Error("what a former owner has answered is not past")
	}
	d.call("3", 3, true)
	d.calls = former // it may emit what it finds, to nobody's harm: what becomes of that it cannot note
	d.pump()
	d.frames = append(later, d.frames...)
	d.handle("b")
	if err := d.calls.Settle(d.Context()); !errors.Is(err, spout.ErrStale) {
		d.Errorf("a former owner moves the floor: %v", err)
	}
	if len(d.done) > 0 {
		d.Errorf("a former owner answers: %+v", d.done)
	}
}

// testFloor: bolts do not handle again what lies below a floor. What was processed and not noted, the next owner emits again, and needs their replies.
func testFloor(d *desk) {
	emits := func(floor int64) {
		d.Helper()
		if len(d.frames) != 1 || d.frames[0].Tuples[0].Root.Floor != floor {
			d.Errorf("emitted %+v, want one frame with the floor %d", d.frames, floor)
		}
	}
	d.own()
	d.call("a", 0, true)
	d.pump()
	emits(0)
	d.handle("x")
	d.call("b", 1, true)
	d.pump()
	emits(0)
	d.work("x")
	d.answered("a", 1)
	d.answered("b", 1)
	d.call("c", 2, true)
	d.pump()
	emits(2)
}

func testForgotten(d *desk) {
	d.keep = 64
	d.own()
	next := int64(0)
	for range 10 { // batches: the floor moves with each
		for range 32 {
			d.call(fmt.Sprint("call-", next), next, true)
			next++
		}
		d.pump()
		d.work()
	}
	d.call(fmt.Sprint("call-", next-1), next-1, false)
	d.call(fmt.Sprint("call-", next-64), next-64, false)
	d.call("call-0", next, true)
	d.call(fmt.Sprint("call-", next-68), next+1, true) // and no more than a few beyond
	d.call("call-0", next, false)
}

func testGathered(d *desk) {
	d.own()
	d.call("a", 0, true)
	d.call("b", 1, true)
	d.call("c", 2, true)
	d.pump()
	at := d.frames[0].Tuples[0].Position()
	d.calls.Gather(at, spout.Reply{Node: "b", ID: tuple.ID{1}, Payload: json.RawMessage(`{}`)})
	d.calls.Gather(at, spout.Reply{Node: "b", ID: tuple.ID{1}, Payload: json.RawMessage(`{}`)}) // again, after a crash
	at.Origin++
	d.calls.Gather(at, spout.Reply{Node: "b", ID: tuple.ID{2}, Payload: json.RawMessage(`{}`)}) // of another log
	offset, generation := d.frames[1].Tuples[0].Offset, d.calls.Generation
	for _, node := range []string{"b", "c", "b"} { // again, after a crash
		if err := d.calls.Fail(d.Context(), spout.Failed{Offset: offset, Generation: generation, Failure: spout.Failure{Node: node, Letter: tuple.ID{3}, Error: "bad"}}); err != nil {
			d.Error(err)
		}
	}
	err := d.calls.Fail(d.Context(), spout.Failed{Offset: offset, Generation: generation + 1, Failure: spout.Failure{Node: "d", Letter: tuple.ID{3}, Error: "bad"}})
	if !errors.Is(err, spout.ErrLater) {
		d.Errorf("an owner takes in what a later one is to be told: %v", err)
	}
	d.calls.Drop(2)
	d.work()
	d.answered("a", 1)
	if len(d.done) != 1 || d.done[0].ID != "b" || len(d.done[0].Failures) != 2 {
		d.Errorf("%+v, want b with the failures of b and c, and nothing of c, whose caller has gone", d.done)
	}
}

// testBounded: whatever comes, one call's replies and failures, and those of all calls together, take no more than so much.
func testBounded(d *desk) {
	if _, _, err := spout.AppendCall(d.Context(), d.logs, d.topology, spout.Call{ID: strings.Repeat("x", spout.MaxCallID+1), Payload: json.RawMessage(`{}`)}); err == nil {
		d.Error("a call is named by more than MaxCallID bytes")
	}
	d.own()
	for i := range int64(10) {
		d.call(fmt.Sprint(i), i, true)
	}
	d.pump()
	frames := d.frames
	n := uint64(0)
	reply := func(call int, payload []byte) {
		n++
		d.calls.Gather(frames[call].Tuples[0].Position(), spout.Reply{Node: "b", ID: tuple.ID(binary.LittleEndian.AppendUint64(make([]byte, 8), n)), Payload: payload})
	}
	large := make([]byte, spout.MaxReplyBytes/2-1024)
	for call := range 6 {
		reply(call, large)
		reply(call, large)
	}
	for range spout.MaxReplies + 1 {
		reply(6, nil)
	}
	for letter := range 3 * spout.MaxFailures {
		f := spout.Failure{Node: "b", Letter: tuple.ID{byte(letter), byte(letter >> 8)}, Error: strings.Repeat("x", 1<<20)}
		if err := d.calls.Fail(d.Context(), spout.Failed{Offset: frames[7].Tuples[0].Offset, Failure: f}); err != nil {
			d.Fatal(err)
		}
	}
	d.work()
	for call, o := range d.done {
		if tooMany := call == 4 || call == 5 || call == 6; o.TooMany != tooMany || (call < 4) != (len(o.Replies) == 2) {
			d.Errorf("call %d: too many %v, %d replies", call, o.TooMany, len(o.Replies))
		}
	}
	if o := d.done[7]; len(o.Failures) != spout.MaxFailures || o.Failed != 3*spout.MaxFailures || len(o.Failures[0].Error) != tuple.MaxError {
		d.Errorf("%d failures of %d, %d bytes the first", len(o.Failures), o.Failed, len(o.Failures[0].Error))
	}
	d.call("after", 10, true)
	d.pump()
	frames, d.done = d.frames, nil
	reply(0, large)
	d.work()
	d.answered("after", 1)
}
