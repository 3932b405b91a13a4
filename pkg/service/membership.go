package service

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/member"
)

// membership is this worker's lease on one node. While it is held the worker may own tasks; when it cannot be renewed in time, everything owned must
// stop at once. While the bucket has no leader nobody can renew, nor take anything over, so whoever held a lease goes on holding it.
type membership struct {
	bucket *jetstream.Bucket
	key    string
	ttl    time.Duration
	kicked chan struct{} // capacity 1: renew at once

	mu         sync.Mutex
	self       member.Member
	version    int           // of self: grows with every update
	stored     int           // the version that the bucket has
	written    chan struct{} // closed and replaced when stored grows
	revision   uint64
	renewed    time.Time
	failing    bool
	restored   time.Time // when renewals succeeded again after one had failed
	unanswered attempt   // the last one
}

// update changes what the lease says about this worker; the next renewal publishes it.
func (m *membership) update(f func(*member.Member)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.version++
	f(&m.self)
}

// tell is update that returns when the bucket has what was changed; false when ctx ends before.
func (m *membership) tell(ctx context.Context, f func(*member.Member)) bool {
	m.update(f)
	m.mu.Lock()
	version := m.version
	m.mu.Unlock()
	m.kick()
	for {
		m.mu.Lock()
		stored, written := m.stored, m.written
		m.mu.Unlock()
		if stored >= version {
			return true
		}
		select {
		case <-written:
		case <-ctx.Done():
			return false
		}
	}
}

// kick has the lease renewed at once, because what it says has changed in a way that somebody waits for.
func (m *membership) kick() {
	select {
	case m.kicked <- struct{}{}:
	default:
	}
}

// valid reports whether the lease can be relied on.
func (m *membership) valid() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Since(m.renewed) < 2*m.ttl/3 // before the others count it as dead
}

// settled reports whether the others have had time to renew theirs as well, if nobody could for a while: their leases may have expired without any of
// them being dead.
func (m *membership) settled() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.failing && time.Since(m.restored) >= m.ttl/2
}

// renew writes the lease. After it was lost it is taken anew: the tasks are not, they were given up.
func (m *membership) renew(ctx context.Context) error {
	m.mu.Lock()
	m.self.At = time.Now().UnixMilli()
	value, err := json.Marshal(m.self)
	last, version := m.revision, m.version
	m.mu.Unlock()
	if err != nil {
		return err
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, m.rhythm())
	defer cancel()
	revision, err := m.bucket.Store(ctx, m.key, value, last, m.ttl)
	var there jetstream.Entry
	if errors.Is(err, jetstream.ErrExists) { // expired and its marker is there, or an answer was lost
		there, _ = m.bucket.Load(ctx, m.key) // without a revision where there is none
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case errors.Is(err, jetstream.ErrExists):
		m.revision = there.Revision
		if m.unanswered.value != nil && bytes.Equal(there.Value, m.unanswered.value) {
			m.renewed = m.unanswered.began
		}
	case err == nil:
		m.revision, m.renewed, m.stored = revision, began, version
		close(m.written)
		m.written = make(chan struct{})
		if m.failing {
			m.failing, m.restored = false, time.Now()
		}
	default:
		m.failing, m.unanswered = true, attempt{value, began}
		if errors.Is(err, jetstream.ErrLeaderless) && time.Since(m.renewed) < 2*m.ttl/3 {
			m.renewed = began
		}
	}
	return err
}

// attempt is a renewal of which it is not known whether it was written.
type attempt struct {
	value []byte
	began time.Time
}

// rhythm is how often the lease is renewed, and how long an answer is waited for: so that a renewal that is lost can be made up for in time.
func (m *membership) rhythm() time.Duration { return min(m.ttl/4, time.Second) }

// hold renews until ctx ends, then removes the lease.
func (m *membership) hold(ctx context.Context, failed func(error)) {
	for ctx.Err() == nil {
		// Counted from the beginning of a renewal, as what it is good for is: where answers are slow a pause after each of them would let the lease lapse.
		next := time.After(m.rhythm())
		if err := m.renew(ctx); err != nil && ctx.Err() == nil {
			failed(err)
			sleep(ctx, m.ttl/15)
			continue
		}
		select {
		case <-next:
		case <-m.kicked:
		case <-ctx.Done():
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.ttl/3)
	defer cancel()
	_ = m.bucket.Delete(ctx, m.key, 0) // it would expire anyhow
}
