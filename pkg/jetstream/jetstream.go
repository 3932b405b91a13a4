// Package jetstream is everything that knows NATS: it provisions a stream per task, publishes and consumes frames, carries ledger deltas, keeps
// leases, topologies and dead letters. Services hand its values to the engine as inboxes, outboxes and so on.
// It never looks into a frame or a tuple.
package jetstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Options say how to reach NATS.
type Options struct {
	URL      string // nats://host:port, comma separated; default nats://127.0.0.1:4222
	Name     string // of this client, shown by the server
	Creds    string // credentials file
	User     string
	Password string
	Token    string
	CA       string // file; also turns TLS on
	Cert     string
	Key      string
	Insecure bool // skip verification: tests only
	Replicas int  // of streams and buckets; default 1
	// Changed is told of every disconnect and reconnect, of each of the two connections that there are where loops run, one after the other.
	Changed func(Change)
	// Waiting is told of each attempt that failed for a reason that may pass, while a connection, a bucket or a stream is waited for: what that is, and why.
	Waiting func(what string, err error)
}

// Conn is a connection with its JetStream context, and another one for the frames that come in once a loop consumes any.
type Conn struct {
	nc        *nats.Conn
	js        jetstream.JetStream
	replicas  int
	waiting   func(what string, err error)
	lane      lane
	sent      *sentLately    // deltas
	breaks    *atomic.Uint64 // counts disconnects and reconnects: after one, what is watched may have gaps until it has caught up
	creations creations
	links     *links
	standing  standing
}

// Connect opens a connection, waiting for the server until ctx ends. Afterwards it reconnects for ever.
func Connect(ctx context.Context, o Options) (*Conn, error) {
	if o.URL == "" {
		o.URL = nats.DefaultURL
	}
	both := &links{changed: o.Changed}
	breaks, one, sent := &atomic.Uint64{}, &link{links: both}, &sentLately{}
	opts := []nats.Option{
		nats.Name(o.Name), nats.MaxReconnects(-1), nats.ReconnectWait(200 * time.Millisecond), nats.ReconnectJitter(100*time.Millisecond, time.Second),
		nats.PingInterval(5 * time.Second), nats.MaxPingsOutstanding(3), nats.Timeout(3 * time.Second),
	}
	told := []nats.Option{
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			breaks.Add(1)
			one.down(err)
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			breaks.Add(1)
			one.up(nc)
		}),
	}
	if o.Creds != "" {
		opts = append(opts, nats.UserCredentials(o.Creds))
	}
	if o.User != "" {
		opts = append(opts, nats.UserInfo(o.User, o.Password))
	}
	if o.Token != "" {
		opts = append(opts, nats.Token(o.Token))
	}
	if o.CA != "" || o.Cert != "" || o.Insecure {
		config, err := tlsConfig(o)
		if err != nil {
			return nil, err
		}
		opts = append(opts, nats.Secure(config))
	}
	nc, err := dial(ctx, o, append(told, opts...))
	if err != nil {
		return nil, err
	}
	one.open(nc)
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncTimeout(ackPatience), jetstream.WithPublishAsyncMaxPending(16384))
	if err != nil {
		nc.Close()
		return nil, err
	}
	frames := func(ctx context.Context) (*nats.Conn, error) {
		other := &link{links: both}
		nc, err := dial(ctx, o, append([]nats.Option{
			nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { other.down(err) }),
			nats.ReconnectHandler(func(nc *nats.Conn) {
				sent.repeat(nc, "")
				other.up(nc)
			}),
		}, opts...))
		if err == nil {
			other.open(nc)
		}
		return nc, err
	}
	return &Conn{
		nc: nc, js: js, replicas: max(1, o.Replicas), waiting: o.Waiting, sent: sent, breaks: breaks,
		lane: lane{dial: frames}, links: both,
	}, nil
}

// dial tries until ctx ends: a service may well start before its broker.
func dial(ctx context.Context, o Options, opts []nats.Option) (*nats.Conn, error) {
	what := "connect to NATS at " + redact(o.URL)
	for {
		nc, err := nats.Connect(o.URL, opts...)
		if err == nil {
			return nc, nil
		}
		if errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) {
			return nil, fmt.Errorf("connect to NATS: %w: check the credentials", err)
		}
		if o.Waiting != nil {
			o.Waiting(what, err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: %w (last: %w)", what, ctx.Err(), err)
		case <-time.After(250 * time.Millisecond):
		}
	}
}

func redact(url string) string {
	for i := range url {
		if url[i] == '@' {
			return "…" + url[i:]
		}
	}
	return url
}

func tlsConfig(o Options) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: o.Insecure}
	if o.CA != "" {
		pem, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, fmt.Errorf("NATS CA file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("NATS CA file %s holds no certificate", o.CA)
		}
	}
	if o.Cert != "" {
		pair, err := tls.LoadX509KeyPair(o.Cert, o.Key)
		if err != nil {
			return nil, fmt.Errorf("NATS client certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// Close drains what has been written and closes the connection.
func (c *Conn) Close() {
	c.lane.close()
	finish(c.nc)
}

func finish(nc *nats.Conn) {
	_ = nc.FlushTimeout(2 * time.Second)
	nc.Close()
}

// Connected reports whether the connection is up now.
func (c *Conn) Connected() bool { return c.nc.IsConnected() && c.lane.connected() }

// Names of streams, subjects and consumers.

// StreamName is the stream of what waits for one task of a node. Each has a stream of its own: tasks do not wait for one another's frames to be stored, what
// is acknowledged lies at the beginning, and in a cluster servers share the work on one node.
func StreamName(topology, node string, task int32) string {
	return "BM_" + topology + "_" + node + "_" + tuple.TaskName(task)
}

// Subject is where frames for one task of a node go.
func Subject(topology, node string, task int32) string {
	return "bm." + topology + "." + node + "." + tuple.TaskName(task)
}

// Serve answers requests on a subject until stop is called; nil says nothing. Each request has a goroutine of its own.
func (c *Conn) Serve(subject string, answer func([]byte) []byte) (stop func(), err error) {
	sub, err := c.nc.Subscribe(subject, func(m *nats.Msg) {
		go func() {
			if said := answer(m.Data); said != nil {
				_ = m.Respond(said) // nobody is left to tell when the requester has gone
			}
		}()
	})
	if err != nil {
		return nil, fmt.Errorf("serve %s: %w", subject, err)
	}
	return func() { _ = sub.Unsubscribe() }, nil
}

// Request asks on a subject and returns the answer.
func (c *Conn) Request(ctx context.Context, subject string, data []byte) ([]byte, error) {
	m, err := c.nc.RequestWithContext(ctx, subject, data)
	if err != nil {
		return nil, fmt.Errorf("request on %s: %w", subject, err)
	}
	return m.Data, nil
}

// Ask puts a question to everybody who serves a subject and returns the answers that came within wait.
func (c *Conn) Ask(ctx context.Context, subject string, data []byte, wait time.Duration) (answers [][]byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	inbox := c.nc.NewInbox()
	sub, err := c.nc.SubscribeSync(inbox)
	if err != nil {
		return nil, fmt.Errorf("ask on %s: %w", subject, err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := c.nc.PublishRequest(subject, inbox, data); err != nil {
		return nil, fmt.Errorf("ask on %s: %w", subject, err)
	}
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return answers, nil // the time is up, or nobody serves it
		}
		answers = append(answers, m.Data)
	}
}
