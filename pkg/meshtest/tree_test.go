package meshtest

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// The cases here are those of Apache Storm's topology integration tests in the simulated mesh, with and without faults.

// does is a bolt made of a function.
type does func(ctx context.Context, t *tuple.Tuple, c *bolt.Collector) error

func (f does) Execute(ctx context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	return f(ctx, t, c)
}

// counts is a stateful bolt made of a function that gets its group's count, raised by one.
type counts struct {
	group func(t *tuple.Tuple) (string, bool)
	say   func(n int, t *tuple.Tuple, c *bolt.Collector)
}

func (b counts) Group(t *tuple.Tuple) (string, bool)                          { return b.group(t) }
func (counts) Keys(g string, add func(string))                                { add(g) }
func (counts) Due(bolt.Tick) (int64, bool)                                    { return math.MaxInt64, true }
func (counts) Tick(context.Context, bolt.Tick, string, *bolt.Collector) error { return nil }
func (b counts) Execute(ctx context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	s, err := edit(ctx, c)
	if err == nil {
		s.N++
		b.say(s.N, t, c)
	}
	return err
}

func say(c *bolt.Collector, key, format string, args ...any) {
	text, _ := json.Marshal(fmt.Sprintf(format, args...))
	c.Emit(bolt.Emission{Key: key, Payload: fmt.Appendf(nil, `{"say":%s}`, text)})
}

func said(t *tuple.Tuple) string {
	var x struct{ Say string }
	_ = json.Unmarshal(t.Payload, &x)
	return x.Say
}

// keep is the node that stores what was said.
func keep(from ...string) Node {
	return Node{ID: "keep", Shared: true, Build: func(e Env) bolt.Bolt {
		return does(func(_ context.Context, t *tuple.Tuple, c *bolt.Collector) error {
			e.Document(t.ID.String(), c.Source()+": "+said(t))
			return nil
		})
	}}
}

func edge(to string, tasks int32, key func(*tuple.Tuple) (string, bool)) bolt.Edge {
	return bolt.Edge{To: to, Stream: tuple.DefaultStream, Tasks: tasks, Key: key}
}

func shared(to string) bolt.Edge { return bolt.Edge{To: to, Stream: tuple.DefaultStream, Shared: true} }

// words is a partition of words; each is its own device.
func words(ws ...string) (log []spout.Record) {
	for i, w := range ws {
		log = append(log, spout.Record{Offset: int64(i), Value: fmt.Appendf(nil, `{"device":%q,"say":%q}`, w, w)})
	}
	return log
}

// told runs o and returns the documents, sorted.
func told(t *testing.T, o Options) []string {
	t.Helper()
	o.Spec, o.Span = topology.Spout{Key: "device"}, 50
	r, err := Run(o)
	if err != nil {
		t.Fatalf("seed %d: %v\n%s", o.Seed, err, strings.Join(r.History, "\n"))
	}
	var all []string
	for _, d := range r.Documents {
		all = append(all, d)
	}
	slices.Sort(all)
	return all
}

// withAndWithout runs a case without faults and with those of some seeds.
func withAndWithout(t *testing.T, run func(t *testing.T, seed uint64, f Faults, steps int)) {
	t.Run("without faults", func(t *testing.T) { run(t, 1, Faults{}, 0) })
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { run(t, seed, Usual(), 4000) })
	}
}

// TestA1WordCount: the counter says (nathan,1) (nathan,2) (bob,1) (joey,1), a global count of that says 1, 2, 3, 4.
func TestA1WordCount(t *testing.T) {
	withAndWithout(t, func(t *testing.T, seed uint64, f Faults, steps int) {
		all := edge("total", 1, byNothing)
		all.Gated = true
		got := told(t, Options{
			Seed: seed, Faults: f, Steps: steps, Edges: []bolt.Edge{edge("count", 4, byKey)}, Partitions: [][]spout.Record{words("nathan", "bob", "joey", "nathan")},
			Nodes: []Node{
				{ID: "count", Tasks: 4, Edges: []bolt.Edge{all, shared("keep")}, Build: func(Env) bolt.Bolt {
					return counts{byKey, func(n int, t *tuple.Tuple, c *bolt.Collector) { say(c, t.Key, "%s,%d", t.Key, n) }}
				}},
				{ID: "total", Tasks: 1, Edges: []bolt.Edge{shared("keep")}, Build: func(Env) bolt.Bolt {
					return counts{byNothing, func(n int, _ *tuple.Tuple, c *bolt.Collector) { say(c, "all", "%d", n) }}
				}},
				keep(),
			},
		})
		want := []string{"count: bob,1", "count: joey,1", "count: nathan,1", "count: nathan,2", "total: 1", "total: 2", "total: 3", "total: 4"}
		if !slices.Equal(got, want) {
			t.Errorf("%q", got)
		}
	})
}

// TestA2All: one input reaches each of 6 tasks exactly once. In this mesh `all` carries ticks: every task counts one flush.
func TestA2All(t *testing.T) {
	withAndWithout(t, func(t *testing.T, seed uint64, f Faults, steps int) {
		got := told(t, Options{
			Seed: seed, Faults: f, Steps: steps, Edges: []bolt.Edge{edge("six", 6, byKey)},
			Partitions: [][]spout.Record{words("a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l")},
			Nodes: []Node{
				{ID: "six", Tasks: 6, Ticks: true, Level: 1, Edges: []bolt.Edge{shared("keep")}, Build: func(Env) bolt.Bolt { return flushed{} }},
				keep(),
			},
		})
		if len(got) != 12 { // every group of every task, once
			t.Errorf("%d groups were flushed: %q", len(got), got)
		}
	})
}

// flushed says its group at the flush.
type flushed struct{ counts }

func (flushed) Group(t *tuple.Tuple) (string, bool) { return t.Key, true }
func (flushed) Execute(ctx context.Context, _ *tuple.Tuple, c *bolt.Collector) error {
	c.Wake(0)
	return nil
}
func (flushed) Due(t bolt.Tick) (int64, bool) { return 0, t.Flush }
func (flushed) Tick(_ context.Context, _ bolt.Tick, group string, c *bolt.Collector) error {
	say(c, group, "%s", group)
	return nil
}

// TestExclamation: words go through two bolts of three tasks that each append three exclamation marks.
func TestExclamation(t *testing.T) {
	withAndWithout(t, func(t *testing.T, seed uint64, f Faults, steps int) {
		mark := func(id string, next ...bolt.Edge) Node {
			return Node{ID: id, Shared: true, Edges: next, Build: func(Env) bolt.Bolt {
				return does(func(_ context.Context, t *tuple.Tuple, c *bolt.Collector) error {
					say(c, t.Key, "%s!!!", said(t))
					return nil
				})
			}}
		}
		in := []string{"golda", "bertels", "jackson", "mike", "nathan", "golda"}
		got := told(t, Options{
			Seed: seed, Faults: f, Steps: steps, Edges: []bolt.Edge{shared("one")}, Partitions: [][]spout.Record{words(in...)},
			Nodes: []Node{mark("one", shared("two")), mark("two", shared("keep")), keep()},
		})
		var want []string
		for _, w := range in {
			want = append(want, "two: "+w+"!!!!!!")
		}
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%q", got)
		}
	})
}

// TestCompetingWorkersShareTheLoad: where workers compete, none is idle while there is a backlog.
func TestCompetingWorkersShareTheLoad(t *testing.T) {
	by := map[int]int{}
	workers := 0
	log := make([]string, 300)
	for i := range log {
		log[i] = fmt.Sprint("w", i)
	}
	told(t, Options{
		Seed: 3, Edges: []bolt.Edge{shared("work")}, Partitions: [][]spout.Record{words(log...)},
		Nodes: []Node{{ID: "work", Shared: true, Build: func(Env) bolt.Bolt {
			me := workers
			workers++
			return does(func(context.Context, *tuple.Tuple, *bolt.Collector) error { by[me]++; return nil })
		}}},
	})
	if by[0]+by[1] != len(log) || min(by[0], by[1]) < len(log)/3 {
		t.Errorf("two workers handled %d and %d of %d", by[0], by[1], len(log))
	}
}

// TestOrderPerKey: 8 producers (partitions), 8 keys, 100,000 tuples (fewer with the race detector), takeovers in the middle: no inversion.
func TestOrderPerKey(t *testing.T) {
	const producers, each = 8, ordered / 8
	o := Options{
		Seed: 8, Faults: Faults{Crash: 3000, Zombie: 12_000, Redelivery: 3000}, Steps: 2_000_000, Patience: 10_000_000, Span: 500, PerRoot: 100,
		Spec: topology.Spout{Key: "device"}, Edges: []bolt.Edge{edge("pass", 4, byKey)},
	}
	for p := range producers {
		log := make([]spout.Record, each)
		for i := range log {
			log[i] = spout.Record{Offset: int64(i), Value: fmt.Appendf(nil, `{"device":"k%d","n":%d}`, (p+i)%8, i)}
		}
		o.Partitions = append(o.Partitions, log)
	}
	o.Nodes = []Node{
		{ID: "pass", Tasks: 4, Edges: []bolt.Edge{edge("order", 4, byKey)}, Build: func(Env) bolt.Bolt {
			return does(func(_ context.Context, t *tuple.Tuple, c *bolt.Collector) error {
				c.Emit(bolt.Emission{Key: t.Key, Payload: t.Payload})
				return nil
			})
		}},
		{ID: "order", Tasks: 4, Build: func(Env) bolt.Bolt { return ascending{} }},
	}
	r, err := Run(o)
	if err != nil {
		t.Fatalf("%v\n%s", err, strings.Join(r.History, "\n"))
	}
	applied := 0
	for task := range int32(4) {
		for _, x := range r.State.Values(Task("order", task)) {
			v, err := decodeSums(x.Value)
			if err != nil {
				t.Fatal(err)
			}
			s := v.(*sums)
			applied += s.N
			if s.Out > 0 {
				t.Errorf("%s: %d of %d readings came after a later one", x.Key, s.Out, s.N)
			}
		}
	}
	if applied != producers*each {
		t.Errorf("%d readings applied, want %d", applied, producers*each)
	}
	t.Logf("%d steps, %d faults", r.Steps, r.Hits)
}

// ascending counts in its state where the offsets of a device and partition do not ascend: what a former owner computes, from what its successor has stored
// meanwhile, is not committed.
type ascending struct{ counts }

func (ascending) Group(t *tuple.Tuple) (string, bool) { return t.Key, true }
func (ascending) Execute(ctx context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	v, err := c.State().Edit(ctx, fmt.Sprint(t.Key, t.Root.Origin), decodeSums)
	if err != nil {
		return err
	}
	s := v.(*sums)
	if s.N > 0 && int(t.Offset) <= s.Part {
		s.Out++
	}
	s.N, s.Part = s.N+1, int(t.Offset)
	return nil
}

// TestShuffleBalance: an edge that divides by tuple id gives six tasks their sixth of 30,000 frames within a few percent. It is no round robin, which
// would give a tuple another task in its second attempt.
func TestShuffleBalance(t *testing.T) {
	const frames, tasks = 30_000, 6
	var got [tasks]int
	rng := rand.New(rand.NewPCG(1, 2))
	e := bolt.Edge{To: "x", Stream: tuple.DefaultStream, Tasks: tasks}
	for range frames {
		p := bolt.Packer{Source: "in", Edges: []bolt.Edge{e}}
		x := tuple.Tuple{ID: tuple.RootID(tuple.Position{Origin: 1, Offset: rng.Int64()}), Stream: tuple.DefaultStream, Payload: []byte("{}")}
		for range 2 { // both attempts go the same way
			if _, n, err := p.Route(&x); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			x.Root.Attempt.Count++
		}
		out := p.Take()
		if len(out) != 1 {
			t.Fatalf("%d destinations for one tuple", len(out))
		}
		got[out[0].Task]++
	}
	for task, n := range got {
		if n < frames/tasks*96/100 || n > frames/tasks*104/100 {
			t.Errorf("task %d got %d of %d", task, n, frames)
		}
	}
}

// TestAppliedWhilePaused: of a topology that is paused from its first moment on nothing is emitted, which the mesh checks when it resumes; then everything
// is processed. It is a case of Apache Storm's topology integration tests.
func TestAppliedWhilePaused(t *testing.T) {
	withAndWithout(t, func(t *testing.T, seed uint64, f Faults, steps int) {
		got := told(t, Options{
			Seed: seed, Faults: f, Steps: steps, Paused: 2000, Edges: []bolt.Edge{shared("keep")}, Nodes: []Node{keep()},
			Partitions: [][]spout.Record{words("a", "b"), words("c")},
		})
		if want := []string{"spout: a", "spout: b", "spout: c"}; !slices.Equal(got, want) {
			t.Errorf("%q", got)
		}
	})
}

// TestPartialKey: a key is divided between two tasks at most, here where nothing is stateful below, and each word arrives once.
func TestPartialKey(t *testing.T) {
	withAndWithout(t, func(t *testing.T, seed uint64, f Faults, steps int) {
		const n = 60
		var log []spout.Record
		for i := range n {
			log = append(log, spout.Record{Offset: int64(i), Value: fmt.Appendf(nil, `{"device":"d%d","say":"%d"}`, i%3, i)})
		}
		part := edge("tag", 8, byKey)
		part.Partial = true
		got := told(t, Options{
			Seed: seed, Faults: f, Steps: steps, Edges: []bolt.Edge{part}, Partitions: [][]spout.Record{log},
			Nodes: []Node{
				{ID: "tag", Tasks: 8, Edges: []bolt.Edge{shared("keep")}, Build: func(e Env) bolt.Bolt {
					return does(func(_ context.Context, t *tuple.Tuple, c *bolt.Collector) error {
						say(c, t.Key, "%s %d %s", t.Key, e.Task, said(t))
						return nil
					})
				}},
				keep(),
			},
		})
		tasks, seen := map[string]map[string]bool{}, map[string]bool{}
		for _, g := range got {
			w := strings.Fields(g) // tag: key task word
			if tasks[w[1]] == nil {
				tasks[w[1]] = map[string]bool{}
			}
			tasks[w[1]][w[2]], seen[w[3]] = true, true
		}
		for key, of := range tasks {
			if len(of) != 2 {
				t.Errorf("%s went to the tasks %v", key, of)
			}
		}
		if len(got) != n || len(seen) != n {
			t.Errorf("%d words, %d of them different, want %d", len(got), len(seen), n)
		}
	})
}
