// Package meshtest runs a whole topology in one goroutine on memory transports: the real engine, with a scheduler that chooses the next step by a seed and
// injects the faults that PROTOCOL is about. Tests of the protocol and `boltmesh test` use it.
// It never sleeps, opens a socket or depends on anything but its seed.
package meshtest

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"time"
)

// world is the scheduler: actors that take turns, a clock that moves when they do, and a history.
type world struct {
	rng     *rand.Rand
	now     int64 // ms
	actors  []*actor
	awake   []*actor // scratch of turn
	steps   int
	faults  Faults
	window  Window
	hits    int  // faults drawn so far, those outside the window included
	faulty  bool // faults may still happen
	history []string
	failed  error
}

// actor is one process's loop as a coroutine. It runs until it calls yield, which every call of a transport or store does.
type actor struct {
	w        *world
	name     string
	resume   func() (struct{}, bool)
	stop     func()
	pass     func(struct{}) bool
	draining int64   // since when it has been waiting for its roots, to leave; 0: it is not
	until    int64   // it sleeps until then
	skew     int64   // of its clock, ms
	revision uint32  // of the topology that it runs
	told     applied // what it knows that the topology is told
	renewed  int64   // when its lease was written; 0: never
	replaced int64   // when it has first noticed that somebody else has what it had; 0: it has not
	killed   bool
	over     bool
}

// killed unwinds a coroutine whose process has died.
type killed struct{}

// spawn starts an actor. body may block only in yield.
func (w *world) spawn(name string, body func(a *actor) error) *actor {
	a := &actor{w: w, name: name}
	a.resume, a.stop = iter.Pull(func(pass func(struct{}) bool) {
		defer func() {
			if p := recover(); p != nil {
				if _, dead := p.(killed); !dead {
					panic(p)
				}
			}
		}()
		a.pass = pass
		if err := body(a); err != nil {
			w.note("%s ended: %v", name, err)
		}
	})
	w.actors = append(w.actors, a)
	return a
}

// yield gives the turn back. What the actor does next happens later, or never.
func (a *actor) yield() {
	if a.killed || !a.pass(struct{}{}) || a.killed {
		a.killed = true
		panic(killed{})
	}
}

// sleep yields until d has passed.
func (a *actor) sleep(d time.Duration) {
	a.until = a.w.now + max(1, d.Milliseconds())
	a.yield()
}

// kill ends an actor where it stands: nothing it would have done next happens.
func (a *actor) kill() {
	a.w.note("kill %s", a.name)
	a.killed = true
	a.end()
}

func (a *actor) end() {
	a.over = true
	a.stop()
}

// turn lets one actor that is awake run to its next yield. Time moves a little, or to the next one who wakes.
func (w *world) turn() {
	w.awake = w.awake[:0]
	next, live := int64(1<<62-1), len(w.actors)
	for i, a := range w.actors {
		if a.over {
			live = min(live, i)
			continue
		}
		if live < i {
			w.actors[live] = a
			live++
		}
		if a.until <= w.now {
			w.awake = append(w.awake, a)
		} else {
			next = min(next, a.until)
		}
	}
	w.actors = w.actors[:live]
	w.steps++
	if len(w.awake) == 0 {
		w.now = next
		return
	}
	if w.rng.IntN(4) == 0 {
		w.now++
	}
	a := w.awake[w.rng.IntN(len(w.awake))]
	if _, more := a.resume(); !more {
		a.over = true
	}
}

// close ends everybody.
func (w *world) close() {
	for _, a := range w.actors {
		a.killed = true
		a.stop()
	}
}

// maxHistory bounds what is remembered; a failure shows the end of it.
const maxHistory = 400

func (w *world) note(format string, args ...any) {
	if len(w.history) >= 2*maxHistory {
		w.history = append(w.history[:0], w.history[maxHistory:]...)
	}
	w.history = append(w.history, fmt.Sprintf("%7d ms  ", w.now)+fmt.Sprintf(format, args...))
}

// fail records the first violation.
func (w *world) fail(format string, args ...any) {
	if w.failed == nil {
		w.failed = fmt.Errorf(format, args...)
		w.note("VIOLATION: %v", w.failed)
	}
}

// clock implements bolt.Clock in virtual time.
type clock struct{ a *actor }

func (c clock) Now() time.Time { return time.UnixMilli(c.a.w.now + c.a.skew) }

func (c clock) Sleep(ctx context.Context, d time.Duration) error {
	c.a.sleep(d)
	return ctx.Err()
}
