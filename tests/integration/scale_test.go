package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/document"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/redis"
	"github.com/boltmesh/boltmesh/pkg/service"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
	"github.com/boltmesh/boltmesh/services"
	"github.com/boltmesh/boltmesh/tests/servers"
)

const (
	producers  = 8 // each with a partition of its own
	scaleKeys  = 8 // of each producer
	scaleRate  = 20_000
	scaleTasks = 8
)

// TestScale takes the replicas of stat from 1 to 3 to 2 and moves tasks between them while 8 producers send, 20,000 tuples a second together or what this
// machine can do: no tuple of a key is applied before an earlier one or twice, all totals are exact, and a moved task is silent for a moment only.
func TestScale(t *testing.T) {
	s := startScale(t)
	s.replica("stat-1")
	s.apply(t)
	s.await(t, "stat-1 has all tasks", func() bool { return s.share("stat-1") == scaleTasks })
	began := time.Now()
	s.source.begin(scaleRate)
	s.passed(t, 20_000)
	s.step(t, "from 1 to 3 replicas", 5, func() { s.replica("stat-2"); s.replica("stat-3") }, func() bool {
		a, b, c := s.share("stat-1"), s.share("stat-2"), s.share("stat-3")
		return a+b+c == scaleTasks && min(a, b, c) == 2
	})
	s.passed(t, 20_000)
	s.step(t, "from 3 to 2 replicas", 2, func() { s.stop("stat-3") }, func() bool { return s.share("stat-1") == 4 && s.share("stat-2") == 4 })
	s.passed(t, 20_000)
	s.exchanges(t)
	s.source.end()
	s.finish(t, began)
}

// scale is the mesh of this test: services of this process, on a real NATS and a real Redis.
type scale struct {
	nats, redis *servers.Process
	source      *rush
	documents   *document.Memory
	plan        *topology.Topology
	control     *control.Control
	leases      *jetstream.Bucket
	division    uint64 // revision of the key that exchange writes
	connect     func() *jetstream.Conn
	worker      func(kind, name string)

	mu       sync.Mutex
	stops    map[string]func()
	stepped  []trace.Stepped
	taken    map[int32]string
	fresh    map[int32]bool // taken, and nothing handled since
	faults   []string
	overdue  int
	inverted atomic.Int64
}

func startScale(t *testing.T) *scale {
	t.Helper()
	s := &scale{
		nats:   servers.Run(t, servers.NATS, servers.Options{}),
		redis:  servers.Run(t, servers.Redis, servers.Options{}),
		source: newRush(), documents: document.NewMemory(), stops: map[string]func(){}, taken: map[int32]string{}, fresh: map[int32]bool{},
	}
	s.connect = func() *jetstream.Conn {
		conn, err := jetstream.Connect(t.Context(), jetstream.Options{URL: s.nats.URL})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(conn.Close)
		return conn
	}
	store, err := redis.Open(t.Context(), redis.Options{URL: s.redis.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	s.worker = func(kind, name string) {
		w := &service.Worker{
			Kind: kind, Name: name, Conn: s.connect(), Store: store, Logs: store, Cache: state.NewCache(state.CacheOptions{}), Env: os.LookupEnv,
			Drain: 10 * time.Second, Records: 500, Fetch: 32, Sink: s.see,
		}
		switch kind {
		case topology.KindSpout:
			w.Source = s.source
		case topology.KindStat:
			w.Build = s.build
		case topology.KindOutput:
			w.Build = services.Output
			w.Documents = func(context.Context, string) (document.Store, error) { return s.documents, nil }
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		stop := sync.OnceFunc(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		s.mu.Lock()
		s.stops[name] = stop
		s.mu.Unlock()
		t.Cleanup(stop)
	}
	if s.control, err = control.New(t.Context(), s.connect()); err != nil {
		t.Fatal(err)
	}
	if s.leases, err = s.connect().Leases(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.worker(topology.KindOutput, "output-1")
	s.worker(topology.KindSpout, "spout-1")
	return s
}

func (s *scale) replica(name string) { s.worker(topology.KindStat, name) }

func (s *scale) stop(name string) {
	s.mu.Lock()
	stop := s.stops[name]
	s.mu.Unlock()
	stop()
}

func (s *scale) apply(t *testing.T) {
	t.Helper()
	source, err := os.ReadFile("testdata/scale.yaml")
	if err != nil {
		t.Fatal(err)
	}
	top, problems := topology.Parse("scale.yaml", source, topology.Options{})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	s.plan = top
	if _, err := s.control.Apply(t.Context(), top.Document, control.ApplyOptions{Timeout: patience}); err != nil {
		t.Fatal(err)
	}
}

// build makes stat's own bolt, and puts a guard in front of it.
func (s *scale) build(ctx context.Context, n service.Node) (bolt.Bolt, error) {
	b, err := services.Stat(ctx, n)
	if err != nil {
		return nil, err
	}
	return &guard{b.(bolt.Stateful), &s.inverted}, nil
}

// guard sees in which order the tuples of each key are applied: it keeps the last number with the state that they change, so that what is rolled back or
// taken over by another replica counts as little as the tuple itself.
type guard struct {
	bolt.Stateful
	inverted *atomic.Int64
}

func (g *guard) Keys(group string, add func(string)) {
	add("last-" + group)
	g.Stateful.Keys(group, add)
}

func (g *guard) Execute(ctx context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	var in struct {
		Seq int64 `json:"seq"`
	}
	if err := json.Unmarshal(t.Payload, &in); err != nil {
		return err
	}
	v, err := c.State().Edit(ctx, "last-"+c.Group(), decodeLast)
	if err != nil {
		return err
	}
	last := v.(*last)
	if in.Seq != last.seq+1 {
		g.inverted.Add(1)
	}
	last.seq = in.Seq
	return g.Stateful.Execute(ctx, t, c)
}

type last struct{ seq int64 }

func (l *last) Append(b []byte) ([]byte, error) { return fmt.Append(b, l.seq), nil }

func decodeLast(b []byte) (state.Value, error) {
	l := &last{}
	if b == nil {
		return l, nil
	}
	_, err := fmt.Sscan(string(b), &l.seq)
	return l, err
}

// see keeps what the test wants to know.
func (s *scale) see(e trace.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch e := e.(type) {
	case trace.Stepped:
		if e.Node == "sums" && e.Frames > 0 {
			s.stepped = append(s.stepped, e)
			delete(s.fresh, e.Where.Task)
		}
	case trace.Changed:
		if e.Node == "sums" && e.What == "task taken" {
			s.taken[e.Where.Task], s.fresh[e.Where.Task] = e.Worker, true
		}
	case trace.Failed:
		s.faults = append(s.faults, fmt.Sprintf("%s: %s: %v", e.Worker, e.Doing, e.Err))
	case trace.Overdue:
		s.overdue++
	}
}

// share is how many tasks a replica has.
func (s *scale) share(worker string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.taken {
		if w == worker {
			n++
		}
	}
	return n
}

func (s *scale) await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not in time: %s; %s", what, strings.Join(s.faults, "\n"))
		}
	}
}

// passed waits until so many more tuples were processed.
func (s *scale) passed(t *testing.T, n int64) {
	t.Helper()
	from := s.source.processed()
	s.await(t, "tuples pass", func() bool { return s.source.processed() >= from+n })
}

// owners are those of the tasks, in order.
func (s *scale) owners() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]string, scaleTasks)
	for task, w := range s.taken {
		out[task] = w
	}
	return out
}

// exchange tells two replicas to exchange all their tasks, as rebalance does with some, and returns who is to have which.
func (s *scale) exchange(t *testing.T) []string {
	t.Helper()
	d := member.Division{Workers: map[string]int64{}, Tasks: s.owners()}
	for i, w := range d.Tasks {
		d.Tasks[i] = map[string]string{"stat-1": "stat-2", "stat-2": "stat-1"}[w]
	}
	alive, err := s.control.Members(t.Context(), "scale")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range alive {
		if m.Node == "sums" {
			d.Workers[m.Worker] = m.Since
		}
	}
	value, err := json.Marshal(d)
	if err == nil {
		s.division, err = s.leases.Store(t.Context(), member.DivisionKey("scale", "sums"), value, s.division, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d.Tasks
}

// mostSilent is for how long a task that moves is not handled, at most.
const mostSilent = 100 * time.Millisecond

// quiet says that a step's moved tasks were silent for less than mostSilent in the median, and none for longer than that and what another may wait too.
func (h hush) quiet() bool { return h.median < mostSilent && h.worst < mostSilent+h.usual }

// exchanges lets all tasks change hands again and again, until they have done it once within mostSilent: what else a machine does makes some of them
// slower, and none faster.
func (s *scale) exchanges(t *testing.T) {
	t.Helper()
	const tries = 8
	for try := range tries {
		var wanted []string
		h := s.step(t, fmt.Sprintf("every task to the other replica, try %d", try+1), scaleTasks, func() { wanted = s.exchange(t) },
			func() bool { return slices.Equal(s.owners(), wanted) })
		s.passed(t, 20_000)
		if h.quiet() {
			return
		}
	}
	t.Errorf("in none of %d exchanges were tasks silent for less than %v in the median and %v more than usual at worst", tries, mostSilent, mostSilent)
}

// hush is how long the tasks that have moved in a step were silent, and how long others waited at most between two batches: as long as this machine lets
// anybody wait.
type hush struct{ median, worst, usual time.Duration }

// step changes the replicas, waits until the tasks are divided as wanted and every one is handled again, and says for how long those that have moved, least
// at least, were silent: from the last batch at the old owner to the first at the new one.
func (s *scale) step(t *testing.T, what string, least int, change func(), wanted func() bool) hush {
	t.Helper()
	began := time.Now()
	change()
	s.await(t, what, func() bool {
		if !wanted() {
			return false
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.fresh) == 0
	})
	silences, usual := s.silences(began)
	if len(silences) < least {
		t.Fatalf("%s: %d tasks have moved, want %d", what, len(silences), least)
	}
	h := hush{silences[len(silences)/2], silences[len(silences)-1], usual}
	t.Logf("%s: %d tasks moved, silence %v to %v, median %v; between two batches of one owner up to %v", what, len(silences), silences[0], h.worst, h.median, usual)
	if h.worst > mostSilent+5*usual { // each of the messages that a handover takes may wait as long as a batch
		t.Errorf("%s: a task was silent for %v", what, h.worst)
	}
	return h
}

// silences are those of the tasks that have moved since a moment, sorted, and the longest time between two batches of a task that has not; of one owner,
// where all have.
func (s *scale) silences(since time.Time) (out []time.Duration, usual time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, moved, gaps := map[int32]trace.Stepped{}, map[int32]bool{}, map[int32]time.Duration{}
	for _, e := range s.stepped {
		b, known := before[e.Where.Task]
		before[e.Where.Task] = e
		switch gap := e.At.Sub(b.At).Round(100 * time.Microsecond); {
		case !known || e.At.Before(since):
		case b.Worker != e.Worker:
			out, moved[e.Where.Task] = append(out, gap), true
		case b.At.After(since):
			gaps[e.Where.Task] = max(gaps[e.Where.Task], gap)
		}
	}
	for task, gap := range gaps {
		if !moved[task] || len(moved) == scaleTasks {
			usual = max(usual, gap)
		}
	}
	slices.Sort(out)
	return out, usual
}

// finish waits until everything is processed and compares the totals.
func (s *scale) finish(t *testing.T, began time.Time) {
	t.Helper()
	s.await(t, "everything is processed", s.source.done)
	took := time.Since(began)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.control.Flush(ctx, "scale"); err != nil {
		t.Fatal(err)
	}
	n := s.source.processed()
	rate := float64(n) / took.Seconds()
	t.Logf("%d tuples of %d keys by %d producers in %v: %.0f A SECOND of %d wanted, %.0f %%; %d replays", n, producers*scaleKeys, producers,
		took.Round(time.Millisecond), rate, scaleRate, 100*rate/scaleRate, s.overdue)
	type total struct{ Count, Sum float64 }
	got, want := map[string]total{}, map[string]total{}
	err := s.documents.Each(ctx, "sums", func(body []byte) error {
		var d struct {
			Device     string
			Count, Sum float64
		}
		err := json.Unmarshal(body, &d)
		x := got[d.Device]
		got[d.Device] = total{x.Count + d.Count, x.Sum + d.Sum}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for device, n := range s.source.sent() {
		want[device] = total{float64(n), float64(n) * float64(n+1) / 2}
		if got[device] != want[device] {
			t.Errorf("%s: counted %+v, want %+v", device, got[device], want[device])
		}
	}
	if len(got) != len(want) || len(want) != producers*scaleKeys {
		t.Errorf("%d devices were counted, of %d", len(got), len(want))
	}
	if n := s.inverted.Load(); n > 0 {
		t.Errorf("%d tuples did not follow on the one before them of their key", n)
	}
	if t.Failed() {
		t.Log(strings.Join(s.faults, "\n"))
	}
}
