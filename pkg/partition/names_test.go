package partition

import (
	"fmt"
	"testing"
)

// byNames is what Assign would be if it knew nothing but names: a rendezvous hash with a bound.
func byNames(node string, tasks int, workers []string) []string {
	out, load := make([]string, tasks), map[string]int{}
	for task := range out {
		var most uint64
		for _, w := range workers {
			if s := score(node, task, w); load[w] < (tasks+len(workers)-1)/len(workers) && (out[task] == "" || s > most) {
				out[task], most = w, s
			}
		}
		load[out[task]]++
	}
	return out
}

// TestAgainstNamesAlone counts what moves when a worker joins, with and without regard to who has the tasks.
func TestAgainstNamesAlone(t *testing.T) {
	for _, c := range [][2]int{{8, 2}, {8, 3}, {16, 3}, {16, 4}} {
		tasks, m := c[0], c[1]
		workers := []string{"a", "b", "c", "d", "e"}[:m+1]
		const nodes = 1000
		var moved, movedByNames, uneven int
		for n := range nodes {
			node := fmt.Sprint("node", n)
			before := byNames(node, tasks, workers[:m])
			moved += differ(Assign(node, before, workers), Assign(node, before, workers[:m]))
			after := byNames(node, tasks, workers)
			movedByNames += differ(before, after)
			if spread(after, workers) > 1 {
				uneven++
			}
		}
		share := func(n int) float64 { return 100 * float64(n) / nodes / float64(tasks) }
		t.Logf("%2d tasks, %d to %d workers: %.1f %% move; by names alone %.1f %%, and shares differ by more than one in %.1f %% of nodes",
			tasks, m, m+1, share(moved), share(movedByNames), float64(uneven)/nodes*100)
		if least := nodes * (tasks / (m + 1)); moved != least {
			t.Errorf("%d tasks move, %d have to", moved, least)
		}
	}
}

func differ(a, b []string) (n int) {
	for i := range a {
		if a[i] != b[i] {
			n++
		}
	}
	return n
}

// spread is by how much the numbers of tasks differ.
func spread(owners, workers []string) int {
	load := map[string]int{}
	for _, w := range owners {
		load[w]++
	}
	low, high := len(owners), 0
	for _, w := range workers {
		low, high = min(low, load[w]), max(high, load[w])
	}
	return high - low
}
