package service

import (
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/topology"
)

// TestLinger checks which tuples may wait on their way: those to a statistic whose results come with ticks, and no longer than these allow.
func TestLinger(t *testing.T) {
	top, problems := topology.Parse("t.yaml", []byte(`
topology: rooms
spout: {id: in, kafka: {topics: [readings]}, fields: {celsius: number, site: string}, key: device}
bolts:
  - {id: clean, kind: convert, from: in, set: {x: celsius * 2}, save: readings}
  - {id: slow, kind: stat, from: clean, every: 1s, aggregates: {n: count}}
  - {id: fast, kind: stat, from: clean, every: 100ms, aggregates: {n: count}}
  - {id: windows, kind: stat, from: clean, window: {tumbling: 1m, time: event}, aggregates: {n: count}}
  - {id: five, kind: stat, from: clean, window: {count: 5}, aggregates: {n: count}}
  - {id: sites, kind: stat, from: clean, group: archive.site, every: 1s, aggregates: {n: count}}
  - {id: soft, kind: stat, from: clean, group: archive.site, every: 1s, aggregates: {x: "ewma(x, 0.5)"}}
  - {id: hot, kind: alarm, from: clean, when: x > 3, save: alarms}
`), topology.Options{})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	plan, err := top.Plan()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]time.Duration{"slow": 20 * time.Millisecond, "fast": 12500 * time.Microsecond, "windows": 20 * time.Millisecond, "sites-part": 20 * time.Millisecond}
	seen := map[string]bool{}
	for i := range plan.Nodes {
		for _, e := range edges(plan, &plan.Nodes[i]) {
			seen[e.To] = true
			if n := plan.Nodes[i]; n.ID == "clean" && e.Linger != want[e.To] {
				t.Errorf("a tuple may wait %v on its way to %s, want %v", e.Linger, e.To, want[e.To])
			}
			if nodeOf(plan, e.To).Bolt != nil && nodeOf(plan, e.To).Bolt.Stage == topology.StageSecond && e.Linger != 0 {
				t.Errorf("a tuple may wait %v on its way to the second stage %s", e.Linger, e.To)
			}
		}
	}
	for _, id := range []string{"slow", "fast", "windows", "five", "hot", "sites-part", "soft-part"} {
		if !seen[id] {
			t.Errorf("no edge leads to %s", id)
		}
	}
}
