package mesh

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/boltmesh/boltmesh/pkg/feed"
	"github.com/boltmesh/boltmesh/pkg/script"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// Partitions is how many partitions the topics have that the mesh creates.
const Partitions = 4

const (
	poll    = 100 * time.Millisecond
	silence = 5 * time.Second // of one question
)

// CLI runs the boltmesh command against this mesh and returns what it has printed.
func (m *Mesh) CLI(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(m.options.Bin, "boltmesh"), args...)
	cmd.Env = append(os.Environ(), "BOLTMESH_NATS_URL="+m.NATS.URL, "BOLTMESH_KAFKA_BROKERS="+m.Kafka.URL)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("boltmesh %s: %w\n%s%s", strings.Join(args, " "), err, out, said.Bytes())
	}
	return out, nil
}

// Apply makes the services run a topology file. Its topics are created; they are where ${BOLTMESH_KAFKA_BROKERS} is.
func (m *Mesh) Apply(ctx context.Context, file string) (*topology.Topology, error) {
	source, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	t, problems := topology.Parse(file, source, topology.Options{
		Vars: m.vars, Checker: script.Check{},
		Script: func(name string) (string, error) {
			text, err := os.ReadFile(filepath.Join(filepath.Dir(file), name))
			return string(text), err
		},
	})
	if err := problems.Err(); err != nil {
		return nil, err
	}
	if err := m.createTopics(ctx, t.Spout.Kafka.Topics); err != nil {
		return nil, err
	}
	_, err = m.CLI(ctx, "apply", file)
	return t, err
}

func (m *Mesh) vars(name string) (string, bool) { return m.Kafka.URL, name == "BOLTMESH_KAFKA_BROKERS" }

func (m *Mesh) createTopics(ctx context.Context, names []string) error {
	ask := &kafka.CreateTopicsRequest{}
	for _, name := range names {
		ask.Topics = append(ask.Topics, kafka.TopicConfig{Topic: name, NumPartitions: Partitions, ReplicationFactor: 1})
	}
	client, done := m.kafka()
	defer done()
	answer, err := client.CreateTopics(ctx, ask)
	if err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	for name, err := range answer.Errors {
		if err != nil && !errors.Is(err, kafka.TopicAlreadyExists) {
			return fmt.Errorf("create topic %s: %w", name, err)
		}
	}
	return nil
}

func (m *Mesh) kafka() (client *kafka.Client, done func()) {
	transport := &kafka.Transport{}
	return &kafka.Client{Addr: kafka.TCP(m.Kafka.URL), Transport: transport, Timeout: silence}, transport.CloseIdleConnections
}

// Produce writes records to one partition and returns the offset of the first of them.
func (m *Mesh) Produce(ctx context.Context, topic string, partition int, records ...kafka.Record) (int64, error) {
	client, done := m.kafka()
	defer done()
	answer, err := client.Produce(ctx, &kafka.ProduceRequest{
		Topic: topic, Partition: partition, RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(records...),
	})
	if err == nil {
		err = answer.Error
	}
	if err != nil {
		return 0, fmt.Errorf("produce to %s/%d: %w", topic, partition, err)
	}
	return answer.BaseOffset, nil
}

// Ends are the end offsets of a topic's partitions, by "<topic>/<partition>".
func (m *Mesh) Ends(ctx context.Context, topic string) (map[string]int64, error) {
	var ask []kafka.OffsetRequest
	for p := range Partitions {
		ask = append(ask, kafka.LastOffsetOf(p))
	}
	client, done := m.kafka()
	defer done()
	answer, err := client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: ask}})
	if err != nil {
		return nil, fmt.Errorf("offsets of %s: %w", topic, err)
	}
	ends := map[string]int64{}
	for _, p := range answer.Topics[topic] {
		if p.Error != nil {
			return nil, fmt.Errorf("offsets of %s/%d: %w", topic, p.Partition, p.Error)
		}
		ends[fmt.Sprintf("%s/%d", topic, p.Partition)] = p.LastOffset
	}
	return ends, nil
}

// Feed writes files into the topic of a topology, rate rows per second (0: as fast as it goes), and returns how many were sent. Each row enters once,
// however often it is fed.
func (m *Mesh) Feed(ctx context.Context, t *topology.Topology, rate int, files ...string) (int64, error) {
	args := []string{"feed", "--topology", t.Document.Name, "-o", "json"}
	if rate > 0 {
		args = append(args, "--rate", strconv.Itoa(rate))
	}
	out, err := m.CLI(ctx, append(args, files...)...)
	if err != nil {
		return 0, err
	}
	var said feed.Result
	if err := json.Unmarshal(out, &said); err != nil {
		return 0, fmt.Errorf("boltmesh feed printed %q: %w", out, err)
	}
	return said.Sent(), nil
}

// Settle waits until everything in the topology's topics is processed, then makes every open window emit and waits for that too. Errors on the way (a
// server is just coming back) are asked over again until ctx ends; then the last one, or what is still missing, is the error.
func (m *Mesh) Settle(ctx context.Context, t *topology.Topology) error {
	err := Until(ctx, func(ctx context.Context) error {
		ends := map[string]int64{}
		for _, topic := range t.Spout.Kafka.Topics {
			of, err := m.Ends(ctx, topic)
			if err != nil {
				return err
			}
			maps.Copy(ends, of)
		}
		p, err := m.Control.Progress(ctx, t.Name)
		if err != nil {
			return err
		}
		if behind := p.Behind(ends); behind != "" {
			return errors.New(behind)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("settle %s: %w", t.Name, err)
	}
	return m.Control.Flush(ctx, t.Name)
}

// Until asks again until ask returns nil, or ctx ends: then the error has what ask said last. Each ask is given five seconds.
func Until(ctx context.Context, ask func(context.Context) error) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	last := errors.New("nothing was asked")
	for {
		one, cancel := context.WithTimeout(ctx, silence)
		err := ask(one)
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() == nil { // otherwise it only says that time is over
			last = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w; last: %w", ctx.Err(), last)
		}
	}
}
