// Package ack is the XOR ledger of tuple trees: which roots of one origin are open, when one is complete, and how far the contiguous prefix of
// complete ones (the floor) reaches. A spout owns one per origin and feeds it deltas and the time.
// It never does I/O, reads a clock or knows what a tuple holds.
//
// The arithmetic is Apache Storm's: every delivery in a tree is XORed in once when it is emitted and once when it is handled, so the sum is zero
// exactly when everything emitted was handled, up to a collision of probability 2^-64.
package ack

import (
	"fmt"
	"strings"

	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// How far a root's timeout may be stretched: by replays, and before them by trees that are slow.
const (
	maxFactor  = 64
	slowFactor = 8
)

// Options configure a ledger.
type Options struct {
	Timeout int64 // least time from emission to replay, ms; up to 8 times that when trees are slow; doubled with each replay, at most 64 times; default 30,000
	Span    int64 // budget: offset o may be emitted only if o < floor + Span; 0 means no limit
}

// Ledger tracks the roots of one origin in one generation. It is not safe for concurrent use.
type Ledger struct {
	generation uint32
	floor      int64
	options    Options
	open       []*root // by first offset; open[0] is not complete, later ones may be
	byFirst    map[int64]*root
	latency    int64 // how long trees take, ms: follows a slower one at once and faster ones by an eighth each
}

type root struct {
	first, next int64 // offsets [first, next)
	begun       int64 // first emission
	deadline    int64
	timeout     int64
	attempts    []attempt // index is the count; all stay open until any of them reaches zero
	complete    bool
}

type attempt struct {
	begun int64
	xor   uint64
	seen  map[tuple.ID]struct{} // frames that have reported
}

// Done is a root that has just been completed.
type Done struct {
	First, Next int64
	Attempt     tuple.Attempt
	Begun       int64 // when it was first emitted
}

// Due is a root that must be emitted again under a new attempt: Track it with Attempt, then publish.
type Due struct {
	First, Next int64
	Attempt     tuple.Attempt
	Age         int64 // ms since first emission
}

// New returns the ledger of a generation that begins at floor: every offset below is fully processed.
func New(generation uint32, floor int64, o Options) *Ledger {
	if o.Timeout <= 0 {
		o.Timeout = 30_000
	}
	return &Ledger{generation: generation, floor: floor, options: o, byFirst: map[int64]*root{}}
}

// Attempt returns the first attempt of a new root: count 0 in this generation.
func (l *Ledger) Attempt() tuple.Attempt { return tuple.Attempt{Generation: l.generation} }

// Track opens the root [first, next) under an attempt, whose deliveries XOR to xor. It must be called before the first of them is published.
// A new root lies behind all others; a known one gets the attempt that Tick asked for. A root without deliveries completes at once.
func (l *Ledger) Track(first, next int64, a tuple.Attempt, xor uint64, now int64) (Done, bool) {
	r := l.byFirst[first]
	if r == nil {
		r = &root{first: first, next: next, begun: now, timeout: l.timeout()}
		r.deadline = now + r.timeout
		l.byFirst[first] = r
		l.open = append(l.open, r)
	}
	for len(r.attempts) <= int(a.Count) {
		r.attempts = append(r.attempts, attempt{})
	}
	r.attempts[a.Count] = attempt{begun: now, xor: xor, seen: map[tuple.ID]struct{}{}}
	return l.settle(r, a, now)
}

// timeout is that of a new root. A fixed one, shorter than what trees take under load, would replay everything and so make the load greater:
// it follows what is measured, as TCP's does (RFC 6298). There is nothing to guess (Karn's algorithm): every attempt has its own sum.
func (l *Ledger) timeout() int64 {
	return min(max(l.options.Timeout, 2*l.latency), slowFactor*l.options.Timeout)
}

// Apply takes one delta in. It ignores what it does not know (another generation, a root that is complete, an attempt never made) and what it has
// taken before: deltas may come twice, late, or from a zombie. A zero frame with a zero XOR extends the root's timeout.
func (l *Ledger) Apply(d tuple.Delta, now int64) (Done, bool) {
	r := l.byFirst[d.First]
	if r == nil || d.Attempt.Generation != l.generation || int(d.Attempt.Count) >= len(r.attempts) {
		return Done{}, false
	}
	a := &r.attempts[d.Attempt.Count]
	if a.seen == nil {
		return Done{}, false
	}
	if d.Frame.IsZero() {
		r.deadline = now + r.timeout
		return Done{}, false
	}
	if _, again := a.seen[d.Frame]; again {
		return Done{}, false
	}
	a.seen[d.Frame] = struct{}{}
	a.xor ^= d.XOR
	return l.settle(r, d.Attempt, now)
}

// settle completes r if the attempt's sum is zero, and moves the floor over what is complete.
func (l *Ledger) settle(r *root, a tuple.Attempt, now int64) (Done, bool) {
	if r.complete || r.attempts[a.Count].xor != 0 {
		return Done{}, false
	}
	took := now - r.attempts[a.Count].begun
	l.latency = max(took, l.latency-(l.latency-took+7)/8)
	r.complete, r.attempts = true, nil
	delete(l.byFirst, r.first)
	for len(l.open) > 0 && l.open[0].complete {
		l.floor = max(l.floor, l.open[0].next)
		l.open[0] = nil
		l.open = l.open[1:]
	}
	return Done{First: r.first, Next: r.next, Attempt: a, Begun: r.begun}, true
}

// Tick returns the roots whose timeout has passed, oldest first, each with the attempt to emit next; their timeouts double.
func (l *Ledger) Tick(now int64) []Due {
	var due []Due
	for _, r := range l.open {
		if r.complete || now < r.deadline {
			continue
		}
		r.timeout = min(2*r.timeout, maxFactor*l.options.Timeout)
		r.deadline = now + r.timeout
		a := tuple.Attempt{Generation: l.generation, Count: uint32(len(r.attempts))}
		due = append(due, Due{First: r.first, Next: r.next, Attempt: a, Age: now - r.begun})
	}
	return due
}

// Floor returns the end of the contiguous prefix of complete roots.
func (l *Ledger) Floor() int64 { return l.floor }

// Room reports whether offset o may be emitted within the span.
func (l *Ledger) Room(o int64) bool { return l.options.Span <= 0 || o < l.floor+l.options.Span }

// Open returns the number of roots that are not complete, and when the oldest was first emitted (0 when there is none).
func (l *Ledger) Open() (n int, oldest int64) {
	if len(l.open) > 0 {
		oldest = l.open[0].begun
	}
	return len(l.byFirst), oldest
}

// Knows reports whether the root that begins at first is still open.
func (l *Ledger) Knows(first int64) bool { return l.byFirst[first] != nil }

// Describe draws the ledger for humans: the floor, then one line for each root with its attempts.
func (l *Ledger) Describe() string {
	var b strings.Builder
	fmt.Fprintf(&b, "generation %d floor %d\n", l.generation, l.floor)
	for _, r := range l.open {
		fmt.Fprintf(&b, "  [%d,%d)", r.first, r.next)
		if r.complete {
			b.WriteString(" complete\n")
			continue
		}
		for count, a := range r.attempts {
			fmt.Fprintf(&b, " #%d %016x after %d frames", count, a.xor, len(a.seen))
		}
		fmt.Fprintf(&b, " until %d\n", r.deadline)
	}
	return b.String()
}
