// Package observe turns the engine's typed events (pkg/trace) into slog JSON lines, OpenTelemetry spans and Prometheus metrics, and serves
// /metrics, /healthz and /readyz. Mains and the development stack create one Observer per process and hand its Sink to every loop.
// It never blocks a loop, never decides what is sampled, and never listens for profiles anywhere but on loopback.
package observe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/boltmesh/boltmesh/pkg/trace"
)

// Auto as an HTTP address takes the first free port of 127.0.0.1 from 9464 on, so that the services of one machine need no port plan.
const Auto = "auto"

// Options say what an Observer serves and where spans go. The zero value logs to stderr from level Info and does nothing else but count.
type Options struct {
	Service string // kind of the process: spout, stat, dev, ...
	Version string
	Worker  string

	LogLevel  slog.Level
	LogWriter io.Writer // default os.Stderr

	HTTPAddr  string // host:port of /metrics, /healthz and /readyz, or Auto; "" serves nothing
	PprofAddr string // loopback host:port of /debug/pprof; "" serves nothing

	// OTLP is the endpoint for spans: http://host:4318 (protobuf over HTTP; https for TLS), http://host:4317 or grpc://host:port (gRPC; https or
	// grpcs for TLS). When empty, the standard OTEL_* variables may name an exporter; when they do not, tracing is off and costs nothing.
	OTLP string
	// SampleRatio is the share of new traces to record, 0 to 1. It is only passed on: see Observer.SampleRatio.
	SampleRatio float64

	exporter sdktrace.SpanExporter // tests: used instead of OTLP
	every    time.Duration         // tests: between two lines of counts
}

// Observer receives the events of one process. It is safe for concurrent use.
type Observer struct {
	options Options
	logger  *slog.Logger
	metrics *metrics
	named   *named
	logs    *logs
	spans   *spans // nil: tracing is off
	servers []*server
	mux     *http.ServeMux         // of /metrics; nil: nothing is served
	ready   atomic.Pointer[string] // why the process is not ready; "" when it is
	closing sync.Once
	closed  atomic.Bool
}

// New starts an Observer. It fails when an address cannot be listened on, the profile address is not loopback, or the exporter is misconfigured; an
// unreachable collector is no failure, its spans are counted as lost.
func New(o Options) (*Observer, error) {
	if o.LogWriter == nil {
		o.LogWriter = os.Stderr
	}
	if o.every <= 0 {
		o.every = 10 * time.Second
	}
	registry := prometheus.NewRegistry()
	w := &Observer{options: o, metrics: newMetrics(registry, o), named: newNamed(registry)}
	w.logger = slog.New(slog.NewJSONHandler(o.LogWriter, &slog.HandlerOptions{Level: o.LogLevel})).
		With("service", o.Service, "version", o.Version, "worker", o.Worker)
	w.Ready(false, "starting")

	if err := w.serve(registry); err != nil {
		_ = w.stopServing(context.Background())
		return nil, err
	}
	exporter, err := exporterOf(o)
	if err != nil {
		_ = w.stopServing(context.Background())
		return nil, err
	}
	if exporter != nil {
		w.spans = startSpans(o, exporter, w.metrics, w.logger)
	}
	w.logs = startLogs(w.logger, w.metrics, o.every)
	return w, nil
}

// Logger returns the logger that events are written to, for the main's own lines.
func (o *Observer) Logger() *slog.Logger { return o.logger }

// Tracing reports whether spans go anywhere.
func (o *Observer) Tracing() bool { return o.spans != nil }

// SampleRatio is the share of new traces that a spout should sample: the one configured, or 0 when spans go nowhere.
func (o *Observer) SampleRatio() float64 {
	if !o.Tracing() {
		return 0
	}
	return o.options.SampleRatio
}

// Ready says whether the process is connected and has applied its topologies; reason is what /readyz answers until it is.
func (o *Observer) Ready(ready bool, reason string) {
	if ready {
		reason = ""
	} else if reason == "" {
		reason = "not ready"
	}
	o.ready.Store(&reason)
}

// Sink returns the function that loops report to. It never blocks: numbers are added at once, lines and spans are made elsewhere from bounded
// queues, and what finds its queue full is counted in boltmesh_observer_dropped_total. After Close it only counts.
func (o *Observer) Sink() trace.Sink { return o.receive }

func (o *Observer) receive(event trace.Event) {
	o.metrics.count(event)
	if o.closed.Load() {
		return
	}
	switch e := event.(type) {
	case trace.Handled:
		if o.spans != nil && e.Parent.Sampled() {
			o.spans.offer(event)
		}
		if e.Err != nil || e.Outcome == trace.DeadLettered {
			o.logs.offer(event)
		}
	case trace.Received:
		if o.spans != nil && e.Trace.Sampled() {
			o.spans.offer(event)
		}
	case trace.Overdue, trace.Failed, trace.Changed:
		o.logs.offer(event)
	}
}

// flushPatience bounds how long Close waits for a collector that does not answer.
const flushPatience = 5 * time.Second

// Close writes what is queued, flushes spans for at most five seconds, and stops serving. It returns what could not be done before ctx ended.
// Further calls do nothing.
func (o *Observer) Close(ctx context.Context) (err error) {
	o.closing.Do(func() {
		o.closed.Store(true)
		if o.spans != nil {
			flush, cancel := context.WithTimeout(ctx, flushPatience)
			defer cancel()
			if e := o.spans.close(flush); e != nil {
				err = fmt.Errorf("flush spans: %w", e)
			}
		}
		err = errors.Join(err, o.logs.close(ctx), o.stopServing(ctx))
	})
	return err
}

// Addr returns the address that /metrics is served on, "" when it is not.
func (o *Observer) Addr() string { return o.addr(metricsServer) }

// PprofAddr returns the address that /debug/pprof is served on, "" when it is not.
func (o *Observer) PprofAddr() string { return o.addr(pprofServer) }

func (o *Observer) addr(name string) string {
	for _, s := range o.servers {
		if s.name == name {
			return s.listener.Addr().(*net.TCPAddr).String()
		}
	}
	return ""
}
