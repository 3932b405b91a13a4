package write

import (
	"fmt"
	"strings"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Figures of one window, in whatever order their versions come and however often, leave one document, of the last version.
func TestRevisions(t *testing.T) {
	m := &memory{}
	b, err := New(Options{Topology: "test", Store: m, Edges: []topology.Edge{
		{From: "hourly", To: topology.OutputNode, Stream: "default", Save: &topology.Save{Collection: "hourly"}, Revised: true},
		{From: "hourly", To: topology.OutputNode, Stream: "corrections", Save: &topology.Save{Collection: "hourly"}, Revised: true},
	}})
	if err != nil {
		t.Fatal(err)
	}
	h := bolttest.New(t, b)
	figures := func(n byte, stream, group string, start, version int) {
		h.Push("hourly", tuple.Tuple{ID: id(n), Stream: stream, Key: group, Time: 1386122400000, Payload: fmt.Appendf(nil,
			`{"group":%q,"window":{"kind":"tumbling","start":%d,"end":%d},"n":%d,"version":%d}`, group, start, start+10, 100+version, version)})
	}
	figures(1, "corrections", "a", 0, 3)
	figures(2, "default", "a", 0, 1)
	figures(3, "corrections", "a", 0, 2)
	figures(4, "default", "a", 10, 1)
	figures(5, "default", "b", 0, 1)
	figures(1, "corrections", "a", 0, 3)
	h.Push("hourly", tuple.Tuple{ID: id(9), Stream: "default", Key: "a", Payload: []byte(`{"group":"a","n":1}`)})
	h.Step()
	got := strings.Join(m.all(), "\n")
	if len(m.bodies["hourly"]) != 3 || strings.Contains(got, "BAD") || !strings.Contains(got, `"end":10},"n":103,"version":3`) || strings.Contains(got, `"n":102`) {
		t.Errorf("stored\n%s", got)
	}
	if len(h.Letters) != 1 || h.Letters[0].ID != id(9) {
		t.Errorf("letters %+v", h.Letters)
	}
}
