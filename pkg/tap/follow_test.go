package tap_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/observe"
	"github.com/boltmesh/boltmesh/pkg/tap"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// send publishes one tuple from node to node as the engine does, and returns the delta that reports it.
func (r *room) send(from, to string, task int32, t tuple.Tuple) tuple.Delta {
	r.Helper()
	f := tuple.Frame{Revision: 1, Source: from, Tuples: []tuple.Tuple{t}}
	data, err := f.Append(nil)
	if err != nil {
		r.Fatal(err)
	}
	ledger := tuple.LedgerID(t.ID, tuple.NameOf(to), task, t.Root.Attempt)
	out := bolt.Outgoing{Node: to, Task: task, ID: tuple.FrameID(tuple.NameOf(to), task, []uint64{ledger}), Data: data}
	if err := r.conn.Outbox("rooms").Publish(r.Context(), []bolt.Outgoing{out}); err != nil {
		r.Fatal(err)
	}
	return tuple.Delta{Frame: out.ID, First: t.Root.First, Attempt: t.Root.Attempt, XOR: ledger}
}

func (r *room) report(ds ...tuple.Delta) {
	r.Helper()
	if err := r.conn.Deltas("rooms").Send(r.Context(), 7, ds); err != nil {
		r.Fatal(err)
	}
}

func child(of tuple.Tuple, node string, by tuple.ID, stream string, ordinal uint32) tuple.Tuple {
	c := of
	c.ID, c.Stream = tuple.ChildID(of.ID, tuple.Emitter{Node: tuple.NameOf(node), By: by}, tuple.NameOf(stream), ordinal), stream
	return c
}

func (r *room) follow(q tap.Quarry) *tap.Following {
	r.Helper()
	f, err := tap.Follow(r.Context(), r.conn, r.plan, q)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(f.Close)
	return f
}

func (r *room) wait(f *tap.Following, d time.Duration) bool {
	ctx, cancel := context.WithTimeout(r.Context(), d)
	defer cancel()
	return f.Wait(ctx)
}

// draw writes a tree on one line.
func draw(hops []*observe.Hop) (out string) {
	for _, h := range hops {
		out += fmt.Sprintf("%s/%s#%d %s", h.Node, h.Task, h.Attempt, h.Outcome)
		if len(h.Below) > 0 {
			out += "(" + draw(h.Below) + ")"
		}
		out += " "
	}
	return out
}

func TestFollow(t *testing.T) {
	r := open(t)
	reading := tuple.Tuple{
		ID: tuple.RootID(tuple.Position{Origin: 7, Offset: 12}), Root: tuple.Root{Origin: 7, First: 10, Attempt: tuple.Attempt{Generation: 3}}, Offset: 12, Stream: "default", Key: "room-1",
	}
	other := reading
	other.Offset, other.ID = 13, tuple.RootID(tuple.Position{Origin: 7, Offset: 13})
	device, id := r.follow(tap.Quarry{Device: "room-1"}), r.follow(tap.Quarry{ID: reading.ID})
	a, b := child(reading, "clean", tuple.ID{}, "default", 0), child(reading, "clean", tuple.ID{}, "default", 1)
	total := child(a, "totals", tuple.ByGroup("room-1"), "default", 0)
	total.Group = "room-1"

	first := r.send("readings", "clean", 0, reading)
	r.send("readings", "clean", 0, other)
	one, two, three := r.send("clean", "totals", 2, a), r.send("clean", "totals", 2, b), r.send("clean", "hot", 1, b)
	r.report(first)
	stored := r.send("totals", "output", tuple.Shared, total)
	r.report(one, two)
	if r.wait(device, 50*time.Millisecond) {
		t.Error("complete though two have not reported")
	}
	root, at, seen := device.Root()
	if !seen || root != reading.Root || at.Offset != 12 {
		t.Errorf("%+v %+v %v", root, at, seen)
	}
	want := "readings/#0 emitted(clean/0#0 handled(totals/2#0 handled(output/any#0 waiting ) totals/2#0 handled hot/1#0 waiting ) ) "
	if got := draw(device.Journey().Hops); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	again := reading
	again.Root.Attempt.Count = 1
	replayed := r.send("readings", "clean", 0, again) // below the floor by now: dropped with its delta
	r.report(three, stored)
	r.report(replayed)
	for _, f := range []*tap.Following{device, id} {
		if !r.wait(f, 20*time.Second) {
			t.Fatalf("not complete: %s", draw(f.Journey().Hops))
		}
	}
	j := id.Journey()
	if n := len(j.Hops); n < 1 || n > 2 || len(j.Hops[0].Below) != 1 {
		t.Errorf("%s", draw(j.Hops))
	}
}

// TestLook finds what waits in inputs since before anybody listened.
func TestLook(t *testing.T) {
	r := open(t)
	reading := tuple.Tuple{
		ID: tuple.RootID(tuple.Position{Origin: 7, Offset: 12}), Root: tuple.Root{Origin: 7, First: 10, Attempt: tuple.Attempt{Generation: 3}}, Offset: 12, Stream: "default", Key: "room-1",
	}
	r.publish("readings", "clean", 0, "default", 5)
	waits := r.send("readings", "clean", 0, reading)
	copied := r.send("clean", "copy", tuple.Shared, child(reading, "clean", tuple.ID{}, "default", 0))
	f := r.follow(tap.Quarry{At: &tuple.Position{Origin: 7, Offset: 12}})
	if err := f.Look(t.Context(), r.conn); err != nil {
		t.Fatal(err)
	}
	if got, want := draw(f.Journey().Hops), "readings/#0 emitted(clean/0#0 waiting(copy/any#0 waiting ) ) "; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	r.report(waits)
	r.report(copied)
	if !r.wait(f, 20*time.Second) {
		t.Error("not complete")
	}
	var times []bool
	f.Journey().Each(func(h *observe.Hop) bool {
		times = append(times, h.At.IsZero())
		return true
	})
	if !slices.Equal(times, []bool{true, true, true}) {
		t.Errorf("times of what passed before are known: %v", times)
	}
}
