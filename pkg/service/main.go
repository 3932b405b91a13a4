package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/boltmesh/boltmesh/pkg/archive"
	"github.com/boltmesh/boltmesh/pkg/call"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/observe"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/trace"
)

// Exit codes of a service.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// Main is the whole of a bolt service's main: it runs every node of a kind until SIGTERM or SIGINT, drains, and exits. kind is a built-in one, or the
// service name of custom bolts.
func Main(kind string, build Build) { os.Exit(run(kind, build, nil)) }

// MainSpout is Main for the spout, whose records come from source.
func MainSpout(source Source) { os.Exit(run(topology.KindSpout, nil, source)) }

// version is set by the linker where a release has a name: -ldflags "-X github.com/boltmesh/boltmesh/pkg/service.version=v1.2.3".
var version string

// Version returns what the binary was built from.
func Version() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 && (v == "" || v == "(devel)") {
			return s.Value[:12]
		}
	}
	if v == "" {
		return "(devel)"
	}
	return v
}

func run(kind string, build Build, source Source) int {
	if len(os.Args) > 1 && os.Args[1] == healthFlag {
		return health(kind, os.Args[2:], os.Environ())
	}
	config, err := LoadConfig(kind, os.Args[1:], os.Environ())
	if errors.Is(err, ErrHelp) {
		fmt.Print(Help(kind))
		return exitOK
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitUsage
	}
	o, err := observe.New(observe.Options{
		Service: kind, Version: Version(), Worker: config.Worker, LogLevel: config.LogLevel, LogWriter: os.Stderr,
		HTTPAddr: config.HTTP, PprofAddr: config.Pprof, OTLP: config.OTLP, SampleRatio: config.SampleRatio,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	BoundHeap(ctx)
	o.Logger().Info("starting", "config", config.Redacted())
	code := exitOK
	if err := serve(ctx, kind, config, o, build, source); err != nil {
		o.Logger().Error("stopped", "error", err.Error())
		code = exitFailed
	}
	flush, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := o.Close(flush); err != nil {
		fmt.Fprintln(os.Stderr, "flush telemetry:", err)
	}
	return code
}

// readiness is what /readyz says: nothing is ready before the worker has said so once, nor while a connection to NATS is away.
type readiness struct {
	o       *observe.Observer
	mu      sync.Mutex
	started bool
	lost    string // why what has started is not ready now
}

// worker is told by the worker itself.
func (r *readiness) worker(ready bool, _ string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.started = ready
	r.o.Ready(r.now())
}

// connected is told of every disconnect and reconnect of NATS.
func (r *readiness) connected(now jetstream.Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case now.Err != nil:
		r.lost = "NATS: " + now.Err.Error()
	case now.Others > 0:
		r.lost = "NATS: one of two connections is back"
	default:
		r.lost = ""
	}
	r.o.Ready(r.now())
}

func (r *readiness) now() (ready bool, reason string) {
	switch {
	case r.lost != "":
		return false, r.lost
	case !r.started:
		return false, "starting"
	}
	return true, ""
}

// waiting is told what a start waits for.
func (r *readiness) waiting(what string, err error) {
	r.o.Ready(false, "waiting: "+what+": "+err.Error())
	r.o.Logger().Warn("waiting", "for", what, "error", err.Error())
}

// serve connects and runs the worker until ctx ends. What it needs and is not there yet is waited for.
func serve(ctx context.Context, kind string, c Config, o *observe.Observer, build Build, source Source) error {
	is := &readiness{o: o}
	w := &Worker{
		Kind: kind, Name: c.Worker, Version: Version(), Build: build, Source: source, Sink: o.Sink(), Ready: is.worker,
		Fetch: c.Fetch.Frames, Records: c.Fetch.Records, Drain: c.DrainTimeout, Topology: c.Topologies, Node: c.Nodes, Env: os.LookupEnv,
	}
	if o.Tracing() {
		w.Sample = o.SampleRatio()
	}
	o.Ready(false, "connecting to NATS")
	conn, err := jetstream.Connect(ctx, jetstream.Options{
		URL: c.NATS.URL, Name: "boltmesh-" + kind + "-" + c.Worker, Creds: c.NATS.Creds, User: c.NATS.User, Password: c.NATS.Password, Token: c.NATS.Token,
		CA: c.NATS.TLS.CA, Cert: c.NATS.TLS.Cert, Key: c.NATS.TLS.Key, Insecure: c.NATS.TLS.Insecure, Replicas: c.NATS.Replicas,
		Waiting: is.waiting,
		Changed: func(now jetstream.Change) {
			is.connected(now)
			if now.Err != nil {
				err := fmt.Errorf("disconnected from server %s at %s: %w", now.Server, now.Addr, now.Err)
				w.Sink.Emit(trace.Failed{Where: trace.Where{Kind: kind, Worker: c.Worker}, Doing: "talk to NATS", Err: err})
				return
			}
			o.Logger().Info("reconnected to NATS", "server", now.Server, "address", now.Addr, "after_s", now.Away.Seconds())
		},
	})
	if err != nil {
		return stopped(ctx, err)
	}
	defer conn.Close()
	w.Conn = conn
	if kind == topology.KindSpout {
		o.Handle("POST /call/{topology}", call.New(conn))
	}
	o.Ready(false, "connecting to the stores")
	stores, err := openStores(ctx, kind, c, is.waiting)
	if err != nil {
		return stopped(ctx, err)
	}
	defer stores.close()
	w.Store, w.Logs, w.Documents = stores.state, stores.logs, stores.documents
	archives := &Archives{
		Conn: conn, Open: stores.archives, Worker: c.Worker, Sink: w.Sink, Cache: archive.CacheOptions{Entries: c.Cache.Entries, Bytes: c.Cache.Bytes},
	}
	defer archives.Close()
	w.Build = archives.Build(w.Build)
	w.Cache = state.NewCache(state.CacheOptions{Entries: c.Cache.Entries, Bytes: c.Cache.Bytes, TTL: c.Cache.TTL})
	o.Ready(false, "reading the topologies")
	return w.Run(ctx)
}

// stopped is err, or nil when what failed did so because the service was told to stop: to wait in vain is no failure then.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
