package redis_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/state"
)

// TestManyDueInSlices: an agenda of 100,000 entries is gone over in slices, each once, in the order of keys, where nearly all are due and where few are: the two
// ways in which lua/due.lua finds them.
func TestManyDueInSlices(t *testing.T) {
	const entries, slice = 100_000, 1000
	s := connect(t, server(t, "--appendfsync", "no"))
	task := state.Task{Topology: "t", Node: "n"}
	epoch, err := s.Claim(ctx, task)
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]int64{}
	var all []state.Due
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(entries) {
		d := state.Due{Key: fmt.Sprintf("device-%06d", i), At: int64(i % 1000)}
		at[d.Key] = d.At
		all = append(all, d)
	}
	for i := 0; i < entries; i += 5000 {
		if err := s.Commit(ctx, task, epoch, &state.Batch{Agenda: all[i : i+5000]}); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		until int64
		want  int
	}{{999, entries}, {998, entries - entries/1000}, {4, 5 * entries / 1000}, {0, entries / 1000}, {-1, 0}} {
		got, calls, after := 0, 0, ""
		for {
			due, err := s.Due(ctx, task, tt.until, after, slice)
			if err != nil {
				t.Fatal(err)
			}
			calls++
			for _, d := range due {
				if d.Key <= after || d.At != at[d.Key] || d.At > tt.until {
					t.Fatalf("until %d: %+v after %q", tt.until, d, after)
				}
				after = d.Key
			}
			got += len(due)
			if len(due) > slice {
				t.Fatalf("until %d: a slice of %d", tt.until, len(due))
			}
			if len(due) < slice {
				break
			}
		}
		if got != tt.want || calls != tt.want/slice+1 {
			t.Errorf("until %d: %d entries in %d slices, want %d", tt.until, got, calls, tt.want)
		}
	}
}
