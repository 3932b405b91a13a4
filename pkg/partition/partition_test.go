package partition

import (
	"fmt"
	"hash/fnv"
	"testing"

	"pgregory.net/rapid"
)

func TestTaskIsFNV1a(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key, tasks := rapid.String().Draw(t, "key"), rapid.IntRange(1, 16).Draw(t, "tasks")
		h := fnv.New32a()
		h.Write([]byte(key))
		if got, want := Task(key, tasks), int32(h.Sum32()%uint32(tasks)); got != want {
			t.Fatalf("task %d, want %d", got, want)
		}
	})
}

func TestAssignIsBoundedCompleteAndStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, m := rapid.IntRange(1, 16).Draw(t, "tasks"), rapid.IntRange(1, 8).Draw(t, "workers")
		var workers []string
		for i := range m {
			workers = append(workers, fmt.Sprintf("w%d", i))
		}
		before := Assign("stat", n, workers)
		load := map[string]int{}
		for _, w := range before {
			load[w]++
		}
		for w, l := range load {
			if w == "" || l > (n+m-1)/m {
				t.Fatalf("worker %q has %d of %d tasks among %d", w, l, n, m)
			}
		}
		workers[0], workers[m-1] = workers[m-1], workers[0]
		for i, w := range Assign("stat", n, workers) {
			if w != before[i] {
				t.Fatal("the order of workers matters")
			}
		}
	})
}

func TestJoiningMovesFew(t *testing.T) {
	moved, total := 0, 0
	for node := range 200 {
		name := fmt.Sprint("node", node)
		before := Assign(name, 16, []string{"a", "b", "c"})
		after := Assign(name, 16, []string{"a", "b", "c", "d"})
		for i := range before {
			total++
			if before[i] != after[i] {
				moved++
			}
		}
	}
	if share := float64(moved) / float64(total); share > 0.45 { // a quarter must move; the bound moves some more
		t.Errorf("a fourth worker moves %.0f %% of all tasks", 100*share)
	}
}

func BenchmarkTask(b *testing.B) {
	for b.Loop() {
		Task("machine-000123", 8)
	}
}
