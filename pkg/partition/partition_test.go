package partition

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
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

// TestAssign lets workers join, leave and die at random, several at once, and carries each assignment out in a random order.
func TestAssign(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 16).Draw(t, "tasks")
		names := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
		there := map[string]bool{}
		owners := make([]string, n)
		for range rapid.IntRange(1, 8).Draw(t, "changes") {
			before := maps.Clone(there)
			for _, w := range rapid.SliceOfNDistinct(rapid.SampledFrom(names), 1, 3, rapid.ID).Draw(t, "join or leave") {
				if there[w] = !there[w]; !there[w] {
					delete(there, w)
				}
			}
			workers := slices.Collect(maps.Keys(there)) // in any order
			want := Assign("stat", owners, workers)
			if len(workers) == 0 {
				if want != nil {
					t.Fatalf("nobody is there, and has %v", want)
				}
				continue
			}
			even(t, want, workers)
			few(t, owners, want, before, there)
			owners = carryOut(t, owners, want, workers)
		}
	})
}

// even checks that the numbers of tasks differ by one at most.
func even(t *rapid.T, got, workers []string) {
	load := map[string]int{}
	for task, w := range got {
		if !slices.Contains(workers, w) {
			t.Fatalf("task %d is given to %q of %v", task, w, workers)
		}
		load[w]++
	}
	for _, w := range workers {
		if load[w] < len(got)/len(workers) || load[w] > (len(got)+len(workers)-1)/len(workers) {
			t.Fatalf("%s has %d of %d tasks among %v", w, load[w], len(got), workers)
		}
	}
}

// few checks that a task moves only away from who has gone, or to who has come: none between those that stay.
func few(t *rapid.T, owners, want []string, before, after map[string]bool) {
	balanced := len(before) > 0 && !slices.Contains(owners, "")
	for task, w := range want {
		if from := owners[task]; balanced && from != w && after[from] && before[w] {
			t.Fatalf("task %d goes from %s to %s, which both stay: %v, %v", task, from, w, owners, want)
		}
	}
}

// carryOut lets tasks be released and claimed one at a time, at random, and asks again after each step.
func carryOut(t *rapid.T, owners, want, workers []string) []string {
	owners = slices.Clone(owners)
	for task, w := range owners {
		if !slices.Contains(workers, w) {
			owners[task] = "" // who has died has nothing
		}
	}
	for {
		var open []int
		for task := range want {
			if owners[task] != want[task] {
				open = append(open, task)
			}
		}
		if len(open) == 0 {
			return owners
		}
		task := rapid.SampledFrom(open).Draw(t, "next")
		if owners[task] != "" {
			owners[task] = ""
		} else {
			owners[task] = want[task]
		}
		others := rapid.Permutation(workers).Draw(t, "as somebody else sees them")
		if again := Assign("stat", owners, others); !slices.Equal(again, want) {
			t.Fatalf("amid %v: %v, and on the way, %v, it is %v", workers, want, owners, again)
		}
	}
}

// TestAssignSpreads: of many nodes with one task more than they have workers, no worker gets that task everywhere.
func TestAssignSpreads(t *testing.T) {
	workers, most := []string{"a", "b", "c"}, map[string]int{}
	const nodes = 300
	for node := range nodes {
		load := map[string]int{}
		for _, w := range Assign(fmt.Sprint("node", node), make([]string, 4), workers) {
			if load[w]++; load[w] == 2 {
				most[w]++
			}
		}
	}
	for _, w := range workers {
		if most[w] < nodes/4 {
			t.Errorf("%s has the extra task of %d in %d nodes: %v", w, most[w], nodes, most)
		}
	}
}

func BenchmarkTask(b *testing.B) {
	for b.Loop() {
		Task("machine-000123", 8)
	}
}
