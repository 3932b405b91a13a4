//go:build chaos

package main

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/tests/integration/mesh"
)

// TestChaosShort is one small run of what `make chaos` does at length.
func TestChaosShort(t *testing.T) {
	dir := t.TempDir()
	s := settings{
		bin: filepath.Join(dir, "bin"), dir: filepath.Join(dir, "run"),
		seed: 2, readings: 12_000, devices: 100, replicas: 3, rate: 400, every: 3 * time.Second, patience: 3 * time.Minute,
	}
	if err := mesh.Build(t.Context(), s.bin); err != nil {
		t.Fatal(err)
	}
	r, err := run(t.Context(), s, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	t.Log(r)
	if len(r.problems) > 0 {
		r.explain(t.Output())
		t.Error(r)
	}
}
