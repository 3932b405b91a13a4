// Package kafka is the spout's source: a member of a Kafka consumer group that hands each assigned partition to the engine and commits what the engine
// says is fully processed, in the generation in which the partition was assigned. The spout service and `boltmesh dev` run it.
// It never interprets a record and never commits an offset on its own account.
package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// Times of the group protocol. A member that is killed is missed after session; brokers refuse less than 6 s by default.
const (
	session    = 6 * time.Second
	heartbeat  = time.Second
	rebalance  = 15 * time.Second
	lookAround = 5 * time.Second        // of a member without partitions
	maxWait    = 250 * time.Millisecond // of one fetch without records
	maxBytes   = 2 << 20                // of one fetch
)

// Group is a member of the consumer group of one topology.
type Group struct {
	Kafka   topology.Kafka // resolved
	ID      string
	Records int // most records handed over at once; default 2000
	// Handle runs one partition until its context ends or the drain is over. It is called on a goroutine of its own.
	Handle func(ctx context.Context, p *Partition)
	Failed func(doing string, err error)
	// Processed returns the offset of a partition below which everything is known to be processed, whatever the group has committed; 0 when nothing
	// is known. A group that has committed less was set back by hand, and is refused. nil: nothing is known of any partition.
	Processed func(ctx context.Context, topic string, partition int) (floor int64, err error)

	client     *kafka.Client
	partitions *atomic.Int64
	balancer   kafka.GroupBalancer // nil: round robin
}

// Run is a member until stop ends and every partition's handler has returned; hard ends the handlers' contexts too.
func (g *Group) Run(stop, hard context.Context, partitions *atomic.Int64) error {
	transport, dialer, err := dialers(g.Kafka)
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	if g.Records <= 0 {
		g.Records = 2000
	}
	brokers := strings.Split(g.Kafka.Brokers, ",")
	g.partitions = partitions
	g.client = &kafka.Client{Addr: kafka.TCP(brokers...), Transport: transport, Timeout: 10 * time.Second}
	if err := g.awaitTopics(stop); err != nil {
		return err
	}
	if g.balancer == nil {
		g.balancer = kafka.RoundRobinGroupBalancer{}
	}
	group, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: g.ID, Brokers: brokers, Dialer: dialer, Topics: g.Kafka.Topics,
		GroupBalancers:    []kafka.GroupBalancer{g.balancer},
		HeartbeatInterval: heartbeat, SessionTimeout: session, RebalanceTimeout: rebalance, JoinGroupBackoff: time.Second,
		WatchPartitionChanges: true, PartitionWatchInterval: 5 * time.Second,
		StartOffset: kafka.FirstOffset, // stands for "nothing committed": Start is resolved by this package
	})
	if err != nil {
		return fmt.Errorf("join group %s: %w", g.ID, err)
	}
	defer func() { _ = group.Close() }()
	for {
		gen, err := group.Next(stop)
		switch {
		case stop.Err() != nil:
			return nil
		case errors.Is(err, kafka.RebalanceInProgress):
			continue // another member came meanwhile: leaving now would only start one more rebalance
		case err != nil:
			return fmt.Errorf("group %s: %w", g.ID, err)
		}
		if !g.generation(stop, hard, gen) {
			return nil
		}
	}
}

// generation runs the partitions of one generation. It returns false once stop has ended and all handlers are done.
func (g *Group) generation(stop, hard context.Context, gen *kafka.Generation) bool {
	var handlers sync.WaitGroup
	done := make(chan struct{})
	over := make(chan struct{})
	none := true
	commits := &committer{send: gen.CommitOffsets}
	for topic, assigned := range gen.Assignments {
		for _, a := range assigned {
			none = false
			p := &Partition{group: g, commits: commits, topic: topic, id: a.ID}
			handlers.Add(1)
			gen.Start(func(ended context.Context) {
				ctx, cancel := context.WithCancel(ended)
				unhook := context.AfterFunc(hard, cancel)
				g.run(ctx, p, a.Offset)
				unhook()
				cancel()
				handlers.Done()
				if stop.Err() != nil { // the first function to return ends the generation for all: wait for the others
					select {
					case <-done:
					case <-ended.Done():
					}
				}
			})
		}
	}
	if none {
		gen.Start(g.idle)
	}
	gen.Start(func(ended context.Context) { // tells when the generation is over, also when it has no partitions
		select {
		case <-ended.Done():
		case <-done:
		}
		close(over)
	})
	go func() {
		select {
		case <-stop.Done():
			handlers.Wait()
			close(done)
		case <-over:
		}
	}()
	<-over
	return stop.Err() == nil
}

func (g *Group) run(ctx context.Context, p *Partition, committed int64) {
	for ctx.Err() == nil {
		err := p.begin(ctx, committed)
		if err == nil {
			g.Handle(ctx, p)
			return
		}
		g.Failed(fmt.Sprintf("begin partition %s/%d", p.topic, p.id), err)
		wait(ctx, 2*time.Second)
	}
}

// idle waits while this member has no partition, which is right when there are more members than partitions. It returns, and with it the generation ends and the
// group is joined again, when nobody has one: the leader knew of no partition when it shared them out, as happens with a topic that is just being created,
// and the client only looks for changes since then.
func (g *Group) idle(ended context.Context) {
	for ended.Err() == nil {
		wait(ended, lookAround)
		if g.forgotten(ended) {
			g.Failed("share the partitions", fmt.Errorf("no member of group %s has one: joining it again", g.ID))
			return
		}
	}
}

// forgotten reports whether the group is stable and none of its members has a partition.
func (g *Group) forgotten(ctx context.Context) bool {
	r, err := g.client.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{g.ID}})
	if err != nil || len(r.Groups) != 1 || r.Groups[0].Error != nil || r.Groups[0].GroupState != "Stable" {
		return false // it will be known the next time
	}
	for _, m := range r.Groups[0].Members {
		for _, t := range m.MemberAssignments.Topics {
			if len(t.Partitions) > 0 {
				return false
			}
		}
	}
	return true
}

// awaitTopics waits until every topic exists, and counts their partitions.
func (g *Group) awaitTopics(ctx context.Context) error {
	for said := false; ; {
		n, err := g.count(ctx)
		if err == nil {
			g.partitions.Store(int64(n))
			return nil
		}
		if ctx.Err() != nil {
			return nil
		}
		if !said {
			g.Failed("find the topics", err)
			said = true
		}
		wait(ctx, time.Second)
	}
}

func (g *Group) count(ctx context.Context) (n int, err error) {
	m, err := g.client.Metadata(ctx, &kafka.MetadataRequest{Topics: g.Kafka.Topics})
	if err != nil {
		return 0, fmt.Errorf("brokers %s: %w", g.Kafka.Brokers, err)
	}
	for _, t := range m.Topics {
		if t.Error != nil {
			return 0, fmt.Errorf("topic %s: %w: create it, or correct spout.kafka.topics", t.Name, t.Error)
		}
		n += len(t.Partitions)
	}
	return n, nil
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// Partition is one assigned partition.
type Partition struct {
	group   *Group
	commits *committer // of the generation
	topic   string
	id      int
	start   int64
	next    int64
	end     atomic.Int64
	reader  kafka.RecordReader // what is left of the last fetch
}

// Topic returns the partition's topic.
func (p *Partition) Topic() string { return p.topic }

// Index returns its number.
func (p *Partition) Index() int { return p.id }

// Start is the offset at which it begins.
func (p *Partition) Start() int64 { return p.start }

// End is the offset behind the log's last record, as last seen.
func (p *Partition) End() int64 { return p.end.Load() }

// Look learns End while nothing is fetched.
func (p *Partition) Look(ctx context.Context) error {
	_, last, err := p.bounds(ctx)
	if err == nil {
		p.end.Store(last)
	}
	return err
}

// begin decides where to start and makes that durable, so that a crash before the first commit begins at the same place.
func (p *Partition) begin(ctx context.Context, committed int64) error {
	first, last, err := p.bounds(ctx)
	if err != nil {
		return err
	}
	p.end.Store(last)
	if err := p.setBack(ctx, committed); err != nil {
		return err
	}
	switch {
	case committed > last:
		return fmt.Errorf("the group has committed offset %d, but the log ends at %d: if the topic was created anew, give spout.kafka.incarnation another value and the group another name", committed, last)
	case committed >= 0 && committed < first:
		p.group.Failed("fetch", fmt.Errorf("offsets %d to %d of %s/%d are gone: Kafka's retention was shorter than the spout was away", committed, first-1, p.topic, p.id))
		p.start = first
	case committed >= 0:
		p.start = committed
	default:
		if p.start, err = p.configured(ctx, first, last); err != nil {
			return err
		}
	}
	p.next = p.start
	if p.start != committed {
		return p.Commit(ctx, p.start)
	}
	return nil
}

// setBack refuses a group that has committed less than is processed: what lies between would come again under ids that everybody has counted as done,
// and vanish without a word.
func (p *Partition) setBack(ctx context.Context, committed int64) error {
	if p.group.Processed == nil {
		return nil
	}
	floor, err := p.group.Processed(ctx, p.topic, p.id)
	if err != nil || max(committed, 0) >= floor {
		return err
	}
	has := fmt.Sprintf("offset %d", committed)
	if committed < 0 {
		has = "nothing"
	}
	return fmt.Errorf("group %s has committed %s for %s/%d, but everything below offset %d is processed: the group was set back or deleted, or the topic created anew, "+
		"and what lies below would be dropped as known. To process it again, give spout.kafka.incarnation another value; to go on, set the group to offset %[5]d, while no spout runs",
		p.group.ID, has, p.topic, p.id, floor)
}

// configured is where a group begins that has committed nothing.
func (p *Partition) configured(ctx context.Context, first, last int64) (int64, error) {
	switch s := p.group.Kafka.Start; s {
	case "", "earliest":
		return first, nil
	case "latest":
		return last, nil
	case "committed":
		return 0, fmt.Errorf("group %s has committed nothing for %s/%d, and spout.kafka.start is `committed`: commit an offset, or write earliest, latest or a time", p.group.ID, p.topic, p.id)
	default:
		t, err := time.Parse(time.RFC3339, s)
		if err != nil {
			return 0, fmt.Errorf("spout.kafka.start: %w", err)
		}
		o, err := p.list(ctx, kafka.TimeOffsetOf(p.id, t))
		if err != nil {
			return 0, err
		}
		for at := range o.Offsets {
			if at >= 0 {
				return at, nil
			}
		}
		return last, nil // no record is that young
	}
}

func (p *Partition) bounds(ctx context.Context) (first, last int64, err error) {
	o, err := p.list(ctx, kafka.FirstOffsetOf(p.id), kafka.LastOffsetOf(p.id))
	return o.FirstOffset, o.LastOffset, err
}

func (p *Partition) list(ctx context.Context, ask ...kafka.OffsetRequest) (o kafka.PartitionOffsets, err error) {
	r, err := p.group.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{p.topic: ask}})
	if err != nil {
		return o, fmt.Errorf("offsets of %s/%d: %w", p.topic, p.id, err)
	}
	for _, o := range r.Topics[p.topic] {
		if o.Partition == p.id {
			return o, o.Error
		}
	}
	return o, fmt.Errorf("offsets of %s/%d: the broker does not know the partition", p.topic, p.id)
}

// Next waits for records and returns them with the offset behind them; none when nothing came within a fetch's patience.
func (p *Partition) Next(ctx context.Context) ([]spout.Record, int64, error) {
	if p.reader == nil {
		if err := p.fetch(ctx); err != nil {
			return nil, p.next, fmt.Errorf("fetch %s/%d at %d: %w", p.topic, p.id, p.next, err)
		}
	}
	var out []spout.Record
	for len(out) < p.group.Records {
		rec, err := p.reader.ReadRecord()
		if err != nil {
			if errors.Is(err, io.EOF) {
				p.next = max(p.next, behindMarkers(p.reader))
			}
			p.reader = nil
			if errors.Is(err, io.EOF) || len(out) > 0 {
				break // what came whole is good; a broken rest is fetched again
			}
			return nil, p.next, fmt.Errorf("read %s/%d at %d: %w", p.topic, p.id, p.next, err)
		}
		if rec.Offset < p.next {
			release(rec)
			continue // a broker returns whole stored batches
		}
		one, err := record(p.topic, rec)
		release(rec)
		if err != nil {
			p.reader = nil
			return nil, p.next, fmt.Errorf("read %s/%d at %d: %w", p.topic, p.id, rec.Offset, err)
		}
		out = append(out, one)
		p.next = rec.Offset + 1
	}
	return out, p.next, nil
}

// behindMarkers returns the offset behind the last transaction marker in what was fetched; 0 without one. A marker takes an offset but is not handed
// out as a record: unless it is passed, the fetch at its offset repeats for ever.
func behindMarkers(r kafka.RecordReader) (next int64) {
	stream, ok := r.(*protocol.RecordStream)
	if !ok {
		return 0
	}
	for _, b := range stream.Records {
		if marker, ok := b.(*protocol.ControlBatch); ok {
			next = marker.BaseOffset + 1 // there is one to a batch
		}
	}
	return next
}

func (p *Partition) fetch(ctx context.Context) error {
	r, err := p.group.client.Fetch(ctx, &kafka.FetchRequest{
		Topic: p.topic, Partition: p.id, Offset: p.next, MinBytes: 1, MaxBytes: maxBytes, MaxWait: maxWait, IsolationLevel: kafka.ReadCommitted,
	})
	if err != nil {
		return err
	}
	if r.Error != nil {
		return r.Error
	}
	p.end.Store(r.HighWatermark)
	p.reader = r.Records
	return nil
}

// release gives the memory of a record back to the client, which keeps it in pages of 64 KB: without this every fetch leaves one behind.
func release(r *kafka.Record) {
	for _, b := range []kafka.Bytes{r.Key, r.Value} {
		if b != nil {
			_ = b.Close()
		}
	}
}

func record(topic string, r *kafka.Record) (out spout.Record, err error) {
	out = spout.Record{Offset: r.Offset, Time: r.Time.UnixMilli(), Stream: topic}
	if r.Key != nil {
		if out.Key, err = io.ReadAll(r.Key); err != nil {
			return out, err
		}
	}
	if r.Value != nil {
		out.Value = make([]byte, r.Value.Len())
		if _, err = io.ReadFull(r.Value, out.Value); err != nil {
			return out, err
		}
	}
	for _, h := range r.Headers {
		switch h.Key {
		case "stream":
			out.Stream = string(h.Value)
		case "traceparent":
			out.Parent = string(h.Value)
		}
	}
	return out, nil
}

// Commit makes floor the group's offset, in the generation of the assignment.
func (p *Partition) Commit(_ context.Context, floor int64) error {
	err := p.commits.commit(p.topic, p.id, floor)
	if errors.Is(err, kafka.IllegalGeneration) || errors.Is(err, kafka.UnknownMemberId) || errors.Is(err, kafka.RebalanceInProgress) ||
		errors.Is(err, net.ErrClosed) { // a generation's connection is closed with it
		return fmt.Errorf("%w: %w", spout.ErrStale, err)
	}
	return err
}
