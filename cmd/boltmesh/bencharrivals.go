package main

import (
	"fmt"
	"maps"
	"sort"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// arrival is a batch of records that has come to Kafka.
type arrival struct {
	Next int64 `json:"next"` // the offset behind its last
	At   int64 `json:"at"`   // us since 1970
}

// arrivals are those of each partition, in the order of their offsets.
type arrivals struct {
	mu sync.Mutex
	of map[int32][]arrival
}

// note has a batch come now.
func (a *arrivals) note(partition int32, records int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	next := int64(records)
	if n := len(a.of[partition]); n > 0 {
		next += a.of[partition][n-1].Next
	}
	a.of[partition] = append(a.of[partition], arrival{next, time.Now().UnixMicro()})
}

func (a *arrivals) list() map[int32][]arrival {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.of)
}

// placed is where a reading is in Kafka.
type placed struct {
	due       int64 // ms since 1970
	offset    int32
	partition int32
}

// placing are readings that are being produced, in order.
type placing struct {
	mu sync.Mutex
	at []placed
}

// add returns what tells that one where it is, and then whoever wants to know of it.
func (p *placing) add(due time.Time, then func(*kgo.Record, error)) func(*kgo.Record, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := len(p.at)
	p.at = append(p.at, placed{due: due.UnixMilli()})
	return func(r *kgo.Record, err error) {
		p.mu.Lock()
		p.at[i].offset, p.at[i].partition = int32(r.Offset), r.Partition
		p.mu.Unlock()
		then(r, err)
	}
}

// sinceKafka counts how old alarms were by when their readings had come to Kafka, out being when they were out.
func sinceKafka(of readings, at []placed, came map[int32][]arrival, out map[alarm]time.Time) (*histogram, error) {
	h := &histogram{}
	for i, p := range at {
		moment, ok := out[alarm{of.device(i), p.due}]
		if !ok {
			continue
		}
		batches := came[p.partition]
		b := sort.Search(len(batches), func(b int) bool { return batches[b].Next > int64(p.offset) })
		if b == len(batches) {
			return nil, fmt.Errorf("nobody saw offset %d of partition %d come to Kafka", p.offset, p.partition)
		}
		h.add(moment.Sub(time.UnixMicro(batches[b].At)))
	}
	if int(h.n) != len(out) {
		return nil, fmt.Errorf("%d of %d alarms are of readings that were produced", h.n, len(out))
	}
	return h, nil
}
