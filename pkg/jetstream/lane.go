package jetstream

import (
	"context"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// lane is a connection of its own for the frames that loops consume, for their acknowledgements and the deltas before those: what the server says on the
// other connection, above all that a frame is stored, would have to wait behind the frames that it sends. The first loop opens it.
type lane struct {
	dial func(context.Context) (*nats.Conn, error)

	mu sync.Mutex
	nc *nats.Conn
	js jetstream.JetStream
}

// open returns the connection.
func (l *lane) open(ctx context.Context) (*nats.Conn, jetstream.JetStream, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.nc != nil {
		return l.nc, l.js, nil
	}
	nc, err := l.dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	l.nc, l.js = nc, js
	return nc, js, nil
}

// connected reports whether the connection is up, if it is open.
func (l *lane) connected() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nc == nil || l.nc.IsConnected()
}

func (l *lane) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.nc != nil {
		finish(l.nc)
	}
}
