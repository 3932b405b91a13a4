package window

import (
	"errors"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// A script that took too long to name a reading's group, as any does now and then on a busy machine, is asked again before the reading is given up; one that
// failed is not.
func TestSlowGroupIsAskedAgain(t *testing.T) {
	spec := stat(topology.Window{Kind: topology.WindowTumbling, Size: 10 * ms, Slide: 10 * ms}, aggregate("n", "count", ""))
	spec.ID, spec.Stage, spec.Group = "s-part", topology.StageFirst, []string{topology.GroupScript}
	spec.Script = &topology.Script{File: "group.js", Text: `function group(t) { return "all" }`}
	f, err := NewFirst(spec, share, nil)
	if err != nil {
		t.Fatal(err)
	}
	reading := at("a", 1, 1)
	for _, tt := range []struct {
		err   error
		again bool
	}{{errors.New("it ran longer than 100ms"), true}, {bolt.Reject(errors.New("t.x is undefined")), false}} {
		f.named[reading.ID] = naming{err: tt.err}
		if n := f.prepared(t.Context(), &reading); (n.err == nil && n.group == "all") != tt.again {
			t.Errorf("%v: %+v", tt.err, n)
		}
	}
}
