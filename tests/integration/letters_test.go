package integration

import (
	"context"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/tuple"
	"github.com/boltmesh/boltmesh/tests/integration/mesh"
)

// letters returns the dead letters of a topology.
func letters(t *testing.T, m *mesh.Mesh, topology string) (all []tuple.Letter) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := m.Letters.Each(ctx, topology, func(_ uint64, l *tuple.Letter) error {
		all = append(all, *l)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
