package meshtest

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/partition"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// commandOwner is who owns the log of commands.
type commandOwner struct {
	commands *spout.Commands
	inbox    []tuple.Delta
	actor    *actor
}

// obey gives the log of commands to a new owner.
func (m *mesh) obey() {
	owner := &commandOwner{}
	m.commander = owner
	m.commanders++
	owner.actor = m.start(fmt.Sprint("commander ", m.commanders), func(a *actor) error {
		err := m.commandAll(a, owner)
		if m.commander == owner {
			m.obey()
		}
		return err
	})
}

func (m *mesh) commandAll(a *actor, owner *commandOwner) error {
	defer m.release(a)
	revision := m.run1(a)
	st := store{m.memory, m, a}
	ctx := context.Background()
	g, err := st.Raise(ctx, topologyName, spout.CommandLog)
	if err != nil {
		return err
	}
	t := &transport{m: m, a: a, in: address{spoutName, -5}, inbox: &owner.inbox}
	c, err := spout.NewCommands(ctx, spout.Options{
		Where: m.where(spoutName, -5), Generation: g, Revision: revision, Ledger: m.ledger(), Outbox: t, Clock: clock{a}, Sink: func(trace.Event) {},
	}, topologyName, st, spout.CommandOptions{Route: func(node, group string) (bolt.Edge, error) { return m.commandEdge(node, group, revision) }, Letters: t})
	if err != nil {
		return err
	}
	owner.commands = c
	current := func() bool { return m.commander == owner }
	return m.emitLog(a, spout.CommandLog, c, &owner.inbox, current, func() error { return m.lapsed(a, current()) })
}

// commandEdge leads to the task of a group: nodes of simulated topologies that take commands are divided by it.
func (m *mesh) commandEdge(node, group string, revision uint32) (bolt.Edge, error) {
	for _, n := range m.Nodes {
		if n.ID == node {
			tasks := m.tasksIn(node, revision)
			return bolt.Edge{To: node, Stream: tuple.CommandStream, Tasks: int32(tasks), Direct: true, Task: partition.Task(group, tasks)}, nil
		}
	}
	return bolt.Edge{}, fmt.Errorf("no node %s", node)
}

// command gives the commands in order, some more than once, at any time.
func (m *mesh) command(a *actor) error {
	for m.commanded < len(m.Commands) {
		a.sleep(time.Duration(m.rng.IntN(400)) * time.Millisecond)
		i := m.commanded
		if again := m.rng.IntN(len(m.Commands)); m.rng.IntN(3) == 0 && again < i {
			i = again
		}
		q := m.Commands[i]
		q.At = clock{a}.Now().UnixMilli()
		if _, _, err := spout.AppendCommand(context.Background(), store{m.memory, m, a}, topologyName, q); err == nil && i == m.commanded {
			m.note("command %s to %s of %s", q.ID, q.Node, q.Group)
			m.commanded++
		}
	}
	return nil
}

// obeyed reports whether all commands were given, and are processed.
func (m *mesh) obeyed() bool {
	if len(m.Commands) == 0 || m.commanded < len(m.Commands) {
		return len(m.Commands) == 0
	}
	_, length, floor, _ := m.memory.Read(context.Background(), topologyName, spout.CommandLog, math.MaxInt64, 0)
	return length == floor
}
