// Package rehearse runs a whole topology in memory, in one goroutine and on a clock that only its caller moves: the engine's own loops, the bolts that the
// services build, and no server. `boltmesh test` runs its cases on it; so can the tests of those who write bolts of their own.
// It never injects a fault, which is what pkg/meshtest is for, and never waits.
package rehearse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/boltmesh/boltmesh/pkg/ack"
	"github.com/boltmesh/boltmesh/pkg/archive"
	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/document"
	"github.com/boltmesh/boltmesh/pkg/partition"
	"github.com/boltmesh/boltmesh/pkg/service"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Options say what is rehearsed. Plan is required; it is not changed.
type Options struct {
	Plan *topology.Plan
	// Builds make the bolts, by kind of service. A node whose service is missing takes its tuples and emits nothing: Play speaks for it.
	Builds map[string]service.Build
	Start  time.Time // processing time at the start; zero: DefaultStart
}

// DefaultStart is when a rehearsal begins that names no time: the first midnight of 2024, UTC.
var DefaultStart = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// MaxTicks bounds how many ticks one Wait may bring, so that a slip of the pen does not take minutes.
const MaxTicks = 5_000

// worker is the name that the rehearsal's only worker has in letters and events.
const worker = "rehearsal"

// Stage is one rehearsal under way. It is not safe for concurrent use.
type Stage struct {
	Documents *document.Memory // what the output node has stored
	Emitted   []Emitted        // what nodes have emitted, the spout included, in order; the caller may empty it
	Letters   []*tuple.Letter  // dead letters, in order; the caller may empty it

	o         Options
	now       time.Time
	store     *state.Memory
	views     *state.Cache
	profiles  *archive.Memory
	known     *archive.Cache
	decoder   *spout.Decoder
	partition *spout.Partition
	ticker    *spout.Ticker
	prompter  *spout.Loop // tuples that the caller gives in a node's name
	prompted  int64
	loops     []*loop
	inputs    map[address]*inbox
	buried    map[burial]bool
}

// Emitted is a tuple as a node has emitted it.
type Emitted struct {
	Node string
	tuple.Tuple
}

type burial struct {
	node string
	id   tuple.ID
}

// address is a task's input.
type address struct {
	node string
	task int32
}

type loop struct {
	*bolt.Loop
	inbox *inbox
}

// New sets the stage: every node is built, nothing has happened yet. Close it.
func New(ctx context.Context, o Options) (*Stage, error) {
	if o.Start.IsZero() {
		o.Start = DefaultStart
	}
	o.Plan = narrow(o.Plan)
	s := &Stage{
		Documents: document.NewMemory(), o: o, now: o.Start, store: state.NewMemory(), views: state.NewCache(state.CacheOptions{Plain: true}),
		profiles: &archive.Memory{}, inputs: map[address]*inbox{}, buried: map[burial]bool{},
	}
	s.known = archive.NewCache(s.profiles, archive.CacheOptions{TTL: 24 * time.Hour})
	if err := s.open(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// narrow returns a plan with one task a node. A group has one task anyway, and each task costs the time that it takes to build a bolt; where an edge copies
// tuples to all tasks, divides a key between two, or leads where a bolt says, they are as many as declared.
func narrow(plan *topology.Plan) *topology.Plan {
	out := *plan
	out.Nodes = slices.Clone(plan.Nodes)
	for i := range out.Nodes {
		n := &out.Nodes[i]
		if !slices.ContainsFunc(n.In, func(e topology.Edge) bool {
			return e.Grouping == topology.All || e.Grouping == topology.PartialKey || e.Grouping == topology.Direct
		}) {
			n.Tasks = 1
		}
	}
	return &out
}

// Close ends the stage's background work.
func (s *Stage) Close() {
	s.known.Close()
	s.views.Close()
}

// Now returns the processing time.
func (s *Stage) Now() time.Time { return s.now }

func (s *Stage) name() string { return s.o.Plan.Topology.Name }

func (s *Stage) spec() *topology.Spout { return &s.o.Plan.Topology.Spout }

// open makes the sources and the loops.
func (s *Stage) open(ctx context.Context) error {
	s.decoder = spout.NewDecoder(*s.spec())
	origin := tuple.OriginOf(s.name(), s.spec().ID, worker)
	s.partition = spout.NewPartition(s.source(origin, 1), spout.PartitionOptions{
		Topic: "readings", Decoder: s.decoder, Edges: s.edges(&s.o.Plan.Nodes[0], false), Letters: letters{s, s.spec().ID}, Lag: s.spec().Time.Lag.Milliseconds(),
	})
	s.prompter = spout.New(s.source(tuple.OriginOf(s.name(), "prompter"), 1))
	generation, err := s.store.Raise(ctx, s.name(), spout.TickLog)
	if err != nil {
		return err
	}
	if s.ticker, err = spout.NewTicker(ctx, s.source(0, generation), s.name(), s.store, service.Ticks(s.o.Plan)); err != nil {
		return err
	}
	return s.enter(ctx)
}

// source are the options of an origin. Nothing is ever overdue: whatever is emitted is processed before anything else happens.
func (s *Stage) source(o tuple.Origin, generation uint32) spout.Options {
	return spout.Options{
		Where: trace.Where{Topology: s.name(), Node: s.spec().ID, Kind: topology.KindSpout, Worker: worker}, Origin: o, Generation: generation, Revision: 1,
		Ledger: ack.Options{Timeout: 1 << 50}, Outbox: outbox{s}, Clock: clock{s}, Commit: func(context.Context, int64) error { return nil },
	}
}

// tap is the node that sees what every other one emits.
const tap = "$tap"

// edges are a node's own and one to the tap for each of its streams; spoken for, when another emits in the node's name.
func (s *Stage) edges(n *topology.Node, spoken bool) []bolt.Edge {
	out := service.Edges(s.o.Plan, n)
	for i := range out {
		if s.o.Builds[n.Service] == nil || spoken { // there is no bolt to ask for the task
			out[i].Custom, out[i].Named = "", false
		}
	}
	out = slices.DeleteFunc(out, func(e bolt.Edge) bool { return e.To == topology.ReplyNode }) // nobody calls: the tap sees what would be answered
	streams := []string{tuple.DefaultStream}
	if n.Bolt != nil {
		if late := n.Bolt.Late(); late != "" {
			streams = append(streams, late)
		}
		if n.Bolt.Window.Corrections > 0 {
			streams = append(streams, topology.CorrectionStream)
		}
		for name := range n.Bolt.Streams {
			streams = append(streams, name)
		}
		slices.Sort(streams[1:])
	}
	for _, name := range slices.Compact(streams) {
		out = append(out, bolt.Edge{To: tap, Stream: name, Shared: true})
	}
	return out
}

// enter makes a loop for every task.
func (s *Stage) enter(ctx context.Context) error {
	s.loops = nil
	for i := range s.o.Plan.Nodes[1:] {
		n := &s.o.Plan.Nodes[i+1]
		for _, task := range tuple.Tasks(n.Tasks, n.Shared) {
			if err := s.cast(ctx, n, task); err != nil {
				return fmt.Errorf("node %s: %w", n.ID, err)
			}
		}
	}
	return s.begin(ctx, address{tap, tuple.Shared}, bolt.Options{Where: trace.Where{Topology: s.name(), Node: tap, Task: tuple.Shared}, Bolt: listener{s}})
}

// cast makes the loop of one task of a node.
func (s *Stage) cast(ctx context.Context, n *topology.Node, task int32) error {
	b, err := s.build(ctx, n)
	if err != nil {
		return err
	}
	o := bolt.Options{
		Where: trace.Where{Topology: s.name(), Node: n.ID, Kind: n.Kind, Worker: worker, Task: task}, Bolt: b, Edges: s.edges(n, false),
		Copies: slices.ContainsFunc(n.In, func(e topology.Edge) bool { return e.Grouping == topology.All }),
	}
	if n.Bolt != nil {
		o.Retry, o.Streams = n.Bolt.Retry, n.Bolt.Emits()
	}
	if n.Stateful {
		t := state.Task{Topology: s.name(), Node: n.ID, Index: task}
		epoch, err := s.store.Claim(ctx, t)
		if err != nil {
			return err
		}
		o.Own = &bolt.Ownership{Store: s.store, Task: t, Epoch: epoch, View: s.views.Open(s.store, t, epoch)}
	}
	return s.begin(ctx, address{n.ID, task}, o)
}

// build makes a node's bolt, as a worker would.
func (s *Stage) build(ctx context.Context, n *topology.Node) (bolt.Bolt, error) {
	build := s.o.Builds[n.Service]
	if build == nil {
		return absent{}, nil
	}
	node := service.Node{Node: *n, Plan: s.o.Plan, Documents: s.Documents}
	if n.Stateful {
		node.Group = service.GroupOf(n.Bolt)
	}
	node.Archive = func(context.Context) (*archive.Reader, error) {
		a := s.o.Plan.Topology.Archive
		return &archive.Reader{Cache: s.known, Archive: a.Name, Reject: a.Unknown == topology.UnknownReject}, nil
	}
	return build(ctx, node)
}

// begin completes a loop's options with what all have in common.
func (s *Stage) begin(ctx context.Context, at address, o bolt.Options) error {
	in := s.inputs[at]
	if in == nil {
		in = &inbox{}
		s.inputs[at] = in
	}
	o.Revision, o.Inbox, o.Outbox, o.Deltas, o.Letters, o.Clock = 1, in, outbox{s}, deltas{s}, letters{s, at.node}, clock{s}
	l, err := bolt.New(ctx, o)
	if err != nil {
		return err
	}
	s.loops = append(s.loops, &loop{l, in})
	return nil
}

// Restart gives every task to a new owner: what it knows comes from the state alone.
func (s *Stage) Restart(ctx context.Context) error { return s.enter(ctx) }

// Profile writes a device's profile into the topology's archive, or with nil deletes it; nodes see it from now on. fields is a JSON object.
func (s *Stage) Profile(ctx context.Context, device string, fields []byte) error {
	name := s.o.Plan.Topology.Archive.Name
	if fields == nil {
		_, err := s.profiles.Delete(ctx, name, []string{device})
		s.known.Changed(name, []string{device})
		return err
	}
	p, err := archive.New(device, fields)
	if err != nil {
		return err
	}
	defer s.known.Changed(name, []string{device})
	return s.profiles.Write(ctx, name, []archive.Profile{p})
}

// Feed hands a record to the spout; when it returns, all that follows from it has happened, ticks for what the watermark has closed included. A record
// without a time has that of the clock or, where this is later, its reading's own.
func (s *Stage) Feed(ctx context.Context, r spout.Record) error {
	r.Offset = s.partition.Next()
	if r.Time == 0 {
		r.Time = s.now.UnixMilli()
		if reading, err := s.decoder.Decode(&r); err == nil {
			r.Time = max(r.Time, reading.Time)
		}
	}
	if r.Stream == "" {
		r.Stream = s.spec().Stream
	}
	if err := s.partition.Offer(ctx, []spout.Record{r}, r.Offset+1); err != nil {
		return err
	}
	if err := s.settle(ctx); err != nil {
		return err
	}
	return s.advance(ctx)
}

// Play emits tuples in a node's name, each as a root of its own; an empty stream is the default one.
func (s *Stage) Play(ctx context.Context, node string, tuples ...tuple.Tuple) error {
	i := slices.IndexFunc(s.o.Plan.Nodes, func(n topology.Node) bool { return n.ID == node })
	if i < 0 {
		return fmt.Errorf("the topology has no node %q", node)
	}
	edges := s.edges(&s.o.Plan.Nodes[i], true)
	for _, t := range tuples {
		if t.Stream == "" {
			t.Stream = tuple.DefaultStream
		}
		t.Offset = s.prompted
		t.ID = tuple.RootID(tuple.Position{Origin: s.prompter.Origin, Offset: s.prompted})
		s.prompted++
		if err := s.prompter.EmitFrom(ctx, node, t.Offset, t.Offset+1, edges, []tuple.Tuple{t}); err != nil {
			return err
		}
		if err := s.settle(ctx); err != nil {
			return err
		}
	}
	return s.advance(ctx)
}

// Wait moves the clock on, from one tick that is due to the next.
func (s *Stage) Wait(ctx context.Context, d time.Duration) error {
	until := s.now.Add(d)
	if err := s.advance(ctx); err != nil { // the first tick tells the topology when it began
		return err
	}
	for ticks := 0; ; ticks++ {
		next := until
		for _, n := range s.o.Plan.Nodes {
			if every := n.Every.Milliseconds(); n.Ticks && every > 0 {
				if due := time.UnixMilli((s.now.UnixMilli()/every + 1) * every).UTC(); due.Before(next) {
					next = due
				}
			}
		}
		if ticks > MaxTicks {
			return fmt.Errorf("waiting %s brings more than %d ticks: wait for less, or give the nodes a longer every", d, MaxTicks)
		}
		s.now = next
		if err := s.advance(ctx); err != nil {
			return err
		}
		if !next.Before(until) {
			return nil
		}
	}
}

// Flush has every node emit what it holds open, level by level, as `boltmesh dev` does when all is fed.
func (s *Stage) Flush(ctx context.Context) error {
	for _, level := range s.ticker.Levels() {
		if err := s.ticker.Flush(ctx, level); err != nil {
			return err
		}
		if err := s.settle(ctx); err != nil {
			return err
		}
	}
	return nil
}

// advance looks whether a tick is due, as the owner of the tick log does.
func (s *Stage) advance(ctx context.Context) error {
	if err := s.ticker.Advance(ctx, s.partition.Mark().Watermark); err != nil {
		return err
	}
	return s.settle(ctx)
}

// settle steps until nothing is under way.
func (s *Stage) settle(ctx context.Context) error {
	for again := true; again; {
		again = false
		for _, l := range s.loops {
			for len(l.inbox.waiting) > 0 || l.Held() != nil { // the last Step finds nothing, and ends what has waited for more
				if _, err := l.Step(ctx); err != nil {
					return err
				}
				again = true
			}
		}
	}
	for _, l := range []*spout.Loop{s.partition.Loop, s.prompter, s.ticker.Loop} {
		if err := l.Settle(ctx); err != nil {
			return err
		}
		if open, _ := l.Open(); open > 0 {
			return errors.New("a tuple is not fully processed, which is a fault of boltmesh: " + l.Describe())
		}
	}
	before := s.ticker.Length()
	if err := s.ticker.Follow(ctx); err != nil || s.ticker.Length() == before {
		return err
	}
	if err := s.ticker.Pump(ctx); err != nil {
		return err
	}
	return s.settle(ctx)
}

// task returns the task of a stateful node that a group belongs to.
func task(n *topology.Node, group string) int32 {
	if n.Tasks <= 1 {
		return 0
	}
	return partition.Task(group, n.Tasks)
}
