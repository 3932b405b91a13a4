package bolt_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// counting counts its tuples per key and emits the count; a tick emits and forgets the groups touched since the last one.
type counting struct{ failing error }

type count struct{ n int }

func (c *count) Append(b []byte) ([]byte, error) { return fmt.Append(b, c.n), nil }

func decode(b []byte) (state.Value, error) {
	c := &count{}
	if b != nil {
		_, err := fmt.Sscan(string(b), &c.n)
		return c, err
	}
	return c, nil
}

func (b *counting) Execute(ctx context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	if string(t.Payload) == `{"poison":1}` {
		return b.failing
	}
	if string(t.Payload) == `{"panic":1}` {
		panic("as asked")
	}
	v, err := c.State().Edit(ctx, "count-"+c.Group(), decode)
	if err != nil {
		return err
	}
	v.(*count).n++
	c.Wake(0)
	c.Emit(bolt.Emission{Key: t.Key, Time: t.Time, Payload: fmt.Appendf(nil, `{"n":%d}`, v.(*count).n)})
	return nil
}

func (b *counting) Group(t *tuple.Tuple) (string, bool) { return t.Key, t.Key != "" }

func (b *counting) Keys(group string, add func(string)) { add("count-" + group) }

func (b *counting) Due(bolt.Tick) (int64, bool) { return math.MaxInt64, true }

func (b *counting) Tick(ctx context.Context, _ bolt.Tick, group string, c *bolt.Collector) error {
	v, err := c.State().Read(ctx, "count-"+group, decode)
	if err != nil {
		return err
	}
	c.Emit(bolt.Emission{Key: group, Payload: fmt.Appendf(nil, `{"total":%d}`, v.(*count).n)})
	return nil
}

func payloads(ts []tuple.Tuple) (out []string) {
	for _, t := range ts {
		out = append(out, t.Key+string(t.Payload))
	}
	return out
}

func want(t *testing.T, got []tuple.Tuple, lines ...string) {
	t.Helper()
	if !slices.Equal(payloads(got), lines) {
		t.Errorf("emitted\n  %s\nwant\n  %s", strings.Join(payloads(got), "\n  "), strings.Join(lines, "\n  "))
	}
}

func at(key string) tuple.Tuple { return tuple.Tuple{Key: key, Payload: []byte(`{}`)} }

func TestAppliedOnceAndEmittedAgain(t *testing.T) {
	h := bolttest.New(t, &counting{})
	first := []tuple.Tuple{at("a"), at("b"), at("a")}
	out := h.Feed(first...)
	want(t, out, `a{"n":1}`, `b{"n":1}`, `a{"n":2}`)

	h.Count = 1 // a replay: the same ids under another attempt
	again := h.Feed(first...)
	want(t, again, `a{"n":1}`, `b{"n":1}`, `a{"n":2}`)
	for i := range out {
		if out[i].ID != again[i].ID {
			t.Errorf("the replay of output %d has another id", i)
		}
		if again[i].Root.Attempt.Count != 1 {
			t.Errorf("the replay of output %d carries attempt %d", i, again[i].Root.Attempt.Count)
		}
	}
	h.Restart() // a new owner knows what was applied from the store
	want(t, h.Feed(first...), `a{"n":1}`, `b{"n":1}`, `a{"n":2}`)

	same := at("a")
	same.ID, same.Offset = tuple.ID{1}, 3
	want(t, h.Feed(same, same), `a{"n":3}`, `a{"n":3}`) // twice in one batch
}

// TestDeltaIsWhole checks that what a frame reports is the XOR of what was handled and everything emitted for it.
func TestDeltaIsWhole(t *testing.T) {
	h := bolttest.New(t, &counting{})
	in := []tuple.Tuple{at("a"), at("b")}
	in[0].ID, in[1].ID = tuple.ID{1}, tuple.ID{2} // both at offset 0: one root
	out := h.Feed(in...)
	var xor uint64
	a := tuple.Attempt{Generation: 1}
	for _, x := range in {
		xor ^= tuple.LedgerID(x.ID, tuple.NameOf("node"), 0, a)
	}
	for _, x := range out {
		xor ^= tuple.LedgerID(x.ID, tuple.NameOf("next"), tuple.Shared, a)
	}
	if len(h.Deltas) != 1 || h.Deltas[0].XOR != xor {
		t.Errorf("deltas %+v, want one with %x", h.Deltas, xor)
	}
}

func TestBelowTheFloorIsDroppedWithItsDelta(t *testing.T) {
	h := bolttest.New(t, &counting{})
	first := at("a")
	h.Feed(first, at("a"))
	h.Floor = 2
	old := at("a")
	old.ID, old.Offset = tuple.RootID(tuple.Position{Origin: bolttest.Origin, Offset: 0}), 0
	h.Deltas = nil
	want(t, h.Feed(old))
	if len(h.Deltas) != 1 {
		t.Errorf("%d deltas, want one", len(h.Deltas))
	}
	h.Feed(at("b"))
	task := state.Task{Topology: "test", Node: "node"}
	head, err := h.Store.Head(context.Background(), task)
	if err != nil || len(head.Applied) != 1 || head.Floors[bolttest.Origin] != 2 {
		t.Errorf("head %+v, %v: want the floor 2 and the one id above it", head, err)
	}
}

func TestDeadLetters(t *testing.T) {
	for name, c := range map[string]struct {
		payload string
		failing error
		tries   int
	}{
		"an error is tried five times": {`{"poison":1}`, errors.New("no"), 5},
		"a rejection is final":         {`{"poison":1}`, bolt.Reject(errors.New("never")), 1},
		"a panic is a rejection":       {`{"panic":1}`, nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			h := bolttest.New(t, &counting{c.failing})
			bad := tuple.Tuple{Key: "a", Payload: []byte(c.payload)}
			want(t, h.Feed(at("a"), bad, at("a")), `a{"n":1}`, `a{"n":2}`)
			if len(h.Letters) != 1 || h.Letters[0].Tries != c.tries || string(h.Letters[0].Payload) != c.payload {
				t.Fatalf("letters %+v", h.Letters)
			}
			if len(h.Deltas) != 3 {
				t.Errorf("%d deltas: a dead-lettered tuple completes its root too", len(h.Deltas))
			}
		})
	}
}

func TestGateHoldsWhatIsAhead(t *testing.T) {
	h := bolttest.New(t, &counting{})
	numbered := func(n uint64) tuple.Tuple {
		x := at("a")
		x.N, x.Group = n, "a"
		return x
	}
	one, two := numbered(1), numbered(2)
	two.ID, two.Offset = tuple.ID{9}, 50
	want(t, h.Feed(two))
	if len(h.Deltas) != 0 {
		t.Error("a tuple ahead of its gate has no delta: its root must replay")
	}
	want(t, h.Feed(one, two), `a{"n":1}`, `a{"n":2}`)
}

func TestTickRunsInSlices(t *testing.T) {
	h := bolttest.New(t, &counting{})
	const groups = 2500
	for from := 0; from < groups; from += 250 {
		var ts []tuple.Tuple
		for i := range 250 {
			ts = append(ts, at(fmt.Sprintf("d%04d", from+i)))
		}
		h.Feed(ts...)
	}
	h.Deltas = nil
	out := h.Tick(bolt.Tick{Time: 5})
	if len(out) != groups {
		t.Fatalf("%d outputs, want %d", len(out), groups)
	}
	if len(h.Deltas) != 1 {
		t.Fatalf("%d deltas for one tick", len(h.Deltas))
	}
	xor := h.Deltas[0].XOR
	for _, o := range out {
		xor ^= tuple.LedgerID(o.ID, tuple.NameOf("next"), tuple.Shared, o.Root.Attempt)
	}
	tick := tuple.RootID(tuple.Position{Origin: bolttest.TickOrigin})
	if xor != tuple.LedgerID(tick, tuple.NameOf("node"), 0, tuple.Attempt{Generation: 1}) {
		t.Error("the tick's delta does not cover all slices")
	}
	if again := h.Tick(bolt.Tick{Time: 6}); len(again) != 0 {
		t.Errorf("%d groups due that nothing has touched", len(again))
	}
}

// TestTwoAttemptsOfATickInOneBatch: a tick whose root was replayed before the task came to it arrives twice in one batch, and each attempt must carry
// every output: the one that lacks some would complete the root without them.
func TestTwoAttemptsOfATickInOneBatch(t *testing.T) {
	for _, groups := range []int{1, 3, 2000, 2500} { // a slice has 1000
		for _, of := range []string{"", "d0000"} {
			h := bolttest.New(t, &counting{})
			for i := range groups {
				h.Feed(at(fmt.Sprintf("d%04d", i)))
			}
			h.Deltas = nil
			due := groups
			if of != "" {
				due = 1
			}
			tick := tuple.Tuple{ID: tuple.RootID(tuple.Position{Origin: bolttest.TickOrigin}), Stream: tuple.TickStream, Group: of, Payload: []byte(`{"time":5}`)}
			open := map[uint32]uint64{} // by attempt
			for count := range uint32(2) {
				tick.Root = tuple.Root{Origin: bolttest.TickOrigin, Attempt: tuple.Attempt{Generation: 1, Count: count}}
				h.Push("spout", tick)
				open[count] = tuple.LedgerID(tick.ID, tuple.NameOf("node"), 0, tick.Root.Attempt)
			}
			outputs := map[uint32]int{}
			for _, o := range h.Step() {
				outputs[o.Root.Attempt.Count]++
				open[o.Root.Attempt.Count] ^= tuple.LedgerID(o.ID, tuple.NameOf("next"), tuple.Shared, o.Root.Attempt)
			}
			for _, d := range h.Deltas {
				open[d.Attempt.Count] ^= d.XOR
			}
			if outputs[0] != due || outputs[1] != due || open[0] != 0 || open[1] != 0 {
				t.Errorf("the attempts of a tick over %d groups emitted %v, what is open of them is %x", due, outputs, open)
			}
		}
	}
}

func TestEdgesWithoutTheirKeyAreNotTaken(t *testing.T) {
	h := bolttest.New(t, &counting{})
	h.Edges(
		bolt.Edge{To: "x", Stream: "default", Tasks: 4, Key: func(t *tuple.Tuple) (string, bool) { return t.Key, t.Key != "b" }},
		bolt.Edge{To: "y", Stream: "late", Shared: true},
	)
	want(t, h.Feed(at("a"), at("b")), `a{"n":1}`)
}

func TestCorruptFrame(t *testing.T) {
	h := bolttest.New(t, &counting{})
	h.Push("source", tuple.Tuple{ID: tuple.ID{1}, Stream: "default", Payload: []byte("{}"), Key: "a", Root: tuple.Root{Origin: 1, Attempt: tuple.Attempt{Generation: 1}}})
	h.Corrupt()
	want(t, h.Step())
	if len(h.Letters) != 1 || !strings.Contains(h.Letters[0].Error, "corrupt frame") {
		t.Errorf("letters %+v", h.Letters)
	}
}

// TestFramesOfABatchShareMemory checks that every frame of a batch comes out whole and is counted by itself, be the one before it longer, shorter or corrupt.
func TestFramesOfABatchShareMemory(t *testing.T) {
	h := bolttest.New(t, passing{})
	for range 2 { // the second batch has the memory of the first
		offset, sent := int64(0), uint64(0)
		push := func(keys ...string) {
			var ts []tuple.Tuple
			for _, k := range keys {
				offset++
				p := tuple.Position{Origin: bolttest.Origin, Offset: offset}
				ts = append(ts, tuple.Tuple{
					ID: tuple.RootID(p), Offset: offset, Stream: tuple.DefaultStream, Key: k, Payload: []byte(`"` + k + `"`),
					Root: tuple.Root{Origin: p.Origin, Attempt: tuple.Attempt{Generation: 1}},
				})
			}
			h.Push("source", ts...)
		}
		push("a", "b", "c")
		push("d", "e")
		h.Corrupt()
		push("f")
		push("g", "h", "i", "j")
		h.Letters, h.Deltas, h.Acked = nil, nil, 0
		out := h.Step()
		want(t, out, `a"a"`, `b"b"`, `c"c"`, `f"f"`, `g"g"`, `h"h"`, `i"i"`, `j"j"`)
		for _, o := range out {
			sent ^= tuple.LedgerID(o.ID, tuple.NameOf("next"), tuple.Shared, o.Root.Attempt)
		}
		frames := map[tuple.ID]bool{}
		for _, d := range h.Deltas {
			frames[d.Frame] = true
			sent ^= d.XOR
		}
		for _, n := range []int64{1, 2, 3, 6, 7, 8, 9, 10} { // those of the corrupt frame stay open: their root is replayed
			id := tuple.RootID(tuple.Position{Origin: bolttest.Origin, Offset: n})
			sent ^= tuple.LedgerID(id, tuple.NameOf("node"), 0, tuple.Attempt{Generation: 1})
		}
		if sent != 0 || len(frames) != 3 || len(h.Letters) != 1 || h.Acked != 4 {
			t.Errorf("%x is open, deltas of %d frames, letters %v, %d frames acknowledged", sent, len(frames), h.Letters, h.Acked)
		}
	}
}

// shelf is an inbox with frames on it, which notes how many it is asked for.
type shelf struct {
	frames []bolt.Delivery
	most   int
	offset int64
}

func (s *shelf) Fetch(_ context.Context, most int) (out []bolt.Delivery, err error) {
	s.most = most
	most = min(most, len(s.frames))
	out, s.frames = s.frames[:most], s.frames[most:]
	return out, nil
}
func (*shelf) Ack(context.Context, []bolt.Delivery) error     { return nil }
func (*shelf) Working(context.Context, []bolt.Delivery) error { return nil }

// fill puts frames on it, each of 256 tuples, which are of so many groups in turn.
func (s *shelf) fill(t *testing.T, frames, groups int) {
	t.Helper()
	for range frames {
		f := tuple.Frame{Revision: 1, Source: "source"}
		for range 256 {
			p := tuple.Position{Origin: bolttest.Origin, Offset: s.offset}
			f.Tuples = append(f.Tuples, tuple.Tuple{
				ID: tuple.RootID(p), Offset: p.Offset, Stream: tuple.DefaultStream, Key: fmt.Sprint(p.Offset % int64(groups)), Payload: []byte(`{}`),
				Root: tuple.Root{Origin: p.Origin, First: p.Offset, Attempt: tuple.Attempt{Generation: 1}},
			})
			s.offset++
		}
		data, err := f.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		s.frames = append(s.frames, bolt.Delivery{Data: data})
	}
}

// batch is a Step, as it should be: so many frames are put on the shelf first, with tuples of so many groups.
type batch struct{ frames, groups, asked, handled int }

func (s *shelf) steps(t *testing.T, l *bolt.Loop, batches ...batch) {
	t.Helper()
	for _, b := range batches {
		s.fill(t, b.frames, b.groups)
		handled, err := l.Step(t.Context())
		if err != nil || s.most != b.asked || handled != b.handled {
			t.Fatalf("%+v: asked for %d frames, handled %d, %v", b, s.most, handled, err)
		}
	}
}

// TestBatchesByTheirKeys checks that a stateful loop takes as many frames at once as pay: few where each tuple is another group's, and fewer when the cache is
// full; all where they share some.
func TestBatchesByTheirKeys(t *testing.T) {
	for room, few := range map[int]int{100_000: 16, 100: 8} { // frames, of 4,096 and of 2,048 keys
		store, task, in := state.NewMemory(), state.Task{Topology: "test", Node: "node"}, &shelf{}
		epoch, err := store.Claim(t.Context(), task)
		if err != nil {
			t.Fatal(err)
		}
		view := state.NewCache(state.CacheOptions{Plain: true, Entries: room}).Open(store, task, epoch)
		l := bolttest.Loop(t, bolt.Options{Fetch: 32, Bolt: &counting{}, Inbox: in, Own: &bolt.Ownership{Store: store, Task: task, Epoch: epoch, View: view}})
		in.steps(t, l,
			batch{4 + few, 256 * (4 + few), 4, 4}, batch{0, 0, few, few},
			batch{few + 32, 1, few, few}, batch{0, 0, 32, 32}, // one group: what it may have
			batch{32 + few, 256 * (32 + few), 32, 32}, batch{0, 0, few, few}, // every tuple another's
		)
	}
}

// bulky drops tuples, 1,000 at once.
type bulky struct{}

func (bulky) Execute(context.Context, *tuple.Tuple, *bolt.Collector) error    { return nil }
func (bulky) Finish(context.Context, *bolt.Collector) ([]bolt.Failure, error) { return nil, nil }
func (bulky) Enough() int                                                     { return 1000 }

// TestBatchesOfABulkyBolt checks that a bolt which works in bulk has about as much at once as it wants.
func TestBatchesOfABulkyBolt(t *testing.T) {
	in := &shelf{}
	l := bolttest.Loop(t, bolt.Options{Fetch: 32, Bolt: bulky{}, Inbox: in})
	in.steps(t, l, batch{40, 1, 4, 4}, batch{0, 0, 3, 3}, batch{0, 0, 3, 3})
}
