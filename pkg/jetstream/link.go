package jetstream

import (
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// Change is the loss of the connection, or its return. It never names credentials.
type Change struct {
	Err    error         // why it was lost; nil when it is back
	Server string        // the name that the server lost, or found, gives itself
	Addr   string        // its host:port
	Away   time.Duration // how long there was none; 0 when it has just been lost
}

// link remembers which server a connection is with, since a lost connection no longer says so.
type link struct {
	changed func(Change)

	mu           sync.Mutex
	server, addr string
	lost         time.Time
}

// first notes the server that was connected to at the beginning.
func (l *link) first(nc *nats.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.server == "" { // or there has been another since
		l.server, l.addr = nc.ConnectedServerName(), nc.ConnectedAddr()
	}
}

func (l *link) up(nc *nats.Conn) {
	l.mu.Lock()
	l.server, l.addr = nc.ConnectedServerName(), nc.ConnectedAddr()
	c := Change{Server: l.server, Addr: l.addr, Away: time.Since(l.lost)}
	l.mu.Unlock()
	if l.changed != nil {
		l.changed(c)
	}
}

func (l *link) down(err error) {
	l.mu.Lock()
	l.lost = time.Now()
	c := Change{Err: err, Server: l.server, Addr: l.addr}
	l.mu.Unlock()
	if l.changed != nil && err != nil { // nil: closed by us
		l.changed(c)
	}
}
