package spout

import (
	"context"
	"encoding/hex"
	"math"
	"strings"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Partition turns the records of one Kafka partition into roots: it decodes what belongs to the topology, dead-letters what cannot be decoded, and
// counts the rest as not its business.
type Partition struct {
	*Loop
	Topic   string
	decoder *Decoder
	edges   []bolt.Edge
	letters bolt.Letters
	lag     int64   // of the watermark, ms
	sample  float64 // share of tuples whose trace is recorded
	next    int64
	seen    int64 // greatest event time emitted
	marks   []mark
	low     int64 // watermark: greatest event time below the floor, minus lag
}

// mark remembers the greatest event time among the offsets below next, until the floor gets there.
type mark struct{ next, seen int64 }

// PartitionOptions say what a partition's records are and where they go.
type PartitionOptions struct {
	Topic   string
	Decoder *Decoder
	Edges   []bolt.Edge
	Letters bolt.Letters
	Lag     int64   // ms
	Sample  float64 // 0..1
}

// NewPartition returns a partition that begins at o.Floor.
func NewPartition(o Options, p PartitionOptions) *Partition {
	return &Partition{
		Loop: New(o), Topic: p.Topic, decoder: p.Decoder, edges: p.Edges, letters: p.Letters, lag: p.Lag, sample: p.Sample,
		next: o.Floor, seen: math.MinInt64, low: math.MinInt64,
	}
}

// Next returns the offset behind everything emitted.
func (p *Partition) Next() int64 { return p.next }

// Traces returns the offset below which an earlier generation may have emitted what the floor does not count as processed yet: a spout that takes over
// during a pause emits so far, lest its predecessor's traces meet another revision. end is that of the log. Call it before the first Offer.
func (p *Partition) Traces(end int64) int64 { return min(end, p.committed+p.reach()) }

// reach is how far beyond the committed floor offsets are emitted: the floor, from which the span counts, may be ahead of it by another span.
func (p *Partition) reach() int64 { return 2 * p.Ledger.Span }

// Offer emits records, which follow on each other, as one root that ends at next: the offset at which the following fetch will begin.
func (p *Partition) Offer(ctx context.Context, records []Record, next int64) error {
	if next <= p.next {
		return nil
	}
	said := trace.Emitted{Where: p.Where, Records: len(records), At: p.Clock.Now()}
	tuples := make([]tuple.Tuple, 0, len(records))
	for i := range records {
		r := &records[i]
		if r.Offset < p.next {
			continue // before the floor: a broker may return a whole stored batch
		}
		if r.Value == nil || !p.decoder.Accepts(r) {
			said.Skipped++
			continue
		}
		id := tuple.RootID(tuple.Position{Origin: p.Origin, Offset: r.Offset})
		known, err := p.letters.Known(ctx, id)
		if err != nil {
			return err
		}
		if known { // buried by an earlier generation: it may have been replayed since
			said.Skipped++
			continue
		}
		reading, err := p.decoder.Decode(r)
		if err != nil {
			said.Rejected++
			if err := p.bury(ctx, r, err); err != nil {
				return err
			}
			continue
		}
		t := p.tuple(id, r, reading)
		if !reading.Future {
			p.seen = max(p.seen, t.Time)
		}
		tuples = append(tuples, t)
	}
	if p.Ledger.Span > 0 && next > p.committed+p.reach() { // a successor would not know how far traces go
		if err := p.Settle(ctx); err != nil {
			return err
		}
	}
	first := p.next
	p.next = next
	p.marks = append(p.marks, mark{next, p.seen})
	err := p.Emit(ctx, first, next, p.edges, tuples)
	said.Accepted, said.Root = len(tuples), tuple.Root{Origin: p.Origin, First: first, Attempt: p.ledger.Attempt()}
	p.tell(said, tuples, records)
	return err
}

func (p *Partition) tuple(id tuple.ID, r *Record, reading Reading) tuple.Tuple {
	t := tuple.Tuple{
		ID: id, Offset: r.Offset, Stream: tuple.DefaultStream,
		Key: reading.Key, Time: reading.Time, Payload: reading.Payload,
	}
	if parent, ok := parseParent(r.Parent); ok {
		t.Trace.TraceID = parent.TraceID
		copy(t.Trace.SpanID[:], t.ID[8:])
	} else if p.sample > 0 && float64(uint32(t.ID[0])<<16|uint32(t.ID[1])<<8|uint32(t.ID[2])) < p.sample*(1<<24) {
		t.Trace.TraceID = t.ID // so a tuple's id is its trace's
		copy(t.Trace.SpanID[:], t.ID[8:])
	}
	return t
}

// parseParent reads a W3C traceparent header (https://www.w3.org/TR/trace-context/) that asks for sampling.
func parseParent(s string) (t tuple.Trace, ok bool) {
	if s == "" { // most often
		return t, false
	}
	f := strings.Split(s, "-")
	if len(f) != 4 || len(f[1]) != 32 || len(f[2]) != 16 || len(f[3]) != 2 {
		return t, false
	}
	flags, err := hex.DecodeString(f[3])
	if err != nil || flags[0]&1 == 0 {
		return t, false
	}
	if _, err := hex.Decode(t.TraceID[:], []byte(f[1])); err != nil {
		return t, false
	}
	_, err = hex.Decode(t.SpanID[:], []byte(f[2]))
	return t, err == nil && t.Sampled()
}

// bury stores a record that cannot be decoded among the dead letters; it counts as handled.
func (p *Partition) bury(ctx context.Context, r *Record, why error) error {
	at := tuple.Position{Origin: p.Origin, Offset: r.Offset}
	payload, size := r.Value, 0
	if len(payload) > tuple.MaxPayload {
		payload, size = payload[:4<<10], len(payload)
	}
	traced := ""
	if parent, ok := parseParent(r.Parent); ok {
		traced = tuple.ID(parent.TraceID).String()
	}
	return p.letters.Put(ctx, &tuple.Letter{
		ID: tuple.RootID(at), Topology: p.Where.Topology, Node: p.Where.Node, Task: p.Where.Task, Worker: p.Where.Worker, Revision: p.Revision,
		Key: string(r.Key), Record: r.Key, Time: r.Time, Payload: payload, Size: size, Origin: p.Origin, Offset: r.Offset, Generation: p.Generation,
		Topic: p.Topic, Partition: int(p.Where.Task), Error: why.Error(), Tries: 1, TraceID: traced, FailedAt: p.Clock.Now().UnixMilli(),
	})
}

func (p *Partition) tell(said trace.Emitted, tuples []tuple.Tuple, records []Record) {
	if p.Sink == nil {
		return
	}
	p.Sink(said)
	now := p.Clock.Now()
	parents := map[int64]string{}
	for i := range records {
		if records[i].Parent != "" {
			parents[records[i].Offset] = records[i].Parent
		}
	}
	for i := range tuples {
		t := &tuples[i]
		if !t.Trace.Sampled() {
			continue
		}
		parent, _ := parseParent(parents[t.Offset])
		p.Sink(trace.Received{
			Where: p.Where, Tuple: t.ID, Root: said.Root, Offset: t.Offset, Key: t.Key, Stream: t.Stream,
			Topic: p.Topic, Partition: int(p.Where.Task), Parent: parent, Trace: t.Trace, Begun: said.At, Emitted: now,
		})
	}
}

// Mark reports how far the partition is. The watermark follows the floor, not the emission: below it every reading has been processed, so a tick that
// carries it cannot overtake them.
func (p *Partition) Mark() member.Mark {
	for len(p.marks) > 0 && p.marks[0].next <= p.Floor() {
		if p.marks[0].seen != math.MinInt64 {
			p.low = p.marks[0].seen - p.lag
		}
		p.marks = p.marks[1:]
	}
	return member.Mark{Topic: p.Topic, Partition: int(p.Where.Task), Watermark: p.low, Floor: p.Floor(), Next: p.next}
}
