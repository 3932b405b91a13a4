package archive_test

import (
	"flag"
	"fmt"
	"runtime"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/archive"
	"github.com/boltmesh/boltmesh/pkg/state/statetest"
)

var devices = flag.Int("devices", 2000, "how many profiles TestProfileCost keeps in memory")

// TestProfileCost says what a profile of four fields takes in a worker's memory.
func TestProfileCost(t *testing.T) {
	s := &source{}
	names := make([]string, *devices)
	for i := range names {
		names[i] = fmt.Sprintf("device-%07d", i)
		s.put(t, names[i], fmt.Sprintf(`{"site":"site-%d","model":"m-%d","limit":%d.5,"active":true}`, i%50, i%7, i%90))
	}
	c := cache(t, s, archive.CacheOptions{Entries: 2 * *devices, Bytes: 1 << 40})
	before := statetest.Heap()
	for i := 0; i < len(names); i += 250 {
		load(t, c, names[i:min(i+250, len(names))]...)
	}
	s.mu.Lock()
	s.reads = nil // they hold names
	s.mu.Unlock()
	local := float64(statetest.Heap()-before) / float64(*devices)
	t.Logf("%d profiles of four fields: %.0f bytes each in the cache (%d entries)", *devices, local, c.Stats().Entries)
	if *devices >= 2000 && (local < 100 || local > 2000) {
		t.Errorf("%.0f bytes a profile, want between 100 and 2000", local)
	}
	runtime.KeepAlive(c)
	runtime.KeepAlive(names)
}
