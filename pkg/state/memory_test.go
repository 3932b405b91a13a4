package state_test

import (
	"testing"

	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/state/statetest"
)

func TestMemory(t *testing.T) {
	statetest.Run(t, func(*testing.T) (state.Store, state.Logs) {
		m := state.NewMemory()
		return m, m
	})
}
