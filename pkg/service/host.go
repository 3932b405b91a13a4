package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// host runs one node in this worker: it holds the worker's lease on the node, and runs a loop for each task it owns.
type host struct {
	*Worker
	plan     *topology.Plan
	node     topology.Node
	revision uint32
	roster   *roster
	lease    *membership
	hard     context.Context // outlives the stop signal by the drain
	outbox   *jetstream.Outbox
	dead     *jetstream.NodeLetters // dead letters of the node
	docs     database
	chained  chained
	convoy   *convoy // of the spout's partitions

	is      *running // of the topology, kept by the worker
	working sync.Map // *bolt.Loop -> its task
	loops   sync.WaitGroup
	ended   chan struct{} // capacity 1: a claim has been released
}

func (h *host) at() trace.Where { return h.where(h.plan.Topology.Name, h.node.ID) }

// run runs the node until ctx ends, then waits for what is in flight.
func (h *host) run(ctx context.Context) {
	name := h.plan.Topology.Name
	h.lease = &membership{
		bucket: h.leases, ttl: h.Lease, kicked: make(chan struct{}, 1), written: make(chan struct{}), key: member.Key(name, h.node.ID, h.Name),
		self: member.Member{
			Topology: name, Node: h.node.ID, Kind: h.Kind, Worker: h.Name, Version: h.Version, Since: time.Now().UnixMilli(), Revision: h.revision,
			Procs: runtime.GOMAXPROCS(0),
		},
	}
	h.ended = make(chan struct{}, 1)
	h.outbox = h.Conn.Outbox(name)
	h.dead = h.letters.Of(name, h.node.ID)
	defer h.dead.Close()
	defer h.chained.close()
	h.is.hosts.Store(h.node.ID, h)
	held, release := context.WithCancel(h.hard)
	var holding sync.WaitGroup
	holding.Go(func() { h.lease.hold(held, func(err error) { h.failed(h.at(), "renew the lease", err) }) })
	holding.Go(func() { h.showWork(held) })
	defer holding.Wait()
	defer release()
	h.present.Store(h, nil)
	defer h.present.Delete(h)
	// Told before its tasks are released, the others know at each release whose the task is.
	defer context.AfterFunc(ctx, func() {
		h.lease.update(func(m *member.Member) { m.Leaving = true })
		h.lease.kick()
	})()
	if stop, err := h.answerHolders(); err != nil {
		h.failed(h.at(), "serve questions", err)
	} else {
		defer stop()
	}
	if stop, err := h.answerDivide(); err != nil {
		h.failed(h.at(), "serve requests", err)
	} else {
		defer stop()
	}
	switch {
	case h.node.Kind == topology.KindSpout:
		h.spout(ctx)
	case h.node.Shared:
		h.compete(ctx)
	default:
		h.own(ctx)
	}
	h.loops.Wait()
}

// compete runs loops that take frames of a shared input, each with a bolt of its own.
func (h *host) compete(ctx context.Context) {
	for range h.node.Loops() {
		h.loops.Go(func() {
			h.repeat(ctx, func() error { return h.loop(ctx, h.hard, tuple.Shared, 0) })
		})
	}
	h.lease.update(func(m *member.Member) { m.Tasks = []int32{tuple.Shared} })
	<-ctx.Done()
}

// repeat runs f again after an error, with growing pauses, until ctx ends or the task is somebody else's.
func (h *host) repeat(ctx context.Context, f func() error) {
	pause := 100 * time.Millisecond
	for ctx.Err() == nil {
		began := time.Now()
		err := f()
		if err == nil || ctx.Err() != nil {
			return
		}
		lost := errors.Is(err, state.ErrFenced) || errors.Is(err, jetstream.ErrReplaced)
		h.Sink.Emit(trace.Failed{Where: h.at(), Doing: "run", Err: err, Fatal: lost})
		h.lease.update(func(m *member.Member) { m.LastError, m.ErrorAt = err.Error(), time.Now().UnixMilli() })
		if lost {
			return
		}
		if time.Since(began) > 10*time.Second {
			pause = 100 * time.Millisecond
		}
		sleep(ctx, pause)
		longest := 5 * time.Second
		if jetstream.Passing(err) {
			longest = 500 * time.Millisecond // a leader is elected within seconds, and everything waits for the tasks of this node
		}
		pause = min(2*pause, longest)
	}
}

// loop builds the bolt of one task, takes its consumer and steps until ctx ends. hard ends what is in flight.
func (h *host) loop(ctx, hard context.Context, task int32, epoch uint64) error {
	name := h.plan.Topology.Name
	where := h.at()
	where.Task = task
	b, err := h.build(hard, task)
	if err != nil {
		return fmt.Errorf("build: %w", err)
	}
	o := bolt.Options{
		Where: where, Revision: h.revision, Bolt: b, Edges: edges(h.plan, &h.node), Outbox: h.outbox, Deltas: h.Conn.Deltas(name),
		Letters: h.lettersOf(h.dead), Clock: clock{}, Sink: h.count, Fetch: h.Fetch,
		Copies: slices.ContainsFunc(h.node.In, func(e topology.Edge) bool { return e.Grouping == topology.All }),
	}
	defer func() { h.close(o) }()
	if h.node.Bolt != nil {
		o.Retry, o.Streams = h.node.Bolt.Retry, h.node.Bolt.Emits()
	}
	if o.Inner, err = h.inner(hard); err != nil {
		return fmt.Errorf("build: %w", err)
	}
	if h.node.Stateful {
		t := state.TaskOf(name, h.node.ID, h.node.Tasks, task)
		if epoch, err = h.Store.Claim(hard, t); err != nil {
			return fmt.Errorf("claim task %s: %w", t, err)
		}
		o.Own = &bolt.Ownership{Store: h.Store, Task: t, Epoch: epoch, View: h.Cache.Open(h.Store, t, epoch)}
	}
	var inbox input
	gentle := &gentle{stop: ctx}
	if p, ok := b.(bolt.Patient); ok {
		gentle.linger = p.Patience()
	}
	o.Inbox = gentle
	l, err := bolt.New(hard, o) // loads the head: after the fence is raised, before a message is taken
	if err != nil {
		return err
	}
	err = h.provided(hard, h.node.ID, task, func() (err error) {
		if task == tuple.Shared {
			inbox, err = h.join(hard, l.Fetch)
		} else {
			inbox, err = h.Conn.Take(ctx, name, h.node.ID, task, h.consumer(epoch), l.Fetch)
		}
		return err
	})
	if err != nil {
		return err
	}
	defer inbox.Close()
	gentle.Inbox = inbox
	h.Sink.Emit(trace.Changed{Where: where, What: "task taken", Revision: h.revision, Epoch: epoch})
	defer h.Sink.Emit(trace.Changed{Where: where, What: "task released", Revision: h.revision, Epoch: epoch})
	defer h.works(task, l)()
	defer h.owns(task, epoch)()
	for ctx.Err() == nil {
		if _, err := l.Step(hard); err != nil {
			if ctx.Err() != nil && errors.Is(err, context.Canceled) {
				break
			}
			return err
		}
	}
	return l.Settle(hard) // so that the next owner need not handle again what has waited
}

// close ends the bolts of a loop that has stopped, those that can be closed.
func (h *host) close(o bolt.Options) {
	bolts := []bolt.Bolt{o.Bolt}
	for _, inner := range o.Inner {
		bolts = append(bolts, inner.Bolt)
	}
	for _, b := range bolts {
		if c, ok := b.(io.Closer); ok {
			if err := c.Close(); err != nil {
				h.failed(o.Where, "close the bolt", err)
			}
		}
	}
}

func (h *host) build(ctx context.Context, task int32) (bolt.Bolt, error) {
	n := Node{Node: h.node, Plan: h.plan, Worker: h.Name, Task: task, asking: h.asks()}
	if h.node.Stateful {
		n.Group = groupOf(h.node.Bolt)
	}
	if h.node.Kind == topology.KindOutput {
		docs, err := h.docs.open(ctx, h)
		if err != nil {
			return nil, err
		}
		n.Documents = docs
	}
	if h.node.Kind == topology.KindNotify {
		notices, err := h.Conn.Notices(ctx, h.plan.Topology.Name, h.node.ID)
		if err != nil {
			return nil, err
		}
		n.Notices, n.Env = notices, h.Env
	}
	return h.Build(ctx, n)
}

// count passes events on and keeps the sums that the lease shows.
func (h *host) count(e trace.Event) {
	if s, ok := e.(trace.Stepped); ok {
		h.lease.update(func(m *member.Member) {
			m.In += int64(s.Tuples)
			m.Out += int64(s.Emitted)
			m.Failed += int64(s.DeadLettered)
			worked(m, &s)
			if i := slices.IndexFunc(m.Owned, func(o member.Owned) bool { return o.Task == s.Where.Task }); i >= 0 {
				m.Owned[i].In += int64(s.Tuples)
			}
		})
	}
	h.Sink.Emit(e)
}
