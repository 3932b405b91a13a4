package redis_test

import (
	"context"
	"fmt"
	"maps"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/redis"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
	"github.com/boltmesh/boltmesh/services/stat/window"
	"github.com/boltmesh/boltmesh/tests/servers"
)

// trips is a store that counts its round trips.
type trips struct {
	*redis.Store
	loads, commits atomic.Int64
}

func (s *trips) Load(ctx context.Context, t state.Task, keys []string) ([][]byte, error) {
	s.loads.Add(1)
	return s.Store.Load(ctx, t, keys)
}

func (s *trips) Commit(ctx context.Context, t state.Task, epoch uint64, b *state.Batch) error {
	s.commits.Add(1)
	return s.Store.Commit(ctx, t, epoch, b)
}

// sent keeps what is published.
type sent struct{ frames []bolt.Outgoing }

func (s *sent) Publish(_ context.Context, frames []bolt.Outgoing) error {
	s.frames = append(s.frames, frames...)
	return nil
}

// worker is one owner of a task of a statistic, with a cache of its own.
type worker struct {
	t     *testing.T
	store *trips
	in    *feeder
	out   *sent
	loop  *bolt.Loop
}

// startWorker is a worker that has just started: it knows nothing but what is in Redis.
func startWorker(t *testing.T, store *trips) *worker {
	t.Helper()
	b, err := window.New(topology.Bolt{
		ID: "totals", Kind: topology.KindStat, Window: topology.Window{Kind: topology.WindowLifetime},
		Aggregates: []topology.Aggregate{{Name: "n", Func: "count"}, {Name: "sum", Func: "sum", Arg: &topology.Expr{Source: "x"}}},
	}, func(t *tuple.Tuple) (string, bool) { return t.Key, true }, nil)
	if err != nil {
		t.Fatal(err)
	}
	task := state.Task{Topology: "machine-health", Node: "totals"}
	epoch, err := store.Claim(t.Context(), task)
	if err != nil {
		t.Fatal(err)
	}
	cache := state.NewCache(state.CacheOptions{})
	t.Cleanup(cache.Close)
	w := &worker{t: t, store: store, in: &feeder{}, out: &sent{}}
	w.loop = bolttest.Loop(t, bolt.Options{
		Bolt: b, Inbox: w.in, Outbox: w.out, Edges: []bolt.Edge{{To: "next", Stream: tuple.DefaultStream, Shared: true}},
		Own: &bolt.Ownership{Store: store, Task: task, Epoch: epoch, View: cache.Open(store, task, epoch)},
	})
	return w
}

// give hands over readings of x = 2 with offsets from, from+1, ..., a multiple of 100, of as many devices in turn.
func (w *worker) give(from int64, readings, devices int) {
	f := tuple.Frame{Revision: 1, Source: "clean"}
	for i := range int64(readings) {
		r := tuple.Root{Origin: 1, First: from, Attempt: tuple.Attempt{Generation: 1}}
		f.Tuples = append(f.Tuples, tuple.Tuple{
			ID: tuple.RootID(tuple.Position{Origin: 1, Offset: from + i}), Root: r, Offset: from + i, Stream: tuple.DefaultStream,
			Key: fmt.Sprintf("device-%03d", (from+i)%int64(devices)), Time: 1_767_225_600_000 + i, Payload: []byte(`{"x":2}`),
		})
		if len(f.Tuples) == 100 {
			w.push(&f)
			f.Tuples = nil
		}
	}
}

func (w *worker) push(f *tuple.Frame) {
	data, err := f.Append(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	w.in.frames = append(w.in.frames, bolt.Delivery{Data: data})
}

func (w *worker) step() {
	w.t.Helper()
	if _, err := w.loop.Step(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// totals are what a flush outputs: readings and sum of each device.
func (w *worker) totals() map[string]string {
	w.t.Helper()
	w.out.frames = nil
	at := tuple.Position{Origin: 2, Offset: 0}
	w.push(&tuple.Frame{Revision: 1, Source: "spout", Tuples: []tuple.Tuple{{
		ID: tuple.RootID(at), Stream: tuple.TickStream, Payload: []byte(`{"flush":true}`),
		Root: tuple.Root{Origin: 2, Attempt: tuple.Attempt{Generation: 1}},
	}}})
	w.step()
	got := map[string]string{}
	for _, f := range w.out.frames {
		for _, o := range bolttest.Tuples(w.t, f) {
			got[o.Key] = gjson.GetBytes(o.Payload, "n").Raw + " " + gjson.GetBytes(o.Payload, "sum").Raw
		}
	}
	return got
}

func all(devices int, what string) map[string]string {
	out := map[string]string{}
	for d := range devices {
		out[fmt.Sprintf("device-%03d", d)] = what
	}
	return out
}

// TestRoundTrips: whatever a batch needs and the cache does not hold is loaded in one round trip, and stored in one.
func TestRoundTrips(t *testing.T) {
	store := &trips{Store: connect(t, server(t, "--appendfsync", "no"))}
	w := startWorker(t, store)
	for i, loads := range []int64{1, 0, 0} { // the second and third batch find everything
		store.loads.Store(0)
		store.commits.Store(0)
		w.give(int64(i)*600, 600, 200)
		w.step()
		if l, c := store.loads.Load(), store.commits.Load(); l != loads || c != 1 {
			t.Errorf("batch %d: %d loads and %d commits, want %d and 1", i, l, c, loads)
		}
	}
	cold := startWorker(t, store)
	store.loads.Store(0)
	cold.give(1800, 600, 400) // 200 of them new
	cold.step()
	if l := store.loads.Load(); l != 1 {
		t.Errorf("%d loads of a worker that has just started, want 1", l)
	}
	want := all(400, "2 4") // 600 readings of 400 devices, from device 200 on
	maps.Copy(want, all(200, "10 20"))
	if got := cold.totals(); !maps.Equal(got, want) {
		t.Errorf("totals of a worker that has just started: %v\nwant %v", got, want)
	}
}

// TestOutageStopsProgress: while Redis is away a batch waits, nothing is published or lost; then it goes on where it was, and so does a new worker.
func TestOutageStopsProgress(t *testing.T) {
	p := servers.Run(t, servers.Redis, servers.Options{})
	store := &trips{Store: connect(t, p.URL)}
	w := startWorker(t, store)
	w.give(0, 100, 50)
	w.step()
	p.Kill()
	w.give(100, 100, 50) // all in the cache: only the commit needs Redis
	w.give(200, 100, 100)
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if n, err := w.loop.Step(short); err == nil || n > 0 {
		t.Fatalf("%d frames were handled without Redis", n)
	}
	if len(w.out.frames) > 0 {
		t.Fatal("something was published that is not stored")
	}
	if err := p.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	for tries := 0; ; tries++ { // connections that died with the server may be met once more
		if _, err := w.loop.Step(t.Context()); err == nil {
			break
		} else if tries == 10 {
			t.Fatal(err)
		}
	}
	want := all(100, "1 2")
	for d := range 50 {
		want[fmt.Sprintf("device-%03d", d)] = "5 10"
	}
	if got := startWorker(t, store).totals(); !maps.Equal(got, want) {
		t.Errorf("totals %v, want %v", got, want)
	}
}
