package state_test

import (
	"bytes"
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// TestPacksComeBack divides any records and expects of the head exactly what is not below a floor.
func TestPacksComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		origins := []tuple.Origin{0, 1, 2, 1<<64 - 1}
		floors := rapid.MapOf(rapid.SampledFrom(origins), rapid.Int64Range(-5, 5)).Draw(t, "floors")
		h, want := state.Head{Floors: floors, Applied: map[tuple.ID]state.Applied{}}, map[tuple.ID]state.Applied{}
		var apply []state.Record
		for i := range rapid.IntRange(0, 20).Draw(t, "records") {
			p := tuple.Position{Origin: rapid.SampledFrom(origins).Draw(t, "origin"), Offset: rapid.Int64Range(-6, 6).Draw(t, "offset")}
			r := state.Record{ID: tuple.ID{byte(i)}, Applied: state.Applied{Position: p, Slices: rapid.IntRange(0, 1).Draw(t, "slices")}}
			apply = append(apply, r)
			if floor, ok := floors[p.Origin]; !ok || p.Offset >= floor {
				want[r.ID] = r.Applied
			}
		}
		packs, others := state.Packs(apply)
		for _, i := range others {
			if apply[i].Slices == 0 {
				t.Fatalf("record %d says nothing but its position and is not packed", i)
			}
			h.Add(apply[i].ID, apply[i].Applied)
		}
		seen := map[tuple.Origin]bool{}
		for _, p := range packs {
			if seen[p.Origin] {
				t.Fatalf("two packs of origin %d", p.Origin)
			}
			seen[p.Origin] = true
			greatest := int64(-1 << 63)
			for _, r := range apply {
				if r.Position.Origin == p.Origin && r.Slices == 0 {
					greatest = max(greatest, r.Position.Offset)
				}
			}
			if p.Greatest != greatest {
				t.Fatalf("greatest offset %d, want %d", p.Greatest, greatest)
			}
			if err := h.Unpack(p); err != nil {
				t.Fatal(err)
			}
		}
		if d := cmp.Diff(want, h.Applied); d != "" {
			t.Fatalf("applied (-want +got):\n%s", d)
		}
	})
}

// FuzzUnpack has any bytes be refused or come back as they were.
func FuzzUnpack(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, 23))
	packs, _ := state.Packs([]state.Record{{ID: tuple.ID{1}}, {ID: tuple.ID{2}, Applied: state.Applied{Position: tuple.Position{Offset: -1}}}})
	f.Add(packs[0].IDs)
	f.Fuzz(func(t *testing.T, ids []byte) {
		h := state.Head{Applied: map[tuple.ID]state.Applied{}}
		if h.Unpack(state.Pack{Origin: 7, IDs: ids}) != nil {
			return
		}
		again := state.Head{Applied: map[tuple.ID]state.Applied{}}
		for id, a := range h.Applied {
			packs, _ := state.Packs([]state.Record{{ID: id, Applied: a}})
			if !bytes.Contains(ids, packs[0].IDs) || again.Unpack(packs[0]) != nil {
				t.Fatalf("%x became %+v", ids, a)
			}
		}
		if !maps.Equal(h.Applied, again.Applied) {
			t.Fatalf("%x: %+v is not %+v", ids, again.Applied, h.Applied)
		}
	})
}
