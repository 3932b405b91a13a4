package control

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

const advisedYAML = `
topology: t
spout: {id: in, kafka: {topics: [r]}}
bolts:
  - {id: any, kind: convert, from: {node: in, grouping: shuffle}, save: x}
  - {id: count, kind: stat, from: in, every: 1m, aggregates: {n: count}, save: y}
`

// advising computes advice from two looks at leases, ten seconds apart.
func advising(t *testing.T, before, after []member.Member, queued uint64) (*Advice, map[string]NodeAdvice) {
	t.Helper()
	top, problems := topology.Parse("t.yaml", []byte(advisedYAML), topology.Options{})
	if problems != nil {
		t.Fatal(problems)
	}
	plan, err := top.Plan()
	if err != nil {
		t.Fatal(err)
	}
	v := &adviser{
		plan: plan, target: 0.7, before: sight{time.UnixMilli(100_000), before, nil},
		after: sight{time.UnixMilli(110_000), after, map[string]uint64{"any": queued}},
	}
	a := &Advice{Seconds: 10}
	v.flows(a)
	nodes := map[string]NodeAdvice{}
	for i := range plan.Nodes {
		one := v.node(&plan.Nodes[i])
		one.say(v.target)
		nodes[one.Node] = one
	}
	return a, nodes
}

// lease is a worker of a node that has handled in tuples in busy seconds.
func lease(node, worker string, at, in int64, busy float64) member.Member {
	return member.Member{Node: node, Worker: worker, Since: 1, At: at, In: in, Frames: in / 100, Busy: int64(busy * 1e6), Procs: 2}
}

func close2(a, b float64) bool { return math.Abs(a-b) <= 0.01*math.Max(math.Abs(a), math.Abs(b)) }

func TestAdviseByTheUtilisationLaw(t *testing.T) {
	idle := lease("any", "a", 100_000, 5, 1)
	_, nodes := advising(t, []member.Member{idle}, []member.Member{idle}, 0)
	if n := nodes["any"]; n.Handled != 0 || n.NeedReplicas != 0 || len(n.Do) != 0 {
		t.Errorf("idle: %+v", n)
	}
	// One replica, 1,000 tuples/s at 5 ms of a loop each: 5 loops' work, 8 loops at 70 %, 2 processors a replica: 4 replicas.
	before, after := lease("any", "a", 100_000, 0, 0), lease("any", "a", 110_000, 10_000, 50)
	_, nodes = advising(t, []member.Member{before}, []member.Member{after}, 0)
	if n := nodes["any"]; !close2(n.Handled, 1000) || !close2(n.Service, 5000) || n.Loops != 4 || !close2(n.Busy, 1.25) || n.NeedReplicas != 4 || n.NeedTasks != 0 {
		t.Errorf("busy: %+v", n)
	}
	// Its input has grown by 100 frames of 100 tuples: twice as much arrives.
	_, nodes = advising(t, []member.Member{before}, []member.Member{after}, 100)
	if n := nodes["any"]; !close2(n.Arrival, 2000) || n.NeedReplicas != 8 {
		t.Errorf("behind: %+v", n)
	}
	// Three replicas that do 100 tuples/s at 1 ms each: one would do.
	var b3, a3 []member.Member
	for _, w := range []string{"a", "b", "c"} {
		b3, a3 = append(b3, lease("any", w, 100_000, 7, 1)), append(a3, lease("any", w, 110_000, 1007, 2))
	}
	_, nodes = advising(t, b3, a3, 0)
	if n := nodes["any"]; n.Replicas != 3 || n.NeedReplicas != 1 || !slices.Equal(n.Do, []string{"1 of its 3 replicas would do"}) {
		t.Errorf("too many: %+v", n)
	}
}

// TestAdviseByTheForcedFlowLaw: Kafka grows by 4,000 records a second and 1,000 are processed: four times as much arrives as is handled.
func TestAdviseByTheForcedFlowLaw(t *testing.T) {
	spout := func(floor, end int64) member.Member {
		return member.Member{Node: "in", Worker: "s", Kind: topology.KindSpout, Marks: []member.Mark{{Topic: "r", Floor: floor, End: end}}}
	}
	a, nodes := advising(t, []member.Member{spout(0, 5000), lease("any", "a", 100_000, 0, 0)},
		[]member.Member{spout(10_000, 45_000), lease("any", "a", 110_000, 10_000, 5)}, 0)
	if n := nodes["any"]; !close2(a.Records, 4000) || !close2(a.Floors, 1000) || !close2(n.Handled, 1000) || !close2(n.Arrival, 4000) {
		t.Errorf("%+v %+v", a, n)
	}
}

func TestAdviseNamesTheHottestTask(t *testing.T) {
	before, after := lease("count", "a", 100_000, 0, 0), lease("count", "a", 110_000, 80_000, 16)
	for task := range int32(8) {
		in := int64(1000)
		if task == 5 {
			in = 73_000
		}
		before.Owned = append(before.Owned, member.Owned{Task: task, Epoch: 1})
		after.Owned = append(after.Owned, member.Owned{Task: task, Epoch: 1, In: in, Busy: in * 200})
	}
	_, nodes := advising(t, []member.Member{before}, []member.Member{after}, 0)
	n := nodes["count"]
	if h := n.Hottest; h == nil || h.Task != 5 || !close2(h.Share, 73.0/80) || !close2(h.Busy, 1.46) || h.Worker != "a" {
		t.Fatalf("%+v", n.Hottest)
	}
	if len(n.Do) == 0 || !strings.Contains(n.Do[len(n.Do)-1], "task 5 gets 91 % of the tuples") {
		t.Errorf("%q", n.Do)
	}
}

func TestAdviseWithoutWorkers(t *testing.T) {
	_, nodes := advising(t, nil, nil, 0)
	for _, n := range nodes {
		if n.Replicas != 0 || !slices.Equal(n.Do, []string{"nobody runs it: start a replica"}) {
			t.Errorf("%+v", n)
		}
	}
}

// TestAdviseTheSpout: more replicas where the lag grows and no bolt is busy, as many as there are partitions; otherwise what it waits for.
func TestAdviseTheSpout(t *testing.T) {
	for _, c := range []struct {
		name        string
		demand      float64
		records     float64
		partitions  int
		busy        float64
		need        int
		do          string
		noReplica   bool
		wantsGrowth float64
	}{
		{name: "keeps up", demand: 1, records: 1000, partitions: 4, need: 1},
		{name: "too slow by itself", demand: 3, records: 3000, partitions: 4, need: 3, do: "run 3 replicas instead of 1", wantsGrowth: 2000},
		{name: "more than its partitions", demand: 3, records: 3000, partitions: 2, need: 2, do: "2 replicas are as many as its 2 partitions allow", wantsGrowth: 2000},
		{name: "held back", demand: 3, records: 3000, partitions: 4, busy: 0.9, need: 1, do: "it waits for count", wantsGrowth: 2000},
		{name: "nobody", demand: 1, records: 0, noReplica: true, do: "nobody runs it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := &adviser{target: 0.7, demand: c.demand}
			if !c.noReplica {
				v.after.alive = []member.Member{{Node: "in", Worker: "s", Kind: topology.KindSpout, Partitions: c.partitions}}
			}
			a := &Advice{Records: c.records, Floors: c.records / c.demand, Nodes: []NodeAdvice{{Node: "count", Busy: c.busy, Replicas: 1}}}
			s := v.source(&topology.Node{ID: "in"}, a)
			if said := strings.Join(s.Do, "; "); s.NeedReplicas != c.need || !strings.Contains(said, c.do) || c.do == "" && said != "" || !close2(s.Growth, c.wantsGrowth) {
				t.Errorf("%+v", s)
			}
		})
	}
}
