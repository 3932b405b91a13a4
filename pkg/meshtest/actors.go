package meshtest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// start spawns an actor, some with a clock that is wrong.
func (m *mesh) start(name string, body func(a *actor) error) *actor {
	a := m.spawn(name, body)
	if m.chance(Skew) {
		a.skew = int64(m.rng.IntN(4000)) - 2000
		m.note("the clock of %s is wrong by %d ms", name, a.skew)
	}
	return a
}

// assign gives a partition to a new reader.
func (m *mesh) assign(p *part) {
	p.generation++
	generation := p.generation
	m.note("partition %d to assignment %d from %d", p.index, generation, p.committed)
	p.actor = m.start(fmt.Sprintf("spout %d.%d", p.index, generation), func(a *actor) error {
		err := m.readPartition(a, p, generation)
		if p.generation == generation {
			m.assign(p)
		}
		return err
	})
}

func (m *mesh) readPartition(a *actor, p *part, generation int) error {
	ctx := context.Background()
	g, err := store{m.memory, m, a}.Raise(ctx, topologyName, fmt.Sprint("kafka/", p.index))
	if err != nil {
		return err
	}
	defer m.release(a)
	m.run1(a)
	log := m.Partitions[p.index]
	loop := m.source(a, p, generation, g)
	part, whole := loop.(*spout.Partition)
	if p.generation == generation {
		p.loop, p.mark = loop, nil
		if whole {
			p.mark = part.Mark
		}
	}
	traces := int64(0)
	if whole {
		if err := m.introduce(a, p.generation == generation, member.Member{Marks: []member.Mark{part.Mark()}}); err != nil {
			return err
		}
		if !a.told.rested && !m.broken.openRoots23 {
			traces = part.Traces(int64(len(log)))
		}
	}
	for {
		if p.generation == generation {
			ds := p.inbox
			p.inbox = nil
			loop.Apply(ds)
		}
		if err := m.lapsed(a, p.generation == generation); err != nil {
			return err
		}
		pause := m.paused(a)
		if loop.Next() < traces {
			pause = 0
		}
		if next := loop.Next(); next < int64(len(log)) && pause == 0 && a.draining == 0 && m.room(loop, next) {
			end := min(int64(len(log)), next+1+int64(m.rng.IntN(m.PerRoot)))
			if err := loop.Offer(ctx, log[next:end], end); err != nil {
				return err
			}
		}
		if err := loop.Tick(ctx); err != nil {
			return err
		}
		if whole {
			mark := part.Mark()
			mark.Pause = pause
			m.renew(a, p.generation == generation, member.Member{Marks: []member.Mark{mark}})
		}
		if n, _ := loop.Open(); m.leaves(a, p.generation == generation, n) {
			return errChanged
		}
		a.sleep(10 * time.Millisecond)
	}
}

// begin commits floors on the side, as a group of Kafka's does: what a reader has begun to commit is durable some time later, unless its process dies before.
func (m *mesh) begin(a *actor, p *part, generation int) func(floor int64) (int64, error) {
	wanted, durable, refused := p.committed, p.committed, error(nil)
	m.spawn(fmt.Sprintf("commits %d.%d", p.index, generation), func(b *actor) error {
		for {
			b.sleep(time.Duration(m.rng.IntN([]int{200, 200, 200, 5000}[m.rng.IntN(4)])) * time.Millisecond)
			switch {
			case a.over:
				return nil
			case wanted == durable:
			case generation != p.generation:
				refused = spout.ErrStale
				return refused
			default:
				p.committed = max(p.committed, wanted)
				now := wanted
				b.yield() // it does not know yet
				durable = now
			}
		}
	})
	return func(floor int64) (int64, error) {
		wanted = floor
		return durable, refused
	}
}

func (m *mesh) room(s source, next int64) bool {
	if n := m.broken.openRoots; n > 0 {
		open, _ := s.Open()
		return open < n
	}
	return s.Room(next, 0)
}

// source builds the spout of one assignment of a partition.
func (m *mesh) source(a *actor, p *part, generation int, g uint32) source {
	t := &transport{m: m, a: a, in: address{spoutName, int32(p.index)}, inbox: &p.inbox}
	log := m.Partitions[p.index]
	o := spout.Options{
		Where: m.where(spoutName, int32(p.index)), Origin: origin(p.index), Generation: g, Floor: p.committed, Revision: a.revision, Ledger: m.ledger(),
		Outbox: t, Clock: clock{a}, Sink: func(e trace.Event) { m.observe(p.index, e, log) },
		Commit: func(_ context.Context, floor int64) error {
			a.yield()
			if generation != p.generation {
				return spout.ErrStale
			}
			p.committed = max(p.committed, floor)
			return nil
		},
	}
	if m.Convoys {
		o.Carry = t.carry
	}
	if m.Begins {
		o.Begin = m.begin(a, p, generation)
	}
	if m.broken.batchIDs {
		return &batcher{Loop: spout.New(o), decoder: spout.NewDecoder(m.Spec), edges: m.Edges, next: p.committed}
	}
	return spout.NewPartition(o, spout.PartitionOptions{
		Topic: "topic", Decoder: spout.NewDecoder(m.Spec), Edges: m.edgesIn(m.Edges, a.revision), Letters: t, Lag: m.Spec.Time.Lag.Milliseconds(),
	})
}

// observe checks each completion of a root.
func (m *mesh) observe(partition int, e trace.Event, log []spout.Record) {
	if o, ok := e.(trace.Overdue); ok {
		r := o.Root
		r.Attempt.Count, r.Floor = 0, 0
		m.latest[r] = o.Root.Attempt.Count + 1
	}
	c, ok := e.(trace.Completed)
	if !ok {
		return
	}
	next := c.Root.First + 1
	if partition >= 0 {
		next = min(c.Next, int64(len(log)))
	} else if partition == -1 {
		m.ticked(c.Root.First)
	}
	if m.Completed == nil || partition == -3 {
		return
	}
	if err := m.Completed(m.peek(), partition, c.Root.First, next); err != nil {
		m.fail("root %d of partition %d completed, but %w", c.Root.First, partition, err)
	}
}

// ticked checks that no task is still within a tick that is complete.
func (m *mesh) ticked(n int64) {
	id := tuple.RootID(tuple.Position{Origin: spout.TickOrigin(topologyName), Offset: n})
	for _, node := range m.Nodes {
		if !node.Ticks {
			continue
		}
		for _, task := range m.tasks(node.ID, m.applied.revision) {
			head, err := m.memory.Head(context.Background(), task)
			if err != nil || head.Applied[id].Unfinished {
				m.fail("tick %d completed, but %s is still handling it (%v)", n, task, err)
			}
		}
	}
}

// watermark is what the tick owner makes of the partitions' marks: the least of those that are not at their log's end.
func (m *mesh) watermark() int64 {
	least := int64(math.MaxInt64)
	for _, p := range m.parts {
		if p.committed == int64(len(m.Partitions[p.index])) {
			continue
		}
		if p.mark == nil {
			return math.MinInt64
		}
		least = min(least, p.mark().Watermark)
	}
	if least == math.MaxInt64 {
		return math.MinInt64
	}
	return least
}

// tick gives the tick log to a new owner.
func (m *mesh) tick() {
	owner := &tickOwner{}
	m.ticker = owner
	m.tickers++
	owner.actor = m.start(fmt.Sprint("ticker ", m.tickers), func(a *actor) error {
		err := m.ticks(a, owner)
		if m.ticker == owner && !m.flushed {
			m.tick() // a zombie raised the generation after us, or the store gave no answer: claim again
		}
		return err
	})
}

func (m *mesh) ticks(a *actor, owner *tickOwner) error {
	defer m.release(a)
	revision := m.run1(a)
	var due []spout.Due
	for _, n := range m.Nodes {
		if n.Ticks {
			edge := bolt.Edge{To: n.ID, Stream: tuple.TickStream, Tasks: int32(m.tasksIn(n.ID, revision)), All: true}
			due = append(due, spout.Due{Node: n.ID, Every: n.Every, Level: n.Level, After: n.After, Edge: edge})
		}
	}
	st := store{m.memory, m, a}
	ctx := context.Background()
	g, err := st.Raise(ctx, topologyName, spout.TickLog)
	if err != nil {
		return err
	}
	t, err := spout.NewTicker(ctx, spout.Options{
		Where: m.where(spoutName, -2), Generation: g, Revision: revision, Ledger: m.ledger(), Outbox: &transport{m: m, a: a, inbox: &owner.inbox}, Clock: clock{a},
		Sink: func(e trace.Event) { m.observe(-1, e, nil) },
	}, topologyName, st, due)
	if err != nil {
		return err
	}
	owner.ticker = t
	if err := m.introduce(a, m.ticker == owner, member.Member{Logs: []member.Log{{Name: spout.TickLog}}}); err != nil {
		return err
	}
	levels := t.Levels()
	for {
		ds := owner.inbox
		owner.inbox = nil
		t.Apply(ds)
		pause := m.paused(a)
		err := m.lapsed(a, m.ticker == owner)
		if err == nil {
			err = t.Tick(ctx)
		}
		switch {
		case err != nil:
		case m.flushing && m.ticker == owner && (t.Flushed() || m.broken.impatientFlush && len(levels) > 0):
			if len(levels) == 0 {
				m.flushed = true
				return nil
			}
			if err = t.Flush(ctx, levels[0]); err == nil { // otherwise it was not appended: there are no more faults
				levels = levels[1:]
			}
		default:
			switch {
			case m.flushing || a.draining != 0:
			case pause > 0:
				err = t.Rest(ctx)
			default:
				err = t.Advance(ctx, m.watermark())
			}
		}
		if errors.Is(err, spout.ErrStale) || errors.Is(err, errLapsed) {
			return err
		}
		m.renew(a, m.ticker == owner, member.Member{Logs: []member.Log{t.Mark(pause, t.Length())}})
		if n, _ := t.Open(); m.leaves(a, m.ticker == owner, n) {
			return errors.Join(errChanged, t.Settle(ctx))
		}
		a.sleep(20 * time.Millisecond)
	}
}

// own gives a task to a new owner.
func (m *mesh) own(n Node, task int32) {
	at := address{n.ID, task}
	m.owners[at] = m.start(fmt.Sprintf("%s %d", n.ID, task), func(a *actor) error {
		err := m.owned(a, n, task)
		switch {
		case m.owners[at] != a:
		case int(task) < m.tasksIn(n.ID, m.applied.revision):
			m.own(n, task) // a zombie claimed after us, or the store gave no answer: claim again
		default:
			delete(m.owners, at)
		}
		return err
	})
}

// owned is an owner's life: fence, load, consumer, in this order, then steps.
func (m *mesh) owned(a *actor, n Node, task int32) error {
	o := m.loop(a, n, task)
	if int(task) >= m.tasksIn(n.ID, a.revision) {
		return errChanged
	}
	st := store{m.memory, m, a}
	t := m.tasks(n.ID, a.revision)[task]
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
	s := m.stream(address{n.ID, task})
	m.takes++
	s.take(m.takes)
	l.Inbox.(*transport).epoch = m.takes
	return m.run(a, l, address{n.ID, task})
}

// work starts one of the competing workers of a shared node.
func (m *mesh) work(n Node, worker int) {
	at := address{n.ID, int32(worker)}
	m.owners[at] = m.start(fmt.Sprintf("%s/%d", n.ID, worker), func(a *actor) error {
		l, err := bolt.New(context.Background(), m.loop(a, n, tuple.Shared))
		if err != nil {
			return err
		}
		err = m.run(a, l, at)
		if m.owners[at] == a {
			m.work(n, worker)
		}
		return err
	})
}

func (m *mesh) loop(a *actor, n Node, task int32) bolt.Options {
	t := &transport{m: m, a: a, in: address{n.ID, task}}
	env := Env{
		Document: m.document, Random: m.rng,
		Fail: func(format string, args ...any) { m.fail(format, args...) },
		Away: func() bool { return m.chance(NoRead) }, Pause: a.yield,
		Task: task, Revision: m.run1(a),
	}
	b := n.Build(env)
	if s, stateful := b.(bolt.Stateful); stateful && m.broken.earlyLetters {
		b = early{s, t}
	}
	o := bolt.Options{
		Where: m.where(n.ID, task), Revision: a.revision, Bolt: b, Edges: m.edgesOf(n, a.revision), Inbox: t, Outbox: t, Deltas: t, Letters: t, Clock: clock{a},
		Fetch: 4, Slice: m.Slice, Copies: m.copies(n.ID),
	}
	if m.calling != nil {
		o.Letters = m.lettersTold(t, m.calling.tell(a))
	}
	return o
}

// copies reports whether every task of a node gets every tuple.
func (m *mesh) copies(node string) bool {
	all := func(e bolt.Edge) bool { return e.To == node && e.All }
	return slices.ContainsFunc(m.Edges, all) || slices.ContainsFunc(m.Nodes, func(n Node) bool { return slices.ContainsFunc(n.Edges, all) })
}

// run steps a loop until it has another owner, or another revision is applied.
func (m *mesh) run(a *actor, l *bolt.Loop, at address) error {
	for {
		if l.Held() == nil && m.changed(a.revision, m.owners[at] == a) {
			return errChanged
		}
		_, err := l.Step(context.Background())
		if errors.Is(err, state.ErrFenced) || errors.Is(err, errReplaced) {
			return err
		}
		if err != nil {
			a.sleep(20 * time.Millisecond)
		}
	}
}
