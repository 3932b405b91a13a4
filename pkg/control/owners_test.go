package control

import (
	"slices"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

func TestOwners(t *testing.T) {
	plan := &topology.Plan{Nodes: []topology.Node{
		{ID: "in", Kind: topology.KindSpout}, {ID: "clean", Kind: topology.KindConvert, Shared: true, Tasks: 4}, {ID: "sum", Kind: topology.KindStat, Tasks: 3},
	}}
	got := Owners(plan, []member.Member{
		{Node: "in", Worker: "s1", Marks: []member.Mark{{Topic: "r", Partition: 10, Floor: 7}, {Topic: "r", Partition: 2}}},
		{Node: "clean", Worker: "c1", Tasks: []int32{-1}},
		{Node: "sum", Worker: "a", Owned: []member.Owned{{Task: 0, Epoch: 3, Since: 5, In: 8}, {Task: 1, Epoch: 1}}}, // has not yet told that 1 is gone
		{Node: "sum", Worker: "b", Owned: []member.Owned{{Task: 1, Epoch: 2, Since: 9}}},
	})
	want := []Ownership{
		{Node: "in", Task: "r/2", Worker: "s1"},
		{Node: "in", Task: "r/10", Worker: "s1"},
		{Node: "sum", Task: "0", Worker: "a", Epoch: 3, Since: 5, In: 8},
		{Node: "sum", Task: "1", Worker: "b", Epoch: 2, Since: 9},
		{Node: "sum", Task: "2"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v", got)
	}
}

func TestSpare(t *testing.T) {
	spout := func(worker string, leaving bool) member.Member {
		return member.Member{Topology: "t", Node: "in", Kind: topology.KindSpout, Worker: worker, Partitions: 2, Leaving: leaving}
	}
	if got := Spare([]member.Member{spout("a", false), spout("b", false), spout("c", true)}); got != nil {
		t.Errorf("two replicas for two partitions: %v", got)
	}
	got := Spare([]member.Member{spout("a", false), spout("b", false), spout("c", false)})
	if len(got) != 1 || got[0] != "t: 3 replicas run the spout in and Kafka has 2 partitions for them: 1 read nothing; only more partitions make it faster" {
		t.Errorf("got %v", got)
	}
}
