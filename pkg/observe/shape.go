package observe

import (
	"cmp"
	"context"
	"encoding/binary"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/resource"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// spoutKind is topology.KindSpout.
const spoutKind = "spout"

// nats is a value of messaging.system that the conventions leave to users.
var nats = semconv.MessagingSystemKey.String("nats")

// received makes the span of one record's way through a spout: the root of the trace, or the child of whoever produced the record.
func (s *spans) received(e *trace.Received) {
	attrs := append(commonAttributes(&e.Where, e.Tuple, e.Key, e.Root.Attempt),
		semconv.MessagingSystemKafka, semconv.MessagingOperationName("receive"), semconv.MessagingOperationTypeReceive,
		semconv.MessagingDestinationName(e.Topic), semconv.MessagingDestinationPartitionID(strconv.Itoa(e.Partition)),
		semconv.MessagingKafkaOffset(int(e.Offset)), attribute.String("boltmesh.stream", e.Stream),
	)
	begun, ended := extent(e.Begun, e.Emitted)
	_, span := s.tracer(e.Kind).Start(under(e.Parent, identity{e.Trace.TraceID, e.Trace.SpanID}), "receive "+e.Topic,
		oteltrace.WithTimestamp(begun), oteltrace.WithSpanKind(oteltrace.SpanKindConsumer), oteltrace.WithAttributes(attrs...))
	span.End(oteltrace.WithTimestamp(ended))
}

// handled makes the span of one delivery and those of its stages, as far as their times are known.
func (s *spans) handled(e *trace.Handled) {
	attrs := append(commonAttributes(&e.Where, e.Tuple, e.Key, e.Root.Attempt),
		nats, semconv.MessagingOperationName("process"), semconv.MessagingOperationTypeProcess,
		semconv.MessagingDestinationName("bm."+e.Topology+"."+e.Node), semconv.MessagingDestinationPartitionID(taskName(e.Task)),
		attribute.String("boltmesh.source", e.Source), attribute.String("boltmesh.stream", e.Stream),
		attribute.String("boltmesh.outcome", string(e.Outcome)), attribute.Int("boltmesh.tries", e.Tries), attribute.Int("boltmesh.emitted", e.Emitted),
	)
	begun, ended := extent(e.Fetched, e.Begun, e.Executed, e.CommitBegun, e.Committed, e.PublishBegun, e.Published)
	t := s.tracer(e.Kind)
	id := identity{trace: e.Parent.TraceID}
	binary.BigEndian.PutUint64(id.span[:], e.Span)
	_, span := t.Start(under(e.Parent, id), "process "+e.Node,
		oteltrace.WithTimestamp(begun), oteltrace.WithSpanKind(oteltrace.SpanKindConsumer), oteltrace.WithAttributes(attrs...))

	ctx := oteltrace.ContextWithSpan(context.Background(), span) // without the wanted id: stages get random ones
	stage(ctx, t, "consume", oteltrace.SpanKindInternal, e.Fetched, e.Begun)
	stage(ctx, t, "execute", oteltrace.SpanKindInternal, e.Begun, e.Executed)
	stage(ctx, t, "commit", oteltrace.SpanKindInternal, e.CommitBegun, e.Committed)
	if e.Emitted > 0 {
		stage(ctx, t, "publish", oteltrace.SpanKindProducer, e.PublishBegun, e.Published,
			nats, semconv.MessagingOperationName("publish"), semconv.MessagingOperationTypeSend)
	}
	if e.Err != nil {
		span.RecordError(e.Err, oteltrace.WithTimestamp(ended))
	}
	if e.Err != nil || e.Outcome == trace.DeadLettered {
		span.SetStatus(codes.Error, cmp.Or(text(e.Err), string(e.Outcome)))
	}
	span.End(oteltrace.WithTimestamp(ended))
}

func stage(ctx context.Context, t oteltrace.Tracer, name string, kind oteltrace.SpanKind, begun, ended time.Time, attrs ...attribute.KeyValue) {
	if begun.IsZero() || ended.IsZero() {
		return
	}
	_, span := t.Start(ctx, name, oteltrace.WithTimestamp(begun), oteltrace.WithSpanKind(kind), oteltrace.WithAttributes(attrs...))
	span.End(oteltrace.WithTimestamp(ended))
}

// under returns a context in which the next span gets the id wanted and the parent given, if there is one.
func under(parent tuple.Trace, wanted identity) context.Context {
	ctx := context.WithValue(context.Background(), identityKey{}, wanted)
	if parent.SpanID == [8]byte{} {
		return ctx
	}
	return oteltrace.ContextWithRemoteSpanContext(ctx, oteltrace.NewSpanContext(oteltrace.SpanContextConfig{
		TraceID: parent.TraceID, SpanID: parent.SpanID, TraceFlags: oteltrace.FlagsSampled, Remote: true,
	}))
}

// extent returns the first and the last of the times that are known.
func extent(times ...time.Time) (first, last time.Time) {
	for _, t := range times {
		if t.IsZero() {
			continue
		}
		if first.IsZero() || t.Before(first) {
			first = t
		}
		if t.After(last) {
			last = t
		}
	}
	if first.IsZero() { // an event without any time has just happened
		first = time.Now()
		last = first
	}
	return first, last
}

func commonAttributes(w *trace.Where, id tuple.ID, key string, a tuple.Attempt) []attribute.KeyValue {
	return append(make([]attribute.KeyValue, 0, 20),
		attribute.String("boltmesh.topology", w.Topology), attribute.String("boltmesh.node", w.Node), attribute.String("boltmesh.task", taskName(w.Task)),
		attribute.String("boltmesh.device", key), attribute.String("boltmesh.tuple", id.String()), semconv.MessagingMessageID(id.String()),
		attribute.Int64("boltmesh.generation", int64(a.Generation)), attribute.Int64("boltmesh.attempt", int64(a.Count)),
	)
}

// resourceOf describes the service that runs nodes of a kind. A name from the standard environment is the process's; other kinds in it add their own.
func resourceOf(o Options, kind string) *resource.Resource {
	named, _ := resource.New(context.Background(), resource.WithFromEnv()) // what cannot be read of OTEL_RESOURCE_ATTRIBUTES is left out
	name := "boltmesh-" + kind
	if given, ok := named.Set().Value(semconv.ServiceNameKey); ok {
		if name = given.AsString(); kind != o.Service {
			name += "-" + kind
		}
	}
	attrs := []attribute.KeyValue{semconv.ServiceName(name)}
	if o.Version != "" {
		attrs = append(attrs, semconv.ServiceVersion(o.Version))
	}
	if o.Worker != "" {
		attrs = append(attrs, semconv.ServiceInstanceID(o.Worker))
	}
	r, _ := resource.New(context.Background(), resource.WithTelemetrySDK(), resource.WithHost(), resource.WithFromEnv(), resource.WithAttributes(attrs...))
	return r
}
