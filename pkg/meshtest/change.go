package meshtest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// drain is how long an owner of roots that is told to leave waits for them, ms.
const drain = 2_000

// errChanged ends what runs a revision that is no longer applied.
var errChanged = errors.New("another revision is applied")

// changed reports whether a revision is no longer applied. A zombie is slow to learn of it.
func (m *mesh) changed(revision uint32, current bool) bool {
	return m.applied.revision != revision && (current || !m.faulty || m.rng.IntN(20) == 0)
}

// leaves reports whether an owner of roots that runs a revision which is no longer applied gives up: when none is open, or its drain is over.
func (m *mesh) leaves(a *actor, current bool, open int) bool {
	if a.draining == 0 && m.changed(a.revision, current) {
		a.draining = m.now
	}
	return a.draining > 0 && (open == 0 || m.now-a.draining > drain)
}

// change applies the revisions one after the other while everything runs, as an operator would: pause, wait for rest, switch, wait for the workers,
// resume.
func (m *mesh) change(a *actor) error {
	if m.Paused > 0 {
		a.sleep(time.Duration(m.Paused) * time.Millisecond)
		for _, to := range m.addresses {
			if m.streams[to].sequence > 0 {
				m.fail("%v got a frame while the topology was paused", to)
			}
		}
		m.resume()
	}
	held := false
	for m.applied.revision < m.last() {
		if m.applied.revision == 1 || m.rng.IntN(2) == 0 { // or one right after the other
			a.sleep(time.Duration(200+m.rng.IntN(1500)) * time.Millisecond)
		}
		begun := m.tell(func(t *applied) { t.paused = true })
		m.note("pause, to apply revision %d", m.applied.revision+1)
		if m.settles(a, begun) && m.divide(a) {
			m.tell(func(t *applied) { t.revision, t.rested, t.closed = t.revision+1, true, false })
			m.note("revision %d", m.applied.revision)
			m.populate()
			for patience := 50; patience > 0 && !m.report(); patience-- {
				a.sleep(100 * time.Millisecond)
			}
		}
		if held = m.Holds && m.faulty && !held && m.applied.revision > 1 && m.rng.IntN(2) == 0; held { // somebody has paused it, and another change comes first
			m.note("it stays paused")
			m.tell(func(t *applied) { t.closed = false })
			a.sleep(time.Duration(m.rng.IntN(1000)) * time.Millisecond)
			continue
		}
		m.resume()
		m.tidy(a)
	}
	if held {
		m.resume()
	}
	return nil
}

func (m *mesh) resume() {
	m.tell(func(t *applied) { t.paused, t.rested, t.closed = false, false, false })
	m.note("resume")
}

// last is the revision that is applied in the end.
func (m *mesh) last() uint32 { return 1 + uint32(m.Changes) }

// logs are those of the topology's own that must have an owner.
func (m *mesh) logs() []string {
	logs := []string{spout.TickLog}
	if m.Replay != nil {
		logs = append(logs, spout.ReplayLog)
	}
	if len(m.Commands) > 0 {
		logs = append(logs, spout.CommandLog)
	}
	if len(m.Calls) > 0 {
		logs = append(logs, spout.CallLog)
	}
	return logs
}

// report says whether everybody who owns something runs the applied revision.
func (m *mesh) report() bool {
	current := []*actor{m.ticker.actor}
	for _, p := range m.parts {
		current = append(current, p.actor)
	}
	for _, a := range m.owners {
		current = append(current, a)
	}
	return !slices.ContainsFunc(current, func(a *actor) bool { return a.revision != m.applied.revision })
}

// replayOwner is who owns the log of replayed dead letters.
type replayOwner struct {
	replay *spout.Replay
	inbox  []tuple.Delta
	actor  *actor
}

// replay gives the replay log to a new owner.
func (m *mesh) replay() {
	owner := &replayOwner{}
	m.replayer = owner
	m.replays++
	owner.actor = m.start(fmt.Sprint("replayer ", m.replays), func(a *actor) error {
		err := m.replayAll(a, owner)
		if m.replayer == owner {
			m.replay()
		}
		return err
	})
}

// replayAll emits what is in the log and what comes into it, as pkg/service does.
func (m *mesh) replayAll(a *actor, owner *replayOwner) error {
	defer m.release(a)
	revision := m.run1(a)
	st, ctx := store{m.memory, m, a}, context.Background()
	g, err := st.Raise(ctx, topologyName, spout.ReplayLog)
	if err != nil {
		return err
	}
	t := &transport{m: m, a: a, in: address{spoutName, -3}, inbox: &owner.inbox}
	r, err := spout.NewReplay(ctx, spout.Options{
		Where: m.where(spoutName, -3), Generation: g, Revision: revision, Ledger: m.ledger(), Outbox: t, Clock: clock{a}, Sink: func(e trace.Event) { m.observe(-3, e, nil) },
	}, topologyName, st, spout.ReplayOptions{Decoder: spout.NewDecoder(m.Spec), Edges: m.edgesIn(m.Edges, revision), Letters: t, Route: func(l *tuple.Letter) (bolt.Edge, error) { return m.wayBack(l, revision) }})
	if err != nil {
		return err
	}
	owner.replay = r
	current := func() bool { return m.replayer == owner }
	return m.emitLog(a, spout.ReplayLog, r, &owner.inbox, current, func() error { return m.lapsed(a, current()) })
}

// wayBack returns the edge that leads a letter back to its node.
func (m *mesh) wayBack(l *tuple.Letter, revision uint32) (bolt.Edge, error) {
	edges := m.edgesIn(m.Edges, revision)
	for _, n := range m.Nodes {
		if n.ID == l.Source {
			edges = m.edgesOf(n, revision)
		}
	}
	for _, e := range edges {
		if e.To == l.Node && e.Stream == l.Stream {
			if e.All {
				e.All, e.Direct, e.Task = false, true, l.Task
			}
			return e, nil
		}
	}
	return bolt.Edge{}, fmt.Errorf("no way back to %s from %s", l.Node, l.Source)
}

// operate replays dead letters: some at any time, also some that were replayed already, and in the end, under the last revision, each that was not.
func (m *mesh) operate(a *actor) error {
	for {
		a.sleep(time.Duration(100+m.rng.IntN(400)) * time.Millisecond)
		final := !m.faulty && m.applied.revision == m.last() && !m.applied.paused
		for i := 0; i < len(m.stored); i++ { //nolint:intrange // there may be more before the end
			l := m.stored[i]
			if !m.Replay(l) || final && m.replayed[l] || !final && m.rng.IntN(8) > 0 {
				continue
			}
			if _, _, err := spout.Append(context.Background(), store{m.memory, m, a}, l); err == nil {
				m.note("letter %s of %s is replayed", l.ID, l.Node)
				m.replayed[l] = true
			}
		}
	}
}

// settled reports whether all changes have been made, and every letter that is to be replayed was, and is processed.
func (m *mesh) settled() bool {
	if m.applied.revision != m.last() || m.applied.paused || !m.obeyed() || m.calling != nil && !m.calling.settled() {
		return false
	}
	if m.Replay == nil {
		return true
	}
	for _, l := range m.stored {
		if m.Replay(l) && !m.replayed[l] {
			return false
		}
	}
	_, length, floor, _ := m.memory.Read(context.Background(), topologyName, spout.ReplayLog, math.MaxInt64, 0)
	return length == floor
}
