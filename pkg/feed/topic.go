package feed

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	brokers "github.com/boltmesh/boltmesh/services/spout/kafka"
)

// transport carries requests to the brokers.
type transport = kafka.RoundTripper

// Bounds of requests.
const (
	requestTimeout = 10 * time.Second
	fetchBytes     = 4 << 20
	fetchWait      = 250 * time.Millisecond
)

// topic is the topic being fed.
type topic struct {
	client     *kafka.Client
	name       string
	brokers    string
	partitions []int
	close      func()
}

// dial prepares a client. No connection is opened yet.
func dial(o Options) (*topic, error) {
	k := o.Spout.Kafka
	if k.Brokers == "" {
		return nil, errors.New("no Kafka broker to feed to: spout.kafka.brokers is empty")
	}
	t, err := brokers.Transport(k)
	if err != nil {
		return nil, err
	}
	t.ClientID = "boltmesh-feed"
	var via transport = t
	if o.wrap != nil {
		via = o.wrap(t)
	}
	return &topic{
		client: &kafka.Client{Addr: kafka.TCP(strings.Split(k.Brokers, ",")...), Transport: via, Timeout: requestTimeout},
		name:   o.Topic, brokers: k.Brokers, close: t.CloseIdleConnections,
	}, nil
}

// ensure learns the topic's partitions, and creates it when it is missing.
func (t *topic) ensure(ctx context.Context, partitions int) error {
	err := t.look(ctx)
	if errors.Is(err, kafka.UnknownTopicOrPartition) {
		if err = t.create(ctx, partitions); err != nil {
			return err
		}
		err = t.answers(ctx)
		for errors.Is(err, kafka.UnknownTopicOrPartition) || errors.Is(err, kafka.LeaderNotAvailable) || errors.Is(err, kafka.NotLeaderForPartition) {
			if e := pause(ctx, 100*time.Millisecond); e != nil {
				return e
			}
			err = t.answers(ctx)
		}
	}
	return err
}

// answers looks at a topic and asks each partition's leader: a broker that has just been made one may not know yet.
func (t *topic) answers(ctx context.Context) error {
	err := t.look(ctx)
	if err == nil {
		_, err = t.spans(ctx)
	}
	return err
}

func (t *topic) look(ctx context.Context) error {
	m, err := t.client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{t.name}})
	if err != nil {
		return fmt.Errorf("the brokers at %s do not answer: %w: check spout.kafka, and that the brokers run", t.brokers, err)
	}
	t.partitions = nil
	for _, found := range m.Topics {
		if found.Name != t.name {
			continue
		}
		if found.Error != nil {
			return fmt.Errorf("topic %s: %w", t.name, found.Error)
		}
		for i := range found.Partitions {
			t.partitions = append(t.partitions, i) // partitions are numbered from 0
		}
	}
	if len(t.partitions) == 0 {
		return fmt.Errorf("topic %s: %w", t.name, kafka.UnknownTopicOrPartition)
	}
	return nil
}

func (t *topic) create(ctx context.Context, partitions int) error {
	r, err := t.client.CreateTopics(ctx, &kafka.CreateTopicsRequest{
		Topics: []kafka.TopicConfig{{Topic: t.name, NumPartitions: partitions, ReplicationFactor: -1}}, // -1: as the brokers are configured
	})
	if err == nil {
		err = r.Errors[t.name]
	}
	if err != nil && !errors.Is(err, kafka.TopicAlreadyExists) {
		return fmt.Errorf("create topic %s: %w", t.name, err)
	}
	return nil
}

// span is the part of a partition's log that is there.
type span struct{ first, end int64 }

// spans returns where the partitions' logs begin and end now.
func (t *topic) spans(ctx context.Context) ([]span, error) {
	var ask []kafka.OffsetRequest
	for _, p := range t.partitions {
		ask = append(ask, kafka.FirstOffsetOf(p), kafka.LastOffsetOf(p))
	}
	r, err := t.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{t.name: ask}})
	if err != nil {
		return nil, fmt.Errorf("offsets of topic %s: %w", t.name, err)
	}
	out := make([]span, len(t.partitions))
	known := 0
	for _, p := range r.Topics[t.name] {
		if p.Error != nil {
			return nil, fmt.Errorf("offsets of %s/%d: %w", t.name, p.Partition, p.Error)
		}
		if p.Partition < len(out) {
			out[p.Partition] = span{p.FirstOffset, p.LastOffset}
			known++
		}
	}
	if known < len(out) {
		return nil, fmt.Errorf("offsets of topic %s: the brokers told those of %d partitions out of %d", t.name, known, len(out))
	}
	return out, nil
}

// ends returns the end offsets by "<topic>/<partition>".
func (t *topic) ends(ctx context.Context) (map[string]int64, error) {
	spans, err := t.spans(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]int64{}
	for p, s := range spans {
		out[fmt.Sprintf("%s/%d", t.name, p)] = s.end
	}
	return out, nil
}

// scan calls f with every record of a partition from offset from up to, but not including, end. What f gets is only good during the call.
func (t *topic) scan(ctx context.Context, partition int, from, end int64, f func(*kafka.Record)) error {
	empty := 0
	for next := from; next < end; {
		r, err := t.client.Fetch(ctx, &kafka.FetchRequest{
			Topic: t.name, Partition: partition, Offset: next, MinBytes: 1, MaxBytes: fetchBytes, MaxWait: fetchWait,
		})
		if err == nil {
			err = r.Error
		}
		if err != nil {
			return fmt.Errorf("read %s/%d at %d: %w", t.name, partition, next, err)
		}
		before := next
		for next < end {
			rec, err := r.Records.ReadRecord()
			if err != nil {
				break // the end of the fetch, or a batch cut off by its limit, which the next one begins with
			}
			if rec.Offset >= next && rec.Offset < end {
				f(rec)
			}
			next = max(next, rec.Offset+1)
			release(rec)
		}
		if empty++; next > before {
			empty = 0
		}
		if empty == 4 { // compaction or a transaction's marker leaves offsets without a record
			next, empty = next+1, 0
		}
	}
	return nil
}

func release(r *kafka.Record) {
	if r.Key != nil {
		_ = r.Key.Close()
	}
	if r.Value != nil {
		_ = r.Value.Close()
	}
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
