package service

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// tasksOf lists the tasks in order.
func tasksOf(mine map[int32]*owned) []int32 { return slices.Sorted(maps.Keys(mine)) }

// owned is a task that this worker owns or is giving up.
type owned struct {
	stop context.CancelFunc // gently: finish the batch
	kill context.CancelFunc
	done chan struct{}
}

// own claims the tasks that are this worker's share and gives up those that are not, whenever the roster changes.
func (h *host) own(ctx context.Context) {
	mine := map[int32]*owned{}
	check := time.NewTicker(h.renewal() / 4)
	defer check.Stop()
	for {
		_, changed := h.roster.see()
		wanted := map[int32]bool{}
		switch {
		case ctx.Err() != nil || !h.lease.valid():
		case !h.roster.has(h.node.ID, h.Name): // it has expired though it is held: what the roster says of the others may be as wrong
			for t := range mine {
				wanted[t] = true
			}
		default:
			for t, w := range h.roster.assign(h.node.ID, h.node.Tasks) {
				if w == h.Name {
					wanted[int32(t)] = true
				}
			}
		}
		h.shed(mine, wanted)
		for t := range wanted {
			if mine[t] == nil {
				if o := h.claim(t); o != nil {
					mine[t] = o
				}
			}
		}
		if h.lease.valid() {
			h.disown(ctx, mine, wanted)
		}
		h.lease.update(func(m *member.Member) { m.Tasks = tasksOf(mine) })
		if ctx.Err() != nil && len(mine) == 0 {
			return
		}
		stopping := ctx.Done()
		if ctx.Err() != nil {
			stopping = nil
		}
		select {
		case <-changed:
		case <-h.ended:
		case <-check.C:
		case <-stopping:
		}
	}
}

// shed forgets tasks whose loops have ended and stops those that are not wanted, at once when the lease is lost.
func (h *host) shed(mine map[int32]*owned, wanted map[int32]bool) {
	for t, o := range mine {
		select {
		case <-o.done:
			delete(mine, t)
			continue
		default:
		}
		if !wanted[t] {
			o.stop()
		}
		if !h.lease.valid() {
			o.kill()
		}
	}
}

// disown removes this worker's claims on tasks that it neither runs nor is to run: from before it was killed, or from when the release did not get
// through. As long as this worker is alive, nobody else would touch them.
func (h *host) disown(ctx context.Context, mine map[int32]*owned, wanted map[int32]bool) {
	for t := range int32(h.node.Tasks) {
		what := strconv.Itoa(int(t))
		held, _ := h.roster.owner(h.node.ID, what)
		if held.worker != h.Name || mine[t] != nil || wanted[t] {
			continue
		}
		release, cancel := context.WithTimeout(ctx, h.renewal())
		err := h.leases.Delete(release, member.OwnKey(h.plan.Topology.Name, h.node.ID, what), held.revision)
		cancel()
		if err != nil {
			return // the next look is soon, and may find that it has been released
		}
	}
}

// claim takes a task, unless somebody else who is alive holds it, and starts its loop. It returns nil when it has to wait.
func (h *host) claim(task int32) *owned {
	return h.claimNamed(strconv.Itoa(int(task)), func(stopping, hard context.Context, revision uint64) error {
		return h.loop(stopping, hard, task, revision)
	})
}

// claimNamed takes the lease on a task or a log, unless somebody else who is alive holds it, and runs f, again after errors, until it is stopped or lost.
// It does not wait for the lease: a replica that leaves may leave many tasks at once. When another has been faster, what it returns is done.
func (h *host) claimNamed(what string, f func(stopping, hard context.Context, revision uint64) error) *owned {
	held, alive := h.roster.owner(h.node.ID, what)
	if held.worker != "" && held.worker != h.Name && (alive || !h.lease.settled()) {
		return nil
	}
	stopping, stop := context.WithCancel(h.hard)
	hard, kill := context.WithCancel(h.hard)
	o := &owned{stop: stop, kill: kill, done: make(chan struct{})}
	h.loops.Go(func() {
		claimed := h.hold(stopping, hard, what, held, f)
		stop()
		kill()
		close(o.done)
		if claimed {
			select {
			case h.ended <- struct{}{}:
			default:
			}
		}
	})
	return o
}

// hold writes the claim, runs f while it stands, and takes it back. It returns false when the claim could not be had.
func (h *host) hold(stopping, hard context.Context, what string, seen owner, f func(stopping, hard context.Context, revision uint64) error) bool {
	revision, err := h.write(hard, what, seen)
	if err != nil {
		if !errors.Is(err, jetstream.ErrExists) && stopping.Err() == nil {
			h.failed(h.at(), "claim "+what, err)
		}
		return false
	}
	h.repeat(stopping, func() error { return f(stopping, hard, revision) })
	release, cancel := context.WithTimeout(context.WithoutCancel(hard), h.renewal())
	defer cancel()
	_ = h.leases.Delete(release, member.OwnKey(h.plan.Topology.Name, h.node.ID, what), revision) // refused if somebody else has it by now
	return true
}

// write puts this worker's name under a task's key in place of what was seen there.
func (h *host) write(ctx context.Context, what string, seen owner) (revision uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, h.renewal())
	defer cancel()
	key := member.OwnKey(h.plan.Topology.Name, h.node.ID, what)
	revision, err = h.leases.Store(ctx, key, []byte(h.Name), seen.revision, 0)
	if seen.worker == "" && errors.Is(err, jetstream.ErrExists) { // or the bucket has forgotten that the key was deleted
		return h.leases.Store(ctx, key, []byte(h.Name), 0, 0)
	}
	return revision, err
}

// owns shows a task in the lease until the returned function is called.
func (h *host) owns(task int32, epoch uint64) func() {
	drop := func(m *member.Member) {
		m.Owned = slices.DeleteFunc(m.Owned, func(o member.Owned) bool { return o.Task == task })
	}
	if task == tuple.Shared {
		return func() {}
	}
	h.lease.update(func(m *member.Member) {
		drop(m)
		m.Owned = append(m.Owned, member.Owned{Task: task, Epoch: epoch, Since: time.Now().UnixMilli()})
	})
	h.lease.kick()
	return func() { h.lease.update(drop) }
}

// ownLog runs f while this worker holds the lease on one of the topology's own logs, until ctx ends.
func (h *host) ownLog(ctx context.Context, log string, f func(stopping, hard context.Context) error) {
	mine := (*owned)(nil)
	check := time.NewTicker(h.renewal() / 4)
	defer check.Stop()
	for {
		if mine != nil {
			select {
			case <-mine.done:
				mine = nil
			default:
				if !h.lease.valid() {
					mine.stop() // or it would be tried again, for ever, with a context that has ended
					mine.kill()
				}
			}
		}
		if ctx.Err() != nil {
			if mine == nil {
				return
			}
			mine.stop()
		} else if mine == nil && h.lease.valid() {
			mine = h.claimLog(log, f)
		}
		<-check.C
	}
}

// claimLog takes the lease on one of the topology's own logs, if nobody alive holds it, and runs f while it is held.
func (h *host) claimLog(log string, f func(stopping, hard context.Context) error) *owned {
	return h.claimNamed("log-"+log, func(stopping, hard context.Context, _ uint64) error {
		defer h.forgetLog(log)
		if !h.introduce(stopping, func(m *member.Member) { showLog(m, member.Log{Name: log}) }) {
			return nil
		}
		return f(stopping, hard)
	})
}
