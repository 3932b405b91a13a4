package bolt_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// does is a bolt made of a function.
type does func(t *tuple.Tuple, c *bolt.Collector) error

func (f does) Execute(_ context.Context, t *tuple.Tuple, c *bolt.Collector) error { return f(t, c) }

// says is a bolt that appends to the payload's text.
func says(what string) does {
	return func(t *tuple.Tuple, c *bolt.Collector) error {
		c.Emit(bolt.Emission{Key: t.Key, Time: t.Time, Payload: append(slices.Clone(t.Payload), what...)})
		return nil
	}
}

func byKey(t *tuple.Tuple) (string, bool) { return t.Key, t.Key != "" }

// routed sends n tuples with the keys that key makes along an edge, in two attempts, and counts what each task got. Both must go the same way.
func routed(t *testing.T, e bolt.Edge, n int, key func(i int) string) map[int32]int {
	t.Helper()
	got := map[int32]int{}
	e.To, e.Stream = "x", tuple.DefaultStream
	for i := range n {
		at := tuple.Position{Origin: 1, Offset: int64(i)}
		x := tuple.Tuple{ID: tuple.RootID(at), Offset: at.Offset, Stream: tuple.DefaultStream, Key: key(i), Payload: []byte("{}")}
		var first []int32
		for range 2 {
			p := bolt.Packer{Source: "in", Edges: []bolt.Edge{e}}
			if _, _, err := p.Route(&x); err != nil {
				t.Fatal(err)
			}
			var tasks []int32
			for _, o := range p.Take() {
				tasks = append(tasks, o.Task)
			}
			if first != nil && !slices.Equal(first, tasks) {
				t.Fatalf("the replay of tuple %d went to %v, not %v", i, tasks, first)
			}
			first = tasks
			x.Root.Attempt.Count++
		}
		for _, task := range first {
			got[task]++
		}
	}
	return got
}

func TestFieldsKeepsAKeyInItsTask(t *testing.T) {
	e := bolt.Edge{Tasks: 8, Key: byKey}
	for key := range 50 {
		if got := routed(t, e, 20, func(int) string { return fmt.Sprint("device-", key) }); len(got) != 1 {
			t.Errorf("key %d went to %v", key, got)
		}
	}
	if got := routed(t, e, 20, func(int) string { return "" }); len(got) != 0 {
		t.Errorf("tuples without the key went to %v", got)
	}
}

func TestPartialKeyAlternatesBetweenTwoTasks(t *testing.T) {
	for tasks := range int32(8) {
		e := bolt.Edge{Tasks: tasks + 1, Key: byKey, Partial: true}
		for key := range 20 {
			const n = 1000
			got := routed(t, e, n, func(int) string { return fmt.Sprint("device-", key) })
			if want := min(2, int(e.Tasks)); len(got) != want {
				t.Fatalf("of %d tasks key %d went to %v", e.Tasks, key, got)
			}
			for task, share := range got {
				if e.Tasks > 1 && (share < n*4/10 || share > n*6/10) {
					t.Errorf("task %d got %d of %d", task, share, n)
				}
			}
		}
	}
}

func TestGlobalIsOneTask(t *testing.T) {
	e := bolt.Edge{Tasks: 8, Key: func(*tuple.Tuple) (string, bool) { return "all", true }}
	if got := routed(t, e, 1000, func(i int) string { return fmt.Sprint(i) }); len(got) != 1 {
		t.Errorf("%v", got)
	}
}

func TestAllReachesEveryTaskOnce(t *testing.T) {
	e := bolt.Edge{Tasks: 6, All: true}
	got := routed(t, e, 10, func(i int) string { return fmt.Sprint(i) })
	for task := range int32(6) {
		if got[task] != 10 {
			t.Errorf("task %d got %d of 10", task, got[task])
		}
	}
}

// byInitial is a bolt whose grouping gives each initial a task; what it emits says so.
type byInitial struct{ does }

func (byInitial) Grouping(name string) (bolt.Grouping, bool) {
	if name != "by-initial" {
		return nil, false
	}
	return func(key string, _ int32) int32 { return int32(key[0]) - 'a' }, true
}

func TestCustomGrouping(t *testing.T) {
	h := bolttest.New(t, byInitial{says("")})
	var tasks []int32
	h.Edges(bolt.Edge{To: "next", Stream: "default", Tasks: 4, Key: byKey, Custom: "by-initial"})
	for _, key := range []string{"apple", "avocado", "banana", "cherry", "date", "elder", "zebra", "Ape"} {
		h.Feed(at(key))
		for _, o := range h.Frames {
			tasks = append(tasks, o.Task)
		}
	}
	if want := []int32{0, 0, 1, 2, 3, 0, 1, 0}; !slices.Equal(tasks, want) { // modulo 4, also of what is negative
		t.Errorf("tasks %v, want %v", tasks, want)
	}
}

func TestCustomGroupingMustBeThere(t *testing.T) {
	for name, b := range map[string]bolt.Bolt{"another name": byInitial{says("")}, "no Grouper": says("")} {
		_, err := bolt.New(t.Context(), bolt.Options{
			Where: trace.Where{Node: "mine"}, Bolt: b, Edges: []bolt.Edge{{To: "next", Custom: "by-site"}},
		})
		if err == nil || !strings.Contains(err.Error(), `no grouping called "by-site"`) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDirect(t *testing.T) {
	h := bolttest.New(t, does(func(t *tuple.Tuple, c *bolt.Collector) error {
		e := bolt.Emission{Key: t.Key, Payload: t.Payload}
		if t.Key == "unnamed" {
			c.Emit(e)
			return nil
		}
		var task int32
		_, _ = fmt.Sscan(t.Key, &task)
		c.EmitTo(task, e)
		return nil
	}))
	h.Edges(
		bolt.Edge{To: "next", Stream: "default", Tasks: 3, Named: true},
		bolt.Edge{To: "other", Stream: "default", Tasks: 3, Key: byKey}, // is not concerned by what is named
	)
	h.Feed(at("2"), at("0"), at("2"), at("3"), at("-1"), at("unnamed"))
	got := map[string]int{}
	for _, o := range h.Frames {
		if o.Node == "next" {
			got[fmt.Sprint(o.Task)] += len(bolttest.Tuples(t, o))
		} else {
			got[o.Node] += len(bolttest.Tuples(t, o))
		}
	}
	if len(got) != 3 || got["0"] != 1 || got["2"] != 2 || got["other"] != 3 {
		t.Errorf("got %v", got)
	}
	if len(h.Letters) != 3 {
		t.Errorf("%d letters: a task that is not there must be told", len(h.Letters))
	}
}

// TestGatedNumbersCountPerReceivingGroup: an edge that divides by a part of the receiver's group still counts each group for itself, else its gate
// waits for ever.
func TestGatedNumbersCountPerReceivingGroup(t *testing.T) {
	h := bolttest.New(t, &counting{})
	sites := map[string]string{`{"n":1}`: "s", `{"n":2}`: "s", `{"n":3}`: "t"}
	h.Edges(bolt.Edge{
		To: "next", Stream: "default", Tasks: 4, Gated: true, Key: func(*tuple.Tuple) (string, bool) { return "hall", true },
		Group: func(t *tuple.Tuple) (string, bool) { return "hall/" + sites[string(t.Payload)], true },
	})
	var ns []uint64
	for _, x := range h.Feed(at("a"), at("a"), at("a")) {
		ns = append(ns, x.N)
	}
	if want := []uint64{1, 2, 1}; !slices.Equal(ns, want) {
		t.Errorf("n %v, want %v", ns, want)
	}
}

// shared is an input that several loops compete for.
type shared struct {
	bolt.Inbox
	frames []bolt.Delivery
}

func (s *shared) Fetch(_ context.Context, most int) ([]bolt.Delivery, error) {
	n := min(most, len(s.frames))
	out := s.frames[:n]
	s.frames = s.frames[n:]
	return out, nil
}
func (*shared) Ack(context.Context, []bolt.Delivery) error { return nil }

// TestShuffleCompetes: of 30,000 frames six workers that are equally fast get 5,000 each; when one is slow the others do its share, and none is idle
// while there is a backlog.
func TestShuffleCompetes(t *testing.T) {
	for name, slow := range map[string]int{"alike": 1, "one ten times slower": 10} {
		const workers, frames = 6, 30_000
		in := &shared{}
		for i := range frames {
			h := tuple.Frame{Revision: 1, Source: "in", Tuples: []tuple.Tuple{{
				ID: tuple.RootID(tuple.Position{Origin: 1, Offset: int64(i)}), Offset: int64(i), Stream: tuple.DefaultStream, Payload: []byte("{}"),
				Root: tuple.Root{Origin: 1, First: int64(i), Attempt: tuple.Attempt{Generation: 1}},
			}}}
			data, err := h.Append(nil)
			if err != nil {
				t.Fatal(err)
			}
			in.frames = append(in.frames, bolt.Delivery{Data: data})
		}
		got := [workers]int{}
		var loops []*bolt.Loop
		for i := range workers {
			l := bolttest.Loop(t, bolt.Options{Inbox: in, Fetch: 1, Bolt: does(func(*tuple.Tuple, *bolt.Collector) error { got[i]++; return nil })})
			loops = append(loops, l)
		}
		for round := 0; len(in.frames) > 0; round++ {
			for i, l := range loops {
				if i == 0 && round%slow > 0 {
					continue // still busy
				}
				if n, err := l.Step(t.Context()); err != nil || n == 0 && len(in.frames) > 0 {
					t.Fatalf("%s: worker %d is idle with %d frames waiting: %v", name, i, len(in.frames), err)
				}
			}
		}
		if least, most := slices.Min(got[1:]), slices.Max(got[1:]); most-least > 1 || slow == 1 && got[0] != frames/workers || slow > 1 && got[0] > most/9 {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestFramesOfManyRoots packs what a batch of very many small roots leads to: no frame has more roots than a receiver reads, and nothing is lost.
func TestFramesOfManyRoots(t *testing.T) {
	p := bolt.Packer{Source: "a", Edges: []bolt.Edge{{To: "b", Stream: tuple.DefaultStream, Tasks: 1, Direct: true}}}
	const tuples = 3*tuple.MaxRoots + 10
	for i := range int64(tuples) {
		x := tuple.Tuple{ID: tuple.ID{byte(i), byte(i >> 8)}, Root: tuple.Root{First: i}, Offset: i, Stream: tuple.DefaultStream, Payload: []byte("{}")}
		if _, _, err := p.Route(&x); err != nil {
			t.Fatal(err)
		}
	}
	next := int64(0)
	for _, o := range p.Take() {
		var f tuple.Frame
		if err := f.Decode(o.Data); err != nil {
			t.Fatal(err)
		}
		for _, x := range f.Tuples {
			if x.Offset != next {
				t.Fatalf("offset %d, want %d", x.Offset, next)
			}
			next++
		}
	}
	if next != tuples {
		t.Errorf("%d tuples of %d", next, tuples)
	}
}
