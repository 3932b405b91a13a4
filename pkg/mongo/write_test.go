package mongo

import (
	"fmt"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/document"
)

// TestHighestVersions checks that of several versions of a document only the highest is written, and that a lower one is where that one is refused.
func TestHighestVersions(t *testing.T) {
	items := []item{{0, "a", 2, nil}, {1, "b", 1, nil}, {2, "a", 9, nil}, {3, "a", 1, nil}, {4, "a", 9, nil}, {5, "b", 3, nil}, {6, "c", 1, nil}}
	said := func(items []item) (s string) {
		for _, x := range items {
			s += fmt.Sprintf("%d:%s%d ", x.index, x.id, x.version)
		}
		return s
	}
	round, lower := highest(items)
	if got := said(round); got != "2:a9 5:b3 6:c1 " {
		t.Errorf("written: %s", got)
	}
	if got := said(below(nil, round, lower)); got != "" {
		t.Errorf("none was refused, and yet: %s", got)
	}
	left := below([]document.Refusal{{Index: 2}, {Index: 6}}, round, lower)
	if got := said(left); got != "0:a2 3:a1 4:a9 " {
		t.Errorf("where a9 was refused: %s", got)
	}
	if round, lower = highest(left); said(round) != "4:a9 " || len(lower) != 2 {
		t.Errorf("then %s and %s", said(round), said(lower))
	}
}
