package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	otlp "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/devstack"
	"github.com/boltmesh/boltmesh/pkg/document"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/rehearse/casefile"
	"github.com/boltmesh/boltmesh/pkg/script"
	"github.com/boltmesh/boltmesh/pkg/service"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/services"
)

// TestCases runs the bolt through its cases, in memory.
func TestCases(t *testing.T) {
	r, err := casefile.Check(t.Context(), "testdata/odometer.test.yaml", map[string]service.Build{
		"odometer": build, topology.KindConvert: services.Convert, topology.KindOutput: services.Output,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Failed() > 0 {
		var b bytes.Buffer
		r.Write(&b, false)
		t.Error(b.String())
	}
}

const (
	vans  = 12  // more than tasks, so that every worker has some
	rides = 100 // of each van
)

// TestCrash runs the service twice and kills one of both with SIGKILL in the midst of its work, three times, and starts another: every ride is in its
// van's odometer once, and what came of it is stored once. Both had their part in it, and told the trace backend of it.
func TestCrash(t *testing.T) {
	m := start(t)
	program := filepath.Join(t.TempDir(), "custom-bolt")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	db := filepath.Join(t.TempDir(), "state.db")
	traces, told := collector(t)
	run := func(name string) *exec.Cmd {
		c := exec.Command(program)
		clean := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "BOLTMESH_") || strings.HasPrefix(v, "OTEL_") })
		c.Env = append(clean, "BOLTMESH_NATS_URL="+m.url, "BOLTMESH_SQLITE="+db, "BOLTMESH_HTTP=off", "BOLTMESH_WORKER="+name, "BOLTMESH_OTLP="+traces)
		var said bytes.Buffer
		c.Stdout, c.Stderr = &said, &said
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = c.Process.Kill() // it may be dead already
			_ = c.Wait()
			if t.Failed() {
				t.Logf("%s: %s", name, said.String())
			}
		})
		return c
	}
	m.apply()
	names := [2]string{"w0", "w1"}
	workers := [2]*exec.Cmd{run("w0"), run("w1")}
	const share = vans * rides / 4
	for i := range 3 {
		before := i * share
		m.until("both workers have tasks", func() bool { return m.each(names, func(w member.Member) bool { return len(w.Tasks) > 0 }) })
		m.source.release(before + share/4)
		m.until("both workers have handled rides", func() bool { return m.each(names, func(w member.Member) bool { return w.In > 0 }) })
		m.source.release(before + share)
		m.until("they have done some of their share", func() bool { return m.stored() > int64(before*102/100+share/4+share/8) }) // 1 % are due
		dies := i % 2
		_ = workers[dies].Process.Kill()
		_ = workers[dies].Wait()
		names[dies] = fmt.Sprint("w", i+2)
		workers[dies] = run(names[dies])
	}
	m.source.release(vans * rides)
	m.until("every ride is processed", m.source.done)
	m.check()
	for i, w := range workers {
		if err := w.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		if err := w.Wait(); err != nil {
			t.Errorf("%s was asked to stop: %v", names[i], err)
		}
	}
	if spans := told(); !slices.Contains(spans, "process odometer") {
		t.Errorf("no ride is traced: %q", slices.Compact(spans))
	}
}

// collector stands for a trace backend: names are those of the spans that it was told of, sorted.
func collector(t *testing.T) (url string, names func() []string) {
	t.Helper()
	var mu sync.Mutex
	var got []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		var req otlp.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(b, &req)
		}
		if err != nil {
			return // of a worker that was killed amid it
		}
		mu.Lock()
		defer mu.Unlock()
		for _, of := range req.ResourceSpans {
			for _, scope := range of.ScopeSpans {
				for _, span := range scope.Spans {
					got = append(got, span.Name)
				}
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(s.Close)
	return s.URL, func() []string {
		mu.Lock()
		defer mu.Unlock()
		slices.Sort(got)
		return got
	}
}

// mesh is the rest of the mesh in this process: an embedded NATS, a spout, convert and output.
type mesh struct {
	*testing.T
	url     string
	source  *source
	docs    *document.Memory
	control *control.Control // once applied
}

func start(t *testing.T) *mesh {
	t.Helper()
	stack, err := devstack.Start(t.Context(), devstack.Options{Dir: t.TempDir(), NoKafka: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stack.Close() })
	m := &mesh{T: t, url: stack.NATSURL(), source: &source{changed: make(chan struct{})}, docs: document.NewMemory()}
	store := state.NewMemory()
	for kind, build := range map[string]service.Build{topology.KindSpout: nil, topology.KindConvert: services.Convert, topology.KindOutput: services.Output} {
		conn := m.connect()
		w := &service.Worker{
			Kind: kind, Name: "test-" + kind, Conn: conn, Store: store, Logs: store, Cache: state.NewCache(state.CacheOptions{}), Build: build,
			Env: os.LookupEnv, Drain: 5 * time.Second, Records: 20, Sample: 1,
			Documents: func(context.Context, string) (document.Store, error) { return m.docs, nil },
		}
		if kind == topology.KindSpout {
			w.Source = m.source
		}
		ctx, cancel := context.WithCancel(context.Background())
		var done sync.WaitGroup
		done.Go(func() {
			if err := w.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		t.Cleanup(func() { cancel(); done.Wait() })
	}
	return m
}

func (m *mesh) connect() *jetstream.Conn {
	m.Helper()
	conn, err := jetstream.Connect(m.Context(), jetstream.Options{URL: m.url})
	if err != nil {
		m.Fatal(err)
	}
	m.Cleanup(conn.Close)
	return conn
}

// apply applies the topology while no service runs the bolt's node, which it has to say.
func (m *mesh) apply() {
	m.Helper()
	source, err := os.ReadFile("topology.yaml")
	if err != nil {
		m.Fatal(err)
	}
	top, problems := topology.Parse("topology.yaml", source, topology.Options{Checker: script.Check{}})
	if err := problems.Err(); err != nil {
		m.Fatal(err)
	}
	c, err := control.New(m.Context(), m.connect())
	if err != nil {
		m.Fatal(err)
	}
	m.control = c
	r, err := c.Apply(m.Context(), top.Document, control.ApplyOptions{Timeout: 10 * time.Second})
	if err != nil {
		m.Fatal(err)
	}
	if !slices.Contains(r.Idle, "odometer") {
		m.Errorf("no worker runs the odometer, and apply names only %v", r.Idle)
	}
}

// each reports whether the service's leases of all these workers fulfil ok.
func (m *mesh) each(names [2]string, ok func(member.Member) bool) bool {
	m.Helper()
	members, err := m.control.Members(m.Context(), "odometers")
	if err != nil {
		m.Fatal(err)
	}
	n := 0
	for _, w := range members {
		if w.Node == "odometer" && slices.Contains(names[:], w.Worker) && ok(w) {
			n++
		}
	}
	return n == len(names)
}

func (m *mesh) stored() int64 {
	n, _ := m.docs.Count(context.Background(), "odometers") // of a Memory
	return n
}

func (m *mesh) until(what string, ok func() bool) {
	m.Helper()
	deadline := time.After(2 * time.Minute)
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for !ok() {
		select {
		case <-look.C:
		case <-deadline:
			m.Fatalf("waited in vain until %s: %d documents", what, m.stored())
		}
	}
}

// check compares what is stored with what the rides say: each odometer has passed every one of its values once.
func (m *mesh) check() {
	m.Helper()
	seen := map[string]int{}
	for _, collection := range []string{"odometers", "inspections"} {
		err := m.docs.Each(m.Context(), collection, func(body []byte) error {
			var d struct {
				Device string
				Km     float64
				Rides  int
			}
			err := json.Unmarshal(body, &d)
			seen[fmt.Sprint(collection, " ", d.Device, " ", d.Rides, " ", d.Km)]++
			return err
		})
		if err != nil {
			m.Fatal(err)
		}
	}
	for van := range vans {
		for ride := 1; ride <= rides; ride++ {
			if key := fmt.Sprint("odometers van-", van, " ", ride, " ", float64(10*ride)); seen[key] != 1 {
				m.Errorf("%s: %d times", key, seen[key])
			}
		}
		for km := 1000; km <= 10*rides; km += 1000 {
			for _, collection := range []string{"odometers", "inspections"} { // what the odometer finds due is saved too
				if key := fmt.Sprint(collection, " van-", van, " 0 ", float64(km)); seen[key] != 1 {
					m.Errorf("%s: %d times", key, seen[key])
				}
			}
		}
	}
	if want := vans * (rides + 2*10*rides/1000); len(seen) != want {
		m.Errorf("%d different documents, want %d", len(seen), want)
	}
}

// source is one partition of rides, which are released bit by bit.
type source struct {
	mu        sync.Mutex
	released  int64
	committed int64
	changed   chan struct{}
}

func (*source) Partitions() int { return 1 }

// Run implements service.Source.
func (s *source) Run(stop, hard context.Context, _ service.SourceOptions, handle func(context.Context, service.Partition)) error {
	handle(hard, &partition{source: s})
	<-stop.Done()
	return nil
}

func (s *source) release(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.released = int64(n)
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *source) done() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.committed == vans*rides
}

// partition implements service.Partition.
type partition struct {
	*source
	next int64
}

func (*partition) Topic() string              { return "rides" }
func (*partition) Index() int                 { return 0 }
func (*partition) Start() int64               { return 0 }
func (*partition) Look(context.Context) error { return nil }

func (p *partition) End() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.released
}

func (p *partition) Commit(_ context.Context, floor int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.committed = max(p.committed, floor)
	return nil
}

func (p *partition) Next(ctx context.Context) (records []spout.Record, next int64, err error) {
	for {
		p.mu.Lock()
		until, changed := p.released, p.changed
		p.mu.Unlock()
		for ; p.next < until && len(records) < 20; p.next++ {
			records = append(records, spout.Record{
				Offset: p.next, Time: p.next, Stream: "rides",
				Value: fmt.Appendf(nil, `{"device":"van-%d","ts":%d,"km":10}`, p.next%vans, p.next),
			})
		}
		if len(records) > 0 {
			return records, p.next, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, p.next, ctx.Err()
		}
	}
}
