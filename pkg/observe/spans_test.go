package observe

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// kept is an in-memory exporter whose spans outlive its shutdown.
type kept struct{ *tracetest.InMemoryExporter }

func (kept) Shutdown(context.Context) error { return nil }

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ms(n int) time.Time { return noon.Add(time.Duration(n) * time.Millisecond) }

func spanID(ledger uint64) (b [8]byte) {
	binary.BigEndian.PutUint64(b[:], ledger)
	return b
}

// journey is one reading's way from a Kafka record that carries a trace to an alarm.
func journey() []trace.Event {
	traceID := [16]byte{1, 2, 3}
	produced := tuple.Trace{TraceID: traceID, SpanID: [8]byte{0xee}}
	onSpout := tuple.Trace{TraceID: traceID, SpanID: [8]byte{0xaa}}
	onClean := tuple.Trace{TraceID: traceID, SpanID: spanID(0xc1ea)}
	root := tuple.Root{Origin: 5, Attempt: tuple.Attempt{Generation: 2, Count: 1}}
	return []trace.Event{
		trace.Received{Where: at("readings", spoutKind, 4), Topic: "readings", Partition: 4, Offset: 99, Key: "m-1", Root: root, Parent: produced, Trace: onSpout, Begun: ms(0), Emitted: ms(5)},
		trace.Handled{
			Where: at("clean", "convert", tuple.Shared), Tuple: tuple.ID{9}, Root: root, Key: "m-1", Source: "readings", Parent: onSpout, Span: 0xc1ea, Emitted: 1, Tries: 1,
			Outcome: trace.Acked, Fetched: ms(6), Begun: ms(7), Executed: ms(8), PublishBegun: ms(9), Published: ms(10),
		},
		trace.Handled{
			Where: at("hourly", "stat", 1), Root: root, Key: "m-1", Source: "clean", Parent: onClean, Span: 0x57a7, Outcome: trace.Acked,
			Begun: ms(12), Executed: ms(13), CommitBegun: ms(13), Committed: ms(15), PublishBegun: ms(15), Published: ms(16),
		},
		trace.Handled{
			Where: at("overheated", "alarm", 1), Root: root, Source: "clean", Parent: onClean, Span: 0xa1a3, Outcome: trace.DeadLettered,
			Err: errors.New("rule.js:1:2: no"), Begun: ms(12), Executed: ms(14),
		},
		trace.Handled{Where: at("clean", "convert", tuple.Shared), Span: 3, Err: errors.New("of an unsampled tuple")},
		trace.Received{Where: at("readings", spoutKind, 4), Topic: "readings", Trace: tuple.Trace{TraceID: [16]byte{7}, SpanID: [8]byte{0xbb}}, Begun: ms(0), Emitted: ms(1)},
	}
}

func TestSpans(t *testing.T) {
	memory := kept{tracetest.NewInMemoryExporter()}
	o := start(t, Options{Service: "dev", Version: "1", Worker: "w1", SampleRatio: 0.5, exporter: memory})
	if !o.Tracing() || o.SampleRatio() != 0.5 {
		t.Error("tracing should be on")
	}
	for _, e := range journey() {
		o.Sink()(e)
	}
	finish(t, o)

	names := map[string]string{"ee00000000000000": "the producer"}
	var of tracetest.SpanStubs
	for _, s := range memory.GetSpans() {
		names[s.SpanContext.SpanID().String()] = s.Name
		of = append(of, s)
	}
	var got []string
	for _, s := range of {
		line := service(s) + ": " + s.Name + " in " + s.SpanContext.TraceID().String()[:6] + " under " + names[s.Parent.SpanID().String()] +
			", " + s.StartTime.Sub(noon).String() + " to " + s.EndTime.Sub(noon).String()
		if s.Status.Code == codes.Error {
			line += ", failed: " + s.Status.Description
		}
		got = append(got, line)
	}
	slices.Sort(got)
	want := []string{
		"boltmesh-alarm: execute in 010203 under process overheated, 12ms to 14ms",
		"boltmesh-alarm: process overheated in 010203 under process clean, 12ms to 14ms, failed: rule.js:1:2: no",
		"boltmesh-convert: consume in 010203 under process clean, 6ms to 7ms",
		"boltmesh-convert: execute in 010203 under process clean, 7ms to 8ms",
		"boltmesh-convert: process clean in 010203 under receive readings, 6ms to 10ms",
		"boltmesh-convert: publish in 010203 under process clean, 9ms to 10ms",
		"boltmesh-spout: receive readings in 010203 under the producer, 0s to 5ms",
		"boltmesh-spout: receive readings in 070000 under , 0s to 1ms",
		"boltmesh-stat: commit in 010203 under process hourly, 13ms to 15ms",
		"boltmesh-stat: execute in 010203 under process hourly, 12ms to 13ms",
		"boltmesh-stat: process hourly in 010203 under process clean, 12ms to 16ms",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if names["000000000000c1ea"] != "process clean" || names["aa00000000000000"] != "receive readings" || names["bb00000000000000"] != "receive readings" {
		t.Errorf("ids are not those that the tuples carry: %v", names)
	}
	checkAttributes(t, of)
}

func service(s tracetest.SpanStub) string {
	v, _ := s.Resource.Set().Value("service.name")
	return v.AsString()
}

func checkAttributes(t *testing.T, of tracetest.SpanStubs) {
	t.Helper()
	want := map[string]map[string]string{
		"boltmesh-convert/process clean": {
			"messaging.system": "nats", "messaging.operation.name": "process", "messaging.operation.type": "process", "messaging.destination.name": "bm.machine-health.clean",
			"messaging.message.id": tuple.ID{9}.String(), "boltmesh.topology": "machine-health", "boltmesh.node": "clean", "boltmesh.task": "shared", "boltmesh.device": "m-1",
			"boltmesh.tuple": tuple.ID{9}.String(), "boltmesh.attempt": "1", "boltmesh.generation": "2", "boltmesh.outcome": "acked", "boltmesh.tries": "1",
		},
		"boltmesh-spout/receive readings": {
			"messaging.system": "kafka", "messaging.operation.type": "receive", "messaging.destination.name": "readings", "messaging.destination.partition.id": "4",
			"messaging.kafka.offset": "99", "boltmesh.task": "4",
		},
	}
	for _, s := range of {
		key := service(s) + "/" + s.Name
		got := map[string]string{}
		for _, a := range s.Attributes {
			got[string(a.Key)] = a.Value.String()
		}
		for k, v := range want[key] {
			if got[k] != v {
				t.Errorf("%s: %s is %q, want %q", key, k, got[k], v)
			}
		}
		delete(want, key)
	}
	if len(want) > 0 {
		t.Errorf("no span %v", slices.Collect(maps.Keys(want)))
	}
}

// otlpServer collects what is posted to /v1/traces.
func otlpServer(t *testing.T) (url string, names func() map[string][]string) {
	t.Helper()
	var mu sync.Mutex
	got := map[string][]string{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		var req collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(b, &req)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, rs := range req.ResourceSpans {
			name := ""
			for _, a := range rs.Resource.Attributes {
				if a.Key == "service.name" {
					name = a.Value.GetStringValue()
				}
			}
			for _, ss := range rs.ScopeSpans {
				for _, sp := range ss.Spans {
					got[name] = append(got[name], sp.Name)
				}
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(s.Close)
	return s.URL, func() map[string][]string {
		mu.Lock()
		defer mu.Unlock()
		for _, n := range got {
			slices.Sort(n)
		}
		return got
	}
}

func TestOTLPOverHTTP(t *testing.T) {
	clean := []string{"consume", "execute", "process clean", "publish"}
	for _, c := range []struct {
		name    string
		env     map[string]string
		option  bool
		service string
		want    map[string][]string
	}{
		{name: "by option", option: true, service: "dev", want: map[string][]string{
			"boltmesh-spout": {"receive readings", "receive readings"}, "boltmesh-convert": clean,
			"boltmesh-stat": {"commit", "execute", "process hourly"}, "boltmesh-alarm": {"execute", "process overheated"},
		}},
		{name: "by environment, with a name", env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "", "OTEL_SERVICE_NAME": "plant"}, service: "convert", want: map[string][]string{
			"plant-spout": {"receive readings", "receive readings"}, "plant": clean,
			"plant-stat": {"commit", "execute", "process hourly"}, "plant-alarm": {"execute", "process overheated"},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			url, names := otlpServer(t)
			options := Options{Service: c.service}
			if c.option {
				options.OTLP = url
			}
			for k, v := range c.env {
				if v == "" {
					v = url
				}
				t.Setenv(k, v)
			}
			o := start(t, options)
			for _, e := range journey() {
				o.Sink()(e)
			}
			finish(t, o)
			if d := cmp.Diff(c.want, names()); d != "" {
				t.Error(d)
			}
		})
	}
}

// grpcCollector counts the spans that arrive.
type grpcCollector struct {
	collector.UnimplementedTraceServiceServer
	spans atomic.Int64
}

func (g *grpcCollector) Export(_ context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	for _, rs := range r.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			g.spans.Add(int64(len(ss.Spans)))
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

func TestOTLPOverGRPC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, got := grpc.NewServer(), &grpcCollector{}
	collector.RegisterTraceServiceServer(server, got)
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	defer func() { server.Stop(); <-done }()

	o := start(t, Options{Service: "dev", OTLP: "grpc://" + l.Addr().String()})
	for _, e := range journey() {
		o.Sink()(e)
	}
	finish(t, o)
	if n := got.spans.Load(); n != 11 {
		t.Errorf("%d spans arrived, want 11", n)
	}
}

func TestWhetherTracingIsOn(t *testing.T) {
	for _, c := range []struct {
		name    string
		env     map[string]string
		otlp    string
		on      bool
		problem string
	}{
		{name: "nothing configured"},
		{name: "grpc by scheme", otlp: "grpc://127.0.0.1:9", on: true},
		{name: "grpc by port", otlp: "http://127.0.0.1:4317", on: true},
		{name: "grpc by environment", env: map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, on: true},
		{name: "chosen", env: map[string]string{"OTEL_TRACES_EXPORTER": "otlp"}, on: true},
		{name: "switched off", env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"}},
		{name: "disabled", env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}},
		{name: "another exporter", env: map[string]string{"OTEL_TRACES_EXPORTER": "zipkin"}, problem: "write otlp or none"},
		{name: "another protocol", env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, problem: "write grpc or http/protobuf"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, k := range []string{"OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED"} {
				t.Setenv(k, c.env[k])
			}
			t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", c.env["OTEL_EXPORTER_OTLP_PROTOCOL"])
			o, err := New(Options{OTLP: c.otlp, SampleRatio: 1, LogWriter: io.Discard})
			if c.problem != "" {
				if err == nil || !strings.Contains(err.Error(), c.problem) {
					t.Errorf("error %v, want %q", err, c.problem)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if o.Tracing() != c.on || (o.SampleRatio() == 1) != c.on {
				t.Errorf("tracing %v, want %v", o.Tracing(), c.on)
			}
			finish(t, o)
		})
	}
}

// refusing is an exporter that does not answer until it is given up.
type refusing struct{ called chan struct{} }

func (r refusing) ExportSpans(ctx context.Context, _ []sdktrace.ReadOnlySpan) error {
	select {
	case r.called <- struct{}{}:
	default:
	}
	<-ctx.Done()
	return ctx.Err()
}

func (refusing) Shutdown(context.Context) error { return nil }

func TestCollectorThatDoesNotAnswer(t *testing.T) {
	exporter := refusing{make(chan struct{}, 1)}
	o, err := New(Options{exporter: exporter, HTTPAddr: "127.0.0.1:0", LogWriter: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	sampled := journey()[1]
	for range exportQueue + spanQueue {
		o.Sink()(sampled)
	}
	<-exporter.called
	// More events than both queues hold: the sink comes back at once, and what is lost is counted.
	if _, page := get(t, "http://"+o.Addr()+"/metrics"); strings.Contains(page, `boltmesh_observer_dropped_total{signal="span"} 0`) {
		t.Error("lost spans are not counted")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := o.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("closing: %v", err)
	}
}

func BenchmarkSinkStepped(b *testing.B) {
	sink := benchmarked(b, Options{})
	var e trace.Event = trace.Stepped{Where: at("clean", "convert", 3), Frames: 8, Tuples: 2000, Emitted: 2000, Acked: 2000, Execute: time.Millisecond, Publish: time.Millisecond}
	b.ReportAllocs()
	for b.Loop() {
		sink(e)
	}
}

func BenchmarkSinkHandledUnsampled(b *testing.B) {
	sink := benchmarked(b, Options{exporter: discard{}})
	var e trace.Event = trace.Handled{Where: at("clean", "convert", 3), Outcome: trace.Acked}
	b.ReportAllocs()
	for b.Loop() {
		sink(e)
	}
}

// What a loop pays for a sampled tuple when the span maker does not keep up: most events are dropped.
func BenchmarkSinkHandledSampled(b *testing.B) {
	sink := benchmarked(b, Options{exporter: discard{}})
	e := journey()[1]
	b.ReportAllocs()
	for b.Loop() {
		sink(e)
	}
}

// What the span maker pays for a sampled tuple: four spans with their attributes, until they wait for the exporter.
func BenchmarkSpansOfHandled(b *testing.B) {
	o, err := New(Options{exporter: discard{}, LogWriter: io.Discard})
	if err != nil {
		b.Fatal(err)
	}
	defer o.Close(context.Background())
	e := journey()[1].(trace.Handled)
	own := &spans{options: o.options, metrics: o.metrics, exporter: o.spans.exporter, processor: o.spans.processor, tracers: o.spans.tracers}
	b.ReportAllocs()
	for b.Loop() {
		own.handled(&e)
	}
}

type discard struct{}

func (discard) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }
func (discard) Shutdown(context.Context) error                             { return nil }

func benchmarked(b *testing.B, o Options) trace.Sink {
	o.LogWriter = io.Discard
	ob, err := New(o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = ob.Close(context.Background()) })
	return ob.Sink()
}
