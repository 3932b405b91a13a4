package partition

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestEven: two hot tasks of one worker are divided by one exchange, and what is even stays.
func TestEven(t *testing.T) {
	owners, workers := []string{"a", "a", "b", "b"}, []string{"a", "b"}
	got := Even("n", owners, workers, []float64{100, 100, 1, 1})
	if differ(got, owners) != 2 || got[0] == got[1] || spread(got, workers) != 0 {
		t.Errorf("got %v", got)
	}
	if again := Even("n", got, workers, []float64{100, 100, 1, 1}); !slices.Equal(again, got) {
		t.Errorf("once more: %v, %v before", again, got)
	}
	if got := Even("n", owners, workers, make([]float64, 4)); !slices.Equal(got, owners) {
		t.Errorf("without load: %v", got)
	}
	if got := Even("n", owners, nil, make([]float64, 4)); got != nil {
		t.Errorf("nobody there: %v", got)
	}
}

func TestEvenIsNeverWorse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		loads := rapid.SliceOfN(rapid.Float64Range(0, 1000), 1, 16).Draw(t, "loads")
		workers := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}), 1, 5, rapid.ID).Draw(t, "workers")
		owners := make([]string, len(loads))
		for i := range owners {
			owners[i] = rapid.SampledFrom([]string{"", "a", "b", "c", "gone"}).Draw(t, "owner")
		}
		before := Assign("n", owners, workers)
		after := Even("n", owners, workers, loads)
		even(t, after, workers)
		if x, y := most(after, loads), most(before, loads); x > y {
			t.Fatalf("the greatest load grows from %v to %v: %v, %v", y, x, before, after)
		}
		if again := Assign("n", after, workers); !slices.Equal(again, after) {
			t.Fatalf("%v does not stay: %v", after, again)
		}
	})
}

func most(owners []string, loads []float64) (most float64) {
	load := map[string]float64{}
	for task, w := range owners {
		load[w] += loads[task]
		most = max(most, load[w])
	}
	return most
}
