package control_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/control"
	documents "github.com/boltmesh/boltmesh/pkg/document"
	"github.com/boltmesh/boltmesh/pkg/script"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// TestNewestEpisodes: with a limit the episodes are the first of those without one, in whatever order they are stored.
func TestNewestEpisodes(t *testing.T) {
	const yaml = `
topology: t
spout: {id: in, kafka: {brokers: "localhost:9092", topics: [readings]}, key: device}
bolts:
  - {id: hot, kind: alarm, from: in, when: x > 1, save: alarms}
`
	top, problems := topology.Parse("t.yaml", []byte(yaml), topology.Options{Checker: script.Check{}})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	plan, err := top.Plan()
	if err != nil {
		t.Fatal(err)
	}
	store := &documents.Memory{}
	var docs []documents.Document
	for i := range 1000 {
		id := fmt.Sprintf("e%04d", i)
		for version := int64(1); version <= 2; version++ {
			body := fmt.Appendf(nil, `{"_id":%q,"version":%d,"alarm":"hot","group":"m%d","number":%d,"state":"open","raised_at":%d}`, id, version, i%7, i/7+1, i/3)
			docs = append(docs, documents.Document{Collection: "alarms_episodes", ID: id, Version: version, Body: body})
		}
	}
	rand.Shuffle(len(docs), func(a, b int) { docs[a], docs[b] = docs[b], docs[a] })
	for d := range slices.Chunk(docs, 100) {
		if refused, err := store.Write(t.Context(), d); err != nil || len(refused) > 0 {
			t.Fatal(refused, err)
		}
	}
	all, err := control.Episodes(t.Context(), plan, store, control.EpisodeFilter{})
	if err != nil || len(all) != 1000 {
		t.Fatalf("%d episodes, %v", len(all), err)
	}
	for _, most := range []int{1, 10, 999, 1000, 2000} {
		got, err := control.Episodes(t.Context(), plan, store, control.EpisodeFilter{Most: most})
		if err != nil {
			t.Fatal(err)
		}
		want := all[:min(most, len(all))]
		if !slices.EqualFunc(got, want, func(a, b control.Episode) bool { return a.ID == b.ID && a.Version == b.Version }) {
			t.Errorf("the newest %d are not the first %d of all", most, most)
		}
	}
}
