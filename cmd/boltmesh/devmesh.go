package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/devstack"
	"github.com/boltmesh/boltmesh/pkg/document"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/observe"
	"github.com/boltmesh/boltmesh/pkg/service"
	"github.com/boltmesh/boltmesh/pkg/sqlite"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
	"github.com/boltmesh/boltmesh/services"
)

// devPartitions is the number of partitions of the topics that dev creates.
const devPartitions = 4

// devMesh is everything that `boltmesh dev` runs.
type devMesh struct {
	source        topology.Document
	plan          *topology.Plan
	topics        []string
	documentsFile string

	stack     *devstack.Stack
	observer  *observe.Observer
	state     *sqlite.DB
	documents *sqlite.DB
	conn      *jetstream.Conn
	control   *control.Control
	counts    *counts
	stopping  []func() // in the order in which the kinds stop
	closing   []func() error
}

// kinds are the services in the order in which tuples meet them, which is the order in which they drain.
var kinds = []string{topology.KindSpout, topology.KindConvert, topology.KindStat, topology.KindAlarm, topology.KindOutput}

func startMesh(ctx context.Context, f *devFlags, t *topology.Topology, stderr io.Writer) (m *devMesh, err error) {
	plan, err := t.Plan()
	if err != nil {
		return nil, err
	}
	m = &devMesh{source: t.Document, plan: plan, topics: topicsOf(plan), counts: newCounts()}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.stop())
			m = nil
		}
	}()
	if err := m.stores(f); err != nil {
		return m, err
	}
	if m.stack, err = devstack.Start(ctx, devstack.Options{
		Dir: filepath.Join(f.dataDir, "brokers"), Topics: m.topics, KafkaPartitions: devPartitions, SyncInterval: time.Minute,
	}); err != nil {
		return m, err
	}
	m.closing = append(m.closing, m.stack.Close)
	sample := 0.0
	if f.otlp != "" || os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != "" {
		sample = 1
	}
	if m.observer, err = observe.New(observe.Options{
		Service: "dev", Version: service.Version(), Worker: "dev", LogLevel: slog.LevelWarn, LogWriter: stderr,
		HTTPAddr: observe.Auto, OTLP: f.otlp, SampleRatio: sample,
	}); err != nil {
		return m, err
	}
	m.closing = append(m.closing, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		return m.observer.Close(ctx)
	})
	if m.conn, err = jetstream.Connect(ctx, jetstream.Options{URL: m.stack.NATSURL(), Name: "boltmesh-dev"}); err != nil {
		return m, err
	}
	m.closing = append(m.closing, func() error { m.conn.Close(); return nil })
	if m.control, err = control.New(ctx, m.conn); err != nil {
		return m, err
	}
	for _, kind := range kinds {
		if err := m.run(ctx, kind); err != nil {
			return m, err
		}
	}
	return m, nil
}

func (m *devMesh) stores(f *devFlags) (err error) {
	file := filepath.Join(f.dataDir, "state.db")
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
	return nil
}

// run starts the worker of one kind, on a connection of its own, as its service would have.
func (m *devMesh) run(ctx context.Context, kind string) error {
	conn, err := jetstream.Connect(ctx, jetstream.Options{URL: m.stack.NATSURL(), Name: "boltmesh-dev-" + kind})
	if err != nil {
		return err
	}
	w := &service.Worker{
		Kind: kind, Name: "dev-" + kind, Version: service.Version(), Conn: conn, Store: m.state.State(), Logs: m.state.State(),
		Cache: state.NewCache(state.CacheOptions{}), Sample: m.observer.SampleRatio(), Drain: 10 * time.Second,
		Lease:   time.Minute, // nobody takes over from this process, however busy it is
		Records: 1000, Fetch: 32,
		Sink: m.counts.sink(m.observer.Sink()), Env: os.LookupEnv,
		Documents: func(context.Context, string) (document.Store, error) { return m.documents.Documents(), nil },
	}
	switch kind {
	case topology.KindSpout:
		w.Source = devKafka{&services.Kafka{}, m}
	case topology.KindConvert:
		w.Build = services.Convert
	case topology.KindStat:
		w.Build = services.Stat
	case topology.KindAlarm:
		w.Build = func(ctx context.Context, n service.Node) (bolt.Bolt, error) {
			b, err := services.Alarm(ctx, n)
			if err != nil {
				return nil, err
			}
			return m.counts.alarm(n.ID, b), nil
		}
	case topology.KindOutput:
		w.Build = services.Output
	}
	stopping, stop := context.WithCancel(context.WithoutCancel(ctx))
	var done sync.WaitGroup
	done.Go(func() {
		if err := w.Run(stopping); err != nil {
			m.observer.Logger().Error("worker stopped", "kind", kind, "error", err.Error())
		}
		conn.Close()
	})
	m.stopping = append(m.stopping, func() { stop(); done.Wait() })
	return nil
}

// kafka points a spout at the broker inside, whatever the topology says.
func (m *devMesh) kafka(k topology.Kafka) topology.Kafka {
	k.Brokers, k.TLS, k.SASL = strings.Join(m.stack.KafkaBrokers(), ","), nil, nil
	return k
}

// devKafka is the Kafka source with the broker inside.
type devKafka struct {
	*services.Kafka
	m *devMesh
}

func (d devKafka) Run(stop, hard context.Context, o service.SourceOptions, handle func(context.Context, service.Partition)) error {
	o.Kafka = d.m.kafka(o.Kafka)
	return d.Kafka.Run(stop, hard, o, handle)
}

func (m *devMesh) origin(topic, partition string) tuple.Origin {
	s := m.plan.Topology.Spout
	return tuple.OriginOf(m.plan.Topology.Name, s.ID, topic, s.Kafka.Incarnation, partition)
}

// stop drains the services one after the other, from the spout on, and closes what they used.
func (m *devMesh) stop() (err error) {
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

// export writes every collection as JSON lines.
func (m *devMesh) export(ctx context.Context, dir string, stderr io.Writer) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	docs := m.documents.Documents()
	names, err := docs.Collections(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		path := filepath.Join(dir, name+".jsonl")
		if err := exportTo(ctx, docs, name, path); err != nil {
			return fmt.Errorf("export %s: %w", path, err)
		}
		fmt.Fprintf(stderr, "wrote %s\n", path)
	}
	return nil
}

func exportTo(ctx context.Context, docs document.Store, collection, path string) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return docs.Each(ctx, collection, func(body []byte) error {
		_, err := file.Write(append(body[:len(body):len(body)], '\n'))
		return err
	})
}
