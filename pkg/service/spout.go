package service

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/boltmesh/boltmesh/pkg/ack"
	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Source is where a spout's records come from.
type Source interface {
	// Run is a member of the consumer group of a topology until stop ends. It calls handle, on a goroutine of its own, for every partition that it
	// is assigned, with a context that ends when the partition is taken away or hard ends, and waits for handle before it leaves the group.
	Run(stop, hard context.Context, o SourceOptions, handle func(ctx context.Context, p Partition)) error
	// Partitions returns how many partitions the topics have together; 0 when that is not known yet.
	Partitions() int
}

// SourceOptions say what to read.
type SourceOptions struct {
	Topology string
	Kafka    topology.Kafka // resolved
	Group    string
	Records  int // most records handed over at once
	Failed   func(doing string, err error)
	// Processed returns the offset of a partition below which everything is processed, as noted last; 0 when nothing is. A group that has committed
	// less, or nothing, must be refused: it was set back by hand.
	Processed func(ctx context.Context, topic string, partition int) (floor int64, err error)
}

// Partition is one assigned partition.
type Partition interface {
	Topic() string
	Index() int
	// Start is the offset to begin at: what the group has committed, or where the configuration says. Every offset below counts as processed.
	Start() int64
	// Next waits for records that follow on the last ones and returns them with the offset behind them; none when ctx ends.
	Next(ctx context.Context) (records []spout.Record, next int64, err error)
	// End is the offset behind the last record of the log, as last seen by Next or Look.
	End() int64
	// Look learns End while Next is not called: it may be called at the same time as Commit.
	Look(ctx context.Context) error
	// Commit makes floor the group's offset. An error that wraps spout.ErrStale says that the partition has another owner.
	Commit(ctx context.Context, floor int64) error
}

const (
	spoutTick  = 100 * time.Millisecond // how often overdue roots are looked for and the floor is committed
	idleAfter  = 5 * time.Second        // a partition at its log's end for so long no longer holds the watermark back
	replayRoom = 64 << 20               // bytes of payload kept for replay per partition
)

// spout runs the spout node: the partitions that the consumer group assigns, and the tick log if this worker gets its lease.
func (h *host) spout(ctx context.Context) {
	var owning sync.WaitGroup
	owning.Go(func() { h.tickOwner(ctx) })
	owning.Go(func() { h.replayOwner(ctx) })
	owning.Go(func() { h.callOwner(ctx) })
	owning.Go(func() { h.commandOwner(ctx) })
	defer owning.Wait()
	spec := h.plan.Topology.Spout
	if !spec.Reads() {
		<-ctx.Done()
		return
	}
	kafka, err := spec.Kafka.Resolve(h.Env)
	if err != nil {
		h.failed(h.at(), "resolve the Kafka settings", err)
		return
	}
	group := kafka.Group
	if group == "" {
		group = "boltmesh-" + h.plan.Topology.Name
	}
	h.convoy = &convoy{ctx: h.hard, outbox: h.outbox, most: h.rootSize(), start: h.loops.Go, joined: map[tuple.Origin]time.Time{}}
	o := SourceOptions{
		Topology: h.plan.Topology.Name, Kafka: kafka, Group: group, Records: h.rootSize(),
		Failed:    func(doing string, err error) { h.troubled(h.at(), doing, err) },
		Processed: h.processed,
	}
	h.repeat(ctx, func() error {
		return h.Source.Run(ctx, h.hard, o, func(assigned context.Context, p Partition) {
			where := h.at()
			where.Task = int32(p.Index())
			if err := h.partition(ctx, assigned, where, p); err != nil && assigned.Err() == nil && !errors.Is(err, spout.ErrStale) {
				h.troubled(where, "run the partition", err)
			}
		})
	})
}

// troubled tells of an error, also in the lease.
func (h *host) troubled(where trace.Where, doing string, err error) {
	h.failed(where, doing, err)
	h.lease.update(func(m *member.Member) { m.LastError, m.ErrorAt = err.Error(), time.Now().UnixMilli() })
}

type fetched struct {
	records []spout.Record
	next    int64
}

// partition runs one partition until assigned ends. When ctx ends it emits nothing more and waits for open roots, as long as the drain lasts.
func (h *host) partition(ctx, assigned context.Context, where trace.Where, p Partition) error {
	name, spec := h.plan.Topology.Name, h.plan.Topology.Spout
	log := h.kafkaLog(p.Topic(), p.Index())
	generation, err := h.Logs.Raise(assigned, name, log)
	if err != nil {
		return fmt.Errorf("raise the generation of %s: %w", log, err)
	}
	origin := tuple.OriginOf(name, h.node.ID, p.Topic(), spec.Kafka.Incarnation, fmt.Sprint(p.Index()))
	deltas, stop, err := h.deltas(origin, where)
	if err != nil {
		return err
	}
	defer stop()
	commits, written := h.commits(assigned, where, log, generation, p)
	defer written()
	root := h.rootSize()
	part := spout.NewPartition(spout.Options{
		Where: where, Origin: origin, Generation: generation, Floor: p.Start(), Revision: h.revision,
		Ledger: ack.Options{Timeout: spec.Timeout.Milliseconds(), Span: int64(spec.MaxPending)},
		Outbox: h.outbox, Clock: clock{}, Sink: h.completed, Commit: commits.commit, Begin: commits.begin, Holders: h.holders,
		Carry: func(ctx context.Context, tuples int, pack func() *bolt.Packer, load func(*bolt.Packer) error) (bool, error) {
			if !gathers(tuples, root) {
				return false, nil
			}
			return true, h.convoy.carry(ctx, origin, tuples, pack, load)
		},
	}, spout.PartitionOptions{
		Topic: p.Topic(), Decoder: spout.NewDecoder(spec), Edges: edges(h.plan, &h.node), Letters: h.dead,
		Lag: spec.Time.Lag.Milliseconds(), Sample: h.Sample,
	})
	h.Sink.Emit(trace.Changed{Where: where, What: "partition taken", Revision: h.revision, Epoch: uint64(generation)})
	defer h.Sink.Emit(trace.Changed{Where: where, What: "partition released", Revision: h.revision, Epoch: uint64(generation)})
	records := h.fetch(assigned, where, p)
	defer h.forget(part)
	if !h.introducePartition(ctx, assigned, part) {
		return nil
	}
	tick := time.NewTicker(spoutTick)
	defer tick.Stop()
	lastRecord, draining := time.Now(), false
	traces := part.Traces(p.End())
	if h.told().rested {
		traces = 0 // there are none
	}
	for {
		in, pause := records, h.told().pause()
		if part.Next() < traces {
			pause = 0
		}
		if draining = draining || ctx.Err() != nil; draining || pause > 0 || !part.Room(part.Next()+int64(root)-1, replayRoom) {
			in = nil
		}
		select {
		case ds := <-deltas:
			part.Apply(ds)
			drain(deltas, part.Apply)
		case f := <-in:
			lastRecord = time.Now()
			if err := part.Offer(assigned, f.records, f.next); err != nil {
				return err
			}
			if !gathers(len(f.records), root) {
				h.convoy.pace.note(time.Since(lastRecord))
			}
		case <-tick.C:
			if err := part.Tick(assigned); err != nil {
				return err
			}
			h.mark(part, p.End(), time.Since(lastRecord) > idleAfter, pause)
		case <-assigned.Done():
			settle, cancel := context.WithTimeout(context.WithoutCancel(assigned), time.Second)
			defer cancel()
			return part.Settle(settle)
		}
		if n, _ := part.Open(); draining && n == 0 {
			return part.Settle(assigned)
		}
	}
}

// rootSize is the most records of a root: so many that a span holds several, lest one that is slow holds all back.
func (h *host) rootSize() int {
	return max(1, min(h.Records, h.plan.Topology.Spout.MaxPending/8))
}

// drain gives f everything that waits in ch.
func drain[T any](ch <-chan T, f func(T)) {
	for {
		select {
		case v := <-ch:
			f(v)
		default:
			return
		}
	}
}

// deltas subscribes to an origin's deltas. The channel holds what arrives while the loop publishes.
func (h *host) deltas(origin tuple.Origin, where trace.Where) (<-chan []tuple.Delta, func(), error) {
	ch := make(chan []tuple.Delta, 4096)
	done := make(chan struct{})
	stop, err := h.Conn.SubscribeDeltas(h.plan.Topology.Name, origin, func(ds []tuple.Delta, err error) {
		if err != nil {
			h.failed(where, "read deltas", err)
			return
		}
		select {
		case ch <- ds:
		case <-done:
		}
	})
	if err != nil {
		return nil, nil, err
	}
	return ch, func() { close(done); stop() }, nil
}

// fetch reads ahead of the loop, by a few batches. While the loop takes none, it looks how far the log has grown.
func (h *host) fetch(ctx context.Context, where trace.Where, p Partition) <-chan fetched {
	ch := make(chan fetched, 2)
	go func() {
		look := time.NewTicker(time.Second)
		defer look.Stop()
		at := p.Start()
		for ctx.Err() == nil {
			records, next, err := p.Next(ctx)
			came := time.Now()
			if err != nil && ctx.Err() == nil {
				h.failed(where, "fetch", err)
				sleep(ctx, time.Second)
				continue
			}
			for taken := next == at; !taken; { // it may have moved past what is no record, such as a transaction's marker
				select {
				case ch <- fetched{records, next}:
					taken, at = true, next
				case <-look.C:
					if err := p.Look(ctx); err != nil && ctx.Err() == nil {
						h.failed(where, "look at the log's end", err)
					}
				case <-ctx.Done():
					return
				}
			}
			if wait := h.convoy.pace.pause(came, len(records), h.rootSize()) - time.Since(came); wait > 0 {
				sleep(ctx, wait)
			}
		}
	}()
	return ch
}

// mark shows in the lease how far a partition is, and tells the sink.
func (h *host) mark(p *spout.Partition, end int64, quiet bool, pause uint64) {
	k := p.Mark()
	k.End, k.Idle, k.Pause = end, quiet && k.Next >= end && k.Floor >= end, pause
	k.Open, k.Oldest = p.Open()
	came := false // to rest, just now: somebody may be waiting for it
	h.lease.update(func(m *member.Member) { came = h.show(m, k) })
	if came {
		h.lease.kick()
	}
	progress := trace.Progress{
		Where: p.Where, Origin: p.Origin, Floor: k.Floor, Next: k.Next, Lag: max(0, end-k.Next), Open: k.Open, Watermark: k.Watermark,
	}
	if k.Oldest > 0 {
		progress.Oldest = time.UnixMilli(k.Oldest)
	}
	h.Sink.Emit(progress)
}

// show puts a partition into the lease, and reports whether it has just come to rest.
func (h *host) show(m *member.Member, k member.Mark) (came bool) {
	m.Marks = slices.Clone(m.Marks) // the lease may be encoding the old ones
	i := slices.IndexFunc(m.Marks, func(o member.Mark) bool { return o.Topic == k.Topic && o.Partition == k.Partition })
	if i < 0 {
		m.Marks = append(m.Marks, k)
	} else {
		came = k.Rests(k.Pause) && !m.Marks[i].Rests(k.Pause)
		m.Marks[i] = k
	}
	m.Oldest, m.Tasks, m.Partitions = 0, nil, h.Source.Partitions()
	for _, k := range m.Marks {
		m.Tasks = append(m.Tasks, int32(k.Partition))
		if k.Oldest > 0 && (m.Oldest == 0 || k.Oldest < m.Oldest) {
			m.Oldest = k.Oldest
		}
	}
	return came
}

// forget takes a partition that was given up out of the lease.
func (h *host) forget(p *spout.Partition) {
	h.lease.update(func(m *member.Member) {
		m.Marks = slices.DeleteFunc(slices.Clone(m.Marks), func(k member.Mark) bool {
			return k.Topic == p.Topic && k.Partition == int(p.Where.Task)
		})
	})
}
