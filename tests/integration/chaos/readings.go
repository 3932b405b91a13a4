package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
)

// reading is what is fed and what is stored; Seq tells it from all others.
type reading struct {
	Device string  `json:"device"`
	TS     int64   `json:"ts"`
	Value  float64 `json:"value"`
	Seq    int     `json:"seq"`
}

// generate makes n readings of some devices, in turn. The values wander between 0 and 100 in quarters, so that sums are exact in any order.
func generate(seed uint64, n, devices int) []reading {
	random := rand.New(rand.NewPCG(seed, 1))
	level := make([]float64, devices)
	for i := range level {
		level[i] = float64(random.IntN(400)) / 4
	}
	out := make([]reading, n)
	for i := range out {
		d := i % devices
		level[d] = math.Abs(level[d] + float64(random.IntN(121)-60)/4)
		if level[d] > 100 {
			level[d] = 200 - level[d]
		}
		out[i] = reading{fmt.Sprintf("device-%04d", d), 1_700_000_000_000 + int64(i/devices)*1000, level[d], i}
	}
	return out
}

// lines are the readings as the feed takes them.
func lines(all []reading) ([]byte, error) {
	var out bytes.Buffer
	to := json.NewEncoder(&out)
	for _, r := range all {
		if err := to.Encode(r); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

// total is a document of the lifetime statistic.
type total struct {
	Device   string
	Count    int
	Sum      float64
	Min, Max float64

	Revisions int // in which its readings were handled, added up
}

// sum is what the lifetime statistic must say of a device, by looking at all its readings.
func sum(device string, all []reading) total {
	t := total{Device: device, Count: len(all), Min: math.Inf(1), Max: math.Inf(-1)}
	for _, r := range all {
		t.Sum += r.Value
		t.Min, t.Max = min(t.Min, r.Value), max(t.Max, r.Value)
	}
	return t
}
