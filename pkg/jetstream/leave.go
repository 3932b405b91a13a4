package jetstream

import (
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// unheard is how long JetStream may fail to do anything before the connections go to another server. Servers elect a leader within 4 to 9 s. One that is cut off from the
// others keeps its clients and can store nothing, for as long as that lasts.
const unheard = 10 * time.Second

// standing says since when JetStream has done nothing that it was asked to.
type standing struct {
	mu    sync.Mutex
	since time.Time // of the first request that failed after the last one that did not; zero: there is none
}

// failing notes how a request went, and reports whether it is time to leave. Refusals count as well: a leader that is cut off refuses to write again what it has not
// stored, as if it had.
func (s *standing) failing(err error, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.since = time.Time{}
	case s.since.IsZero():
		s.since = now
	case now.Sub(s.since) >= unheard:
		s.since = now
		return true
	}
	return false
}

// heard notes how a request of JetStream went.
func (c *Conn) heard(err error) {
	if c.standing.failing(err, time.Now()) {
		c.links.leave(err)
	}
}

// leave has the connections go to other servers, if they know any.
func (l *links) leave(why error) {
	l.mu.Lock()
	all := l.all
	l.mu.Unlock()
	for _, one := range all {
		if len(one.nc.Servers()) > 1 && one.nc.IsConnected() {
			one.down(fmt.Errorf("it has stored nothing for %s, so another one is tried: %w", unheard, why))
			_ = one.nc.ForceReconnect() // the error says that it is closed
		}
	}
}

// open notes a connection that was made.
func (l *link) open(nc *nats.Conn) {
	l.first(nc)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nc, l.all = nc, append(l.all[:len(l.all):len(l.all)], l)
}
