package meshtest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/boltmesh/boltmesh/pkg/ack"
	"github.com/boltmesh/boltmesh/pkg/bolt"
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
	Shared bool // two workers compete
	Ticks  bool
	Level  int
	Edges  []bolt.Edge
	// Build makes the bolt of one loop. document stores a document as the output bolt does: the first of an id stays.
	Build func(document func(id, body string)) bolt.Bolt
}

// Faults are how rare each fault is: one in n opportunities; 0 means never.
type Faults struct {
	Crash, Zombie                                   int // per scheduler step
	StreamLoss, ForgetWindow, ClockJump, Redelivery int // per scheduler step
	LostAck, LostPubAck, Refuse                     int
	LostDelta, TwiceDelta                           int
	UnknownCommit                                   int
}

// Usual are rates that make about a dozen faults a run.
func Usual() Faults {
	return Faults{
		Crash: 900, Zombie: 1200, StreamLoss: 0, ForgetWindow: 3000, ClockJump: 4000, Redelivery: 1500,
		LostAck: 60, LostPubAck: 60, Refuse: 40, LostDelta: 60, TwiceDelta: 40, UnknownCommit: 60,
	}
}

// Options describe one run.
type Options struct {
	Seed       uint64
	Nodes      []Node
	Edges      []bolt.Edge // of the spout
	Partitions [][]spout.Record
	Faults     Faults
	Steps      int // with faults; then the run goes on without until everything is done
	Span       int64
	Spec       topology.Spout
	// Completed is called at every root completion with the origin's partition (-1: ticks) and the offsets that it covered: all under them must have
	// been applied and stored.
	Completed func(p Peek, partition int, first, next int64) error
}

// Peek is what is stored at a moment of a run.
type Peek struct {
	Documents map[string]string
	State     *state.Memory
}

// Task names a task of the simulated topology in Peek.State.
func Task(node string, index int32) state.Task {
	return state.Task{Topology: topologyName, Node: node, Index: index}
}

// Origin returns the origin of a partition.
func Origin(partition int) tuple.Origin { return origin(partition) }

// Result is what a run left behind.
type Result struct {
	Peek
	Letters []*tuple.Letter
	Ticks   int64
	Steps   int
	History []string
}

type mesh struct {
	*world
	Options
	faults    Faults
	memory    *state.Memory
	streams   map[address]*stream
	addresses []address
	deltas    []sent
	letters   map[string]*tuple.Letter
	documents map[string]string
	parts     []*part
	ticker    *tickOwner
	owners    map[address]*actor
	flushing  bool
	flushed   bool
}

// part is one Kafka partition and who reads it.
type part struct {
	index      int
	committed  int64
	generation int // of the assignment: commits of earlier ones are refused
	loop       *spout.Partition
	inbox      []tuple.Delta
	actor      *actor
}

type tickOwner struct {
	ticker *spout.Ticker
	inbox  []tuple.Delta
	actor  *actor
}

// Run simulates one topology from a seed. An error is a violation, with the end of the history and how to see it again.
func Run(o Options) (*Result, error) {
	m := &mesh{
		world: &world{rng: rand.New(rand.NewPCG(o.Seed, 0x9e3779b97f4a7c15)), now: 1_000_000, faulty: true}, Options: o, faults: o.Faults,
		memory: state.NewMemory(), streams: map[address]*stream{}, letters: map[string]*tuple.Letter{}, documents: map[string]string{},
		owners: map[address]*actor{},
	}
	defer m.close()
	for _, n := range o.Nodes {
		if n.Shared {
			m.work(n, 0)
			m.work(n, 1)
			continue
		}
		for task := range int32(n.Tasks) {
			m.own(n, task)
		}
	}
	for i := range o.Partitions {
		p := &part{index: i}
		m.parts = append(m.parts, p)
		m.assign(p)
	}
	m.tick()
	m.play()
	r := &Result{Peek: m.peek(), Ticks: m.logLength(), Steps: m.steps, History: m.history}
	for _, l := range m.letters {
		r.Letters = append(r.Letters, l)
	}
	if m.failed != nil {
		return r, fmt.Errorf("seed %d: %w\n%s", o.Seed, m.failed, strings.Join(r.History[max(0, len(r.History)-60):], "\n"))
	}
	return r, nil
}

func (m *mesh) peek() Peek { return Peek{m.documents, m.memory} }

// patience bounds the steps that a run may take after the last fault.
const patience = 400_000

func (m *mesh) play() {
	for m.failed == nil && !m.flushed {
		if m.steps == m.Steps {
			m.faulty = false
			m.note("no more faults")
		}
		if m.steps > m.Steps+patience {
			m.fail("not done %d steps after the last fault: %s", patience, m.stuck())
			return
		}
		m.fault()
		m.deliver()
		m.turn()
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
	return true
}

func (m *mesh) stuck() string {
	var b strings.Builder
	for _, p := range m.parts {
		fmt.Fprintf(&b, "\npartition %d: committed %d of %d\n%s", p.index, p.committed, len(m.Partitions[p.index]), p.loop.Describe())
	}
	if m.ticker.ticker != nil {
		fmt.Fprintf(&b, "ticks: %s", m.ticker.ticker.Describe())
	}
	for _, to := range m.addresses {
		if n := len(m.streams[to].messages); n > 0 {
			fmt.Fprintf(&b, "%v: %d frames waiting\n", to, n)
		}
	}
	return b.String()
}

// fault injects at most one fault of the kind that happens to processes and brokers.
func (m *mesh) fault() {
	switch f := m.faults; {
	case m.chance(f.Crash):
		m.replace(true)
	case m.chance(f.Zombie):
		m.replace(false)
	case m.chance(f.StreamLoss):
		if len(m.addresses) > 0 {
			to := m.addresses[m.rng.IntN(len(m.addresses))]
			m.note("stream %v loses %d frames", to, len(m.streams[to].messages))
			m.streams[to].messages = nil
		}
	case m.chance(f.ForgetWindow):
		for _, to := range m.addresses {
			clear(m.streams[to].window)
		}
		m.note("the broker forgets its duplicate windows")
	case m.chance(f.ClockJump):
		m.now += int64(m.rng.IntN(20_000))
		m.note("the clock jumps")
	case m.chance(f.Redelivery):
		if len(m.addresses) > 0 {
			to := m.addresses[m.rng.IntN(len(m.addresses))]
			for _, x := range m.streams[to].messages {
				x.delivered = false
			}
			m.note("%v delivers again what is pending", to)
		}
	}
}

// replace starts a new owner of something; the old one dies, or goes on as a zombie.
func (m *mesh) replace(dies bool) {
	end := func(a *actor) {
		if dies && a != nil && !a.over {
			a.kill()
		}
	}
	switch n := m.rng.IntN(len(m.parts) + 1 + len(m.Nodes)); {
	case n < len(m.parts):
		end(m.parts[n].actor)
		m.assign(m.parts[n])
	case n == len(m.parts):
		end(m.ticker.actor)
		m.tick()
	default:
		node := m.Nodes[n-len(m.parts)-1]
		if node.Shared {
			worker := m.rng.IntN(2)
			end(m.owners[address{node.ID, int32(worker)}])
			m.work(node, worker)
			return
		}
		task := int32(m.rng.IntN(node.Tasks))
		end(m.owners[address{node.ID, task}])
		m.own(node, task)
	}
}

// deliver hands one delta message that is under way to whoever owns its origin now, in any order.
func (m *mesh) deliver() {
	if len(m.deltas) == 0 || m.rng.IntN(2) == 0 {
		return
	}
	i := m.rng.IntN(len(m.deltas))
	d := m.deltas[i]
	m.deltas = append(m.deltas[:i:i], m.deltas[i+1:]...)
	if d.origin == spout.TickOrigin(topologyName) {
		m.ticker.inbox = append(m.ticker.inbox, d.deltas...)
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

func (m *mesh) ledger() ack.Options { return ack.Options{Timeout: 3_000, Span: m.Span} }

// assign gives a partition to a new reader.
func (m *mesh) assign(p *part) {
	p.generation++
	generation := p.generation
	m.note("partition %d to generation %d from %d", p.index, generation, p.committed)
	inbox := &p.inbox
	p.actor = m.spawn(fmt.Sprintf("spout %d.%d", p.index, generation), func(a *actor) error {
		st := store{m.memory, m, a}
		g, err := st.Raise(context.Background(), topologyName, fmt.Sprint("kafka/", p.index))
		if err != nil {
			return err
		}
		t := &transport{m: m, a: a}
		log := m.Partitions[p.index]
		loop := spout.NewPartition(spout.Options{
			Where: m.where(spoutName, int32(p.index)), Origin: origin(p.index), Generation: g, Floor: p.committed, Revision: 1, Ledger: m.ledger(),
			Outbox: t, Clock: clock{a},
			Sink: func(e trace.Event) { m.observe(p.index, e, log) },
			Commit: func(_ context.Context, floor int64) error {
				a.yield()
				if generation != p.generation {
					return spout.ErrStale
				}
				p.committed = max(p.committed, floor)
				return nil
			},
		}, spout.PartitionOptions{Topic: "topic", Decoder: spout.NewDecoder(m.Spec), Edges: m.Edges, Letters: t})
		if p.generation == generation {
			p.loop = loop
		}
		for {
			if p.generation == generation {
				ds := *inbox
				*inbox = nil
				loop.Apply(ds)
			}
			next := loop.Next()
			if next < int64(len(log)) && loop.Room(next, 0) {
				end := min(int64(len(log)), next+1+int64(m.rng.IntN(6)))
				if err := loop.Offer(context.Background(), log[next:end], end); err != nil {
					return err
				}
			}
			if err := loop.Tick(context.Background()); err != nil {
				return err
			}
			a.sleep(10 * time.Millisecond)
		}
	})
}

// observe checks each completion of a root.
func (m *mesh) observe(partition int, e trace.Event, log []spout.Record) {
	c, ok := e.(trace.Completed)
	if !ok || m.Completed == nil {
		return
	}
	next := c.Root.First + 1
	if partition >= 0 {
		next = min(c.Next, int64(len(log)))
	}
	if err := m.Completed(m.peek(), partition, c.Root.First, next); err != nil {
		m.fail("root %d of partition %d completed, but %w", c.Root.First, partition, err)
	}
}

// tick gives the tick log to a new owner.
func (m *mesh) tick() {
	owner := &tickOwner{}
	m.ticker = owner
	var due []spout.Due
	for _, n := range m.Nodes {
		if n.Ticks {
			due = append(due, spout.Due{Node: n.ID, Every: 1000, Level: n.Level, Edge: bolt.Edge{To: n.ID, Stream: tuple.TickStream, Tasks: int32(n.Tasks), All: true}})
		}
	}
	owner.actor = m.spawn("ticker", func(a *actor) error {
		st := store{m.memory, m, a}
		ctx := context.Background()
		g, err := st.Raise(ctx, topologyName, spout.TickLog)
		if err != nil {
			return err
		}
		owner.ticker, err = spout.NewTicker(ctx, spout.Options{
			Where: m.where(spoutName, -2), Generation: g, Revision: 1, Ledger: m.ledger(), Outbox: &transport{m: m, a: a}, Clock: clock{a},
			Sink: func(e trace.Event) { m.observe(-1, e, nil) },
		}, topologyName, st, due)
		if err != nil {
			return err
		}
		t := owner.ticker
		levels := t.Levels()
		for {
			ds := owner.inbox
			owner.inbox = nil
			t.Apply(ds)
			err := t.Tick(ctx)
			switch {
			case err != nil:
			case m.flushing && m.ticker == owner && t.Flushed():
				if len(levels) == 0 {
					m.flushed = true
					return nil
				}
				level := levels[0]
				levels = levels[1:]
				err = t.Flush(ctx, level)
			default:
				if !m.flushing {
					err = t.Advance(ctx, math.MinInt64)
				}
			}
			if errors.Is(err, spout.ErrStale) {
				if m.ticker == owner {
					m.tick() // a zombie raised the generation after us: claim again
				}
				return err
			}
			a.sleep(20 * time.Millisecond)
		}
	})
}

func (m *mesh) logLength() int64 {
	_, n, _, _ := m.memory.Read(context.Background(), topologyName, spout.TickLog, math.MaxInt64, 0)
	return n
}

// document stores as the output bolt's store does.
func (m *mesh) document(id, body string) {
	if _, there := m.documents[id]; !there {
		m.documents[id] = body
	}
}

// own gives a task to a new owner: fence, load, consumer, in this order.
func (m *mesh) own(n Node, task int32) {
	at := address{n.ID, task}
	m.owners[at] = m.spawn(fmt.Sprintf("%s %d", n.ID, task), func(a *actor) error {
		o := m.loop(a, n, task)
		st := store{m.memory, m, a}
		t := state.Task{Topology: topologyName, Node: n.ID, Index: task}
		epoch, err := st.Claim(context.Background(), t)
		if err != nil {
			return err
		}
		if _, stateful := o.Bolt.(bolt.Stateful); stateful {
			o.Own = &bolt.Ownership{Store: st, Task: t, Epoch: epoch, View: state.NewCache(state.CacheOptions{Plain: true, Entries: 8}).Open(st, t, epoch)}
		}
		l, err := bolt.New(context.Background(), o)
		if err != nil {
			return err
		}
		a.yield()
		s := m.stream(at)
		if s.epoch > epoch {
			if m.owners[at] == a {
				m.own(n, task)
			}
			return errReplaced
		}
		s.take(epoch)
		l.Inbox.(*transport).epoch = epoch
		err = m.run(a, l)
		if m.owners[at] == a {
			m.own(n, task) // a zombie claimed after us: claim again
		}
		return err
	})
}

// work starts one of the competing workers of a shared node.
func (m *mesh) work(n Node, worker int) {
	m.owners[address{n.ID, int32(worker)}] = m.spawn(fmt.Sprintf("%s/%d", n.ID, worker), func(a *actor) error {
		l, err := bolt.New(context.Background(), m.loop(a, n, tuple.Shared))
		if err != nil {
			return err
		}
		return m.run(a, l)
	})
}

func (m *mesh) loop(a *actor, n Node, task int32) bolt.Options {
	t := &transport{m: m, a: a, in: address{n.ID, task}}
	return bolt.Options{
		Where: m.where(n.ID, task), Revision: 1, Bolt: n.Build(m.document), Edges: n.Edges, Inbox: t, Outbox: t, Deltas: t, Letters: t, Clock: clock{a},
		Fetch: 4,
	}
}

// run steps a loop until it has another owner.
func (m *mesh) run(a *actor, l *bolt.Loop) error {
	for {
		_, err := l.Step(context.Background())
		if errors.Is(err, state.ErrFenced) || errors.Is(err, errReplaced) {
			return err
		}
		if err != nil {
			a.sleep(20 * time.Millisecond)
		}
	}
}

// bound checks that a task's applied ids stay within what the span allows.
func (m *mesh) bound(ctx context.Context, t state.Task) {
	head, err := m.memory.Head(ctx, t)
	if err != nil || m.Span == 0 {
		return
	}
	perOffset := map[tuple.Position]int{}
	for _, x := range head.Applied {
		perOffset[x.Position]++
	}
	if most := len(m.parts)*int(m.Span) + 64; len(perOffset) > most {
		m.fail("task %s keeps ids of %d positions, the budget is %d", t, len(perOffset), most)
	}
}
