package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/boltmesh/boltmesh/pkg/service"
	"github.com/boltmesh/boltmesh/pkg/spout"
)

// benchDevices is how many devices readings come from, unless a scenario says otherwise.
const benchDevices = 1000

// generator is a spout's source that makes its records itself: opaque payloads of some bytes, without end.
type generator struct{ partitions, payload int }

// Partitions implements service.Source.
func (g generator) Partitions() int { return g.partitions }

// Run implements service.Source.
func (g generator) Run(stop, hard context.Context, o service.SourceOptions, handle func(context.Context, service.Partition)) error {
	var running sync.WaitGroup
	for i := range g.partitions {
		running.Go(func() { handle(hard, newGenerated(i, o.Records, g.payload)) })
	}
	running.Wait()
	return nil
}

// generated is one partition of it.
type generated struct {
	index, records int
	keys, values   [][]byte
	next           atomic.Int64
	batches        [waiting][]spout.Record // of records, used in turn
	turn           int
}

// waiting is more batches than wait at once: the engine reads two ahead of the one that it emits.
const waiting = 8

func newGenerated(index, records, payload int) *generated {
	g := &generated{index: index, records: min(records, max(1, fetched/payload)), values: opaque(payload, uint64(index))}
	for d := range benchDevices {
		g.keys = append(g.keys, fmt.Appendf(nil, "device-%04d", d))
	}
	return g
}

func (g *generated) Topic() string              { return benchTopic }
func (g *generated) Index() int                 { return g.index }
func (g *generated) Start() int64               { return 0 }
func (g *generated) Look(context.Context) error { return nil }

func (g *generated) End() int64                          { return g.next.Load() }
func (g *generated) Commit(context.Context, int64) error { return nil }

// fetched is how many bytes of payload come at once at most, as many as from Kafka.
const fetched = 2 << 20

// Next returns the next records at once.
func (g *generated) Next(ctx context.Context) ([]spout.Record, int64, error) {
	first := g.next.Load()
	g.turn = (g.turn + 1) % waiting
	if g.batches[g.turn] == nil {
		g.batches[g.turn] = make([]spout.Record, g.records)
	}
	records, now := g.batches[g.turn], time.Now().UnixMilli()
	for i := range records {
		o := first + int64(i)
		records[i] = spout.Record{Offset: o, Key: g.keys[o%benchDevices], Value: g.values[o%int64(len(g.values))], Time: now, Stream: benchTopic}
	}
	g.next.Store(first + int64(len(records)))
	return records, g.next.Load(), ctx.Err()
}

// opaqueBytes is about how much text opaque makes: more than any compressor of single frames looks back over.
const opaqueBytes = 1 << 20

// opaque returns different payloads of size bytes, as one JSON field of random letters, the same for the same seed. There is nothing in them to compress
// but that letters are 6 bits.
func opaque(size int, seed uint64) [][]byte {
	const frame = `{"opaque":""}`
	random := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	values := make([][]byte, max(16, opaqueBytes/size))
	bytes := make([]byte, size)
	for i := range values {
		_, _ = random.Read(bytes) // never fails
		letters := base64.RawURLEncoding.EncodeToString(bytes)
		values[i] = fmt.Appendf(nil, `{"opaque":"%s"}`, letters[:size-len(frame)])
	}
	return values
}
