package main

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/boltmesh/boltmesh/pkg/service"
	"github.com/boltmesh/boltmesh/pkg/spout"
)

// benchDevices is how many devices readings come from.
const benchDevices = 1000

// generator is a spout's source that makes its records itself: opaque payloads of referenceBytes, without end.
type generator struct{ partitions int }

// Partitions implements service.Source.
func (g generator) Partitions() int { return g.partitions }

// Run implements service.Source.
func (g generator) Run(stop, hard context.Context, o service.SourceOptions, handle func(context.Context, service.Partition)) error {
	var running sync.WaitGroup
	for i := range g.partitions {
		running.Go(func() { handle(hard, newGenerated(i, o.Records)) })
	}
	running.Wait()
	return nil
}

// generated is one partition of it.
type generated struct {
	index, records int
	keys           [][]byte
	value          []byte
	next           atomic.Int64
}

func newGenerated(index, records int) *generated {
	g := &generated{index: index, records: records}
	for d := range benchDevices {
		g.keys = append(g.keys, fmt.Appendf(nil, "device-%04d", d))
	}
	const frame = `{"opaque":""}`
	g.value = fmt.Appendf(nil, `{"opaque":"%s"}`, bytes.Repeat([]byte{'x'}, referenceBytes-len(frame)))
	return g
}

func (g *generated) Topic() string              { return benchTopic }
func (g *generated) Index() int                 { return g.index }
func (g *generated) Start() int64               { return 0 }
func (g *generated) Look(context.Context) error { return nil }

func (g *generated) End() int64                          { return g.next.Load() }
func (g *generated) Commit(context.Context, int64) error { return nil }

// Next returns the next records at once.
func (g *generated) Next(ctx context.Context) ([]spout.Record, int64, error) {
	first := g.next.Load()
	records, now := make([]spout.Record, g.records), time.Now().UnixMilli()
	for i := range records {
		o := first + int64(i)
		records[i] = spout.Record{Offset: o, Key: g.keys[o%benchDevices], Value: g.value, Time: now, Stream: benchTopic}
	}
	g.next.Store(first + int64(len(records)))
	return records, g.next.Load(), ctx.Err()
}

// reading is the i-th reading of the device scenarios, of 12 fields. Temperatures swing, each device in its own phase, so that one reading in a hundred
// raises or clears an alarm.
func reading(i int, at time.Time) kafka.Message {
	device, turn := i%benchDevices, i/benchDevices
	celsius := 60 + 40*math.Sin(2*math.Pi*float64(turn+7*device)/200)
	return message(device, at, celsius*1.8+32, i)
}

// toggling is a reading that raises or clears its device's alarm, always.
func toggling(i int, at time.Time) kafka.Message {
	return message(i%benchDevices, at, []float64{100, 220}[i/benchDevices%2], i)
}

func message(device int, at time.Time, fahrenheit float64, i int) kafka.Message {
	name := fmt.Sprintf("device-%04d", device)
	b := make([]byte, 0, 320)
	b = fmt.Appendf(b, `{"device":%q,"ts":%d,"site":"site-%02d","line":%d,"temperature":`, name, at.UnixMilli(), device%20, device%5)
	b = strconv.AppendFloat(b, fahrenheit, 'f', 2, 64)
	b = fmt.Appendf(b, `,"humidity":%d.5,"pressure":%d.25,"voltage":%d.1,"current":%d.75,"rpm":%d,"status":"running","seq":%d}`,
		30+i%40, 990+i%40, 225+i%10, 1+i%9, 1400+i%200, i)
	return kafka.Message{Key: []byte(name), Value: b, Time: at}
}

// producer writes all readings of a device to one partition.
func producer(brokers []string, linger time.Duration, batch int) *kafka.Writer {
	return &kafka.Writer{
		Addr: kafka.TCP(brokers...), Topic: benchTopic, BatchTimeout: linger, BatchSize: batch, BatchBytes: 900 << 10, RequiredAcks: kafka.RequireOne,
		Balancer: &kafka.Hash{},
	}
}

// produce writes n readings, before anything is measured. One ms of event time passes with each reading.
func produce(ctx context.Context, brokers []string, n int) error {
	w := producer(brokers, 5*time.Millisecond, 2000)
	defer w.Close()
	began := time.Now().Add(-time.Duration(n) * time.Millisecond)
	for i := 0; i < n; {
		batch := make([]kafka.Message, 0, 8*2000)
		for ; len(batch) < cap(batch) && i < n; i++ {
			m := reading(i, began.Add(time.Duration(i)*time.Millisecond))
			batch = append(batch, m)
		}
		if err := w.WriteMessages(ctx, batch...); err != nil {
			return fmt.Errorf("produce readings: %w", err)
		}
	}
	return nil
}
