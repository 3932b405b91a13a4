package bolt_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// both hands every tuple on along both edges of patiently, and fails when told to.
type both struct{ failing func() error }

func (b *both) Execute(_ context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	if b.failing != nil {
		if err := b.failing(); err != nil {
			return err
		}
	}
	c.Emit(bolt.Emission{Key: t.Key, Payload: t.Payload})
	return nil
}

// patiently returns a harness of a bolt whose tuples go to soon at once and may wait on their way to later.
func patiently(t *testing.T, b bolt.Bolt) *bolttest.Harness {
	h := bolttest.New(t, b)
	h.Edges(
		bolt.Edge{To: "soon", Stream: tuple.DefaultStream, Shared: true},
		bolt.Edge{To: "later", Stream: tuple.DefaultStream, Tasks: 1, Linger: time.Minute, Key: func(*tuple.Tuple) (string, bool) { return "", true }},
	)
	return h
}

// sent lists what the last Step has published: its frames' destinations with the keys in them.
func sent(h *bolttest.Harness) string {
	var out []string
	for _, f := range h.Frames {
		keys := f.Node + ":"
		for _, x := range bolttest.Tuples(h.T, f) {
			keys += x.Key
		}
		out = append(out, keys)
	}
	return strings.Join(out, " ")
}

// expect checks what the last Step has published, and how many frames have been acknowledged since the beginning; none is reported before.
func expect(t *testing.T, h *bolttest.Harness, frames string, acked int) {
	t.Helper()
	if got := sent(h); got != frames || h.Acked != acked || len(h.Deltas) > 0 != (acked > 0) {
		t.Errorf("published %q, %d acknowledged, %d deltas, want %q and %d", got, h.Acked, len(h.Deltas), frames, acked)
	}
}

// TestTuplesWaitForOthers: what nobody waits for goes in one frame for several batches, and these are reported and acknowledged when it is stored.
func TestTuplesWaitForOthers(t *testing.T) {
	h := patiently(t, &both{})
	h.Feed(at("a"))
	expect(t, h, "soon:a", 0)
	h.Feed(at("b"), at("c"))
	expect(t, h, "soon:bc", 0)
	if held := h.Loop.Held(); held == nil || len(held.Roots) != 3 {
		t.Errorf("the loop says that it holds %v, not the three roots of both batches", held)
	}
	h.Step() // finds nothing
	expect(t, h, "later:abc", 2)
	if h.Loop.Held() != nil {
		t.Error("the loop says that it holds something")
	}
	for _, d := range h.Deltas {
		if d.XOR == 0 {
			t.Error("a delta does not count what waited")
		}
	}
}

// TestWaitingEnds: no longer than there is room in the frame, and for half as many frames as a batch may have.
func TestWaitingEnds(t *testing.T) {
	t.Run("frame", func(t *testing.T) {
		h := patiently(t, &both{})
		large := at("a")
		large.Payload = []byte(`{"x":"` + strings.Repeat("x", tuple.TargetFrameBytes-200) + `"}`)
		h.Feed(large)
		expect(t, h, "soon:a", 0)
		h.Feed(at("b"), at("c"))
		expect(t, h, "soon:bc", 0)
		large.ID = tuple.ID{}
		h.Feed(large)
		expect(t, h, "soon:a later:abc later:a", 3)
	})
	t.Run("frames", func(t *testing.T) {
		h := patiently(t, &both{})
		for range 7 {
			h.Feed(at("a"))
			expect(t, h, "soon:a", 0)
		}
		h.Feed(at("b"))
		expect(t, h, "soon:b later:"+strings.Repeat("a", 7)+"b", 8)
	})
	t.Run("time", func(t *testing.T) {
		o := bolt.Options{
			Bolt: &both{}, Inbox: &slow{}, Outbox: &noted{},
			Edges: []bolt.Edge{{To: "later", Stream: tuple.DefaultStream, Shared: true, Linger: 20 * time.Millisecond}},
		}
		l := bolttest.Loop(t, o)
		began := time.Now()
		for o.Outbox.(*noted).frames == 0 {
			if _, err := l.Step(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took < 20*time.Millisecond || took > time.Second {
			t.Errorf("a tuple waited for %v, not 20 ms", took)
		}
	})
}

// slow is an inbox with one frame, which then waits for as long as it is let.
type slow struct{ fetched bool }

func (s *slow) Fetch(ctx context.Context, _ int) ([]bolt.Delivery, error) {
	if s.fetched {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	s.fetched = true
	x := at("a")
	x.Stream = tuple.DefaultStream
	data, err := (&tuple.Frame{Revision: 1, Source: "source", Tuples: []tuple.Tuple{x}}).Append(nil)
	return []bolt.Delivery{{Data: data}}, err
}
func (s *slow) Ack(context.Context, []bolt.Delivery) error     { return nil }
func (s *slow) Working(context.Context, []bolt.Delivery) error { return nil }

// noted counts frames.
type noted struct{ frames int }

func (n *noted) Publish(_ context.Context, frames []bolt.Outgoing) error {
	n.frames += len(frames)
	return nil
}

// TestErrorTakesBackWhatWaits: after an error everything that is not acknowledged is handled again, in order, and what waited is stored once.
func TestErrorTakesBackWhatWaits(t *testing.T) {
	broken := errors.New("broken")
	b := &both{}
	h := patiently(t, b)
	h.Feed(at("a"))
	expect(t, h, "soon:a", 0)

	ctx, cancel := context.WithCancelCause(t.Context())
	b.failing = func() error {
		cancel(broken)
		return bolt.Unavailable(broken)
	}
	x := at("b")
	x.ID, x.Offset, x.Stream = tuple.ID{7}, 1, tuple.DefaultStream
	x.Root = tuple.Root{Origin: bolttest.Origin, First: 1}
	h.Push("source", x)
	if _, err := h.Loop.Step(ctx); err == nil {
		t.Fatal("an outage that does not end is no error")
	}
	expect(t, h, "soon:a", 0)

	b.failing = nil
	h.Step()
	expect(t, h, "soon:ab", 0)
	h.Step()
	expect(t, h, "later:ab", 2)
}

// TestSettle: whoever stops stepping can end what waits.
func TestSettle(t *testing.T) {
	h := patiently(t, &both{})
	h.Feed(at("a"))
	for range 2 { // the second time there is nothing to end
		if err := h.Loop.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	h.Published()
	expect(t, h, "later:a", 1)
	if h.Loop.Held() != nil {
		t.Error("the loop says that it holds something")
	}
}

// TestStateDoesNotWait: what a node with state emits is stored with its batch.
func TestStateDoesNotWait(t *testing.T) {
	h := patiently(t, &counting{})
	h.Feed(at("a"))
	expect(t, h, "soon:a later:a", 1)
}

// TestInnerBoltDoesNotWait: of a bolt that runs in another's loop everything is stored with the batch.
func TestInnerBoltDoesNotWait(t *testing.T) {
	h := bolttest.New(t, &both{})
	later := bolt.Edge{To: "later", Stream: tuple.DefaultStream, Shared: true, Linger: time.Minute}
	h.Edges(bolt.Edge{To: "inner", Stream: tuple.DefaultStream, Local: true, Shared: true})
	h.Inner(bolt.Inner{Where: trace.Where{Node: "inner", Task: tuple.Shared}, Bolt: &both{}, Edges: []bolt.Edge{later}})
	h.Feed(at("a"))
	expect(t, h, "later:a", 1)
}
