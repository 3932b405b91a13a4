package main

import (
	"math/bits"
	"time"
)

// precision is the number of bits kept of a duration: the buckets of a histogram are at most 1/64 of their value wide.
const precision = 7

// histogram counts durations in buckets whose width grows with the value, as HdrHistogram does. The zero value is empty.
type histogram struct {
	buckets [(64 - precision) << precision]uint32
	n       uint64
}

func (h *histogram) add(d time.Duration) {
	h.buckets[bucketOf(uint64(max(0, d)))]++
	h.n++
}

// bucketOf returns the bucket of v: values below 2^precision have one each; above, the leading precision bits and their place choose one.
func bucketOf(v uint64) int {
	shift := max(0, bits.Len64(v)-precision)
	return shift<<precision + int(v>>shift)
}

// top is the greatest value that falls into bucket i.
func top(i int) uint64 {
	shift := i >> precision
	return (uint64(i&(1<<precision-1))+1)<<shift - 1
}

// quantile returns a duration that the share q of all does not exceed, rounded up to its bucket's end; 0 when there is none.
func (h *histogram) quantile(q float64) time.Duration {
	rank := uint64(q * float64(h.n))
	var seen uint64
	for i, n := range h.buckets {
		if seen += uint64(n); n > 0 && (seen > rank || seen == h.n) {
			return time.Duration(top(i))
		}
	}
	return 0
}

// ms is a duration as results show it.
func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
