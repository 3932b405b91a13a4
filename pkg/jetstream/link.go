package jetstream

import (
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// Change is the loss of a connection, or its return. It never names credentials.
type Change struct {
	Err    error         // why it was lost; nil when it is back
	Server string        // the name that the server lost, or found, gives itself
	Addr   string        // its host:port
	Away   time.Duration // how long there was none; 0 when it has just been lost
	Others int           // other connections of the same Conn that are lost now
}

// links are the connections of one Conn. Changes are told one after the other, so that the last one told is how things are.
type links struct {
	mu      sync.Mutex
	changed func(Change) // may be nil
	away    int
	all     []*link
}

// link remembers which server a connection is with, since a lost connection no longer says so.
type link struct {
	*links
	nc           *nats.Conn
	server, addr string
	lost         time.Time // zero: it is not
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
	defer l.mu.Unlock()
	l.server, l.addr = nc.ConnectedServerName(), nc.ConnectedAddr()
	c := Change{Server: l.server, Addr: l.addr}
	if !l.lost.IsZero() {
		c.Away, l.lost = time.Since(l.lost), time.Time{}
		l.away--
	}
	c.Others = l.away
	if l.changed != nil {
		l.changed(c)
	}
}

func (l *link) down(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := Change{Err: err, Server: l.server, Addr: l.addr, Others: l.away}
	if l.lost.IsZero() {
		l.lost = time.Now()
		l.away++
	} else {
		c.Others--
	}
	if l.changed != nil && err != nil { // nil: closed by us
		l.changed(c)
	}
}
