package statetest

import "runtime"

// Heap returns how many bytes of the heap are in use, after a collection: for tests of what a cache costs.
func Heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
