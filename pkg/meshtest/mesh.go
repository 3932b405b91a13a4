package meshtest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/boltmesh/boltmesh/pkg/ack"
	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

const (
	topologyName = "sim"
	spoutName    = "spout"
)

// Node is one bolt of the simulated topology.
type Node struct {
	ID     string
	Tasks  int
	Shared bool   // two workers compete
	Ticks  bool   // it wants ticks,
	Every  int64  // this often in ms; 0: whenever the watermark has moved
	After  string // or when all that this node emitted at a tick is applied
	Level  int
	Edges  []bolt.Edge
	// Divided returns the edges of a revision from the second on; nil: they differ by nothing but how many tasks there are behind them.
	Divided func(revision uint32) []bolt.Edge
	// Place returns the task that a group is in, of so many; nil: the one of the group as a key.
	Place func(group string, tasks int) (int, error)
	// Build makes the bolt of one loop.
	Build func(e Env) bolt.Bolt
}

// Env is what the bolts of a run share.
type Env struct {
	// Document stores a document as a document store does: the first of an id stays.
	Document func(id, body string)
	// Fail reports a violation that a bolt has seen.
	Fail func(format string, args ...any)
	// Random is the run's: what a bolt draws from it is no function of its tuple.
	Random *rand.Rand
	// Task is the task that the bolt runs, and Revision the topology's that it runs in, from 1.
	Task     int32
	Revision uint32
	// Away says whether a dependency outside the mesh is away for now: a fault of kind NoRead.
	Away func() bool
	// Pause is a moment amid a bolt's work: others go on, and the process may die or be replaced.
	Pause func()
}

// Options describe one run.
type Options struct {
	Seed       uint64
	Nodes      []Node
	Edges      []bolt.Edge // of the spout
	Partitions [][]spout.Record
	Faults     Faults
	Window     Window // of the faults
	Steps      int    // with faults; then the run goes on without until everything is done
	Patience   int    // steps that it may take then; default 400,000
	Timeout    int64  // of a root, ms; default 3,000
	Span       int64
	PerRoot    int // records that a root has at most; default 6
	Slice      int // groups per slice of a tick; default 1000
	Full       int // a stream that holds so many frames refuses more; default: none does
	Spec       topology.Spout
	Paused     int64 // ms for which the topology is paused, from its first moment on: nothing must be emitted then
	Changes    int   // of the topology's revision, while everything runs
	// Divide says how many tasks a node has in a revision from the second on, unless workers compete for it; nil: as many as in the first.
	Divide  func(node string, revision uint32) int
	Convoys bool // partitions have their roots travel together, now and then
	Holds   bool // a pause outlasts a change, now and then
	Begins  bool // partitions commit their floors on the side
	// Replay says which dead letters are replayed, by an operator who does so now and then, and to the end once the last revision is applied. nil: none.
	Replay func(l *tuple.Letter) bool
	// Commands are given in this order, by an operator who may give one again; their times are set when they are.
	Commands []spout.Command
	// Calls are made by callers that ask again until they are answered; their times are set then. Answered checks each outcome that an owner of the calls, or one that
	// was replaced and does not know, is about to tell.
	Calls    []spout.Call
	Answered func(o spout.Outcome) error
	// Completed is called at every root completion with the origin's partition (-1: ticks) and the offsets that it covered: all under them must have
	// been applied and stored.
	Completed func(p Peek, partition int, first, next int64) error

	broken breaks
}

// Peek is what is stored at a moment of a run.
type Peek struct {
	Documents map[string]string // id -> body
	Bodies    map[string]int    // body -> documents that have it
	State     *state.Memory
	// Tasks are those of a node as they are now.
	Tasks func(node string) []state.Task
}

// Task names a task of the simulated topology in Peek.State, in its first revision.
func Task(node string, index int32) state.Task {
	return state.Task{Topology: topologyName, Node: node, Index: index}
}

// Origin returns the origin of a partition.
func Origin(partition int) tuple.Origin { return origin(partition) }

// Result is what a run left behind.
type Result struct {
	Peek
	Letters []*tuple.Letter
	Lost    int // answers of calls, complete, of which no caller has heard
	Ticks   int64
	Steps   int
	Hits    int   // faults drawn
	Now     int64 // ms
	History []string
}

type mesh struct {
	*world
	Options
	memory     *state.Memory
	streams    map[address]*stream
	addresses  []address
	convoys    map[uint32]*convoy // that are being loaded, by revision
	deltas     []sent
	letters    map[string]*tuple.Letter
	documents  map[string]string
	bodies     map[string]int
	parts      []*part
	ticker     *tickOwner
	replayer   *replayOwner  // nil: nothing is replayed
	tickers    int           // owners of the tick log so far
	replays    int           // owners of the replay log so far
	commander  *commandOwner // nil: there are no commands
	commanders int           // owners of the log of commands so far
	commanded  int           // commands given
	calling    *calling      // nil: there are no calls
	applied    applied
	leases     []lease
	stored     []*tuple.Letter // in the order in which they came
	replayed   map[*tuple.Letter]bool
	owners     map[address]*actor
	takes      uint64          // consumers so far
	resting    []member.Member // as they were when a change looked last
	flushing   bool
	flushed    bool
	lastTick   bolt.Tick

	generation uint32                  // of the tick log
	fences     map[state.Task]uint64   // as raised
	claimed    map[state.Task]uint64   // under lateFence
	emitted    map[tuple.ID]tuple.Root // under staleOutputs
	dealt      map[string]int64        // under appendThenMark: letters that are marked as replayed
	latest     map[tuple.Root]uint32   // under latestAttemptOnly: count by root without attempt
}

// part is one Kafka partition and who reads it.
type part struct {
	index      int
	committed  int64
	generation int // of the assignment: commits of earlier ones are refused
	loop       source
	mark       func() member.Mark
	inbox      []tuple.Delta
	actor      *actor
}

// source is a spout of one partition.
type source interface {
	Next() int64
	Offer(ctx context.Context, records []spout.Record, next int64) error
	Apply(deltas []tuple.Delta)
	Tick(ctx context.Context) error
	Room(o int64, bytes int) bool
	Open() (int, int64)
	Describe() string
}

type tickOwner struct {
	ticker *spout.Ticker
	inbox  []tuple.Delta
	actor  *actor
}

// Run simulates one topology from a seed. An error is a violation; the result's history says what led to it.
func Run(o Options) (*Result, error) {
	if o.Patience <= 0 {
		o.Patience = 400_000
	}
	if o.PerRoot <= 0 {
		o.PerRoot = 6
	}
	if o.Timeout <= 0 {
		o.Timeout = 3_000
	}
	m := &mesh{
		world: &world{
			rng: rand.New(rand.NewPCG(o.Seed, 0x9e3779b97f4a7c15^o.Window.Salt)), now: 1_000_000, faulty: true, faults: o.Faults, window: o.Window,
		},
		Options: o, memory: state.NewMemory(), streams: map[address]*stream{}, convoys: map[uint32]*convoy{}, letters: map[string]*tuple.Letter{},
		documents: map[string]string{}, bodies: map[string]int{}, owners: map[address]*actor{}, fences: map[state.Task]uint64{},
		claimed: map[state.Task]uint64{}, emitted: map[tuple.ID]tuple.Root{}, latest: map[tuple.Root]uint32{},
		replayed: map[*tuple.Letter]bool{}, dealt: map[string]int64{}, applied: applied{key: 1, revision: 1, paused: o.Paused > 0, rested: o.Paused > 0},
	}
	defer m.close()
	for _, n := range o.Nodes {
		if n.Shared {
			m.work(n, 0)
			m.work(n, 1)
		}
	}
	m.populate()
	for i := range o.Partitions {
		p := &part{index: i}
		m.parts = append(m.parts, p)
		m.assign(p)
	}
	m.tick()
	if o.Replay != nil {
		m.replay()
		m.start("operator", m.operate)
	}
	if len(o.Commands) > 0 {
		m.obey()
		m.start("commands", m.command)
	}
	if len(o.Calls) > 0 {
		m.calling = newCalling(m)
		m.calling.take()
		m.start("callers", m.calling.call)
	}
	if o.Changes > 0 || o.Paused > 0 {
		m.start("apply", m.change)
	}
	m.play()
	lost := 0
	if m.calling != nil {
		lost = m.calling.lost
	}
	r := &Result{Lost: lost, Peek: m.peek(), Ticks: m.logLength(), Steps: m.steps, Hits: m.hits, Now: m.now, History: m.history}
	for _, l := range m.letters {
		r.Letters = append(r.Letters, l)
	}
	return r, m.failed
}

func (m *mesh) peek() Peek {
	revision := m.applied.revision
	return Peek{m.documents, m.bodies, m.memory, func(node string) []state.Task { return m.tasks(node, revision) }}
}

// errStuck: a run's patience has ended before it was done.
var errStuck = errors.New("not done")

func (m *mesh) play() {
	for m.failed == nil && !m.flushed {
		if m.steps >= m.Steps && m.faulty {
			m.faulty = false
			m.note("no more faults")
		}
		if m.steps > m.Steps+m.Patience {
			m.fail("%w %d steps after the last fault: %s", errStuck, m.Patience, m.stuck())
			return
		}
		m.fault()
		m.deliver()
		m.turn()
		if m.faulty && m.done() {
			m.Steps = min(m.Steps, m.steps+500) // faults to idle processes find little
		}
		if !m.faulty && !m.flushing && m.done() {
			m.flushing = true
			m.note("flush")
		}
	}
}

// done reports whether every record and every tick has been processed and committed.
func (m *mesh) done() bool {
	for _, p := range m.parts {
		if p.committed < int64(len(m.Partitions[p.index])) {
			return false
		}
	}
	return m.settled()
}

func (m *mesh) stuck() string {
	var b strings.Builder
	for _, p := range m.parts {
		fmt.Fprintf(&b, "\npartition %d: committed %d of %d\n%s", p.index, p.committed, len(m.Partitions[p.index]), p.loop.Describe())
	}
	if m.ticker.ticker != nil {
		fmt.Fprintf(&b, "ticks: %s", m.ticker.ticker.Describe())
	}
	if m.replayer != nil && m.replayer.replay != nil {
		fmt.Fprintf(&b, "replays: %s", m.replayer.replay.Describe())
	}
	if m.commander != nil && m.commander.commands != nil {
		fmt.Fprintf(&b, "commands: %s", m.commander.commands.Describe())
	}
	if m.calling != nil && m.calling.current().calls != nil {
		fmt.Fprintf(&b, "%d calls without an answer: %s", len(m.calling.open), m.calling.current().calls.Describe())
	}
	fmt.Fprintf(&b, "%+v of %d revisions, leases %+v\n", m.applied, m.last(), m.alive())
	for _, to := range m.addresses {
		if n := len(m.streams[to].messages); n > 0 {
			fmt.Fprintf(&b, "%v: %d frames waiting\n", to, n)
		}
	}
	return b.String()
}

// deliver hands one delta message that is under way to whoever owns its origin now, in any order.
func (m *mesh) deliver() {
	if len(m.deltas) == 0 || m.rng.IntN(2) == 0 {
		return
	}
	i := m.rng.IntN(len(m.deltas))
	d := m.deltas[i]
	m.deltas[i] = m.deltas[len(m.deltas)-1]
	m.deltas = m.deltas[:len(m.deltas)-1]
	if m.broken.latestAttemptOnly {
		d.deltas = slices.DeleteFunc(slices.Clone(d.deltas), func(x tuple.Delta) bool {
			return x.Attempt.Count < m.latest[tuple.Root{Origin: d.origin, First: x.First, Attempt: tuple.Attempt{Generation: x.Attempt.Generation}}]
		})
	}
	if d.origin == spout.TickOrigin(topologyName) {
		m.ticker.inbox = append(m.ticker.inbox, d.deltas...)
	}
	if m.replayer != nil && d.origin == spout.LogOrigin(topologyName, spout.ReplayLog) {
		m.replayer.inbox = append(m.replayer.inbox, d.deltas...)
	}
	if m.commander != nil && d.origin == spout.LogOrigin(topologyName, spout.CommandLog) {
		m.commander.inbox = append(m.commander.inbox, d.deltas...)
	}
	if m.calling != nil && d.origin == spout.LogOrigin(topologyName, spout.CallLog) {
		for _, o := range m.calling.owners { // whoever was replaced and goes on hears them too
			o.inbox = append(o.inbox, d.deltas...)
		}
	}
	for _, p := range m.parts {
		if d.origin == origin(p.index) {
			p.inbox = append(p.inbox, d.deltas...)
		}
	}
}

func origin(partition int) tuple.Origin {
	return tuple.OriginOf(topologyName, spoutName, "topic", "", fmt.Sprint(partition))
}

func (m *mesh) where(node string, task int32) trace.Where {
	return trace.Where{Topology: topologyName, Node: node, Worker: "w", Task: task}
}

func (m *mesh) ledger() ack.Options {
	o := ack.Options{Timeout: m.Timeout, Span: m.Span}
	if m.broken.openRoots > 0 {
		o.Span = 0
	}
	return o
}

// document stores as a document store does.
func (m *mesh) document(id, body string) {
	if _, there := m.documents[id]; !there {
		m.documents[id] = body
		m.bodies[body]++
	}
}

// bound checks that a task's applied ids stay within what the span allows: of each origin, the positions of one span and of the root at its end.
func (m *mesh) bound(ctx context.Context, t state.Task) {
	head, err := m.memory.Head(ctx, t)
	if err != nil || m.Span == 0 {
		return
	}
	positions, of := map[tuple.Position]bool{}, map[tuple.Origin]int64{}
	for _, x := range head.Applied {
		if !positions[x.Position] {
			positions[x.Position] = true
			of[x.Position.Origin]++
		}
	}
	for o, n := range of {
		if most := m.Span + int64(m.PerRoot); o != spout.TickOrigin(topologyName) && n > most {
			m.fail("task %s keeps ids of %d positions of one origin, the budget is %d", t, n, most)
		}
	}
}

func (m *mesh) logLength() int64 {
	_, n, _, _ := m.memory.Read(context.Background(), topologyName, spout.TickLog, math.MaxInt64, 0)
	return n
}
