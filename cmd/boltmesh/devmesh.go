package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/devstack"
	"github.com/boltmesh/boltmesh/pkg/document"
	"github.com/boltmesh/boltmesh/pkg/observe"
	"github.com/boltmesh/boltmesh/pkg/service"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
	"github.com/boltmesh/boltmesh/services"
)

// devPartitions is the number of partitions of the topics that dev creates.
const devPartitions = 4

// devMesh is everything that `boltmesh dev` runs.
type devMesh struct {
	*mesh
	topics []string
	stack  *devstack.Stack
	counts *counts
}

func startMesh(ctx context.Context, f *devFlags, t *topology.Topology, stderr io.Writer) (m *devMesh, err error) {
	m = &devMesh{counts: newCounts()}
	m.mesh = &mesh{meshOptions: meshOptions{
		name: "dev", dir: f.dataDir, kinds: kinds, builds: map[string]service.Build{topology.KindAlarm: m.alarm}, sink: m.counts.sink,
		http: observe.Auto, otlp: f.otlp, log: stderr,
	}}
	if f.otlp != "" || os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != "" {
		m.sample = 1
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.stop())
			m = nil
		}
	}()
	if err := m.open(t); err != nil {
		return m, err
	}
	if err := m.profiles(ctx, f.archives, stderr); err != nil {
		return m, err
	}
	m.topics = topicsOf(m.plan)
	if m.stack, err = devstack.Start(ctx, devstack.Options{
		Dir: filepath.Join(f.dataDir, "brokers"), Topics: m.topics, KafkaPartitions: devPartitions, SyncInterval: time.Minute,
	}); err != nil {
		return m, err
	}
	m.closing = append(m.closing, m.stack.Close)
	m.nats, m.brokers = m.stack.NATSURL(), m.stack.KafkaBrokers()
	return m, m.start(ctx)
}

// alarm builds the bolt of an alarm node, whose events are counted.
func (m *devMesh) alarm(ctx context.Context, n service.Node) (bolt.Bolt, error) {
	b, err := services.Alarm(ctx, n)
	if err != nil {
		return nil, err
	}
	return m.counts.alarm(n.ID, b), nil
}

func (m *devMesh) origin(topic, partition string) tuple.Origin {
	s := m.plan.Topology.Spout
	return tuple.OriginOf(m.plan.Topology.Name, s.ID, topic, s.Kafka.Incarnation, partition)
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
