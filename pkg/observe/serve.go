package observe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/pprof"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	metricsServer = "metrics"
	pprofServer   = "pprof"

	autoFirst, autoLast = 9464, 9563 // 9464 is OpenTelemetry's default port for a Prometheus exporter
)

type server struct {
	name     string
	listener net.Listener
	http     *http.Server
	done     chan struct{}
}

// serve starts the listeners that the options ask for.
func (o *Observer) serve(registry *prometheus.Registry) error {
	if addr := o.options.HTTPAddr; addr != "" {
		l, err := listen(addr)
		if err != nil {
			return fmt.Errorf("serve metrics: %w", err)
		}
		o.start(metricsServer, l, o.handler(registry))
	}
	if addr := o.options.PprofAddr; addr != "" {
		if err := loopback(addr); err != nil {
			return fmt.Errorf("serve profiles: %w", err)
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return fmt.Errorf("serve profiles: %w", err)
		}
		o.start(pprofServer, l, profiles())
	}
	return nil
}

func listen(addr string) (net.Listener, error) {
	if addr != Auto {
		return net.Listen("tcp", addr)
	}
	var err error
	for port := autoFirst; port <= autoLast; port++ {
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			return l, nil
		}
	}
	return nil, fmt.Errorf("no free port from %d to %d: %w", autoFirst, autoLast, err)
}

// loopback refuses addresses that others can reach: a profile tells what is in memory.
func loopback(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("%s is not a loopback address; use 127.0.0.1", addr)
}

func (o *Observer) start(name string, l net.Listener, h http.Handler) {
	s := &server{name: name, listener: l, done: make(chan struct{}), http: &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}}
	o.servers = append(o.servers, s)
	go func() {
		defer close(s.done)
		_ = s.http.Serve(l) // ends with ErrServerClosed; a broken listener shows in the health checks
	}()
}

func (o *Observer) stopServing(ctx context.Context) (err error) {
	for _, s := range o.servers {
		if e := s.http.Shutdown(ctx); e != nil {
			err = errors.Join(err, fmt.Errorf("stop serving %s: %w", s.name, e), s.http.Close())
		}
		<-s.done
	}
	return err
}

func (o *Observer) handler(registry *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	o.mux = mux
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, Registry: registry, MaxRequestsInFlight: 8,
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if reason := *o.ready.Load(); reason != "" {
			http.Error(w, reason, http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ready\n")
	})
	return mux
}

// Handle serves one more thing where /metrics is served; where that is nowhere, it does nothing.
func (o *Observer) Handle(pattern string, h http.Handler) {
	if o.mux != nil {
		o.mux.Handle(pattern, h)
	}
}

func profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}
