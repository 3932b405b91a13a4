package spout_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/ack"
	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// nowhere takes frames and forgets them.
type nowhere struct{ frames int }

func (n *nowhere) Publish(_ context.Context, frames []bolt.Outgoing) error {
	n.frames += len(frames)
	return nil
}

// unburied are dead letters that are none.
type unburied struct{}

func (unburied) Put(context.Context, *tuple.Letter) error      { return nil }
func (unburied) Known(context.Context, tuple.ID) (bool, error) { return false, nil }

// halted is a clock that stands still.
type halted struct{}

func (halted) Now() time.Time                                   { return time.UnixMilli(1_000_000) }
func (halted) Sleep(ctx context.Context, _ time.Duration) error { return ctx.Err() }

// BenchmarkOffer measures what becomes of 1,000 records of twelve fields until their frames are handed over. One operation is one record.
func BenchmarkOffer(b *testing.B) {
	const batch = 1000
	var p *spout.Partition
	begin := func(floor int64) {
		p = spout.NewPartition(spout.Options{
			Where: trace.Where{Topology: "t", Node: "readings"}, Origin: 1, Generation: 1, Floor: floor, Ledger: ack.Options{},
			Outbox: &nowhere{}, Clock: halted{}, Commit: func(context.Context, int64) error { return nil },
		}, spout.PartitionOptions{
			Topic:   "readings",
			Letters: unburied{},
			Decoder: spout.NewDecoder(topology.Spout{Key: "device", Time: topology.TimeField{Field: "ts", Unit: "ms"}}),
			Edges:   []bolt.Edge{{To: "clean", Stream: tuple.DefaultStream, Tasks: 8, Key: func(t *tuple.Tuple) (string, bool) { return t.Key, true }}},
		})
	}
	records := make([]spout.Record, batch)
	for i := range records {
		records[i].Value = fmt.Appendf(nil, `{"device":"device-%04d","ts":%d,"site":"site-1","line":3,"temperature":%d.5,"humidity":41.5,"pressure":1001.25,`+
			`"voltage":229.1,"current":3.75,"rpm":1450,"status":"running","seq":%d}`, i, 1_000_000+i, i%100, i)
	}
	next := int64(0)
	b.ReportAllocs()
	for b.Loop() {
		if next++; next%batch != 0 {
			continue
		}
		begin(next - batch) // nothing is open: what was emitted before is complete
		for i := range records {
			records[i].Offset = next - batch + int64(i)
		}
		if err := p.Offer(context.Background(), records, next); err != nil {
			b.Fatal(err)
		}
	}
}
