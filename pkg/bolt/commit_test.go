package bolt_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// TestACommitSaysWhatIsNew checks that floors and entries of the agenda are written when they change, and again by a new owner, who cannot know.
func TestACommitSaysWhatIsNew(t *testing.T) {
	h := bolttest.New(t, &counting{}) // every tuple puts its group on the agenda
	var last state.Batch
	h.Commit = func(b *state.Batch) { last = *b }
	check := func(what string, floors map[tuple.Origin]int64, agenda ...string) {
		t.Helper()
		var got []string
		for _, d := range last.Agenda {
			got = append(got, d.Key)
		}
		if slices.Sort(got); !maps.Equal(last.Floors, floors) || !slices.Equal(got, agenda) {
			t.Errorf("%s: committed floors %v and agenda %v, want %v and %v", what, last.Floors, got, floors, agenda)
		}
	}
	h.Feed(at("a"))
	check("the first", nil, "a")
	h.Floor = 1
	h.Feed(at("a"))
	check("a floor has risen", map[tuple.Origin]int64{bolttest.Origin: 1})
	h.Feed(at("a"), at("b"))
	check("another group", nil, "b")
	h.Tick(bolt.Tick{})
	h.Feed(at("a"))
	check("a tick has taken it off", nil, "a")
	h.Restart()
	h.Feed(at("a"))
	check("a new owner", nil, "a")
}
