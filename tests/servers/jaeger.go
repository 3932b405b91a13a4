package servers

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"

	tracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Jaeger starts Jaeger all-in-one, which keeps traces in memory: a restart forgets them. URL is its HTTP query API
// (/api/services, /api/traces); URLs has "otlp-grpc" and "otlp-http", each an endpoint for the OTEL_EXPORTER_OTLP_*
// variables, without TLS.
func Jaeger(ctx context.Context, o Options) (*Process, error) {
	bin, err := o.tool("jaeger")
	if err != nil {
		return nil, err
	}
	p, ports, err := prepare("jaeger", o, 7)
	if err != nil {
		return nil, err
	}
	p.URL = "http://" + loopback(ports[0])
	p.URLs = map[string]string{"otlp-grpc": "http://" + loopback(ports[1]), "otlp-http": "http://" + loopback(ports[2])}
	p.ready = p.askJaeger
	p.env = []string{"SPAN_STORAGE_TYPE=memory"}
	p.argv = append([]string{
		bin,
		"--query.http-server.host-port=" + loopback(ports[0]),
		"--collector.otlp.grpc.host-port=" + loopback(ports[1]),
		"--collector.otlp.http.host-port=" + loopback(ports[2]),
		"--query.grpc-server.host-port=" + loopback(ports[3]),
		"--collector.grpc-server.host-port=" + loopback(ports[4]),
		"--collector.http-server.host-port=" + loopback(ports[5]),
		"--admin.http.host-port=" + loopback(ports[6]),
	}, o.Config...)
	return p.launch(ctx, o)
}

// askJaeger queries, and sends an empty export to both receivers.
func (p *Process) askJaeger(ctx context.Context) error {
	if err := httpOK(ctx, http.MethodGet, p.URL+"/api/services", nil); err != nil {
		return err
	}
	if err := httpOK(ctx, http.MethodPost, p.URLs["otlp-http"]+"/v1/traces", []byte("{}")); err != nil {
		return err
	}
	conn, err := grpc.NewClient(strings.TrimPrefix(p.URLs["otlp-grpc"], "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = tracepb.NewTraceServiceClient(conn).Export(ctx, &tracepb.ExportTraceServiceRequest{})
	return err
}

func httpOK(ctx context.Context, method, url string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Close = true // leave no connection behind to a server that may be killed
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s", method, url, res.Status)
	}
	return nil
}
