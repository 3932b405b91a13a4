package kafka_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/boltmesh/boltmesh/pkg/devstack"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/services/spout/kafka"
)

// patience bounds every wait of these tests.
const patience = 20 * time.Second

// broker is a Kafka broker and a client of another make, so that a misreading of the protocol is not read back the same way.
type broker struct {
	t       *testing.T
	address string
	client  *kgo.Client
}

const topic = "readings"

func start(t *testing.T, partitions int) *broker {
	t.Helper()
	s, err := devstack.Start(t.Context(), devstack.Options{Dir: t.TempDir(), Topics: []string{topic}, KafkaPartitions: partitions})
	check(t, err)
	t.Cleanup(func() { check(t, s.Close()) })
	b := &broker{t: t, address: s.KafkaBrokers()[0]}
	b.client = b.dial()
	return b
}

func (b *broker) dial(opts ...kgo.Opt) *kgo.Client {
	b.t.Helper()
	c, err := kgo.NewClient(append(opts, kgo.SeedBrokers(b.address), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.MaxVersions(kversion.V3_0_0()))...) // later ones name topics by their id
	check(b.t, err)
	b.t.Cleanup(c.Close)
	return c
}

// write appends records whose value is their number, each stored at that second.
func (b *broker) write(partition int32, from, to int) {
	b.t.Helper()
	var records []*kgo.Record
	for i := from; i < to; i++ {
		records = append(records, &kgo.Record{Topic: topic, Partition: partition, Value: fmt.Append(nil, i), Timestamp: time.Unix(int64(i), 0)})
	}
	check(b.t, b.client.ProduceSync(b.t.Context(), records...).FirstErr())
}

// commit sets what the group has committed for partition 0, from outside.
func (b *broker) commit(group string, offset int64) {
	b.t.Helper()
	r := kmsg.NewPtrOffsetCommitRequest()
	r.Group, r.Generation = group, -1
	p := kmsg.NewOffsetCommitRequestTopicPartition()
	p.Offset = offset
	r.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: topic, Partitions: []kmsg.OffsetCommitRequestTopicPartition{p}}}
	answer, err := r.RequestWith(b.t.Context(), b.client)
	check(b.t, err)
	if code := answer.Topics[0].Partitions[0].ErrorCode; code != 0 {
		b.t.Fatalf("commit: error %d", code)
	}
}

// committed returns what the group has committed for partition 0; -1 when nothing.
func (b *broker) committed(group string) int64 {
	b.t.Helper()
	r := kmsg.NewPtrOffsetFetchRequest()
	r.Group = group
	r.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: topic, Partitions: []int32{0}}}
	r.Groups = []kmsg.OffsetFetchRequestGroup{{Group: group, MemberEpoch: -1, Topics: []kmsg.OffsetFetchRequestGroupTopic{{Topic: topic, Partitions: []int32{0}}}}}
	answer, err := r.RequestWith(b.t.Context(), b.client)
	check(b.t, err)
	if len(answer.Groups) > 0 {
		return answer.Groups[0].Topics[0].Partitions[0].Offset
	}
	return answer.Topics[0].Partitions[0].Offset
}

// members returns how many members the group has.
func (b *broker) members(group string) int {
	b.t.Helper()
	r := kmsg.NewPtrDescribeGroupsRequest()
	r.Groups = []string{group}
	answer, err := r.RequestWith(b.t.Context(), b.client)
	check(b.t, err)
	return len(answer.Groups[0].Members)
}

// cut deletes the records of partition 0 below offset, as retention does.
func (b *broker) cut(offset int64) {
	b.t.Helper()
	r := kmsg.NewPtrDeleteRecordsRequest()
	r.TimeoutMillis = 5000
	r.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: topic, Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Offset: offset}}}}
	answer, err := r.RequestWith(b.t.Context(), b.client)
	check(b.t, err)
	if code := answer.Topics[0].Partitions[0].ErrorCode; code != 0 {
		b.t.Fatalf("delete records: error %d", code)
	}
}

// member is a running Group.
type member struct {
	t      *testing.T
	given  chan *kafka.Partition // as they are assigned
	failed chan string
	stop   context.CancelFunc
	hard   context.CancelFunc
	done   chan error
	count  atomic.Int64
}

// join runs a member. Without a handler, a partition is held until its assignment or the member ends.
func (b *broker) join(group, begin string, handle func(ctx, stop context.Context, p *kafka.Partition)) *member {
	b.t.Helper()
	return b.joinWith(&kafka.Group{ID: group}, begin, handle)
}

// joinKnowing is join for a member that knows how far partitions are processed.
func (b *broker) joinKnowing(
	group, begin string, handle func(ctx, stop context.Context, p *kafka.Partition), processed func(context.Context, string, int) (int64, error),
) *member {
	b.t.Helper()
	return b.joinWith(&kafka.Group{ID: group, Processed: processed}, begin, handle)
}

// joinWith runs g.
func (b *broker) joinWith(g *kafka.Group, begin string, handle func(ctx, stop context.Context, p *kafka.Partition)) *member {
	b.t.Helper()
	m := &member{t: b.t, given: make(chan *kafka.Partition, 100), failed: make(chan string, 100), done: make(chan error, 1)}
	stop, cancel := context.WithCancel(context.Background())
	hard, kill := context.WithCancel(context.Background())
	m.stop, m.hard = cancel, kill
	if handle == nil {
		handle = func(ctx, stop context.Context, _ *kafka.Partition) { await(ctx, stop) }
	}
	g.Kafka, g.Records = topology.Kafka{Brokers: b.address, Topics: []string{topic}, Start: begin}, 10
	g.Handle = func(ctx context.Context, p *kafka.Partition) {
		m.given <- p
		handle(ctx, stop, p)
	}
	g.Failed = func(doing string, err error) { m.failed <- doing + ": " + err.Error() }
	go func() { m.done <- g.Run(stop, hard, &m.count) }()
	b.t.Cleanup(func() { kill(); m.leave() })
	return m
}

func await(a, b context.Context) {
	select {
	case <-a.Done():
	case <-b.Done():
	}
}

// leave stops the member and waits until it is gone.
func (m *member) leave() {
	m.t.Helper()
	m.stop()
	select {
	case err := <-m.done:
		m.done <- nil // for a second call
		check(m.t, err)
	case <-time.After(patience):
		m.t.Fatal("the member does not stop")
	}
}

func (m *member) partition() *kafka.Partition {
	m.t.Helper()
	select {
	case p := <-m.given:
		return p
	case f := <-m.failed:
		m.t.Fatal(f)
	case err := <-m.done:
		m.done <- nil
		m.t.Fatalf("the member ended: %v", err)
	case <-time.After(patience):
		m.t.Fatal("no partition was assigned")
	}
	return nil
}

func (m *member) failure() string {
	m.t.Helper()
	select {
	case f := <-m.failed:
		return f
	case p := <-m.given:
		m.t.Fatalf("begun at %d, want a refusal", p.Start())
	case <-time.After(patience):
		m.t.Fatal("no failure was told")
	}
	return ""
}

// read takes records from p until it stands at end.
func read(t *testing.T, p *kafka.Partition, end int64) (all []spout.Record) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for next := p.Start(); next < end; {
		records, n, err := p.Next(ctx)
		check(t, err)
		if n < next || len(records) > 10 {
			t.Fatalf("%d records, from %d to %d", len(records), next, n)
		}
		all, next = append(all, records...), n
	}
	return all
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
