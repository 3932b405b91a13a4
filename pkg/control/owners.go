package control

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// Ownership says who has a task of a bolt or reads a partition of a spout, as the leases told last: so up to a second ago.
type Ownership struct {
	Node   string `json:"node"`
	Task   string `json:"task"`   // its number; of a spout, <topic>/<partition>
	Worker string `json:"worker"` // "": nobody
	Epoch  uint64 `json:"epoch,omitempty"`
	Since  int64  `json:"since,omitempty"` // ms
	In     int64  `json:"in"`              // tuples handled since then
}

// Owners lists every task that has one owner, and every partition that is read, in the order of the plan. Tasks of inputs that workers compete for have
// none.
func Owners(plan *topology.Plan, alive []member.Member) (out []Ownership) {
	for _, n := range plan.Nodes {
		switch {
		case n.Kind == topology.KindSpout:
			out = append(out, readers(n.ID, alive)...)
		case !n.Shared:
			for t := range int32(n.Tasks) {
				out = append(out, ownerOf(n.ID, t, alive))
			}
		}
	}
	return out
}

// ownerOf finds who has a task: the latest, where a lease is a moment behind.
func ownerOf(node string, task int32, alive []member.Member) Ownership {
	out := Ownership{Node: node, Task: fmt.Sprint(task)}
	for _, m := range alive {
		for _, o := range m.Owned {
			if m.Node == node && o.Task == task && o.Epoch > out.Epoch {
				out.Worker, out.Epoch, out.Since, out.In = m.Worker, o.Epoch, o.Since, o.In
			}
		}
	}
	return out
}

func readers(node string, alive []member.Member) (out []Ownership) {
	marks := map[member.Mark]string{}
	for _, m := range alive {
		if m.Node == node {
			for _, k := range m.Marks {
				marks[member.Mark{Topic: k.Topic, Partition: k.Partition}] = m.Worker
			}
		}
	}
	var at []member.Mark
	for k := range marks {
		at = append(at, k)
	}
	slices.SortFunc(at, func(a, b member.Mark) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	for _, k := range at {
		out = append(out, Ownership{Node: node, Task: fmt.Sprint(k.Topic, "/", k.Partition), Worker: marks[k]})
	}
	return out
}

// Spare says of which nodes there are more replicas than can have work, and what would help instead; empty when of none.
func Spare(alive []member.Member) (advice []string) {
	type node struct{ topology, id string }
	replicas, partitions := map[node]int{}, map[node]int{}
	for _, m := range alive {
		if m.Kind == topology.KindSpout && !m.Leaving {
			n := node{m.Topology, m.Node}
			replicas[n]++
			partitions[n] = max(partitions[n], m.Partitions)
		}
	}
	for n, has := range replicas {
		if may := partitions[n]; may > 0 && has > may {
			advice = append(advice, fmt.Sprintf("%s: %d replicas run the spout %s and Kafka has %d partitions for them: %d read nothing; only more partitions make it faster",
				n.topology, has, n.id, may, has-may))
		}
	}
	slices.Sort(advice)
	return advice
}
