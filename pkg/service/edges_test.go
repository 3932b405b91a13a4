package service

import (
	"maps"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/topology"
)

// TestLinger checks which tuples may wait on their way: those to a statistic whose results come with ticks, and no longer than these allow, and those to be stored.
func TestLinger(t *testing.T) {
	want := map[string]time.Duration{
		"slow": 20 * time.Millisecond, "fast": 12500 * time.Microsecond, "windows": 20 * time.Millisecond, "sites-part": 20 * time.Millisecond,
		topology.OutputNode: 20 * time.Millisecond,
	}
	for name, c := range map[string]struct {
		spout, output string
		want          map[string]time.Duration
	}{
		"a device job": {"", "", want},
		"calls":        {", calls: true", "", nil},
		"an output in a hurry": {"", "output: {linger: 5ms}", func() map[string]time.Duration {
			m := maps.Clone(want)
			m[topology.OutputNode] = 5 * time.Millisecond
			return m
		}()},
	} {
		t.Run(name, func(t *testing.T) { lingers(t, c.spout, c.output, c.want) })
	}
}

func lingers(t *testing.T, spout, output string, want map[string]time.Duration) {
	t.Helper()
	top, problems := topology.Parse("t.yaml", []byte(`
topology: rooms
spout: {id: in, kafka: {topics: [readings]}, fields: {celsius: number, site: string}, key: device`+spout+`}
bolts:
  - {id: clean, kind: convert, from: in, set: {x: celsius * 2}, save: readings}
  - {id: slow, kind: stat, from: clean, every: 1s, aggregates: {n: count}}
  - {id: fast, kind: stat, from: clean, every: 100ms, aggregates: {n: count}}
  - {id: windows, kind: stat, from: clean, window: {tumbling: 1m, time: event}, aggregates: {n: count}}
  - {id: five, kind: stat, from: clean, window: {count: 5}, aggregates: {n: count}}
  - {id: sites, kind: stat, from: clean, group: archive.site, every: 1s, aggregates: {n: count}}
  - {id: soft, kind: stat, from: clean, group: archive.site, every: 1s, aggregates: {x: "ewma(x, 0.5)"}}
  - {id: hot, kind: alarm, from: clean, when: x > 3, save: alarms}
`+output), topology.Options{})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	plan, err := top.Plan()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for i := range plan.Nodes {
		for _, e := range edges(plan, &plan.Nodes[i]) {
			seen[e.To] = true
			if n := plan.Nodes[i]; n.ID == "clean" && e.Linger != want[e.To] {
				t.Errorf("a tuple may wait %v on its way to %s, want %v", e.Linger, e.To, want[e.To])
			}
			if e.To == "sites" && e.Linger != 0 {
				t.Errorf("a tuple may wait %v on its way to the second stage, which gets what has been gathered", e.Linger)
			}
		}
	}
	for _, id := range []string{"slow", "fast", "windows", "five", "hot", "sites-part", "soft-part"} {
		if !seen[id] {
			t.Errorf("no edge leads to %s", id)
		}
	}
}
