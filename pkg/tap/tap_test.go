package tap_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/devstack"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/tap"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

const rooms = `
topology: rooms
spout:
  id: readings
  kafka: {brokers: "localhost:1", topics: [rooms]}
  key: device
bolts:
  - {id: clean, kind: convert, from: readings, where: temperature != nil, save: readings}
  - {id: totals, kind: stat, from: clean, window: lifetime, aggregates: {n: count}}
  - {id: hot, kind: alarm, from: clean, when: temperature > 35, save: alarms}
  - {id: copy, kind: convert, from: {node: clean, grouping: shuffle}}
  - {id: again, kind: convert, from: {node: copy, grouping: local_or_shuffle}}
`

func planOf(t *testing.T, text string) *topology.Plan {
	t.Helper()
	top, problems := topology.Parse("rooms.yaml", []byte(text), topology.Options{})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	plan, err := top.Plan()
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// room is a connection to a NATS of its own, with the inputs of a plan.
type room struct {
	*testing.T
	conn *jetstream.Conn
	plan *topology.Plan
	sent int
}

func open(t *testing.T) *room {
	t.Helper()
	stack, err := devstack.Start(t.Context(), devstack.Options{Dir: t.TempDir(), NoKafka: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stack.Close() })
	c, err := jetstream.Connect(t.Context(), jetstream.Options{URL: stack.NATSURL(), Name: t.Name()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	r := &room{T: t, conn: c, plan: planOf(t, rooms)}
	for _, n := range r.plan.Nodes[1:] {
		in := jetstream.Input{Topology: "rooms", Node: n.ID, Tasks: tuple.Tasks(n.Tasks, n.Shared)}
		if err := c.Provision(t.Context(), []jetstream.Input{in}); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// publish sends a frame with tuples of devices d0, d1, … whose payloads number them.
func (r *room) publish(from, to string, task int32, stream string, n int) bolt.Outgoing {
	r.Helper()
	f := tuple.Frame{Revision: 1, Source: from}
	for range n {
		id := tuple.RootID(tuple.Position{Origin: 7, Offset: int64(r.sent)})
		f.Tuples = append(f.Tuples, tuple.Tuple{
			ID: id, Root: tuple.Root{Origin: 7, Attempt: tuple.Attempt{Generation: 3}}, Offset: int64(r.sent), Stream: stream, Key: fmt.Sprint("d", r.sent%10),
			Payload: fmt.Appendf(nil, `{"n":%d}`, r.sent),
		})
		r.sent++
	}
	data, err := f.Append(nil)
	if err != nil {
		r.Fatal(err)
	}
	out := bolt.Outgoing{Node: to, Task: task, ID: tuple.FrameID(tuple.NameOf(to), task, []uint64{uint64(r.sent)}), Data: data}
	if err := r.conn.Outbox("rooms").Publish(r.Context(), []bolt.Outgoing{out}); err != nil {
		r.Fatal(err)
	}
	return out
}

func (r *room) tap(o tap.Options) *tap.Tap {
	r.Helper()
	t, err := tap.Open(r.Context(), r.conn, r.plan, o)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(t.Close)
	return t
}

func (r *room) next(t *tap.Tap) tap.Seen {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), 20*time.Second)
	defer cancel()
	s, err := t.Next(ctx)
	if err != nil {
		r.Fatalf("%v; lost %+v", err, t.Lost())
	}
	return s
}

// TestEdges shows that a tap has the tuples of its edge, each once though the frame is published twice, and that they stay where they wait.
func TestEdges(t *testing.T) {
	r := open(t)
	emits, one, in := r.tap(tap.Options{Node: "clean"}), r.tap(tap.Options{Node: "clean", To: "hot"}), r.tap(tap.Options{Node: "hot", In: true})
	ticks := r.tap(tap.Options{Node: "readings", Stream: tuple.TickStream})
	r.publish("readings", "clean", 0, "default", 3) // another edge
	r.publish("readings", "totals", 1, tuple.TickStream, 1)
	first := r.publish("clean", "totals", 2, "default", 2)
	if err := r.conn.Outbox("rooms").Publish(t.Context(), []bolt.Outgoing{first}); err != nil { // again, as when its acknowledgement is late
		t.Fatal(err)
	}
	r.publish("clean", "hot", 5, "default", 1)
	for i, want := range []string{"totals/2 d4", "totals/2 d5", "hot/5 d6"} {
		if s := r.next(emits); fmt.Sprintf("%s/%d %s", s.To, s.Task, s.Key) != want || s.From != "clean" || string(s.Payload) != fmt.Sprintf(`{"n":%d}`, i+4) {
			t.Errorf("%d: %+v, want %s", i, s, want)
		}
	}
	for _, x := range []*tap.Tap{one, in} {
		if s := r.next(x); s.Key != "d6" || s.Root.Attempt.Generation != 3 || s.Frame == "" {
			t.Errorf("%+v", s)
		}
	}
	if s := r.next(ticks); s.To != "totals" || s.Task != 1 || s.Key != "d3" {
		t.Errorf("%+v", s)
	}
	for node, want := range map[string]uint64{"clean": 1, "totals": 2, "hot": 1} {
		if n, err := r.conn.Queued(t.Context(), "rooms", node); err != nil || n.Sum() != want {
			t.Errorf("%d frames wait for %s (%v), want %d", n, node, err, want)
		}
	}
}

func TestChoice(t *testing.T) {
	r := open(t)
	device, where := r.tap(tap.Options{Node: "clean", Device: "d7"}), r.tap(tap.Options{Node: "clean", Where: `n >= 15 and device == "d8"`})
	faulty, half := r.tap(tap.Options{Node: "clean", Where: `n matches "x"`}), r.tap(tap.Options{Node: "clean", Sample: 0.5, Buffer: 5000})
	for range 10 {
		r.publish("clean", "totals", 0, "default", 200)
	}
	for _, want := range []string{`{"n":7}`, `{"n":17}`} {
		if s := r.next(device); string(s.Payload) != want {
			t.Errorf("%s, want %s", s.Payload, want)
		}
	}
	for _, want := range []string{`{"n":18}`, `{"n":28}`} {
		if s := r.next(where); string(s.Payload) != want {
			t.Errorf("%s, want %s", s.Payload, want)
		}
	}
	r.publish("clean", "hot", 0, "default", 1) // behind all others
	n := 0
	for s := r.next(half); s.To != "hot" && s.Offset < 1990; s = r.next(half) {
		n++
	}
	if n < 800 || n > 1200 {
		t.Errorf("%d of 2000 with a sample of a half", n)
	}
	if l := faulty.Lost(); l.Faults < 1000 || l.Fault == nil || !strings.Contains(l.Fault.Error(), "where:1:") {
		t.Errorf("lost %+v", l)
	}
}

// TestSlow shows what a reader loses that does not read, and that it is told.
func TestSlow(t *testing.T) {
	r := open(t)
	slow, quick := r.tap(tap.Options{Node: "clean", Buffer: 10}), r.tap(tap.Options{Node: "clean", Buffer: 1000})
	for range 5 {
		r.publish("clean", "totals", 0, "default", 100)
	}
	for i := range 500 {
		if s := r.next(quick); s.Offset != int64(i) {
			t.Fatalf("offset %d, want %d", s.Offset, i)
		}
	}
	for end := time.Now().Add(20 * time.Second); slow.Lost().Tuples < 490 && time.Now().Before(end); {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		_, _ = quick.Next(ctx)
		cancel()
	}
	if l := slow.Lost(); l.Tuples != 490 || l.Frames != 0 {
		t.Errorf("lost %+v, want 490 tuples", l)
	}
	for i := range 10 {
		if s := r.next(slow); s.Offset != int64(i) {
			t.Errorf("offset %d, want %d: the oldest stay", s.Offset, i)
		}
	}
}

func TestRefusals(t *testing.T) {
	plan := planOf(t, rooms)
	for _, c := range []struct {
		o    tap.Options
		want string
	}{
		{tap.Options{Node: "claen"}, `rooms has no node "claen": did you mean "clean"?`},
		{tap.Options{Node: "zzzzzzzz"}, "it has readings, clean, totals, hot, copy, again, output"},
		{tap.Options{Node: "clean", Stream: "odd"}, `nobody receives from clean on the stream "odd": there is default`},
		{tap.Options{Node: "hot", Stream: "odd", In: true}, `nothing comes to hot on the stream "odd": there is default`},
		{tap.Options{Node: "clean", To: "again"}, `clean emits nothing to "again": it emits to copy, hot, output, totals`},
		{tap.Options{Node: "totals"}, "totals emits to nobody"},
		{tap.Options{Node: "readings", In: true}, "what comes to it is in Kafka"},
		{tap.Options{Node: "clean", Where: "n >"}, "where:1:3"},
	} {
		if _, err := tap.Open(t.Context(), nil, plan, c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %s", c.o, err, c.want)
		}
	}
	o := tap.Options{Node: "copy"}
	if unseen := o.Unseen(plan); !slices.Equal(unseen, []string{"again"}) {
		t.Errorf("unseen %v", unseen)
	}
}

func TestNextEnds(t *testing.T) {
	r := open(t)
	before := goleak.IgnoreCurrent()
	one, err := tap.Open(t.Context(), r.conn, r.plan, tap.Options{Node: "clean"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := one.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	one.Close()
	goleak.VerifyNone(t, before)
}
