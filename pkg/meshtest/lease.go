package meshtest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/boltmesh/boltmesh/pkg/member"
)

// applied is the topology as it stands in the bucket: see control.Applied.
type applied struct {
	key      uint64 // grows with every write
	revision uint32
	paused   bool
	rested   bool
	closed   bool
}

// tell writes what the topology is told and returns the key's revision.
func (m *mesh) tell(f func(t *applied)) uint64 {
	f(&m.applied)
	m.applied.key++
	return m.applied.key
}

// leaseFor is how long a lease lasts that is not renewed, ms; lingering is how long whoever was replaced goes on renewing its own without knowing.
const (
	leaseFor  = 3_000
	lingering = 1_000
)

// lease is what a spout last said of what it owns, and when.
type lease struct {
	member.Member
	renewed int64
}

// run1 notes the revision that an actor runs.
func (m *mesh) run1(a *actor) uint32 {
	a.revision, a.told = m.applied.revision, m.applied
	return a.revision
}

// paused returns the revision of the key by which an actor is paused; 0 when it is not, as far as it knows: it learns of what is told a little later. Whoever
// runs another revision than the applied one has nothing to emit.
func (m *mesh) paused(a *actor) uint64 {
	if a.told.key != m.applied.key && m.rng.IntN(3) == 0 {
		a.told = m.applied
	}
	if a.told.paused || a.told.revision != a.revision {
		return a.told.key
	}
	return 0
}

// introduce tells of what an actor is about to emit from, and then looks what the topology is told, until it is not closed.
func (m *mesh) introduce(a *actor, current bool, self member.Member) error {
	if m.broken.unannounced {
		return nil
	}
	a.yield()
	if current {
		m.store1(a, self)
	}
	for {
		a.yield()
		if a.told = m.applied; a.told.revision != a.revision {
			return errChanged
		}
		if !a.told.closed {
			return nil
		}
		a.sleep(100 * time.Millisecond)
	}
}

// renew has an actor's lease say how far it is, now and then, and soon after it has come to rest. One that was replaced does not know for a while.
func (m *mesh) renew(a *actor, current bool, self member.Member) {
	if !current && a.replaced == 0 {
		a.replaced = m.now
	}
	if !current && m.now-a.replaced > lingering {
		return
	}
	if m.rng.IntN(40) == 0 || restful(self) && m.rng.IntN(3) == 0 {
		m.store1(a, self)
	}
}

// errLapsed ends who emits what somebody else owns by now, when its own lease has lapsed.
var errLapsed = errors.New("its lease has lapsed")

// lapsed returns errLapsed to who was replaced and has not renewed its lease for as long as that lasts, as workers look after their own. Between this look and what is
// emitted after it time may pass.
func (m *mesh) lapsed(a *actor, current bool) error {
	if !current && a.renewed > 0 && m.now-a.renewed >= leaseFor {
		return errLapsed
	}
	return nil
}

// restful says whether something in a lease rests.
func restful(m member.Member) bool {
	for _, k := range m.Marks {
		return k.Rests(k.Pause)
	}
	for _, l := range m.Logs {
		return l.Rests(l.Pause)
	}
	return false
}

// store1 writes an actor's lease.
func (m *mesh) store1(a *actor, self member.Member) {
	self.Worker, a.renewed = a.name, m.now
	m.release(a)
	m.leases = append(m.leases, lease{self, m.now})
}

// release takes an actor's lease away, which it does itself when it ends in an orderly manner.
func (m *mesh) release(a *actor) {
	if !a.killed {
		m.leases = slices.DeleteFunc(m.leases, func(l lease) bool { return l.Worker == a.name })
	}
}

// alive lists the leases that have not expired.
func (m *mesh) alive() (alive []member.Member) {
	for _, l := range m.leases {
		if m.now-l.renewed < leaseFor {
			alive = append(alive, l.Member)
		}
	}
	return alive
}

// settles waits until nothing is under way, closes the topology and looks once more, as pkg/control does. It gives up after a minute of faults.
func (m *mesh) settles(a *actor, begun uint64) bool {
	for patience := 600; patience > 0 || !m.faulty; patience-- {
		if m.rests(a, begun) {
			if m.broken.looksOnce {
				return true
			}
			m.tell(func(t *applied) { t.closed = true })
			if m.rests(a, begun) {
				return true
			}
			m.note("it does not rest after all: %v", m.alive())
			m.tell(func(t *applied) { t.closed = false })
		}
		a.sleep(100 * time.Millisecond)
	}
	return false
}

// rests reports whether nothing is under way, as far as leases and inputs say. Time passes between looking at them and acting on it.
func (m *mesh) rests(a *actor, begun uint64) bool {
	if m.broken.openRoots23 {
		for _, p := range m.parts {
			if p.loop == nil || p.actor.over {
				return false
			}
			if n, _ := p.loop.Open(); n > 0 {
				return false
			}
		}
		return true
	}
	if m.broken.anyPause {
		begun = 0
	}
	a.sleep(time.Duration(m.rng.IntN(10)) * time.Millisecond)
	m.resting = m.alive()
	missing := member.Unrest(m.resting, len(m.parts), m.logs(), begun)
	a.sleep(time.Duration(m.rng.IntN(30)) * time.Millisecond)
	for _, to := range m.addresses {
		if to.task >= 0 && int(to.task) >= m.tasksIn(to.node, m.applied.revision) {
			m.streams[to].messages = nil // of a task that is no more: nobody would ever take them
		}
		if n := len(m.streams[to].messages); n > 0 {
			missing = append(missing, fmt.Sprintf("%d frames for %v", n, to))
		}
	}
	a.sleep(time.Duration(m.rng.IntN(10)) * time.Millisecond)
	return len(missing) == 0
}
