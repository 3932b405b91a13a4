// Package partition maps keys to tasks and tasks to workers, as pure functions that every process computes alike.
// The router uses the first, the owner loops the second.
// It never remembers anything: the same arguments give the same answer in any process and any language.
package partition

import (
	"hash/fnv"
	"slices"
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

// Assign gives each of tasks 0..n-1 to one of the workers by rendezvous hashing with a bound: no worker gets more than ceil(n/len(workers)), and
// a worker that joins or leaves moves few tasks between the others. It returns nil when there are no workers.
func Assign(node string, n int, workers []string) []string {
	if len(workers) == 0 {
		return nil
	}
	sorted := slices.Clone(workers)
	slices.Sort(sorted)
	sorted = slices.Compact(sorted)
	limit := (n + len(sorted) - 1) / len(sorted)
	load := make(map[string]int, len(sorted))
	out := make([]string, n)
	for task := range n {
		var best string
		var weight uint64
		for _, w := range sorted {
			if load[w] >= limit {
				continue
			}
			if s := score(node, task, w); best == "" || s > weight {
				best, weight = w, s
			}
		}
		out[task] = best
		load[best]++
	}
	return out
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
