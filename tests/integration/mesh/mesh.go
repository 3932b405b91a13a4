// Package mesh runs boltmesh as it is deployed: the five services as processes of their own, any number of each, on real servers.
// The integration tests and the chaos program start one, break parts of it and look at what it has stored.
// It knows no testing.T, decides nothing about what is right, and leaves no process behind.
package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/tests/servers"
)

// Kinds are the services, in the order in which a reading meets them.
var Kinds = [...]string{"spout", "convert", "stat", "alarm", "output"}

// Root is how many records a spout emits at once: few, so that a fault repeats little.
const Root = 250

const module = "github.com/boltmesh/boltmesh"

// Build compiles the five services and the CLI into dir.
func Build(ctx context.Context, dir string) error {
	argv := []string{"build", "-o", dir + string(filepath.Separator), module + "/cmd/boltmesh"}
	for _, kind := range Kinds {
		argv = append(argv, module+"/services/"+kind)
	}
	if out, err := exec.CommandContext(ctx, "go", argv...).CombinedOutput(); err != nil {
		return fmt.Errorf("build the services: %w\n%s", err, out)
	}
	return nil
}

// Options say what to start. Bin and Dir are required.
type Options struct {
	Bin      string         // where Build has put the programs
	Dir      string         // for the data and the log of every process, each in a directory of its own name
	Replicas map[string]int // by kind; 1 where it says nothing
	Flags    []string       // of every service
	Env      []string       // of every service: NAME=value
	Kafka    []string       // properties of the broker
	Jaeger   bool           // trace every reading
}

// Mesh is everything that runs. Servers and services are processes to be killed, stopped, paused and restarted as they are.
type Mesh struct {
	NATS, Kafka, Redis, Mongo *servers.Process
	Jaeger                    *servers.Process              // nil unless asked for
	Services                  map[string][]*servers.Process // by kind; URL is where /metrics is
	Control                   *control.Control
	Letters                   *jetstream.Letters

	conn    *jetstream.Conn
	options Options
}

// Start starts the servers, then the services, and returns when all of them are ready. On an error everything is closed again.
func Start(ctx context.Context, o Options) (*Mesh, error) {
	m := &Mesh{Services: map[string][]*servers.Process{}, options: o}
	if err := m.start(ctx); err != nil {
		tails := &strings.Builder{}
		m.Tails(tails, 10)
		m.Close()
		return nil, fmt.Errorf("%w\n%s", err, tails)
	}
	return m, nil
}

func (m *Mesh) start(ctx context.Context) (err error) {
	var all together
	all.start(ctx, &m.NATS, servers.NATS, servers.Options{Dir: m.dir("nats")})
	all.start(ctx, &m.Kafka, servers.Kafka, servers.Options{Dir: m.dir("kafka"), Config: m.options.Kafka})
	all.start(ctx, &m.Redis, servers.Redis, servers.Options{Dir: m.dir("redis")})
	all.start(ctx, &m.Mongo, servers.Mongo, servers.Options{Dir: m.dir("mongo")})
	if m.options.Jaeger {
		all.start(ctx, &m.Jaeger, servers.Jaeger, servers.Options{Dir: m.dir("jaeger")})
	}
	if err := all.wait(); err != nil {
		return err
	}
	if m.conn, err = jetstream.Connect(ctx, jetstream.Options{URL: m.NATS.URL, Name: "tests"}); err != nil {
		return err
	}
	if m.Control, err = control.New(ctx, m.conn); err != nil {
		return err
	}
	if m.Letters, err = m.conn.Letters(ctx); err != nil {
		return err
	}
	for _, kind := range Kinds {
		n := max(1, m.options.Replicas[kind])
		m.Services[kind] = make([]*servers.Process, n)
		for i := range n {
			name := fmt.Sprintf("%s-%d", kind, i)
			all.start(ctx, &m.Services[kind][i], m.service(kind, name).Start, servers.Options{Dir: m.dir(name)})
		}
	}
	return all.wait()
}

// Join starts one more replica of a kind, under a name that no other has had at the same time. It is the caller's to stop and to close: the mesh does not know it.
func (m *Mesh) Join(ctx context.Context, kind, name string) (*servers.Process, error) {
	return m.service(kind, name).Start(ctx, servers.Options{Dir: m.dir(name), StartTimeout: startTimeout})
}

// service is how one replica of a kind is started.
func (m *Mesh) service(kind, name string) servers.Program {
	return servers.Program{
		Name: name, Ready: "/readyz", Hide: "BOLTMESH_", Env: append([]string{"BOLTMESH_KAFKA_BROKERS=" + m.Kafka.URL}, m.options.Env...),
		Argv: func(addr string) []string {
			argv := []string{
				filepath.Join(m.options.Bin, kind), "--worker", name, "--http", addr,
				"--nats-url", m.NATS.URL, "--redis-url", m.Redis.URL, "--mongo-uri", m.Mongo.URL, "--drain-timeout", "15s",
				"--fetch-records", strconv.Itoa(Root),
			}
			if m.Jaeger != nil {
				argv = append(argv, "--otlp", m.Jaeger.URLs["otlp-http"], "--sample-ratio", "1")
			}
			return append(argv, m.options.Flags...)
		},
	}
}

func (m *Mesh) dir(name string) string { return filepath.Join(m.options.Dir, name) }

// Processes are all that were started, servers first.
func (m *Mesh) Processes() []*servers.Process {
	out := []*servers.Process{m.NATS, m.Kafka, m.Redis, m.Mongo, m.Jaeger}
	for _, kind := range slices.Sorted(maps.Keys(m.Services)) {
		out = append(out, m.Services[kind]...)
	}
	return slices.DeleteFunc(out, func(p *servers.Process) bool { return p == nil })
}

// Dead names the processes that do not run.
func (m *Mesh) Dead() (names []string) {
	for _, p := range m.Processes() {
		if !p.Running() {
			names = append(names, p.Name)
		}
	}
	return names
}

// Tails writes the last lines of every process's log.
func (m *Mesh) Tails(w io.Writer, lines int) {
	for _, p := range m.Processes() {
		text, err := os.ReadFile(p.LogFile())
		if err != nil {
			text = []byte(err.Error())
		}
		all := strings.Split(strings.TrimSpace(string(text)), "\n")
		fmt.Fprintf(w, "--- end of %s\n%s\n", p.LogFile(), strings.Join(all[max(0, len(all)-lines):], "\n"))
	}
}

// Close kills everything. The directories stay.
func (m *Mesh) Close() {
	if m.conn != nil {
		m.conn.Close()
	}
	for _, p := range slices.Backward(m.Processes()) {
		p.Close()
	}
}

const startTimeout = 2 * time.Minute // a busy machine starts all of them at once

// together starts processes at the same time.
type together struct {
	group sync.WaitGroup
	mu    sync.Mutex
	errs  []error
}

func (t *together) start(ctx context.Context, into **servers.Process, s servers.Starter, o servers.Options) {
	o.StartTimeout = startTimeout
	t.group.Go(func() {
		p, err := s(ctx, o)
		t.mu.Lock()
		defer t.mu.Unlock()
		*into = p
		if err != nil {
			t.errs = append(t.errs, err)
		}
	})
}

func (t *together) wait() error {
	t.group.Wait()
	return errors.Join(t.errs...)
}
