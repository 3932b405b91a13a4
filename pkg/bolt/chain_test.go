package bolt_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// moody is a bolt whose output depends on its tuple only: none, one or two tuples, on two streams, or a rejection.
func moody(name string) does {
	return func(t *tuple.Tuple, c *bolt.Collector) error {
		mood := t.ID[3] % 8
		if mood == 7 {
			return bolt.Reject(fmt.Errorf("%s does not like it", name))
		}
		for i := range mood % 3 {
			stream := tuple.DefaultStream
			if i == 1 {
				stream = "more"
			}
			c.Emit(bolt.Emission{Stream: stream, Key: t.Key, Time: t.Time + 1, Payload: fmt.Appendf(nil, `{"by":%q,"of":%q}`, name, c.Source())})
		}
		return nil
	}
}

// plan is a chain with a fork and a join: first -> second, third; second -> third; all but first -> next.
var chainEdges = map[string][]bolt.Edge{
	"first":  {local("second", "default"), local("third", "more"), out("default")},
	"second": {local("third", "default"), out("more")},
	"third":  {out("default"), out("more")},
}

func local(to, stream string) bolt.Edge {
	return bolt.Edge{To: to, Stream: stream, Shared: true, Local: true}
}
func out(stream string) bolt.Edge { return bolt.Edge{To: "next", Stream: stream, Shared: true} }

// world is what loops share: a queue for each node, the ledger's XOR of each attempt, letters and what has arrived at the end.
type world struct {
	t       *testing.T
	queues  map[string][]bolt.Outgoing
	seen    map[string]bool // frames reported, as the ledger remembers them
	xor     map[tuple.Attempt]uint64
	letters map[string]int
	arrived map[tuple.ID]string
	rng     *rand.Rand
	faults  int
}

func newWorld(t *testing.T, seed uint64, faults int) *world {
	return &world{
		t: t, queues: map[string][]bolt.Outgoing{}, seen: map[string]bool{}, xor: map[tuple.Attempt]uint64{}, letters: map[string]int{},
		arrived: map[tuple.ID]string{}, rng: rand.New(rand.NewPCG(seed, 7)), faults: faults,
	}
}

// node is one node's transports in a world.
type node struct {
	*world
	name    string
	fetched int
}

var errCrash = errors.New("crash")

// crash is the end of the process, now and then.
func (n *node) crash() error {
	if n.faults > 0 && n.rng.IntN(20) == 0 {
		n.faults--
		return errCrash
	}
	return nil
}

func (n *node) Fetch(_ context.Context, most int) ([]bolt.Delivery, error) {
	n.fetched = min(most, len(n.queues[n.name]))
	var ds []bolt.Delivery
	for _, o := range n.queues[n.name][:n.fetched] {
		ds = append(ds, bolt.Delivery{Data: o.Data})
	}
	return ds, nil
}

func (n *node) Ack(context.Context, []bolt.Delivery) error {
	if err := n.crash(); err != nil {
		return err
	}
	n.queues[n.name] = n.queues[n.name][n.fetched:]
	return nil
}
func (n *node) Working(context.Context, []bolt.Delivery) error { return nil }

func (n *node) Publish(_ context.Context, frames []bolt.Outgoing) error {
	for _, f := range frames {
		if err := n.crash(); err != nil {
			return err
		}
		n.queues[f.Node] = append(n.queues[f.Node], f)
	}
	return n.crash()
}

func (n *node) Send(_ context.Context, _ tuple.Origin, ds []tuple.Delta) error {
	if err := n.crash(); err != nil {
		return err
	}
	n.report(ds)
	return n.crash()
}

func (w *world) report(ds []tuple.Delta) {
	for _, d := range ds {
		if key := fmt.Sprint(d.Frame, d.First, d.Attempt); !w.seen[key] {
			w.seen[key] = true
			w.xor[d.Attempt] ^= d.XOR
		}
	}
}

func (n *node) Put(_ context.Context, l *tuple.Letter) error {
	if err := n.crash(); err != nil {
		return errors.Join(bolt.Unavailable(err))
	}
	n.letters[n.name+l.ID.String()+l.Source+l.Error] = l.Tries
	return nil
}

func (n *node) Known(_ context.Context, id tuple.ID) (bool, error) {
	for k := range n.letters {
		if len(k) > len(n.name)+32 && k[:len(n.name)+32] == n.name+id.String() {
			return true, nil
		}
	}
	return false, nil
}

func (w *world) loop(name string, inner ...string) *bolt.Loop {
	n := &node{world: w, name: name}
	o := bolt.Options{
		Where: trace.Where{Node: name, Task: tuple.Shared}, Revision: 1, Bolt: moody(name), Edges: chainEdges[name], Inbox: n, Outbox: n, Deltas: n, Letters: n,
		Clock: bolttest.Clock{}, Fetch: 4, Retry: topology.Retry{Attempts: 3},
	}
	for _, in := range inner {
		o.Inner = append(o.Inner, bolt.Inner{
			Where: trace.Where{Node: in, Task: tuple.Shared}, Bolt: moody(in), Edges: chainEdges[in], Letters: &node{world: w, name: in},
		})
	}
	l, err := bolt.New(w.t.Context(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

// feed emits tuples to first under an attempt.
func (w *world) feed(tuples int, a tuple.Attempt) {
	p := bolt.Packer{Revision: 1, Source: "spout", Edges: []bolt.Edge{{To: "first", Stream: "default", Shared: true}}}
	for i := range tuples {
		at := tuple.Position{Origin: 1, Offset: int64(i)}
		x := tuple.Tuple{ID: tuple.RootID(at), Offset: at.Offset, Stream: "default", Key: fmt.Sprint("d", i%5), Payload: []byte("{}"), Root: tuple.Root{Origin: 1, Attempt: a}}
		xor, _, err := p.Route(&x)
		if err != nil {
			w.t.Fatal(err)
		}
		w.xor[a] ^= xor
		if i%7 == 6 {
			w.publish(&p)
		}
	}
	w.publish(&p)
}

func (w *world) publish(p *bolt.Packer) {
	w.queues["first"] = append(w.queues["first"], p.Take()...)
}

// work runs all loops until the queues are empty, starting those anew that crash, and takes in what has arrived.
func (w *world) work(chains map[string][]string) {
	loops := map[string]*bolt.Loop{}
	for name, inner := range chains {
		loops[name] = w.loop(name, inner...)
	}
	for again := true; again; {
		again = false
		for _, name := range []string{"first", "second", "third"} {
			if loops[name] == nil {
				continue
			}
			for len(w.queues[name]) > 0 {
				again = true
				if _, err := loops[name].Step(w.t.Context()); errors.Is(err, errCrash) {
					loops[name] = w.loop(name, chains[name]...)
				} else if err != nil {
					w.t.Fatal(err)
				}
			}
		}
	}
	for _, o := range w.queues["next"] {
		ts := bolttest.Tuples(w.t, o)
		var ids []uint64
		xor := map[tuple.Attempt]uint64{}
		for _, t := range ts {
			w.arrived[t.ID] = fmt.Sprint(t.Stream, t.Key, t.Time, string(t.Payload), t.Offset)
			id := tuple.LedgerID(t.ID, tuple.NameOf("next"), tuple.Shared, t.Root.Attempt)
			ids = append(ids, id)
			xor[t.Root.Attempt] ^= id
		}
		for a, x := range xor {
			w.report([]tuple.Delta{{Frame: tuple.FrameID(tuple.NameOf("next"), tuple.Shared, ids), Attempt: a, XOR: x}})
		}
	}
}

var (
	hops  = map[string][]string{"first": nil, "second": nil, "third": nil}
	chain = map[string][]string{"first": {"second", "third"}}
	mixed = map[string][]string{"first": {"second"}, "second": {"third"}, "third": nil} // third is only reached over the wire from first
)

// TestChainIsWhatHopsAre: whether nodes run in one loop or each in its own, what arrives has the same ids, letters are the same, and the tree completes;
// crashes at any call repeat the whole chain and change nothing.
func TestChainIsWhatHopsAre(t *testing.T) {
	const tuples = 150
	want := newWorld(t, 0, 0)
	want.feed(tuples, tuple.Attempt{Generation: 1})
	want.work(hops)
	if len(want.arrived) < tuples/2 || len(want.letters) < tuples/20 {
		t.Fatalf("%d arrived, %d letters: the test shows nothing", len(want.arrived), len(want.letters))
	}
	for name, chains := range map[string]map[string][]string{"hops": hops, "chain": chain, "mixed": mixed} {
		for seed := range uint64(30) {
			w := newWorld(t, seed, int(seed))
			w.feed(tuples, tuple.Attempt{Generation: 1})
			w.work(chains)
			complete := w.xor[tuple.Attempt{Generation: 1}] == 0
			if !complete { // what a crash has cut into other frames cancels: the root times out and replays
				w.faults = 0
				w.feed(tuples, tuple.Attempt{Generation: 1, Count: 1})
				w.work(chains)
				complete = w.xor[tuple.Attempt{Generation: 1, Count: 1}] == 0
			}
			if !complete || seed == 0 && len(w.xor) > 1 {
				t.Errorf("%s, seed %d: the ledger holds %x", name, seed, w.xor)
			}
			if len(w.arrived) != len(want.arrived) || len(w.letters) != len(want.letters) {
				t.Errorf("%s, seed %d: %d arrived and %d letters, want %d and %d", name, seed, len(w.arrived), len(w.letters), len(want.arrived), len(want.letters))
			}
			for id, x := range want.arrived {
				if w.arrived[id] != x {
					t.Errorf("%s, seed %d: %s is %q, want %q", name, seed, id, w.arrived[id], x)
				}
			}
			for l := range want.letters {
				if w.letters[l] != want.letters[l] {
					t.Errorf("%s, seed %d: letter %s has %d tries, want %d", name, seed, l, w.letters[l], want.letters[l])
				}
			}
		}
	}
}

// TestExclamationInOneLoop: the words of the exclamation topology, whose two bolts run in one loop.
func TestExclamationInOneLoop(t *testing.T) {
	h := bolttest.New(t, says("!!!"))
	h.Edges(local("second", "default"))
	h.Inner(bolt.Inner{Where: trace.Where{Node: "second", Task: tuple.Shared}, Bolt: says("!!!"), Edges: []bolt.Edge{out("default")}})
	for _, word := range []string{"golda", "bertels", "jackson", "mike", "nathan"} { // the exclamation topology, in one loop
		got := h.Feed(tuple.Tuple{Key: word, Payload: []byte(word)})
		if len(got) != 1 || string(got[0].Payload) != word+"!!!!!!" {
			t.Errorf("%s became %q", word, payloads(got))
		}
	}
}

// preparing wants to see its batch first.
type preparing struct {
	does
	shown *int
}

func (p preparing) Prepare(_ context.Context, batch iter.Seq[*tuple.Tuple]) error {
	for range batch {
		*p.shown++
	}
	return nil
}

// TestChainTellsAndPrepares: each node of a chain prepares its batch, and reports it as its own; the spans of a sampled tuple hang together as over the wire.
func TestChainTellsAndPrepares(t *testing.T) {
	var handled []trace.Handled
	stepped := map[string]trace.Stepped{}
	sink := func(e trace.Event) {
		switch e := e.(type) {
		case trace.Handled:
			handled = append(handled, e)
		case trace.Stepped:
			stepped[e.Node] = e
		}
	}
	shown := 0
	h := bolttest.New(t, says("a"))
	h.Sink = sink
	h.Edges(local("second", "default"))
	h.Inner(bolt.Inner{Where: trace.Where{Node: "second", Task: tuple.Shared}, Bolt: preparing{says("b"), &shown}, Edges: []bolt.Edge{out("default")}, Sink: sink})
	x := tuple.Tuple{Key: "k", Payload: []byte("{}")}
	x.Trace.TraceID[0], x.Trace.SpanID[0] = 1, 2
	published := h.Feed(x, at("other"))
	if shown != 2 || len(handled) != 2 || handled[0].Node != "node" || handled[1].Node != "second" || handled[1].Source != "node" {
		t.Fatalf("shown %d, handled %+v", shown, handled)
	}
	var span [8]byte
	for i := range span {
		span[i] = byte(handled[0].Span >> (56 - 8*i))
	}
	if handled[1].Parent.SpanID != span || handled[1].Parent.TraceID != x.Trace.TraceID || !slices.Contains(published[0].Trace.TraceID[:], 1) {
		t.Errorf("spans do not hang together: %+v", handled)
	}
	if a, b := stepped["node"], stepped["second"]; a.Tuples != 2 || b.Tuples != 2 || a.Acked != 2 || b.Acked != 2 || b.Emitted != 2 || b.Frames != 0 {
		t.Errorf("%+v, %+v", a, b)
	}
}
