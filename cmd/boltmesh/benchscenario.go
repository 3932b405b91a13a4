package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/document"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// scenario is one kind of work. What it does not say, it does not do.
type scenario struct {
	name     string
	what     string
	topology string

	generate bool // the spout makes the tuples itself
	payload  int  // bytes of each; 0: referenceBytes
	copies   int  // that the last pass-through bolt makes of each; 0: 1
	workers  int  // among which the bolts that hand tuples on are divided; 0: 1

	preload bool // readings are in Kafka before it begins
	from    readings
	seen    int  // readings that have passed before anything is measured, however long it takes
	store   bool // beside what its document store does by itself
	apart   bool // each service is a process of its own

	rate int  // readings a second produced while it runs, and timed until their alarms are out
	half bool // the rate is half of what device-expr has just come to
	idle bool // nothing is to be done
}

// memoryDevices are those of the scenario `memory`.
const memoryDevices = 100_000

// scenarios lists them in the order in which they run.
func scenarios() []scenario {
	device := deviceSpout + exprBolts
	return []scenario{
		{name: "transport", what: "generating spout -> 3 pass-through bolts -> null sink, opaque tuples of 256 bytes", topology: transport(4), generate: true},
		{name: "hop", what: "generating spout -> 2 pass-through bolts -> null sink, workers compete for each", topology: fmt.Sprintf(chainTopology, "shuffle"), generate: true},
		{name: "local", what: "the same, with the second bolt in the loop of the first", topology: fmt.Sprintf(chainTopology, "local_or_shuffle"), generate: true},
		{name: "device-expr", what: "Kafka -> convert -> stat, alarm -> output, in expressions", topology: device, preload: true},
		{name: "device-js", what: "the same in JavaScript", topology: deviceSpout + jsBolts, preload: true},
		{name: "store-all", what: "device-expr, and every reading stored; beside bulk writes of the same documents", topology: deviceSpout + saved(exprBolts), preload: true, store: true},
		{name: "latency", what: "device-expr at 1,000 readings/s: from the moment a reading is due to its alarm tuple", topology: device, rate: 1000, from: readings{toggle: true}},
		{name: "half", what: "device-expr at half of what it has just come to: from the moment a reading is due to its alarm tuple", topology: device, half: true},
		{name: "memory", what: "device-expr with 100,000 devices, each service a process of its own", topology: device, preload: true, apart: true, seen: memoryDevices, from: readings{devices: memoryDevices}},
		{name: "idle", what: "device-expr without readings", topology: device, idle: true},
	}
}

// devices says whether it is the device job, which has state and documents to keep.
func (s scenario) devices() bool { return !s.generate }

// meter sums up what a mesh has done; its sink is called from many loops.
type meter struct {
	done      atomic.Int64 // readings whose trees are complete
	replayed  atomic.Int64 // roots
	bad       atomic.Int64 // tuples that were dead-lettered
	stored    atomic.Int64 // documents, each as often as it was written
	mu        sync.Mutex
	latencies *histogram // of whole trees; nil: not counted yet
}

func (m *meter) sink(next trace.Sink) trace.Sink {
	return func(e trace.Event) {
		switch e := e.(type) {
		case trace.Completed:
			if e.Task >= 0 { // not a tick
				m.done.Add(e.Next - e.Root.First)
				m.took(e.Latency)
			}
		case trace.Overdue:
			m.replayed.Add(1)
		case trace.Stepped:
			m.bad.Add(int64(e.DeadLettered))
		case trace.Emitted:
			m.bad.Add(int64(e.Rejected))
		}
		next.Emit(e)
	}
}

// storing counts what a store takes.
func (m *meter) storing(s document.Store) document.Store { return &storing{s, m} }

type storing struct {
	document.Store
	m *meter
}

func (s *storing) Write(ctx context.Context, docs []document.Document) ([]document.Refusal, error) {
	refused, err := s.Store.Write(ctx, docs)
	if err == nil {
		s.m.stored.Add(int64(len(docs) - len(refused)))
	}
	return refused, err
}

func (m *meter) took(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.latencies != nil {
		m.latencies.add(d)
	}
}

// swap begins to count latencies, or ends it, and returns those counted.
func (m *meter) swap(next *histogram) *histogram {
	m.mu.Lock()
	defer m.mu.Unlock()
	last := m.latencies
	m.latencies = next
	return last
}

// pass hands every tuple on.
type pass struct{}

func (pass) Execute(_ context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	c.Emit(bolt.Emission{Key: t.Key, Time: t.Time, Payload: t.Payload})
	return nil
}

// copying makes several tuples of every one.
type copying struct{ copies int }

func (m copying) Execute(ctx context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	for range m.copies {
		if err := (pass{}).Execute(ctx, t, c); err != nil {
			return err
		}
	}
	return nil
}

// null drops every tuple.
type null struct{}

func (null) Execute(context.Context, *tuple.Tuple, *bolt.Collector) error { return nil }
