package meshtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/partition"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// tasksIn is how many tasks a node has in a revision; 0 if there is no such node.
func (m *mesh) tasksIn(node string, revision uint32) int {
	i := slices.IndexFunc(m.Nodes, func(n Node) bool { return n.ID == node })
	switch {
	case i < 0:
		return 0
	case m.Divide == nil || m.Nodes[i].Shared || revision == 1:
		return m.Nodes[i].Tasks
	}
	return m.Divide(node, revision)
}

// tasks names all tasks of a node in a revision.
func (m *mesh) tasks(node string, revision uint32) []state.Task {
	return m.division(node, m.tasksIn(node, revision))
}

// division names the tasks of a node that has so many: as its state is kept, under the node's name alone when there are as many as in the first revision.
func (m *mesh) division(node string, tasks int) (all []state.Task) {
	for i := range int32(tasks) {
		t := Task(node, i)
		if tasks != m.tasksIn(node, 1) {
			t = state.TaskOf(topologyName, node, tasks, i)
		}
		all = append(all, t)
	}
	return all
}

// edgesIn are edges as they are in a revision.
func (m *mesh) edgesIn(edges []bolt.Edge, revision uint32) []bolt.Edge {
	if m.Divide == nil {
		return edges
	}
	edges = slices.Clone(edges)
	for i := range edges {
		if !edges[i].Shared {
			edges[i].Tasks = int32(m.tasksIn(edges[i].To, revision))
		}
	}
	return edges
}

// edgesOf are a node's edges in a revision.
func (m *mesh) edgesOf(n Node, revision uint32) []bolt.Edge {
	if m.Divide != nil && n.Divided != nil && revision > 1 {
		return n.Divided(revision)
	}
	return m.edgesIn(n.Edges, revision)
}

// placeIn is Node.Place.
func (n Node) placeIn(group string, tasks int) (int, error) {
	if n.Place != nil {
		return n.Place(group, tasks)
	}
	return int(partition.Task(group, tasks)), nil
}

// populate gives every task that the applied revision has an owner.
func (m *mesh) populate() {
	for _, n := range m.Nodes {
		if n.Shared {
			continue
		}
		for task := range int32(m.tasksIn(n.ID, m.applied.revision)) {
			if m.owners[address{n.ID, task}] == nil {
				m.own(n, task)
			}
		}
	}
}

// divide copies the state of the nodes that the next revision gives another number of tasks, and raises the floors of the others that have state, as pkg/control has
// workers do. The topology is at rest and closed. It returns false when that could not be done, or is no longer known to have been.
func (m *mesh) divide(a *actor) bool {
	was, is := m.applied.revision, m.applied.revision+1
	if !slices.ContainsFunc(m.Nodes, func(n Node) bool { return m.tasksIn(n.ID, was) != m.tasksIn(n.ID, is) }) {
		return true
	}
	floors := map[tuple.Origin]int64{}
	for _, x := range m.resting {
		for _, k := range x.Marks {
			o := origin(k.Partition)
			floors[o] = max(floors[o], k.Floor)
		}
		for _, l := range x.Logs {
			o := spout.LogOrigin(topologyName, l.Name)
			floors[o] = max(floors[o], l.Floor)
		}
	}
	for _, n := range m.Nodes {
		built := n.Build(Env{Revision: was})
		if _, stateful := built.(bolt.Stateful); !stateful || n.Shared {
			continue
		}
		b, divisible := built.(bolt.Divisible)
		if !divisible {
			m.fail("%s does not tell whose its keys are", n.ID)
			return false
		}
		ok := m.ask(a, 0, func(s store, still func(context.Context) error) error {
			if m.tasksIn(n.ID, was) == m.tasksIn(n.ID, is) {
				return state.RaiseFloors(context.Background(), s, m.tasks(n.ID, was), floors)
			}
			place := func(group string) (int, error) { return n.placeIn(group, m.tasksIn(n.ID, is)) }
			move := state.Move{
				From: m.tasks(n.ID, was), To: m.tasks(n.ID, is), Floors: floors, Group: place, Page: 2,
				Key: func(key string) (int, error) {
					group, ok := bolt.Groups(b)(key)
					if !ok {
						return 0, fmt.Errorf("the bolt does not know it")
					}
					return place(group)
				},
			}
			if m.broken.movesNoFloors {
				move.Floors = nil
			}
			if !m.broken.movesLate {
				move.Still = still
			}
			_, err := move.Run(context.Background(), s)
			return err
		})
		if !ok {
			return false
		}
	}
	return true
}

// tidy has what nodes kept under other numbers of tasks dropped. Nothing depends on it.
func (m *mesh) tidy(a *actor) {
	for _, n := range m.Nodes {
		var left []state.Task
		for tasks := 1; m.Divide != nil && !n.Shared && tasks <= most; tasks++ {
			if tasks != m.tasksIn(n.ID, m.applied.revision) {
				left = append(left, m.division(n.ID, tasks)...)
			}
		}
		if len(left) > 0 {
			m.ask(a, m.applied.key, func(s store, still func(context.Context) error) error {
				return state.Tidy(context.Background(), s, left, still)
			})
		}
	}
}

// most is how many tasks a node may have.
const most = 4

// mover is what a worker is called that does what a change asks of it.
const mover = "mover"

// ask has a worker do something, and then another one when it does not answer. One that was given up for dead may go on. The topology's key is written anew before
// each is asked, unless an entry is given that is to stay.
func (m *mesh) ask(a *actor, entry uint64, do func(s store, still func(context.Context) error) error) bool {
	for range 3 {
		named, done, failed := entry, false, error(nil)
		if named == 0 {
			named = m.tell(func(*applied) {})
		}
		worker := m.start(mover, func(b *actor) error {
			if m.faulty && m.rng.IntN(4) == 0 {
				b.sleep(time.Duration(m.rng.IntN(2000)) * time.Millisecond)
			}
			failed = do(store{m.memory, m, b}, func(context.Context) error {
				b.yield()
				if m.applied.key != named {
					return errors.New("the topology is being changed")
				}
				return nil
			})
			done = true
			return failed
		})
		for patience := 20 + m.rng.IntN(50); !done && (patience > 0 || !m.faulty); patience-- {
			a.sleep(20 * time.Millisecond)
		}
		if done && failed == nil {
			return true
		}
		if !done && m.rng.IntN(2) == 0 {
			worker.kill()
		}
	}
	return false
}
