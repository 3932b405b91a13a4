package devstack

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// startLimit bounds a start whose context has no deadline. A start takes tens of milliseconds; recovering a large
// directory takes longer.
const startLimit = 30 * time.Second

type natsBroker struct {
	server *server.Server
	url    string
}

func startNATS(ctx context.Context, o Options) (*natsBroker, error) {
	port := o.NATSPort
	if port == 0 {
		port = server.RANDOM_PORT
	}
	srv, err := server.NewServer(&server.Options{
		ServerName:   "devstack",
		Host:         "127.0.0.1",
		Port:         port,
		JetStream:    true,
		StoreDir:     filepath.Join(o.Dir, "nats"),
		SyncInterval: o.SyncInterval,
		SyncAlways:   o.SyncAlways,
		NoLog:        true, // the server's own logger prints; ours below hands lines to the caller
		NoSigs:       true, // signals are the program's business
	})
	if err != nil {
		return nil, err
	}
	log := natsLog{warn: o.Warn, fatal: make(chan string, 1)}
	srv.SetLoggerV2(log, false, false, false)
	go srv.Start()
	b := &natsBroker{server: srv}
	if err := ready(ctx, srv, log.fatal); err != nil {
		b.close()
		return nil, err
	}
	b.url = fmt.Sprintf("nats://%s", srv.Addr())
	return b, nil
}

// ready waits in short rounds: the server's own wait knows neither a context nor that the server gave up.
func ready(ctx context.Context, srv *server.Server, fatal <-chan string) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for !srv.ReadyForConnections(25 * time.Millisecond) {
		select {
		case line := <-fatal:
			return errors.New(line)
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", ctx.Err())
		default:
		}
	}
	if !srv.JetStreamEnabled() {
		return errors.New("the server runs without JetStream")
	}
	return nil
}

func (b *natsBroker) close() {
	b.server.Shutdown()
	b.server.WaitForShutdown()
}

// natsLog passes on what the server warns of and drops the rest. A fatal line, of which a program would die, ends the
// start instead.
type natsLog struct {
	warn  func(line string)
	fatal chan string
}

func (l natsLog) Warnf(format string, v ...any)  { l.warn("nats: " + fmt.Sprintf(format, v...)) }
func (l natsLog) Errorf(format string, v ...any) { l.warn("nats: " + fmt.Sprintf(format, v...)) }
func (natsLog) Noticef(string, ...any)           {}
func (natsLog) Debugf(string, ...any)            {}
func (natsLog) Tracef(string, ...any)            {}

func (l natsLog) Fatalf(format string, v ...any) {
	line := fmt.Sprintf(format, v...)
	select {
	case l.fatal <- line:
	default: // one is enough; nobody reads them after the start
		l.warn("nats: " + line)
	}
}
