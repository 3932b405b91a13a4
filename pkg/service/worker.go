// Package service is what every main shares: configuration, connections, the watch on topologies, ownership of tasks, drain. A main names its kind and
// how a node of it is built; `boltmesh dev` runs the same workers in one process. It never knows what a bolt computes.
package service

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/boltmesh/boltmesh/pkg/archive"
	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/document"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Node is what a builder gets to make one loop's bolt.
type Node struct {
	topology.Node
	Plan   *topology.Plan
	Worker string  // that runs the bolt
	Task   int32   // that the bolt is for; tuple.Shared where workers compete
	asking *asking // what Call calls with; nil where nobody can be called, as in simulations
	// Group returns the group of a tuple by the node's own `group`; nil where the node has none.
	Group func(t *tuple.Tuple) (string, bool)
	// Documents is where an output node stores; nil for other kinds.
	Documents document.Store
	// Notices tells of the events of a notifying node; nil for other kinds, and where nobody is told, as in simulations.
	Notices *jetstream.Notices
	Env     func(name string) (string, bool) // resolves ${VAR} in a notifying node's settings
	// Archive makes a loop's reader of device profiles; nil where there is no archive, as in simulations.
	Archive func(ctx context.Context) (*archive.Reader, error)
}

// Build makes the bolt of one loop. It is called once for each task that the worker owns.
type Build func(ctx context.Context, n Node) (bolt.Bolt, error)

// Worker runs every node of one kind, of every applied topology.
type Worker struct {
	Kind    string
	Name    string // unique among workers; letters, digits, - and _
	Version string
	// AnyBuild is for processes that hold all there is: they run nodes that ask for another version, too.
	AnyBuild bool
	Conn     *jetstream.Conn
	Store    state.Store
	Logs     state.Logs
	Cache    *state.Cache
	// Documents opens a database; only output nodes call it.
	Documents func(ctx context.Context, database string) (document.Store, error)
	Build     Build                            // of bolts; nil for the spout
	Source    Source                           // of a spout; nil for bolts
	Env       func(name string) (string, bool) // resolves ${VAR} in the settings of a spout's connection and of notices
	Sink      trace.Sink
	Ready     func(ready bool, reason string)
	Sample    float64 // share of tuples traced, for spouts
	Fetch     int     // frames per batch, of a bolt
	Records   int     // per root, of a spout
	Drain     time.Duration
	Lease     time.Duration // how long this worker counts as alive after its last renewal; default DefaultLease
	Topology  []string      // restrict to these; empty: all
	Node      []string

	letters *jetstream.Letters
	leases  *jetstream.Bucket
	applied *jetstream.Bucket
	mu      sync.Mutex
	running map[string]*running
	present sync.Map // *host -> nothing: the nodes that are run now
}

type running struct {
	revision uint32
	told     atomic.Pointer[told]
	hosts    sync.Map // node -> *host, while it runs
	cancel   context.CancelFunc
	done     chan struct{}
}

// Run watches the applied topologies and runs what is this worker's, until ctx ends; then it drains: nothing more is fetched, what is in flight is
// finished, tasks are released. What cannot be finished within Drain is left to redelivery.
func (w *Worker) Run(ctx context.Context) error {
	if w.Lease <= 0 {
		w.Lease = DefaultLease
	}
	var err error
	if w.letters, err = w.Conn.Letters(ctx); err != nil {
		return stopped(ctx, err)
	}
	if w.leases, err = w.Conn.Leases(ctx); err != nil {
		return stopped(ctx, err)
	}
	if w.applied, err = w.Conn.Topologies(ctx); err != nil {
		return stopped(ctx, err)
	}
	started := time.Now()
	unfound, err := w.Conn.Discover(func() jetstream.Service { return w.discovered(started) })
	if err != nil {
		return stopped(ctx, err)
	}
	defer unfound()
	w.running = map[string]*running{}
	for ctx.Err() == nil {
		err = w.applied.Watch(ctx, ">", func(e jetstream.Entry) { w.changed(ctx, e) })
		if ctx.Err() == nil {
			w.Sink.Emit(trace.Failed{Where: w.where("", ""), Doing: "watch topologies", Err: err})
			sleep(ctx, time.Second)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.running {
		r.cancel()
	}
	for _, r := range w.running {
		<-r.done
	}
	return nil
}

// renewal is how often leases are looked at.
func (w *Worker) renewal() time.Duration { return min(w.Lease/3, time.Second) }

func (w *Worker) where(topology, node string) trace.Where {
	return trace.Where{Topology: topology, Node: node, Kind: w.Kind, Worker: w.Name}
}

// changed starts, replaces or stops a topology.
func (w *Worker) changed(ctx context.Context, e jetstream.Entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e.Key == "" {
		if w.Ready != nil {
			w.Ready(true, "")
		}
		return
	}
	if len(w.Topology) > 0 && !contains(w.Topology, e.Key) {
		return
	}
	old := w.running[e.Key]
	var applied control.Applied
	if e.Value != nil {
		if err := json.Unmarshal(e.Value, &applied); err != nil {
			w.Sink.Emit(trace.Failed{Where: w.where(e.Key, ""), Doing: "read topology", Err: err})
			return
		}
		if old != nil && old.revision == applied.Revision {
			old.tell(toldBy(e, &applied))
			return
		}
	}
	if old != nil {
		old.cancel()
		<-old.done
		delete(w.running, e.Key)
	}
	if e.Value == nil || ctx.Err() != nil {
		return
	}
	plan, err := applied.Plan()
	if err != nil {
		w.Sink.Emit(trace.Failed{Where: w.where(e.Key, ""), Doing: "read topology", Err: err})
		return
	}
	run, cancel := context.WithCancel(ctx)
	r := &running{revision: applied.Revision, cancel: cancel, done: make(chan struct{})}
	r.tell(toldBy(e, &applied))
	w.running[e.Key] = r
	go func() {
		defer close(r.done)
		w.runTopology(run, plan, r)
	}()
	w.Sink.Emit(trace.Changed{Where: w.where(e.Key, ""), What: "topology applied", Revision: applied.Revision})
}

// runTopology runs this worker's nodes of one revision of a topology until ctx ends.
func (w *Worker) runTopology(ctx context.Context, plan *topology.Plan, r *running) {
	name := plan.Topology.Name
	hard, kill := context.WithCancel(context.WithoutCancel(ctx)) // what finishes work in flight
	defer kill()
	watch, unwatch := context.WithCancel(hard)
	roster := newRoster(w.leases, name)
	var watching, nodes sync.WaitGroup
	watching.Go(func() { roster.watch(watch, func(err error) { w.failed(w.where(name, ""), "watch leases", err) }) })
	if roster.wait(ctx) == nil {
		for i := range plan.Nodes {
			n := &plan.Nodes[i]
			if !w.runs(n) {
				continue
			}
			nodes.Go(func() {
				h := &host{Worker: w, plan: plan, node: *n, revision: r.revision, roster: roster, hard: hard, is: r}
				h.run(ctx)
			})
		}
	}
	over := make(chan struct{})
	go func() {
		nodes.Wait()
		close(over)
	}()
	<-ctx.Done()
	select {
	case <-over:
	case <-time.After(w.Drain * 9 / 10): // so that the process is gone within Drain
		w.failed(w.where(name, ""), "drain", fmt.Errorf("not finished after %s: what is left will be redelivered", w.Drain))
		kill()
		<-over
	}
	unwatch()
	watching.Wait()
}

// runs reports whether the node is one of this worker's.
func (w *Worker) runs(n *topology.Node) bool {
	version := w.Version
	if w.AnyBuild {
		version = n.Build
	}
	return n.RunBy(w.Kind, version) && (len(w.Node) == 0 || contains(w.Node, n.ID))
}

func (w *Worker) failed(where trace.Where, doing string, err error) {
	w.Sink.Emit(trace.Failed{Where: where, Doing: doing, Err: err})
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// clock is the real one.
type clock struct{}

func (clock) Now() time.Time { return time.Now() }

func (clock) Sleep(ctx context.Context, d time.Duration) error {
	sleep(ctx, d)
	return ctx.Err()
}
