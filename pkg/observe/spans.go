package observe

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/boltmesh/boltmesh/pkg/trace"
)

const (
	spanQueue    = 16384 // events: a few Steps of every loop report at once
	exportQueue  = 16384 // ended spans; not OTEL_BSP_MAX_QUEUE_SIZE, since record relies on it
	mostPerEvent = 5     // spans made of one event
)

// spans makes spans of events, from one goroutine, and hands them to the SDK's batch processor. The processor is shared by one tracer per kind of
// node: services that run in one process stay services of their own in the trace.
type spans struct {
	options   Options
	metrics   *metrics
	queue     chan trace.Event
	stop      chan struct{}
	stopping  sync.Once
	done      chan struct{}
	exporter  *guarded
	processor sdktrace.SpanProcessor
	tracers   map[string]oteltrace.Tracer // by kind
}

func startSpans(o Options, exporter sdktrace.SpanExporter, m *metrics, logger *slog.Logger) *spans {
	s := &spans{
		options: o, metrics: m, queue: make(chan trace.Event, spanQueue), stop: make(chan struct{}), done: make(chan struct{}),
		exporter: newGuarded(exporter, m, logger), tracers: map[string]oteltrace.Tracer{},
	}
	s.processor = sdktrace.NewBatchSpanProcessor(s.exporter, sdktrace.WithMaxQueueSize(exportQueue))
	go s.run()
	return s
}

func (s *spans) offer(e trace.Event) {
	select {
	case s.queue <- e:
	default:
		s.metrics.lostSpans.Inc()
	}
}

func (s *spans) run() {
	defer close(s.done)
	for {
		select {
		case e := <-s.queue:
			s.record(e)
		case <-s.stop:
			for len(s.queue) > 0 {
				s.record(<-s.queue)
			}
			return
		}
	}
}

// record makes the spans of one event, unless so many wait for the collector that the processor would drop some unseen.
func (s *spans) record(event trace.Event) {
	if s.exporter.waiting.Load()+mostPerEvent > exportQueue {
		s.metrics.lostSpans.Inc()
		return
	}
	switch e := event.(type) {
	case trace.Received:
		s.received(&e)
	case trace.Handled:
		s.handled(&e)
	}
}

// close makes the spans that are queued and waits until the collector has them, or ctx ends; then whatever is left is given up.
func (s *spans) close(ctx context.Context) error {
	s.stopping.Do(func() { close(s.stop) })
	<-s.done // record never blocks
	defer s.exporter.abandon()
	return s.processor.Shutdown(ctx)
}

// tracer returns the tracer of a kind of node; an empty kind is the process itself.
func (s *spans) tracer(kind string) oteltrace.Tracer {
	if kind == "" {
		kind = s.options.Service
	}
	t := s.tracers[kind]
	if t == nil {
		provider := sdktrace.NewTracerProvider(
			sdktrace.WithResource(resourceOf(s.options, kind)),
			sdktrace.WithSpanProcessor(counting{s.processor, &s.exporter.waiting}),
			sdktrace.WithIDGenerator(identities{}),
			sdktrace.WithSampler(sdktrace.AlwaysSample()), // the spout has decided: only sampled tuples carry a trace id
		)
		t = provider.Tracer("github.com/boltmesh/boltmesh/pkg/observe", oteltrace.WithInstrumentationVersion(s.options.Version))
		s.tracers[kind] = t
	}
	return t
}

// identity is the id that a span must get, since other services have already named it as their parent.
type identity struct {
	trace oteltrace.TraceID
	span  oteltrace.SpanID
}

type identityKey struct{}

// identities generates the ids that the context asks for, and random ones otherwise.
type identities struct{}

// NewIDs serves spans without a parent.
func (g identities) NewIDs(ctx context.Context) (oteltrace.TraceID, oteltrace.SpanID) {
	wanted, _ := ctx.Value(identityKey{}).(identity)
	for !wanted.trace.IsValid() {
		binary.NativeEndian.PutUint64(wanted.trace[:8], rand.Uint64())
		binary.NativeEndian.PutUint64(wanted.trace[8:], rand.Uint64())
	}
	return wanted.trace, g.NewSpanID(ctx, wanted.trace)
}

// NewSpanID serves spans with a parent.
func (identities) NewSpanID(ctx context.Context, _ oteltrace.TraceID) oteltrace.SpanID {
	wanted, _ := ctx.Value(identityKey{}).(identity)
	for !wanted.span.IsValid() {
		binary.NativeEndian.PutUint64(wanted.span[:], rand.Uint64())
	}
	return wanted.span
}

// counting notes how many ended spans wait for the collector. Shutting a provider down must not stop the processor that all of them share.
type counting struct {
	sdktrace.SpanProcessor
	waiting *atomic.Int64
}

// OnEnd counts the span in; guarded counts it out.
func (c counting) OnEnd(span sdktrace.ReadOnlySpan) {
	c.waiting.Add(1)
	c.SpanProcessor.OnEnd(span)
}

// Shutdown does nothing.
func (counting) Shutdown(context.Context) error { return nil }

// guarded exports spans, counts those that the collector does not take, and can be told to give up.
type guarded struct {
	sdktrace.SpanExporter
	waiting  atomic.Int64
	metrics  *metrics
	logger   *slog.Logger
	life     context.Context //nolint:containedctx // the SDK calls with contexts of its own, which outlive Close
	abandon  context.CancelFunc
	lastLine time.Time // exports come one at a time
}

func newGuarded(exporter sdktrace.SpanExporter, m *metrics, logger *slog.Logger) *guarded {
	g := &guarded{SpanExporter: exporter, metrics: m, logger: logger}
	g.life, g.abandon = context.WithCancel(context.Background())
	return g
}

// ExportSpans never returns an error: the SDK would print it to stderr, past the logger.
func (g *guarded) ExportSpans(ctx context.Context, batch []sdktrace.ReadOnlySpan) error {
	defer g.waiting.Add(-int64(len(batch)))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(g.life, cancel)()
	err := g.life.Err()
	if err == nil {
		err = g.SpanExporter.ExportSpans(ctx, batch)
	}
	if err == nil {
		return nil
	}
	g.metrics.unexported.Add(float64(len(batch)))
	if now := time.Now(); now.Sub(g.lastLine) >= 10*time.Second {
		g.lastLine = now
		g.logger.Warn("spans not exported", "spans", len(batch), "error", fmt.Sprint(err))
	}
	return nil
}
