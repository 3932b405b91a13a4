package kafka_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/boltmesh/boltmesh/pkg/spout"
)

func TestRecords(t *testing.T) {
	t.Parallel()
	b := start(t, 1)
	at := time.UnixMilli(1_700_000_000_123)
	header := func(key, value string) kgo.RecordHeader { return kgo.RecordHeader{Key: key, Value: []byte(value)} }
	check(t, b.client.ProduceSync(t.Context(),
		&kgo.Record{Topic: topic, Timestamp: at, Key: []byte("k"), Value: []byte("v")},
		&kgo.Record{Topic: topic, Timestamp: at, Value: []byte("v"), Headers: []kgo.RecordHeader{header("stream", "heat"), header("other", "x"), header("traceparent", "00-a-b-01")}},
		&kgo.Record{Topic: topic, Timestamp: at, Key: []byte("k")},
		&kgo.Record{Topic: topic, Timestamp: at, Key: []byte{}, Value: []byte{}},
	).FirstErr())
	got := read(t, b.join("g", "", nil).partition(), 4)
	want := []spout.Record{
		{Offset: 0, Time: at.UnixMilli(), Key: []byte("k"), Value: []byte("v"), Stream: topic},
		{Offset: 1, Time: at.UnixMilli(), Value: []byte("v"), Stream: "heat", Parent: "00-a-b-01"},
		{Offset: 2, Time: at.UnixMilli(), Key: []byte("k"), Stream: topic},
		{Offset: 3, Time: at.UnixMilli(), Key: []byte{}, Value: []byte{}, Stream: topic},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestCompressed also begins in the middle of a stored batch, which brokers return whole.
func TestCompressed(t *testing.T) {
	t.Parallel()
	b := start(t, 1)
	n := 0
	for _, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()} {
		var batch []*kgo.Record
		for range 20 {
			batch = append(batch, &kgo.Record{Topic: topic, Value: fmt.Append(nil, n, strings.Repeat(" ", 500))})
			n++
		}
		check(t, b.dial(kgo.ProducerBatchCompression(codec)).ProduceSync(t.Context(), batch...).FirstErr())
	}
	b.commit("g", 27)
	for i, r := range read(t, b.join("g", "", nil).partition(), int64(n)) {
		if want := fmt.Sprint(27 + i); r.Offset != int64(27+i) || strings.TrimSpace(string(r.Value)) != want {
			t.Fatalf("record %d holds %.20q", r.Offset, r.Value)
		}
	}
}

// TestPieces: what one fetch brings is handed over ten records at a time, without asking the broker again.
func TestPieces(t *testing.T) {
	t.Parallel()
	b := start(t, 1)
	b.write(0, 0, 35)
	p := b.join("g", "", nil).partition()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	ctx := t.Context()
	for at := int64(0); at < 35; {
		records, next, err := p.Next(ctx)
		check(t, err)
		if want := min(10, 35-at); int64(len(records)) != want || next != at+want || records[0].Offset != at {
			t.Fatalf("%d records up to %d, want %d from %d", len(records), next, want, at)
		}
		at = next
		ctx = ended // with which nothing can be fetched any more
	}
	records, next, err := p.Next(t.Context())
	if err != nil || len(records) > 0 || next != 35 {
		t.Errorf("behind the end: %d records, %d, %v", len(records), next, err)
	}
}

func TestLook(t *testing.T) {
	t.Parallel()
	b := start(t, 1)
	p := b.join("g", "", nil).partition()
	if p.End() != 0 {
		t.Errorf("the empty log ends at %d", p.End())
	}
	b.write(0, 0, 3)
	check(t, p.Look(t.Context()))
	if p.End() != 3 {
		t.Errorf("the log ends at %d, want 3", p.End())
	}
}

// TestTransactions: the marker that ends a transaction is an offset without a record. It is passed, or the log's end would never be reached.
func TestTransactions(t *testing.T) {
	t.Parallel()
	b := start(t, 1)
	c := b.dial(kgo.TransactionalID("producer"))
	for range 2 {
		check(t, c.BeginTransaction())
		check(t, c.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("v")}).FirstErr())
		check(t, c.EndTransaction(t.Context(), kgo.TryCommit))
	}
	p := b.join("g", "", nil).partition()
	if p.End() != 4 {
		t.Fatalf("the log ends at %d, want two records and two markers", p.End())
	}
	if records := read(t, p, 4); len(records) != 2 || records[1].Offset != 2 {
		t.Errorf("got %v", records)
	}
}
