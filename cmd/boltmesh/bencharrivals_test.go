package main

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestAgesSinceKafka has five readings of two devices come to Kafka in three batches, of which three have an alarm.
func TestAgesSinceKafka(t *testing.T) {
	of, began := readings{devices: 2}, time.UnixMilli(1_000_000)
	p := &placing{}
	for i, at := range []struct {
		partition int32
		offset    int64
	}{{0, 0}, {1, 0}, {0, 1}, {1, 1}, {0, 2}} {
		told := false
		p.add(began.Add(time.Duration(i)*time.Millisecond), func(*kgo.Record, error) { told = true })(&kgo.Record{Partition: at.partition, Offset: at.offset}, nil)
		if !told {
			t.Fatalf("nobody was told of reading %d", i)
		}
	}
	came := map[int32][]arrival{
		0: {{Next: 2, At: began.UnixMicro() + 5000}, {Next: 3, At: began.UnixMicro() + 9000}},
		1: {{Next: 2, At: began.UnixMicro() + 7000}},
	}
	after := func(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }
	out := map[alarm]time.Time{
		{of.device(0), began.UnixMilli() + 2}: after(6),   // the third, in the first batch: 1 ms
		{of.device(1), began.UnixMilli() + 3}: after(17),  // the fourth: 10 ms
		{of.device(0), began.UnixMilli() + 4}: after(109), // the fifth, in the second batch: 100 ms
	}
	h, err := sinceKafka(of, p.at, came, out)
	if err != nil {
		t.Fatal(err)
	}
	for q, want := range map[float64]time.Duration{0.1: time.Millisecond, 0.5: 10 * time.Millisecond, 0.9: 100 * time.Millisecond} {
		if got := h.quantile(q); got < want || got > want*65/64 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	delete(came, 1)
	if _, err := sinceKafka(of, p.at, came, out); err == nil {
		t.Error("a reading that never came to Kafka was counted")
	}
	if _, err := sinceKafka(of, p.at[:3], came, out); err == nil {
		t.Error("alarms of readings that were not produced were passed over")
	}
}

// TestArrivals adds up the offsets of each partition.
func TestArrivals(t *testing.T) {
	a := arrivals{of: map[int32][]arrival{}}
	for _, b := range []struct {
		partition int32
		records   int
	}{{0, 2}, {1, 5}, {0, 3}} {
		a.note(b.partition, b.records)
	}
	got := a.list()
	if len(got[0]) != 2 || got[0][0].Next != 2 || got[0][1].Next != 5 || len(got[1]) != 1 || got[1][0].Next != 5 || got[0][0].At == 0 {
		t.Errorf("%v", got)
	}
}
