package sqlite

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// some is a batch with something of everything that a change keeps.
func some() *state.Batch {
	at := func(offset int64) tuple.Position { return tuple.Position{Origin: 1 << 63, Offset: offset} }
	record := func(offset int64, a state.Applied, outputs []byte) state.Record {
		a.Position = at(offset)
		return state.Record{ID: tuple.RootID(a.Position), Applied: a, Outputs: outputs}
	}
	return &state.Batch{
		Set: []state.Entry{{Key: "a", Value: []byte("1")}, {Key: "", Value: nil}}, Delete: []string{"b"},
		Floors: map[tuple.Origin]int64{1 << 63: -5},
		Apply: []state.Record{
			record(1, state.Applied{}, nil), record(2, state.Applied{Slices: 1}, []byte{}),
			record(3, state.Applied{Slices: 2, Unfinished: true, Cursor: "c"}, []byte("o")), record(4, state.Applied{Slices: 1}, nil),
		},
	}
}

func TestChange(t *testing.T) {
	b := some()
	row := appendChange(nil, b)
	c := newChange()
	if err := c.fold(row); err != nil {
		t.Fatal(err)
	}
	want := newChange()
	want.values = map[string][]byte{"a": []byte("1"), "": {}, "b": nil}
	want.floors = b.Floors
	packs, _ := state.Packs(b.Apply)
	want.packs[1<<63] = packs[0].IDs
	for _, r := range b.Apply[1:] {
		want.applied[r.ID] = r.Applied
	}
	want.outputs[output{b.Apply[1].ID, 0}] = []byte{}
	want.outputs[output{b.Apply[2].ID, 1}] = []byte("o")
	if d := cmp.Diff(want, c, cmp.AllowUnexported(change{}, output{})); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	for n := range row {
		if err := newChange().fold(row[:n]); !errors.Is(err, errChange) {
			t.Errorf("the first %d bytes of %d: %v, want errChange", n, len(row), err)
		}
	}
	if err := newChange().fold(append(row, 0)); !errors.Is(err, errChange) {
		t.Errorf("with a byte too many: %v, want errChange", err)
	}
}

func FuzzChange(f *testing.F) {
	f.Add(appendChange(nil, some()))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, row []byte) {
		_ = newChange().fold(row) // must not panic
	})
}
