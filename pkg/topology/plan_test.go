package topology_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/boltmesh/boltmesh/pkg/topology"
)

// random draws a topology without cycles: each bolt receives from some of those before it, which are then shuffled.
func random(t *rapid.T) *topology.Topology {
	out := &topology.Topology{Name: "t", Spout: topology.Spout{ID: "s"}}
	ids := []string{"s"}
	for i := range rapid.IntRange(1, 8).Draw(t, "bolts") {
		b := topology.Bolt{
			ID: fmt.Sprintf("b%d", i), Kind: rapid.SampledFrom([]string{topology.KindConvert, topology.KindStat, topology.KindAlarm, topology.KindConvert}).Draw(t, "kind"),
		}
		for _, id := range rapid.SliceOfNDistinct(rapid.SampledFrom(ids), 1, min(3, len(ids)), rapid.ID[string]).Draw(t, "from") {
			f := topology.From{Node: id}
			if b.Kind == topology.KindConvert {
				f.Grouping = rapid.SampledFrom([]string{"", "", topology.Shuffle, topology.Global, topology.All, topology.Fields}).Draw(t, "grouping")
			}
			b.From = append(b.From, f)
		}
		if rapid.Bool().Draw(t, "save") {
			b.Save = &topology.Save{Collection: "c"}
		}
		ids = append(ids, b.ID)
		out.Bolts = append(out.Bolts, b)
	}
	out.Bolts = rapid.Permutation(out.Bolts).Draw(t, "order")
	return out
}

// The plan against what its documentation says, asked in the slowest way.
func TestPlanProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		top := random(t)
		plan, err := top.Plan()
		if err != nil {
			t.Fatal(err)
		}
		at := map[string]int{}
		for i, n := range plan.Nodes {
			at[n.ID] = i
		}
		stateful := func(id string) bool { return plan.Nodes[at[id]].Stateful }
		if plan.Nodes[0].ID != "s" || len(at) != len(plan.Nodes) {
			t.Fatalf("the spout is not first, or an id comes twice: %v", plan.Nodes)
		}
		saved := slices.ContainsFunc(top.Bolts, func(b topology.Bolt) bool { return b.Save != nil })
		if i, ok := at[topology.OutputNode]; ok != saved || saved && i != len(plan.Nodes)-1 {
			t.Fatalf("saved: %v, the output node is at %d of %d", saved, i, len(plan.Nodes))
		}
		for i, n := range plan.Nodes {
			level := 0
			for _, e := range n.In {
				if at[e.From] >= i {
					t.Fatalf("%s stands before %s", n.ID, e.From)
				}
				level = max(level, plan.Nodes[at[e.From]].Level+1)
				checkEdge(t, e, stateful)
				if !slices.ContainsFunc(plan.Nodes[at[e.From]].Out, func(o topology.Edge) bool { return o.To == n.ID && o.Stream == e.Stream }) {
					t.Fatalf("%s does not know its edge to %s", e.From, n.ID)
				}
			}
			if n.Level != level {
				t.Fatalf("%s has level %d, want %d", n.ID, n.Level, level)
			}
			if n.Stateful && n.Shared {
				t.Fatalf("%s keeps state and is shared", n.ID)
			}
		}
	})
}

func checkEdge(t *rapid.T, e topology.Edge, stateful func(string) bool) {
	scatters := e.Grouping == topology.Shuffle
	switch {
	case e.Gated != (stateful(e.From) && stateful(e.To)):
		t.Fatalf("gated: %+v", e)
	case stateful(e.To) && e.Grouping != topology.Fields && e.Grouping != topology.Global:
		t.Fatalf("into a stateful node: %+v", e)
	case e.Grouping == topology.Fields && len(e.By) == 0:
		t.Fatalf("no key: %+v", e)
	case e.Save != nil && (!scatters || e.To != topology.OutputNode):
		t.Fatalf("an edge that saves: %+v", e)
	case e.Grouping == "":
		t.Fatalf("no grouping: %+v", e)
	}
}

// Where nothing is declared, order per device is kept on the way to whatever keeps state, and given up elsewhere.
func TestDefaultGrouping(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		top := random(t)
		for i := range top.Bolts {
			for k := range top.Bolts[i].From {
				top.Bolts[i].From[k].Grouping = ""
			}
		}
		plan, err := top.Plan()
		if err != nil {
			t.Fatal(err)
		}
		node := func(id string) *topology.Node {
			return &plan.Nodes[slices.IndexFunc(plan.Nodes, func(n topology.Node) bool { return n.ID == id })]
		}
		var below func(n *topology.Node) bool
		below = func(n *topology.Node) bool {
			return slices.ContainsFunc(n.Out, func(e topology.Edge) bool { return node(e.To).Stateful || below(node(e.To)) })
		}
		for i := range plan.Nodes {
			n := &plan.Nodes[i]
			for _, e := range n.In {
				want := topology.Shuffle
				if n.Stateful || below(n) {
					want = topology.Fields
				}
				if e.Grouping != want || n.Shared != (want == topology.Shuffle) {
					t.Fatalf("%+v into a node that is shared: %v, want %s", e, n.Shared, want)
				}
			}
		}
	})
}

// A hand-made topology that Parse would have refused is an error, not a crash.
func TestPlanRefuses(t *testing.T) {
	for name, bolts := range map[string][]topology.Bolt{
		"a cycle":      {{ID: "a", Kind: topology.KindConvert, From: []topology.From{{Node: "b"}}}, {ID: "b", Kind: topology.KindStat, From: []topology.From{{Node: "a"}}}},
		"unknown node": {{ID: "a", Kind: topology.KindConvert, From: []topology.From{{Node: "x"}}}},
	} {
		if _, err := (&topology.Topology{Spout: topology.Spout{ID: "s"}, Bolts: bolts}).Plan(); err == nil {
			t.Errorf("%s was planned", name)
		}
	}
}

// TestPatience checks that no result waits for more readings which a reading itself completes, and none for longer than its ticks allow.
func TestPatience(t *testing.T) {
	count, ewma := []topology.Aggregate{{Name: "n", Func: "count"}}, []topology.Aggregate{{Name: "x", Func: "ewma"}}
	const most = 50 * time.Millisecond
	for _, c := range []struct {
		name string
		b    topology.Bolt
		want time.Duration
	}{
		{"every second", topology.Bolt{Kind: topology.KindStat, Aggregates: count, Every: time.Second}, most},
		{"often", topology.Bolt{Kind: topology.KindStat, Aggregates: count, Every: 80 * time.Millisecond}, 10 * time.Millisecond},
		{"with the watermark", topology.Bolt{Kind: topology.KindStat, Aggregates: count, Window: topology.Window{Kind: topology.WindowTumbling, Time: "event"}}, most},
		{"by the clock", topology.Bolt{Kind: topology.KindStat, Aggregates: count, Window: topology.Window{Kind: topology.WindowSliding, Time: "processing", Slide: 200 * time.Millisecond}}, 25 * time.Millisecond},
		{"by number", topology.Bolt{Kind: topology.KindStat, Aggregates: count, Window: topology.Window{Kind: topology.WindowCount}}, 0},
		{"a first stage", topology.Bolt{Kind: topology.KindStat, Stage: topology.StageFirst, Aggregates: count, Every: time.Second}, most},
		{"a first stage that sends readings on", topology.Bolt{Kind: topology.KindStat, Stage: topology.StageFirst, Aggregates: ewma, Every: time.Second}, 0},
		{"a second stage of what was gathered", topology.Bolt{Kind: topology.KindStat, Stage: topology.StageSecond, Aggregates: count, Every: time.Second}, 0},
		{"a second stage of readings that were not", topology.Bolt{Kind: topology.KindStat, Stage: topology.StageSecond, Aggregates: ewma, Every: time.Second}, most},
		{"an alarm", topology.Bolt{Kind: topology.KindAlarm}, 0},
		{"a bolt of one's own", topology.Bolt{Kind: topology.KindCustom, Every: time.Second}, 0},
	} {
		if got := c.b.Patience(most); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
