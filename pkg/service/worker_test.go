package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/devstack"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// source is a log of two partitions in memory, each with one reader.
type source struct {
	mu        sync.Mutex
	logs      [2][]spout.Record
	committed [2]int64
	changed   chan struct{}
}

func newSource() *source { return &source{changed: make(chan struct{})} }

func (s *source) Partitions() int { return len(s.logs) }

// add appends a reading of a device to the partition of its number.
func (s *source) add(device int, payload string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := device % len(s.logs)
	s.logs[p] = append(s.logs[p], spout.Record{
		Offset: int64(len(s.logs[p])), Key: []byte(fmt.Sprint("d", device)), Value: []byte(payload), Time: time.Now().UnixMilli(), Stream: "readings",
	})
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *source) Run(stop, hard context.Context, _ SourceOptions, handle func(context.Context, Partition)) error {
	var all sync.WaitGroup
	for i := range s.logs {
		all.Go(func() { handle(hard, &sourcePartition{s: s, i: i, next: s.committed[i]}) })
	}
	all.Wait()
	<-stop.Done()
	return nil
}

// done reports whether everything added is fully processed.
func (s *source) done() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.logs {
		if s.committed[i] < int64(len(s.logs[i])) {
			return false
		}
	}
	return true
}

type sourcePartition struct {
	s    *source
	i    int
	next int64
}

func (p *sourcePartition) Topic() string { return "readings" }
func (p *sourcePartition) Index() int    { return p.i }
func (p *sourcePartition) Start() int64  { return p.s.committed[p.i] }

func (p *sourcePartition) End() int64 {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	return int64(len(p.s.logs[p.i]))
}

func (p *sourcePartition) Look(context.Context) error { return nil }

func (p *sourcePartition) Next(ctx context.Context) ([]spout.Record, int64, error) {
	for {
		p.s.mu.Lock()
		records, changed := p.s.logs[p.i][p.next:], p.s.changed
		p.s.mu.Unlock()
		if len(records) > 0 {
			records = records[:min(len(records), 50)]
			p.next += int64(len(records))
			return records, p.next, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, p.next, ctx.Err()
		}
	}
}

func (p *sourcePartition) Commit(_ context.Context, floor int64) error {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.s.committed[p.i] = max(p.s.committed[p.i], floor)
	return nil
}

// mesh is one process's worth of workers on an embedded server, or on a cluster.
type mesh struct {
	t       *testing.T
	stack   *devstack.Stack
	on      *cluster // nil: the stack
	store   *state.Memory
	source  *source
	lease   time.Duration // of the workers; 0: the default
	version string        // of the workers that are started from now on
	workers map[string]*Worker
	mu      sync.Mutex
	events  []trace.Event
	times   []time.Time // of events
}

func newMesh(t *testing.T) *mesh {
	t.Helper()
	stack, err := devstack.Start(t.Context(), devstack.Options{Dir: t.TempDir(), NoKafka: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stack.Close() })
	return &mesh{t: t, stack: stack, store: state.NewMemory(), source: newSource()}
}

// nats is how the server, or the cluster, is reached.
func (m *mesh) nats() jetstream.Options {
	if m.on != nil {
		return jetstream.Options{URL: m.on.urls(), Replicas: servers, Changed: func(c jetstream.Change) {
			m.t.Logf("%s: server %s of a connection is lost (%v), or found after %s", time.Now().Format("05.000"), c.Server, c.Err, c.Away)
		}}
	}
	return jetstream.Options{URL: m.stack.NATSURL()}
}

// worker starts a worker of a kind; stop drains it.
func (m *mesh) worker(kind, name string, build Build) (stop func()) {
	m.t.Helper()
	return m.start(m.nats(), kind, name, nil, build)
}

// workerAt starts a worker that reaches the server by a way of its own.
func (m *mesh) workerAt(url, kind, name string, build Build) (stop func()) {
	m.t.Helper()
	o := m.nats()
	o.URL = url
	return m.start(o, kind, name, nil, build)
}

// workerOf starts a worker that runs some of its kind's nodes only.
func (m *mesh) workerOf(kind, name string, nodes []string, build Build) (stop func()) {
	m.t.Helper()
	return m.start(m.nats(), kind, name, nodes, build)
}

func (m *mesh) start(at jetstream.Options, kind, name string, nodes []string, build Build) (stop func()) {
	m.t.Helper()
	conn, err := jetstream.Connect(m.t.Context(), at)
	if err != nil {
		m.t.Fatal(err)
	}
	w := &Worker{
		Kind: kind, Name: name, Version: m.version, Node: nodes, Conn: conn, Store: m.store, Logs: m.store, Cache: state.NewCache(state.CacheOptions{}), Build: build, Env: os.LookupEnv,
		Drain: 5 * time.Second, Lease: m.lease, Sink: func(e trace.Event) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.events, m.times = append(m.events, e), append(m.times, time.Now())
		},
	}
	if m.workers == nil {
		m.workers = map[string]*Worker{}
	}
	m.workers[name] = w
	if kind == topology.KindSpout {
		w.Source = m.source
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := w.Run(ctx); err != nil {
			m.t.Error(err)
		}
		conn.Close()
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	m.t.Cleanup(stop)
	return stop
}

func (m *mesh) apply(yaml string) {
	m.t.Helper()
	file := filepath.Join(m.t.TempDir(), "t.yaml")
	top, problems := topology.Parse(file, []byte(yaml), topology.Options{})
	if err := problems.Err(); err != nil {
		m.t.Fatal(err)
	}
	conn, err := jetstream.Connect(m.t.Context(), m.nats())
	if err != nil {
		m.t.Fatal(err)
	}
	defer conn.Close()
	c, err := control.New(m.t.Context(), conn)
	if err != nil {
		m.t.Fatal(err)
	}
	if _, err := c.Apply(m.t.Context(), top.Document, control.ApplyOptions{Timeout: 10 * time.Second}); err != nil {
		m.t.Fatal(err)
	}
}

// until waits for a condition.
func (m *mesh) until(what string, ok func() bool) {
	m.t.Helper()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			m.t.Fatalf("not in time: %s", what)
		}
	}
}

// seen returns the events that f picks.
func seen[E trace.Event](m *mesh) (out []E) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.events {
		if x, ok := e.(E); ok {
			out = append(out, x)
		}
	}
	return out
}

// tally counts per device, exactly once, in the store.
type tally struct{ hold func(t *tuple.Tuple) }

type number struct{ n int }

func (n *number) Append(b []byte) ([]byte, error) { return fmt.Append(b, n.n), nil }

func decodeNumber(b []byte) (state.Value, error) {
	n := &number{}
	if b != nil {
		_, err := fmt.Sscan(string(b), &n.n)
		return n, err
	}
	return n, nil
}

func (b *tally) Execute(ctx context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	if b.hold != nil {
		b.hold(t)
	}
	v, err := c.State().Edit(ctx, c.Group(), decodeNumber)
	if err != nil {
		return err
	}
	v.(*number).n++
	return nil
}

func (b *tally) Group(t *tuple.Tuple) (string, bool)                            { return t.Key, true }
func (b *tally) Keys(g string, add func(string))                                { add(g) }
func (b *tally) Due(bolt.Tick) (int64, bool)                                    { return 0, false }
func (b *tally) Tick(context.Context, bolt.Tick, string, *bolt.Collector) error { return nil }

const tallyYAML = `
topology: tally
spout: {id: in, kafka: {topics: [readings]}, timeout: %s}
bolts:
  - {id: count, kind: custom, service: tally, from: in, group: device, tasks: 4}
`

// total sums the counts of all devices up.
func (m *mesh) total() int { m.t.Helper(); return m.totalOf(4) }

func (m *mesh) totalOf(tasks int32) (n int) {
	m.t.Helper()
	for task := range tasks {
		for _, e := range m.store.Values(state.TaskOf("tally", "count", int(tasks), task)) {
			if !strings.HasPrefix(e.Key, "d") {
				continue // of the gate, where the node in front has state too
			}
			var x int
			if _, err := fmt.Sscan(string(e.Value), &x); err != nil {
				m.t.Fatal(err)
			}
			n += x
		}
	}
	return n
}

// TestReplicas runs three replicas of a stateful bolt, stops one and starts another under load: every reading counts exactly once.
func TestReplicas(t *testing.T) {
	m := newMesh(t)
	build := func(context.Context, Node) (bolt.Bolt, error) { return &tally{}, nil }
	m.worker(topology.KindSpout, "s1", nil)
	stop := m.worker("tally", "w1", build)
	m.worker("tally", "w2", build)
	m.apply(fmt.Sprintf(tallyYAML, "5s"))
	const devices, rounds = 20, 60
	feed := func() {
		for range rounds {
			for d := range devices {
				m.source.add(d, `{}`)
			}
		}
	}
	took := func(worker string) func() bool {
		return func() bool {
			for _, e := range seen[trace.Changed](m) {
				if e.Worker == worker && e.What == "task taken" {
					return true
				}
			}
			return false
		}
	}
	m.until("w1 owns a task", took("w1"))
	m.until("w2 owns a task", took("w2"))
	feed()
	m.worker("tally", "w3", build)
	m.until("w3 owns a task", took("w3"))
	feed()
	stop()
	feed()
	m.until("everything processed", m.source.done)
	if got := m.total(); got != 3*devices*rounds {
		t.Errorf("counted %d readings, want %d", got, 3*devices*rounds)
	}
	workers := map[string]bool{}
	for _, e := range seen[trace.Stepped](m) {
		if e.Acked > 0 {
			workers[e.Worker] = true
		}
	}
	if len(workers) != 3 {
		t.Errorf("only %v took part", workers)
	}
}

// TestClaimThatWasNotReleased leaves claims in the name of a worker that lives and is not to run all of these tasks.
func TestClaimThatWasNotReleased(t *testing.T) {
	m := newMesh(t)
	build := func(context.Context, Node) (bolt.Bolt, error) { return &tally{}, nil }
	m.worker(topology.KindSpout, "s1", nil)
	names := []string{"w1", "w2", "w3"}
	stops := map[string]func(){}
	for _, w := range names {
		stops[w] = m.worker("tally", w, build)
	}
	m.apply(fmt.Sprintf(tallyYAML, "5s"))
	gone := "" // the one with two of the four tasks
	m.until("the tasks are divided", func() bool {
		for _, w := range names {
			if m.share(w) == 2 {
				gone = w
			}
		}
		return m.share("w1")+m.share("w2")+m.share("w3") == 4 && m.share("w1") > 0 && m.share("w2") > 0 && m.share("w3") > 0
	})
	rest := slices.DeleteFunc(names, func(w string) bool { return w == gone })
	leases := m.leases()
	for task := range int32(4) {
		key := member.OwnKey("tally", "count", fmt.Sprint(task))
		e, err := leases.Load(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if string(e.Value) != gone {
			continue
		}
		if _, err := leases.Store(t.Context(), key, []byte(rest[0]), e.Revision, 0); err != nil {
			t.Fatal(err)
		}
	}
	stops[gone]()
	m.until("the others have two tasks each", func() bool { return m.share(rest[0]) == 2 && m.share(rest[1]) == 2 })
}

// TestOverdueRootNamesItsHolder holds one tuple until its root is overdue, and reads who is blamed.
func TestOverdueRootNamesItsHolder(t *testing.T) {
	m := newMesh(t)
	release := make(chan struct{})
	var once sync.Once
	build := func(context.Context, Node) (bolt.Bolt, error) {
		return &tally{hold: func(*tuple.Tuple) { once.Do(func() { <-release }) }}, nil
	}
	m.worker(topology.KindSpout, "s1", nil)
	m.worker("tally", "slow", build)
	m.apply(fmt.Sprintf(tallyYAML, "1s"))
	m.source.add(1, `{}`)
	m.until("a root is overdue", func() bool { return len(seen[trace.Overdue](m)) > 0 })
	close(release)
	m.until("everything processed", m.source.done)
	e := seen[trace.Overdue](m)[0]
	if len(e.Holders) != 1 || e.Holders[0].Node != "count" || e.Holders[0].Worker != "slow" || e.Holders[0].Since.IsZero() {
		b, _ := json.Marshal(e)
		t.Errorf("blamed: %s", b)
	}
	if got := m.total(); got != 1 {
		t.Errorf("the replayed reading counts %d times", got)
	}
}

// TestZombie claims a worker's tasks in the store while its loop is held, as a new owner would: what the zombie then tries is refused.
func TestZombie(t *testing.T) {
	m := newMesh(t)
	held, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	slow := func(context.Context, Node) (bolt.Bolt, error) {
		return &tally{hold: func(*tuple.Tuple) { once.Do(func() { close(held); <-release }) }}, nil
	}
	m.worker(topology.KindSpout, "s1", nil)
	m.worker("tally", "zombie", slow)
	m.apply(fmt.Sprintf(tallyYAML, "5s"))
	m.source.add(1, `{}`)
	<-held
	// The zombie does not notice: somebody else claims the task in the store, as a new owner would.
	for task := range int32(4) {
		if _, err := m.store.Claim(t.Context(), state.TaskOf("tally", "count", 4, task)); err != nil {
			t.Fatal(err)
		}
	}
	close(release)
	m.until("the zombie is fenced", func() bool {
		for _, e := range seen[trace.Failed](m) {
			if errors.Is(e.Err, state.ErrFenced) && e.Fatal {
				return true
			}
		}
		return false
	})
	m.until("everything processed", m.source.done)
	if got := m.total(); got != 1 {
		t.Errorf("counted %d times", got)
	}
}
