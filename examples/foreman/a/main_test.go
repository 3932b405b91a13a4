package main

import (
	"bytes"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/rehearse/casefile"
	"github.com/boltmesh/boltmesh/pkg/service"
)

// TestCases runs the bolt through its cases, in memory.
func TestCases(t *testing.T) {
	r, err := casefile.Check(t.Context(), "testdata/a.test.yaml", map[string]service.Build{"foreman-a": build}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Failed() > 0 {
		var b bytes.Buffer
		r.Write(&b, false)
		t.Error(b.String())
	}
}
