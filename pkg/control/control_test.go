package control_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/devstack"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const rooms = `topology: rooms
spout: {id: readings, kafka: {brokers: "localhost:9092", topics: [rooms]}, key: device, time: {field: ts}}
bolts:
  - {id: clean, kind: convert, from: readings, where: temperature != nil, save: readings}
  - {id: hot, kind: alarm, from: clean, when: temperature > 35, save: alarms}
`

func document(t *testing.T, source string) topology.Document {
	t.Helper()
	parsed, problems := topology.Parse("rooms.yaml", []byte(source), topology.Options{})
	if problems != nil {
		t.Fatal(problems)
	}
	return parsed.Document
}

// setup returns a control on a server of its own.
func setup(t *testing.T) (*control.Control, *jetstream.Conn) {
	t.Helper()
	s, err := devstack.Start(t.Context(), devstack.Options{Dir: t.TempDir(), NoKafka: true, Warn: func(l string) { t.Log(l) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	conn, err := jetstream.Connect(t.Context(), jetstream.Options{URL: s.NATSURL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	c, err := control.New(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	return c, conn
}

// worker holds a lease as a service does, faster. What it says of partitions and logs it says of the pause that there is.
type worker struct {
	mu   sync.Mutex
	self member.Member
	// follow makes it report the applied revision; settle makes a spout complete what it has emitted once it is paused.
	follow, settle bool
	unaware        bool // of pauses
}

// obey pauses, or does not.
func (w *worker) obey(pause uint64) {
	for i := range w.self.Marks {
		k := &w.self.Marks[i]
		if k.Pause = pause; pause > 0 && w.settle {
			k.Floor = k.Next
		}
	}
	for i := range w.self.Logs {
		w.self.Logs[i].Pause = pause
	}
}

func (w *worker) start(t *testing.T, c *control.Control, conn *jetstream.Conn) {
	t.Helper()
	bucket, err := conn.Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	topologies, err := conn.Topologies(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		last := uint64(0)
		for ctx.Err() == nil {
			var a control.Applied
			entry, err := topologies.Load(ctx, w.self.Topology)
			if errors.Is(err, jetstream.ErrNotFound) && last > 0 {
				_ = bucket.Delete(ctx, w.key(), 0)
				return
			}
			if err == nil {
				err = json.Unmarshal(entry.Value, &a)
			}
			w.mu.Lock()
			if err == nil && w.follow {
				w.self.Revision = a.Revision
			}
			if err == nil && !a.Paused {
				entry.Revision = 0
			}
			if err == nil && !w.unaware {
				w.obey(entry.Revision)
			}
			value, _ := json.Marshal(w.self)
			w.mu.Unlock()
			if r, err := bucket.Store(ctx, w.key(), value, last, 3*time.Second); err == nil {
				last = r
			}
			select {
			case <-ctx.Done():
			case <-time.After(30 * time.Millisecond):
			}
		}
	}()
	for { // until it is seen
		ms, err := c.Members(t.Context(), w.self.Topology)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(ms, func(m member.Member) bool { return m.Node == w.self.Node }) {
			return
		}
	}
}

func (w *worker) key() string { return member.Key(w.self.Topology, w.self.Node, w.self.Worker) }

func spoutWorker(floor, next int64) *worker {
	return &worker{follow: true, self: member.Member{
		Topology: "rooms", Node: "readings", Kind: "spout", Worker: "s1", Revision: 1,
		Partitions: 1, Logs: []member.Log{{Name: spout.ReplayLog}, {Name: "command"}},
		Marks: []member.Mark{{Topic: "rooms", Partition: 0, Floor: floor, Next: next, End: next}},
	}}
}

func apply(t *testing.T, c *control.Control, source string, o control.ApplyOptions) control.Report {
	t.Helper()
	r, err := c.Apply(t.Context(), document(t, source), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func changed() string { return strings.Replace(rooms, "> 35", "> 36", 1) }

func TestApply(t *testing.T) {
	c, conn := setup(t)
	r := apply(t, c, rooms, control.ApplyOptions{})
	if r.Revision != 1 || r.Unchanged || strings.Join(r.Idle, " ") != "readings clean hot output" {
		t.Errorf("first: %+v", r)
	}
	inputs, err := conn.Inputs(t.Context(), "rooms")
	if slices.Sort(inputs); err != nil || strings.Join(inputs, " ") != "clean hot output" {
		t.Errorf("inputs %v, %v", inputs, err)
	}
	if r := apply(t, c, "# a remark\n"+rooms, control.ApplyOptions{}); !r.Unchanged || r.Revision != 1 {
		t.Errorf("a remark: %+v", r)
	}
	if a, err := c.Get(t.Context(), "rooms"); err != nil || !strings.HasPrefix(a.Topology.Source, "# a remark") || a.Revision != 1 {
		t.Errorf("the remark is lost: %+v, %v", a, err)
	}
	if r := apply(t, c, changed(), control.ApplyOptions{}); r.Revision != 2 || r.Unchanged {
		t.Errorf("changed: %+v", r)
	}
	all, err := c.List(t.Context())
	if err != nil || len(all) != 1 || all[0].Name != "rooms" || all[0].Revision != 2 {
		t.Errorf("list: %+v, %v", all, err)
	}
	broken := document(t, rooms)
	broken.Source = "topology: rooms\n"
	if _, err := c.Apply(t.Context(), broken, control.ApplyOptions{}); !errors.As(err, new(topology.Problems)) {
		t.Errorf("a broken document: %v", err)
	}
}

func TestChangeWaitsForRest(t *testing.T) {
	c, conn := setup(t)
	apply(t, c, rooms, control.ApplyOptions{})
	leases, err := conn.Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := leases.Store(t.Context(), member.OwnKey("rooms", "hot", "3"), []byte("killed"), 0, 0); err != nil {
		t.Fatal(err)
	}
	if r := apply(t, c, changed(), control.ApplyOptions{}); !strings.Contains(r.Warning, "orderly") {
		t.Errorf("nobody runs any more: %+v", r)
	}
	w := spoutWorker(10, 15)
	w.settle = true
	w.start(t, c, conn)
	r := apply(t, c, rooms, control.ApplyOptions{Timeout: 10 * time.Second})
	if r.Revision != 3 || r.Warning != "" || strings.Join(r.Workers, " ") != "s1/readings" || r.Pause <= 0 || len(r.Silent) > 0 {
		t.Errorf("got %+v", r)
	}
	if a, err := c.Get(t.Context(), "rooms"); err != nil || a.Paused {
		t.Errorf("left paused: %v", err)
	}
}

func TestChangeThatCannotBeMade(t *testing.T) {
	c, conn := setup(t)
	apply(t, c, rooms, control.ApplyOptions{})
	spoutWorker(10, 15).start(t, c, conn) // what it emitted never completes
	_, err := c.Apply(t.Context(), document(t, changed()), control.ApplyOptions{Timeout: 300 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "rooms/0 was emitted up to 15 and is processed up to 10") || !strings.Contains(err.Error(), "goes on as it was") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := c.Apply(ctx, document(t, changed()), control.ApplyOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("interrupted: %v", err)
	}
	if a, err := c.Get(t.Context(), "rooms"); err != nil || a.Paused || a.Revision != 1 {
		t.Errorf("got %+v, %v", a, err)
	}
}

func TestChangeWhileFramesWait(t *testing.T) {
	c, conn := setup(t)
	apply(t, c, rooms, control.ApplyOptions{})
	if err := conn.Outbox("rooms").Publish(t.Context(), []bolt.Outgoing{{Node: "hot", Task: 3, Data: []byte("x")}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Apply(t.Context(), document(t, changed()), control.ApplyOptions{}); err == nil || !strings.Contains(err.Error(), "1 frames wait for hot") {
		t.Errorf("nobody runs: %v", err)
	}
	w := spoutWorker(15, 15)
	w.start(t, c, conn)
	if _, err := c.Apply(t.Context(), document(t, changed()), control.ApplyOptions{Timeout: 300 * time.Millisecond}); err == nil || !strings.Contains(err.Error(), "1 frames wait for hot") {
		t.Errorf("a spout runs: %v", err)
	}
	p, err := c.Progress(t.Context(), "rooms")
	if err != nil || p.Behind(map[string]int64{"rooms/0": 15, "rooms/1": 4}) != "no spout reads rooms/1, 1 frames wait for hot" {
		t.Errorf("%+v, %v", p, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := c.AwaitIdle(ctx, "rooms", map[string]int64{"rooms/0": 15}, nil); err == nil || !strings.Contains(err.Error(), "frames wait") {
		t.Errorf("idle: %v", err)
	}
	if err := c.Delete(t.Context(), "rooms", control.DeleteOptions{Drain: true, Timeout: 300 * time.Millisecond}); err == nil {
		t.Error("drained")
	}
	if err := c.Delete(t.Context(), "rooms", control.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	if left, err := conn.Inputs(t.Context(), "rooms"); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if err := c.Delete(t.Context(), "rooms", control.DeleteOptions{}); !errors.Is(err, control.ErrUnknown) {
		t.Errorf("deleted twice: %v", err)
	}
}

func TestSilentWorkersAreNamed(t *testing.T) {
	c, conn := setup(t)
	apply(t, c, rooms, control.ApplyOptions{})
	w := spoutWorker(15, 15)
	w.follow = false
	w.start(t, c, conn)
	r := apply(t, c, changed(), control.ApplyOptions{Timeout: 400 * time.Millisecond})
	if strings.Join(r.Silent, " ") != "s1/readings" || r.Revision != 2 {
		t.Errorf("got %+v", r)
	}
	r = apply(t, c, rooms, control.ApplyOptions{Timeout: 400 * time.Millisecond, Patience: 100 * time.Millisecond})
	if strings.Join(r.Idle, " ") != "readings clean hot output" {
		t.Errorf("got %+v", r)
	}
}

func TestRemovedNodes(t *testing.T) {
	c, conn := setup(t)
	apply(t, c, rooms, control.ApplyOptions{})
	less := rooms[:strings.Index(rooms, "  - {id: hot")]
	if _, err := c.Apply(t.Context(), document(t, less), control.ApplyOptions{}); err == nil || !strings.Contains(err.Error(), "--drain") {
		t.Errorf("got %v", err)
	}
	if r := apply(t, c, less, control.ApplyOptions{Drain: true}); strings.Join(r.Removed, " ") != "hot" {
		t.Errorf("got %+v", r)
	}
	inputs, err := conn.Inputs(t.Context(), "rooms")
	if slices.Sort(inputs); err != nil || strings.Join(inputs, " ") != "clean output" {
		t.Errorf("inputs %v, %v", inputs, err)
	}
	// the same id, now competed for: its consumers are others
	again := strings.Replace(less, "save: readings}", "save: readings}\n  - {id: hot, kind: convert, from: clean, save: hot}", 1)
	apply(t, c, again, control.ApplyOptions{})
	apply(t, c, rooms, control.ApplyOptions{})
	in, err := conn.Take(t.Context(), "rooms", "hot", 0, 1, 8)
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
}

func TestPauseStaysWithAChange(t *testing.T) {
	c, _ := setup(t)
	apply(t, c, rooms, control.ApplyOptions{})
	for _, want := range []bool{true, false} {
		if changed, err := c.Pause(t.Context(), "rooms"); err != nil || changed != want {
			t.Errorf("pause: %v, %v", changed, err)
		}
	}
	if r := apply(t, c, changed(), control.ApplyOptions{}); !r.Paused || r.Pause != 0 {
		t.Errorf("got %+v", r)
	}
	if changed, err := c.Resume(t.Context(), "rooms"); err != nil || !changed {
		t.Errorf("it was not paused any more: %v", err)
	}
	if _, err := c.Pause(t.Context(), "room"); !errors.Is(err, control.ErrUnknown) {
		t.Errorf("got %v", err)
	}
}

func TestFlush(t *testing.T) {
	c, conn := setup(t)
	apply(t, c, rooms, control.ApplyOptions{})
	if err := c.Flush(t.Context(), "rooms"); err != nil { // no node holds anything back
		t.Error(err)
	}
	apply(t, c, strings.Replace(rooms, "kind: alarm, from: clean, when: temperature > 35", "kind: stat, from: clean, window: lifetime, aggregates: {n: count}", 1),
		control.ApplyOptions{})
	ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
	defer cancel()
	if err := c.Flush(ctx, "rooms"); err == nil || !strings.Contains(err.Error(), "does a spout run") {
		t.Errorf("nobody serves: %v", err)
	}
	served := make(chan error, 1)
	time.AfterFunc(50*time.Millisecond, func() { // the owner comes later
		stop, err := conn.Serve(control.FlushSubject("rooms"), func([]byte) []byte { return []byte("flushed") })
		if err == nil {
			t.Cleanup(stop)
		}
		served <- err
	})
	if err := c.Flush(t.Context(), "rooms"); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
