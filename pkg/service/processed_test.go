package service

import (
	"context"
	"fmt"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// TestWhatIsCommittedIsNoted: a spout leaves behind how far Kafka was told that each partition is processed, and its successor can ask for it.
func TestWhatIsCommittedIsNoted(t *testing.T) {
	m := newMesh(t)
	m.worker("tally", "w", func(context.Context, Node) (bolt.Bolt, error) { return &tally{}, nil })
	stop := m.worker(topology.KindSpout, "s", nil)
	m.apply(fmt.Sprintf(tallyYAML, "5s"))
	for i := range 100 {
		m.source.add(i, `{}`)
	}
	m.until("everything is processed", m.source.done)
	stop()
	for i, committed := range m.source.committed {
		log := fmt.Sprintf("kafka/readings/%d/", i)
		if _, _, floor, err := m.store.Read(t.Context(), "tally", log, 0, 0); err != nil || floor != committed || floor != 50 {
			t.Errorf("partition %d: noted %d (%v), committed %d, want 50", i, floor, err, committed)
		}
	}
}
