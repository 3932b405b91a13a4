package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/boltmesh/boltmesh/pkg/archive"
	calls "github.com/boltmesh/boltmesh/pkg/call"
	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/document"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/observe"
	"github.com/boltmesh/boltmesh/pkg/service"
	"github.com/boltmesh/boltmesh/pkg/sqlite"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/services"
)

// mesh is one topology's services in this process, one worker each, with SQLite for state and documents unless it is given other stores, on brokers that run already.
type mesh struct {
	meshOptions
	source        topology.Document
	plan          *topology.Plan
	documentsFile string

	observer  *observe.Observer
	state     *sqlite.DB
	documents *sqlite.DB
	archives  string // the file
	conn      *jetstream.Conn
	control   *control.Control
	stopping  []func() // in the order in which the services stop
	closing   []func() error
}

// meshOptions say what runs in a mesh and what it stands on.
type meshOptions struct {
	name    string // of the program: dev, bench
	dir     string // of the SQLite files
	nats    string
	brokers []string                            // of Kafka
	kinds   []string                            // services, in the order in which tuples meet them, which is the order in which they drain
	workers map[string]string                   // further workers: name -> kind
	records int                                 // of a root; default 2000
	fetch   int                                 // frames of a batch; default 16
	from    service.Source                      // instead of Kafka
	builds  map[string]service.Build            // of services that are not the built-in ones, or not quite, by kind or by worker
	sink    func(trace.Sink) trace.Sink         // what sees the events before the observer does
	storing func(document.Store) document.Store // what sees the documents before their store does; nil: nothing
	keep    keeper                              // of state and logs, instead of a SQLite file
	store   document.Store                      // instead of a SQLite file
	http    string                              // where the observer listens; "": nowhere
	otlp    string
	sample  float64
	log     io.Writer
}

// keeper is a store of both, state and logs.
type keeper interface {
	state.Store
	state.Logs
}

// kinds are the built-in services in the order in which tuples meet them.
var kinds = []string{topology.KindSpout, topology.KindConvert, topology.KindStat, topology.KindAlarm, topology.KindOutput}

// build returns what makes a service's bolts; nil for a spout.
func (o meshOptions) build(kind, worker string) service.Build {
	for _, of := range []string{worker, kind} {
		if b := o.builds[of]; b != nil {
			return b
		}
	}
	switch kind {
	case topology.KindConvert:
		return services.Convert
	case topology.KindStat:
		return services.Stat
	case topology.KindAlarm:
		return services.Alarm
	case topology.KindOutput:
		return services.Output
	}
	return nil
}

// open opens the stores of t.
func (m *mesh) open(t *topology.Topology) (err error) {
	if m.plan, err = t.Plan(); err != nil {
		return err
	}
	m.source = t.Document
	file := filepath.Join(m.dir, "state.db")
	if m.state, err = sqlite.Open(file); err != nil {
		return err
	}
	m.closing = append(m.closing, m.state.Close)
	name := m.plan.Topology.Output.Database
	if name == "" {
		name = m.plan.Topology.Name
	}
	m.documentsFile = service.SQLiteFile(file, name)
	if m.documents, err = sqlite.Open(m.documentsFile); err != nil {
		return err
	}
	m.closing = append(m.closing, m.documents.Close)
	if m.keep == nil {
		m.keep = m.state.State()
	}
	if m.store == nil {
		m.store = m.documents.Documents()
	}
	if m.storing != nil {
		m.store = m.storing(m.store)
	}
	m.archives = service.ArchivesFile(file)
	return nil
}

// start connects and starts the workers; nothing runs until the topology is applied.
func (m *mesh) start(ctx context.Context) (err error) {
	if m.observer, err = observe.New(observe.Options{
		Service: m.name, Version: service.Version(), Worker: m.name, LogLevel: slog.LevelWarn, LogWriter: m.log,
		HTTPAddr: m.http, OTLP: m.otlp, SampleRatio: m.sample,
	}); err != nil {
		return err
	}
	m.closing = append(m.closing, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		return m.observer.Close(ctx)
	})
	if m.conn, err = jetstream.Connect(ctx, jetstream.Options{URL: m.nats, Name: "boltmesh-" + m.name}); err != nil {
		return err
	}
	m.closing = append(m.closing, func() error { m.conn.Close(); return nil })
	m.observer.Handle("POST /call/{topology}", calls.New(m.conn)) // as a spout does
	if m.control, err = control.New(ctx, m.conn); err != nil {
		return err
	}
	for _, kind := range m.kinds {
		if err := m.run(ctx, kind, m.name+"-"+kind); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.workers)) {
		if err := m.run(ctx, m.workers[name], name); err != nil {
			return err
		}
	}
	return nil
}

// run starts a worker of one kind, on a connection of its own, as its service would have.
func (m *mesh) run(ctx context.Context, kind, name string) error {
	conn, err := jetstream.Connect(ctx, jetstream.Options{URL: m.nats, Name: "boltmesh-" + name})
	if err != nil {
		return err
	}
	w := &service.Worker{
		Kind: kind, Name: name, Version: service.Version(), AnyBuild: true, Conn: conn, Store: m.keep, Logs: m.keep,
		Cache: state.NewCache(state.CacheOptions{}), Sample: m.observer.SampleRatio(), Drain: 10 * time.Second,
		Lease:   time.Minute, // nobody takes over from this process, however busy it is
		Records: cmp.Or(m.records, 2000), Fetch: cmp.Or(m.fetch, 16),
		Sink: m.sink(m.observer.Sink()), Env: os.LookupEnv, Build: m.build(kind, name),
		Documents: func(context.Context, string) (document.Store, error) { return m.store, nil },
	}
	archives := &service.Archives{
		Conn: conn, Worker: w.Name, Sink: w.Sink,
		Open: func(ctx context.Context) (archive.Store, error) { return service.OpenArchivesFile(ctx, m.archives) },
	}
	w.Build = archives.Build(w.Build)
	if kind == topology.KindSpout {
		if w.Source = m.from; m.from == nil {
			w.Source = inKafka{&services.Kafka{}, m}
		}
	}
	stopping, stop := context.WithCancel(context.WithoutCancel(ctx))
	var done sync.WaitGroup
	done.Go(func() {
		if err := w.Run(stopping); err != nil {
			m.observer.Logger().Error("worker stopped", "kind", kind, "error", err.Error())
		}
		archives.Close()
		conn.Close()
	})
	m.stopping = append(m.stopping, func() { stop(); done.Wait() })
	return nil
}

// apply applies the topology and waits for the services.
func (m *mesh) apply(ctx context.Context) error {
	_, err := m.control.Apply(ctx, m.source, control.ApplyOptions{Timeout: 30 * time.Second})
	return err
}

// kafka points a spout at the broker of the mesh, whatever the topology says.
func (m *mesh) kafka(k topology.Kafka) topology.Kafka {
	k.Brokers, k.TLS, k.SASL = strings.Join(m.brokers, ","), nil, nil
	return k
}

// inKafka is the Kafka source with the mesh's broker.
type inKafka struct {
	*services.Kafka
	m *mesh
}

func (d inKafka) Run(stop, hard context.Context, o service.SourceOptions, handle func(context.Context, service.Partition)) error {
	o.Kafka = d.m.kafka(o.Kafka)
	return d.Kafka.Run(stop, hard, o, handle)
}

// stop drains the services one after the other, from the spout on, and closes what they used.
func (m *mesh) stop() (err error) {
	for _, f := range m.stopping {
		f()
	}
	m.stopping = nil
	for i := len(m.closing) - 1; i >= 0; i-- {
		err = errors.Join(err, m.closing[i]())
	}
	m.closing = nil
	return err
}
