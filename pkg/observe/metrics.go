package observe

import (
	"fmt"
	"maps"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// counter is an index into a cell.
type counter int

const (
	frames counter = iota
	tuples
	emitted
	acked
	dropped
	held
	deadLettered
	failed
	records
	skipped
	completed
	replayed
	errored
	counters // how many there are
)

// counterNames gives each counter the word that metrics (boltmesh_<word>_total) and log lines use.
var counterNames = [counters]struct{ word, help string }{
	frames:       {"frames", "Frames handled by a bolt."},
	tuples:       {"tuples", "Tuples handled by a bolt, whatever became of them."},
	emitted:      {"emitted", "Tuples emitted; by a spout also those emitted again."},
	acked:        {"acked", "Tuples handled to the end."},
	dropped:      {"dropped", "Tuples that were below the floor or applied before: harmless repetitions."},
	held:         {"held", "Tuples ahead of their gate or of another revision: their roots will replay."},
	deadLettered: {"dead_lettered", "Tuples and records stored among the dead letters."},
	failed:       {"failed", "Executions that returned an error, whether tried again or not."},
	records:      {"records", "Records taken from the input, also those taken again."},
	skipped:      {"skipped", "Records of data streams that are not the spout's business."},
	completed:    {"completed", "Roots whose tree is fully processed."},
	replayed:     {"replayed", "Roots emitted again because their tree was not complete in time."},
	errored:      {"errors", "Errors outside any tuple: a connection lost, a commit refused, a lease lost."},
}

var taskLabels = []string{"topology", "node", "task"}

// place is what the labels of most metrics are made of; it is bounded by the topologies applied.
type place struct {
	topology, node string
	task           int32
}

// cell holds the numbers of one place.
type cell struct {
	place
	labels                   []string // values of taskLabels
	n                        [counters]atomic.Int64
	execute, commit, publish prometheus.Observer // of a bolt
	flush                    prometheus.Observer // of a stateful one
	latency                  prometheus.Observer // of a spout
}

// metrics keeps cells and answers scrapes from them. A cell is found without a lock; a new one replaces the whole map, which happens once per task.
type metrics struct {
	cells   atomic.Pointer[map[place]*cell]
	growing sync.Mutex

	execute, commit, flush, publish, latency *prometheus.HistogramVec
	overdue                                  *prometheus.CounterVec
	lost                                     *prometheus.CounterVec
	lostSpans, lostLogs, unexported          prometheus.Counter
	caches                                   *caches

	mu       sync.Mutex
	progress map[source]progress

	counterDescs [counters]*prometheus.Desc
	open         *prometheus.Desc
	pending      *prometheus.Desc
	lag          *prometheus.Desc
	watermark    *prometheus.Desc
	oldest       *prometheus.Desc
}

// source tells apart the input logs that one task of a spout reads.
type source struct {
	place
	origin tuple.Origin
}

type progress struct {
	trace.Progress
	heard time.Time
}

// silence is how long a source may be silent before its numbers leave the scrape: it then belongs to another worker.
const silence = time.Minute

func newMetrics(registry *prometheus.Registry, o Options) *metrics {
	histogram := func(name, help string, first float64, n int) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(first, 2.5, n)}, taskLabels)
	}
	gauge := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, []string{"topology", "node", "task", "origin"}, nil)
	}
	m := &metrics{
		execute: histogram("boltmesh_execute_seconds", "Time one Step spent executing its batch.", 1e-4, 13),
		flush:   histogram("boltmesh_flush_lag_seconds", "Time from when a Step of a stateful bolt began to execute its batch until what that changed was stored.", 1e-4, 13),
		commit:  histogram("boltmesh_commit_seconds", "Time one Step of a stateful bolt spent committing its batch.", 1e-4, 13),
		publish: histogram("boltmesh_publish_seconds", "Time one Step spent publishing until everything was stored.", 1e-4, 13),
		latency: histogram("boltmesh_complete_latency_seconds", "Time from a root's first emission until its tree was fully processed.", 1e-3, 14),
		overdue: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "boltmesh_overdue_total", Help: "Places that an overdue root was last seen at.",
		}, []string{"topology", "node", "task", "holder_node"}),
		lost: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "boltmesh_observer_dropped_total", Help: "Events that found their queue full and left no span or no line.",
		}, []string{"signal"}),
		unexported: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "boltmesh_spans_unexported_total", Help: "Spans that the collector did not take.",
		}),
		progress:  map[source]progress{},
		open:      gauge("boltmesh_spout_open_roots", "Roots emitted and not yet complete."),
		pending:   gauge("boltmesh_spout_pending", "Span from the floor to the next offset to emit, in offsets."),
		lag:       gauge("boltmesh_floor_lag", "Records of the input at or above the floor: not yet fully processed."),
		watermark: gauge("boltmesh_watermark_seconds", "Event time below which readings are late, in seconds since the Unix epoch."),
		oldest:    gauge("boltmesh_spout_oldest_root_seconds", "Age of the oldest root that is not complete; 0 when there is none."),
	}
	for c, name := range counterNames {
		m.counterDescs[c] = prometheus.NewDesc("boltmesh_"+name.word+"_total", name.help, taskLabels, nil)
	}
	m.cells.Store(&map[place]*cell{})
	m.lostSpans, m.lostLogs = m.lost.WithLabelValues("span"), m.lost.WithLabelValues("log")
	m.caches = newCaches(registry)
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "boltmesh_build_info", Help: "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"service": o.Service, "version": o.Version, "worker": o.Worker},
	})
	build.Set(1)
	registry.MustRegister(m, m.execute, m.commit, m.flush, m.publish, m.latency, m.overdue, m.lost, m.unexported, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// at returns the cell of a place.
func (m *metrics) at(w *trace.Where) *cell {
	p := place{w.Topology, w.Node, w.Task}
	if c := (*m.cells.Load())[p]; c != nil {
		return c
	}
	m.growing.Lock()
	defer m.growing.Unlock()
	old := *m.cells.Load()
	if c := old[p]; c != nil {
		return c
	}
	c := &cell{place: p, labels: []string{p.topology, p.node, taskName(p.task)}}
	if w.Kind == spoutKind {
		c.latency = m.latency.WithLabelValues(c.labels...)
	} else {
		c.execute, c.commit, c.publish = m.execute.WithLabelValues(c.labels...), m.commit.WithLabelValues(c.labels...), m.publish.WithLabelValues(c.labels...)
		c.flush = m.flush.WithLabelValues(c.labels...)
	}
	grown := maps.Clone(old)
	grown[p] = c
	m.cells.Store(&grown)
	return c
}

func taskName(task int32) string {
	if task == tuple.Shared {
		return "shared"
	}
	return strconv.Itoa(int(task))
}

func (c *cell) add(k counter, n int) {
	if n != 0 {
		c.n[k].Add(int64(n))
	}
}

// count adds an event to the numbers. Deliveries are counted by the Step that handled them, not one by one.
func (m *metrics) count(event trace.Event) {
	switch e := event.(type) {
	case trace.Stepped:
		m.stepped(&e)
	case trace.Emitted:
		m.emission(&e)
	case trace.Completed:
		c := m.at(&e.Where)
		c.add(completed, 1)
		observe(c.latency, e.Latency)
	case trace.Overdue:
		m.late(&e)
	case trace.Progress:
		m.mu.Lock()
		m.progress[source{place{e.Topology, e.Node, e.Task}, e.Origin}] = progress{e, time.Now()}
		m.mu.Unlock()
	case trace.Failed:
		m.at(&e.Where).add(errored, 1)
	case trace.Cached:
		m.caches.count(&e)
	}
}

func (m *metrics) stepped(e *trace.Stepped) {
	c := m.at(&e.Where)
	c.add(frames, e.Frames)
	c.add(tuples, e.Tuples)
	c.add(emitted, e.Emitted)
	c.add(acked, e.Acked)
	c.add(dropped, e.Dropped)
	c.add(held, e.Held)
	c.add(deadLettered, e.DeadLettered)
	c.add(failed, e.Failed)
	observe(c.execute, e.Execute)
	if e.Commit > 0 {
		observe(c.commit, e.Commit)
		observe(c.flush, e.Execute+e.Commit)
	}
	observe(c.publish, e.Publish)
}

func (m *metrics) emission(e *trace.Emitted) {
	c := m.at(&e.Where)
	c.add(records, e.Records)
	c.add(emitted, e.Accepted)
	if e.Root.Attempt.Count == 0 { // a replay finds the same ones again
		c.add(skipped, e.Skipped)
		c.add(deadLettered, e.Rejected)
	}
}

func (m *metrics) late(e *trace.Overdue) {
	c := m.at(&e.Where)
	c.add(replayed, 1)
	if len(e.Holders) == 0 {
		m.overdue.WithLabelValues(append(c.labels[:3:3], "(unknown)")...).Inc()
	}
	for _, h := range e.Holders {
		m.overdue.WithLabelValues(append(c.labels[:3:3], h.Node)...).Inc()
	}
}

// observe tolerates a nil histogram: a bolt that reports a spout's event, or the other way round.
func observe(h prometheus.Observer, d time.Duration) {
	if h != nil {
		h.Observe(d.Seconds())
	}
}

// Describe says nothing in advance, which tells the registry to check at each scrape.
func (m *metrics) Describe(chan<- *prometheus.Desc) {}

// Collect answers a scrape.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	for _, c := range *m.cells.Load() {
		for k := range c.n {
			out <- prometheus.MustNewConstMetric(m.counterDescs[k], prometheus.CounterValue, float64(c.n[k].Load()), c.labels...)
		}
	}
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	for s, p := range m.progress {
		if now.Sub(p.heard) > silence {
			delete(m.progress, s)
			continue
		}
		m.collect(out, s, &p, now)
	}
}

func (m *metrics) collect(out chan<- prometheus.Metric, s source, p *progress, now time.Time) {
	labels := []string{s.topology, s.node, taskName(s.task), fmt.Sprintf("%016x", uint64(s.origin))}
	gauge := func(d *prometheus.Desc, v float64) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	span := float64(p.Next - p.Floor)
	gauge(m.open, float64(p.Open))
	gauge(m.pending, span)
	if p.Lag >= 0 {
		gauge(m.lag, span+float64(p.Lag))
	}
	if p.Watermark != math.MinInt64 {
		gauge(m.watermark, float64(p.Watermark)/1000)
	}
	age := 0.0
	if !p.Oldest.IsZero() {
		age = now.Sub(p.Oldest).Seconds()
	}
	gauge(m.oldest, age)
}
