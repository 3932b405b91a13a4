package spout_test

import (
	"testing"

	"github.com/boltmesh/boltmesh/pkg/spout/spouttest"
	"github.com/boltmesh/boltmesh/pkg/state"
)

func TestCalls(t *testing.T) {
	spouttest.Run(t, func(*testing.T) state.Logs { return state.NewMemory() })
}
