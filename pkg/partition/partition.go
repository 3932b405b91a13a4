// Package partition maps keys to tasks and tasks to workers, as pure functions that every process computes alike.
// The router uses the first, the owner loops the second.
// It never remembers anything: the same arguments give the same answer in any process and any language.
package partition

import (
	"cmp"
	"hash/fnv"
	"slices"
	"strings"
)

// Task returns the task of a key among tasks: FNV-1a (32 bits) modulo their number, the same as nats-server's partition().
func Task(key string, tasks int) int32 {
	const offset, prime = 2166136261, 16777619
	h := uint32(offset)
	for i := range len(key) {
		h = (h ^ uint32(key[i])) * prime
	}
	return int32(h % uint32(tasks))
}

// Assign divides a node's tasks among the workers that are there. owners says who has each task now, "" for nobody; a name that is not among the
// workers counts as nobody. The answer says who is to have each task:
//
//   - The numbers of tasks that any two workers have differ by one at most.
//   - No more tasks change hands than that takes: those that who has left had, those that the newcomer gets, and no others.
//   - Of a worker that has too many, those go where it scores least (rendezvous hashing); a task without an owner goes where it scores most among
//     the workers that have room.
//   - While the answer is being carried out, in whatever order, the answer stays the same. So everybody who sees the same owners and workers, sooner or
//     later, acts to the same end.
//
// It returns nil when there are no workers.
func Assign(node string, owners, workers []string) []string {
	if len(workers) == 0 {
		return nil
	}
	d := divide(node, owners, workers)
	out := make([]string, len(owners))
	for _, w := range d.workers {
		for _, task := range d.kept(w) {
			out[task] = w
			d.room[w]--
		}
	}
	for task := range out {
		if out[task] == "" {
			out[task] = d.best(task)
			d.room[out[task]]--
		}
	}
	return out
}

// division is an Assign on its way.
type division struct {
	node    string
	workers []string         // sorted, each once
	has     map[string][]int // tasks, by worker
	room    map[string]int   // how many tasks each worker is to have, less those that it has been given
}

func divide(node string, owners, workers []string) *division {
	d := &division{node: node, workers: slices.Clone(workers), has: map[string][]int{}, room: map[string]int{}}
	slices.Sort(d.workers)
	d.workers = slices.Compact(d.workers)
	for task, w := range owners {
		d.has[w] = append(d.has[w], task)
	}
	least, more := len(owners)/len(d.workers), len(owners)%len(d.workers)
	// Those that have more than the least already keep one more: taking it away would move a task that need not move. Their number of tasks beyond that
	// does not count, for it changes while they give them up.
	ranks := slices.Clone(d.workers)
	slices.SortFunc(ranks, func(a, b string) int {
		if x, y := len(d.has[a]) > least, len(d.has[b]) > least; x != y {
			if x {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(score(node, -1, b), score(node, -1, a)), strings.Compare(a, b))
	})
	for i, w := range ranks {
		d.room[w] = least
		if i < more {
			d.room[w]++
		}
	}
	return d
}

// kept lists the tasks that a worker has and keeps: as many as it may, those for which it scores most.
func (d *division) kept(w string) []int {
	has := slices.Clone(d.has[w])
	slices.SortFunc(has, func(a, b int) int {
		return cmp.Or(cmp.Compare(score(d.node, b, w), score(d.node, a, w)), cmp.Compare(a, b))
	})
	return has[:min(len(has), d.room[w])]
}

// best returns the worker that scores most for a task, among those that have room.
func (d *division) best(task int) (best string) {
	var most uint64
	for _, w := range d.workers {
		if s := score(d.node, task, w); d.room[w] > 0 && (best == "" || s > most) {
			best, most = w, s
		}
	}
	return best
}

func score(node string, task int, worker string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(node))
	h.Write([]byte{0, byte(task), byte(task >> 8)})
	h.Write([]byte(worker))
	z := h.Sum64() // FNV's high bits are weak for short differences: finish as SplitMix64 does
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
