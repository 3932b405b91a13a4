package bolt_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// passing hands every tuple on.
type passing struct{}

func (passing) Execute(_ context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	c.Emit(bolt.Emission{Key: t.Key, Time: t.Time, Payload: t.Payload})
	return nil
}

// BenchmarkStep measures one Step over a frame of 256 tuples, on transports and a store in memory: what the engine itself costs. One operation is one
// tuple.
func BenchmarkStep(b *testing.B) {
	b.Run("stateless", func(b *testing.B) { benchmarkStep(b, passing{}) })
	b.Run("stateful", func(b *testing.B) { benchmarkStep(b, &counting{}) })
}

func benchmarkStep(b *testing.B, bolt bolt.Bolt) {
	b.Helper()
	const frame = 256
	h := bolttest.New(b, bolt)
	tuples := make([]tuple.Tuple, frame)
	next := int64(0)
	b.ReportAllocs()
	for b.Loop() {
		if next%frame != 0 {
			next++
			continue
		}
		b.StopTimer()
		h.Published()
		h.Deltas, h.Floor = h.Deltas[:0], next // everything before has been processed
		for i := range tuples {
			o := next + int64(i)
			at := tuple.Position{Origin: bolttest.Origin, Offset: o}
			tuples[i] = tuple.Tuple{
				ID: tuple.RootID(at), Offset: o, Stream: tuple.DefaultStream, Key: fmt.Sprintf("device-%03d", o%1000), Time: 1,
				Root:    tuple.Root{Origin: bolttest.Origin, First: next, Attempt: tuple.Attempt{Generation: 1}, Floor: next},
				Payload: make([]byte, 256),
			}
			copy(tuples[i].Payload, `{"opaque":"`)
		}
		h.Push("source", tuples...)
		b.StartTimer()
		if _, err := h.Loop.Step(context.Background()); err != nil {
			b.Fatal(err)
		}
		next++
	}
}
