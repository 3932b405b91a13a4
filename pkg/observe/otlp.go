package observe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// grpcPort is OTLP's port for gRPC; 4318 is the one for HTTP.
const grpcPort = "4317"

// exporterOf returns the exporter that the options or the standard environment ask for, nil for none. It connects to nothing yet.
func exporterOf(o Options) (sdktrace.SpanExporter, error) {
	switch {
	case o.exporter != nil:
		return o.exporter, nil
	case o.OTLP != "":
		return exporterAt(o.OTLP)
	default:
		return exporterFromEnvironment()
	}
}

// exporterAt connects to an endpoint given as a URL. Its errors do not repeat the URL, which may hold a password.
func exporterAt(endpoint string) (sdktrace.SpanExporter, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" {
		return nil, errors.New("OTLP endpoint: not a URL; write http://host:4318 or grpc://host:4317")
	}
	ctx := context.Background()
	grpc := u.Port() == grpcPort
	switch u.Scheme {
	case "http", "https":
	case "grpc":
		u.Scheme, grpc = "http", true
	case "grpcs":
		u.Scheme, grpc = "https", true
	default:
		return nil, fmt.Errorf("OTLP endpoint: scheme %q; write http, https, grpc or grpcs", u.Scheme)
	}
	if grpc {
		return otlptracegrpc.New(ctx, otlptracegrpc.WithEndpointURL(u.String()))
	}
	if !strings.HasSuffix(u.Path, "/v1/traces") {
		u = u.JoinPath("v1", "traces")
	}
	return otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(u.String()))
}

// exporterFromEnvironment follows OpenTelemetry's variables: an endpoint or an explicit OTEL_TRACES_EXPORTER=otlp turns tracing on, the exporters read
// the rest (headers, certificates, timeouts) themselves.
func exporterFromEnvironment() (sdktrace.SpanExporter, error) {
	chosen := os.Getenv("OTEL_TRACES_EXPORTER")
	endpoint := cmp.Or(os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT"))
	switch {
	case strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true"), chosen == "none", chosen == "" && endpoint == "":
		return nil, nil
	case chosen != "" && chosen != "otlp":
		return nil, fmt.Errorf("OTEL_TRACES_EXPORTER=%s: write otlp or none", chosen)
	}
	ctx := context.Background()
	switch protocol := cmp.Or(os.Getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"), os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL"), "http/protobuf"); protocol {
	case "grpc":
		return otlptracegrpc.New(ctx)
	case "http/protobuf":
		return otlptracehttp.New(ctx)
	default:
		return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL=%s: write grpc or http/protobuf", protocol)
	}
}
