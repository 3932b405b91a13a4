package integration

import (
	"testing"

	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/boltmesh/boltmesh/tests/integration/figures"
	"github.com/boltmesh/boltmesh/tests/integration/mesh"
)

// What the tests of other topologies have in common with the example.
type (
	totals = figures.Totals
	alarm  = figures.Alarm
)

func TestExample(t *testing.T) {
	m := start(t, mesh.Options{})
	top := apply(t, m, example("topology.yaml"))
	files := []string{example("data/machine_temperature.csv"), example("data/ec2_cpu.csv")}
	fed, err := m.Feed(t.Context(), top, 0, files...)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := figures.Rows(example("data")); err != nil || fed != n {
		t.Errorf("%d of %d rows were fed, %v", fed, n, err)
	}
	settle(t, m, top)
	db := database(t, m, "machines")
	check := func(t *testing.T) {
		if err := figures.Check(t.Context(), db, example("data")); err != nil {
			t.Error(err)
		}
		noLetters(t, m, top.Name)
	}
	t.Run("figures", check)
	again, err := m.Feed(t.Context(), top, 0, files...)
	if err != nil || again != 0 {
		t.Errorf("fed again: %d rows sent, %v", again, err)
	}
	settle(t, m, top)
	t.Run("fed again", check)
}

// latest reads the last state of a lifetime statistic per device.
func latest(t *testing.T, db *mongo.Database, collection string) map[string]totals {
	t.Helper()
	out, err := figures.Latest(t.Context(), db, collection)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func sameTotals(t *testing.T, what string, got, want totals) {
	t.Helper()
	if err := figures.SameTotals(what, got, want); err != nil {
		t.Error(err)
	}
}

func sameAlarms(t *testing.T, got, want []alarm) {
	t.Helper()
	if err := figures.SameAlarms(got, want); err != nil {
		t.Error(err)
	}
}
