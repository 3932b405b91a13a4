package main

import (
	"strings"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/topology"
)

func TestGraph(t *testing.T) {
	golden(t, "graph.txt", ok(t, "graph", "testdata/test/machines.yaml"))
	for format, want := range map[string]string{"mermaid": "flowchart LR", "svg": "<svg xmlns", "text": "└─ clean"} {
		if out := ok(t, "graph", "testdata/test/machines.yaml", "--format", format); !strings.Contains(out, want) {
			t.Errorf("%s: %s", format, out)
		}
	}
	if nodes := decode[[]topology.Node](t, ok(t, "graph", "-o", "json", "testdata/test/machines.yaml")); len(nodes) != 5 || nodes[1].In[0].Grouping != topology.Fields {
		t.Errorf("nodes %+v", nodes)
	}
	if code, _, errs := call(t, "graph", "x", "--format", "dot"); code != exitUsage || !strings.Contains(errs, "none of text, mermaid, svg") {
		t.Errorf("exit %d: %s", code, errs)
	}
	if code, _, errs := call(t, "graph", "testdata/bad.yaml"); code != exitFailed || !strings.Contains(errs, "testdata/bad.yaml:") {
		t.Errorf("exit %d: %s", code, errs)
	}
}
