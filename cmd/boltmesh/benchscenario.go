package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/service"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// scenario is one kind of work. What it does not say, it does not do.
type scenario struct {
	name     string
	what     string
	topology string
	generate bool // the spout makes the tuples itself
	preload  bool // readings are in Kafka before it begins
	rate     int  // readings a second produced while it runs, and timed until their alarms are out
	idle     bool // nothing is to be done
}

// scenarios lists them in the order in which they run.
func scenarios() []scenario {
	return []scenario{
		{name: "transport", what: "generating spout -> 3 pass-through bolts -> null sink, 256-byte tuples", topology: transportTopology, generate: true},
		{name: "hop", what: "generating spout -> 2 pass-through bolts -> null sink, workers compete for each", topology: fmt.Sprintf(chainTopology, "shuffle"), generate: true},
		{name: "local", what: "the same, with the second bolt in the loop of the first", topology: fmt.Sprintf(chainTopology, "local_or_shuffle"), generate: true},
		{name: "device-expr", what: "Kafka -> convert -> stat, alarm -> output, in expressions", topology: deviceSpout + exprBolts, preload: true},
		{name: "device-js", what: "the same in JavaScript", topology: deviceSpout + jsBolts, preload: true},
		{name: "store-all", what: "device-expr, and every reading stored", topology: deviceSpout + saved(exprBolts), preload: true},
		{name: "latency", what: "device-expr at 1,000 readings/s: from the moment a reading is due to its alarm tuple", topology: deviceSpout + exprBolts + probeBolts, rate: 1000},
		{name: "idle", what: "device-expr without readings", topology: deviceSpout + exprBolts, idle: true},
	}
}

// meter sums up what a mesh has done; its sink is called from many loops.
type meter struct {
	done      atomic.Int64 // readings whose trees are complete
	replayed  atomic.Int64 // roots
	bad       atomic.Int64 // tuples that were dead-lettered
	mu        sync.Mutex
	latencies *histogram // nil: not counted yet
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

// null drops every tuple.
type null struct{}

func (null) Execute(context.Context, *tuple.Tuple, *bolt.Collector) error { return nil }

// probe notes how old a tuple is: its event time is the moment at which its reading was due.
type probe struct {
	m    *meter
	from *atomic.Int64 // ms: earlier readings do not count
}

func (p probe) Execute(_ context.Context, t *tuple.Tuple, _ *bolt.Collector) error {
	if t.Time >= p.from.Load() {
		p.m.took(time.Since(time.UnixMilli(t.Time)))
	}
	return nil
}

// trial is one run of a scenario, with its reference.
type trial struct {
	scenario
	*benchFlags
	dir     string
	brokers *brokers
	mesh    *mesh
	meter   *meter
	from    atomic.Int64 // ms: readings due earlier are warm-up
}

// try measures a scenario once, on brokers of its own, right after its reference.
func (f *benchFlags) try(ctx context.Context, s scenario) (r result, err error) {
	t := &trial{scenario: s, benchFlags: f, meter: &meter{}}
	if t.dir, err = os.MkdirTemp("", "boltmesh-bench-"); err != nil {
		return r, err
	}
	defer os.RemoveAll(t.dir)
	if t.brokers, err = startBrokers(ctx, filepath.Join(t.dir, "brokers")); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, t.brokers.stop()) }()
	ref, err := t.reference(ctx)
	if err == nil && s.preload {
		err = produce(ctx, t.brokers.Kafka, f.readings)
	}
	if err != nil {
		return r, err
	}
	if err = t.begin(ctx); err == nil {
		r, err = t.take(ctx)
	}
	r.Name = s.name
	r.relate(ref)
	return r, errors.Join(err, t.mesh.stop())
}

// measured is what the reference came to.
type measured struct {
	perSecond float64
	cpu       time.Duration // per message, of both processes
	p50       time.Duration // of the bare chain; 0 when it was not asked for
}

func (t *trial) reference(ctx context.Context) (m measured, err error) {
	from, err := t.look("usage")
	if err != nil {
		return m, err
	}
	n, elapsed, err := reference(ctx, t.brokers.NATS, t.compared)
	if err != nil {
		return m, fmt.Errorf("reference: %w", err)
	}
	to, err := t.look("usage")
	if err != nil {
		return m, err
	}
	m.perSecond = float64(n) / elapsed.Seconds()
	m.cpu = (to.engine.CPU + to.brokers.CPU - from.engine.CPU - from.brokers.CPU) / time.Duration(n)
	if t.rate > 0 {
		h, err := bareChain(ctx, t.brokers.NATS, t.rate, t.warm, t.measure)
		if err != nil {
			return m, fmt.Errorf("bare chain: %w", err)
		}
		m.p50 = h.quantile(0.5)
	}
	return m, nil
}

// options are those of a mesh with a worker of each kind.
func (t *trial) options() meshOptions {
	return meshOptions{
		name: "bench", dir: t.dir, nats: t.brokers.NATS, brokers: t.brokers.Kafka, kinds: append(slices.Clone(kinds), benchService),
		builds: map[string]service.Build{benchService: t.build}, sink: t.meter.sink, log: os.Stderr,
	}
}

// begin starts the mesh and applies the topology.
func (t *trial) begin(ctx context.Context) error { return t.beginWith(ctx, t.options()) }

func (t *trial) beginWith(ctx context.Context, o meshOptions) error {
	t.mesh = &mesh{meshOptions: o}
	if t.generate {
		t.mesh.from = generator{devPartitions}
	}
	top, err := parseBench(t.topology)
	if err != nil {
		return err
	}
	if err := t.mesh.open(top); err != nil {
		return err
	}
	debug.FreeOSMemory() // what the reference and the run before have left
	if err := t.mesh.start(ctx); err != nil {
		return err
	}
	return t.mesh.apply(ctx)
}

func (t *trial) build(_ context.Context, n service.Node) (bolt.Bolt, error) {
	switch n.ID {
	case "probe":
		return probe{t.meter, &t.from}, nil
	case "sink":
		return null{}, nil
	}
	return pass{}, nil
}

// take warms up and measures.
func (t *trial) take(ctx context.Context) (r result, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute+t.warm+4*t.measure, errors.New("nothing moves any more"))
	defer cancel()
	sent := func() (int64, error) { return 0, nil }
	switch {
	case t.idle:
	case t.rate > 0:
		t.from.Store(time.Now().Add(t.warm).UnixMilli())
		w := producer(t.brokers.Kafka, time.Millisecond, 1000)
		defer w.Close()
		sent = t.produce(ctx, w)
	default:
		if err := until(ctx, func() bool { return t.meter.done.Load() > 0 }); err != nil {
			return r, fmt.Errorf("wait for the first reading: %w", context.Cause(ctx))
		}
	}
	most := int64(1 << 62)
	if t.preload {
		most = int64(t.readings)
	}
	begin := time.Now().Add(t.warm) // or when a fifth of what there is has gone: the rest is to be measured
	if err := until(ctx, func() bool { return !time.Now().Before(begin) || t.meter.done.Load() >= most/5 }); err != nil {
		return r, context.Cause(ctx)
	}
	if t.rate == 0 {
		t.meter.swap(&histogram{})
	}
	from, err := t.look("profile")
	if err != nil {
		return r, err
	}
	end := time.Now().Add(t.measure)
	if err := until(ctx, func() bool { return !time.Now().Before(end) || t.meter.done.Load() >= most }); err != nil {
		return r, context.Cause(ctx)
	}
	to, err := t.look("profiled")
	if err != nil {
		return r, err
	}
	n, err := sent()
	if err != nil {
		return r, err
	}
	if err := until(ctx, func() bool { return t.meter.done.Load() >= n }); err != nil {
		return r, fmt.Errorf("wait for the last reading: %w", context.Cause(ctx))
	}
	if bad := t.meter.bad.Load(); bad > 0 {
		return r, fmt.Errorf("%d tuples were dead-lettered", bad)
	}
	r = to.since(from)
	r.Replayed = t.meter.replayed.Load()
	r.latencies(t.meter.swap(nil))
	return r, nil
}

// produce sends toggling readings at the scenario's rate.
func (t *trial) produce(ctx context.Context, w *kafka.Writer) func() (int64, error) {
	t.meter.swap(&histogram{})
	w.Async = true
	i := 0
	return paced(ctx, t.rate, t.warm+t.measure, func(due []time.Time) error {
		var ms []kafka.Message
		for _, at := range due {
			ms = append(ms, toggling(i, at))
			i++
		}
		return w.WriteMessages(ctx, ms...)
	})
}

// moment is what has been used and done until then.
type moment struct {
	at              time.Time
	engine, brokers usage
	mallocs         uint64
	done            int64
}

// look takes stock; with "profile" or "profiled" it also begins or ends the profiles, if any are wanted.
func (t *trial) look(what string) (m moment, err error) {
	if t.profile == "" {
		what = "usage"
	}
	line := what
	if what == "profile" {
		line += " " + t.profile + ".brokers"
	}
	if m.brokers, err = t.brokers.ask(line); err != nil {
		return m, err
	}
	if what == "profiled" {
		pprof.StopCPUProfile()
	}
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	m.at, m.engine, m.mallocs, m.done = time.Now(), processUsage(), mem.Mallocs, t.meter.done.Load()
	if what != "profile" {
		return m, nil
	}
	file, err := os.Create(t.profile)
	if err != nil {
		return m, err
	}
	return m, pprof.StartCPUProfile(file) // closed with the process
}
