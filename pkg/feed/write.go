package feed

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
)

// Bounds of one write to a partition: its bytes stay below what brokers take by default (1 MiB), and a write in doubt gets time to arrive before it is
// looked for.
const (
	batchBytes   = 900 << 10
	recordExtra  = 128 // bytes of a record beside key and value, about
	firstBackoff = 500 * time.Millisecond
	lastBackoff  = 5 * time.Second
)

// writer puts rows into the topic that are not there yet.
type writer struct {
	topic    *topic
	stream   string
	patience time.Duration

	mu    sync.Mutex
	found map[string]*found // by source id
	ends  []int64           // per partition: a write in doubt lies behind it
	keys  kafka.Murmur2Balancer
}

// found is which rows of a file are in the topic.
type found struct {
	most int64 // the file's number of rows
	rows bits
	// low[p] is the first row that is in partition p, where the beginning of p's log has expired: the rows before it were there too.
	low map[int]int64
}

// begin reads where the partitions end and, unless all is fed anew, which rows they hold.
func (w *writer) begin(ctx context.Context, sources []*source, o Options) error {
	spans, err := w.topic.spans(ctx)
	if err != nil {
		return err
	}
	w.found = map[string]*found{}
	wanted := false
	for _, s := range sources {
		w.found[s.id] = &found{most: s.rows, low: map[int]int64{}}
		wanted = wanted || s.resume && !o.Again
	}
	var total int64
	for _, s := range spans {
		w.ends = append(w.ends, s.end)
		total += s.end - s.first
	}
	if !wanted || total == 0 {
		return nil
	}
	return w.search(ctx, spans, total, o.Progress)
}

// search reads the whole topic: the rows of a file may lie anywhere, between those of others.
func (w *writer) search(ctx context.Context, spans []span, total int64, progress func(Progress)) error {
	var done int64
	progress(Progress{"look for", 0, total})
	return each(len(spans), func(p int) error {
		first := spans[p].first
		n := int64(0)
		return w.topic.scan(ctx, p, first, spans[p].end, func(r *kafka.Record) {
			id, _, row := mark(r)
			w.mu.Lock()
			defer w.mu.Unlock()
			if f := w.found[id]; f != nil && row > 0 && row <= f.most {
				f.rows.set(row)
				if low, seen := f.low[p]; first > 0 && (!seen || row < low) {
					f.low[p] = row
				}
			}
			if n++; n%10000 == 0 || r.Offset+1 == spans[p].end {
				done += n
				n = 0
				progress(Progress{"look for", min(done, total), total})
			}
		})
	})
}

// mark reads which row a record is.
func mark(r *kafka.Record) (file, feed string, row int64) {
	for _, h := range r.Headers {
		switch h.Key {
		case HeaderFile:
			file = string(h.Value)
		case HeaderRow:
			row, _ = strconv.ParseInt(string(h.Value), 10, 64)
		case HeaderID:
			feed = string(h.Value)
		}
	}
	return file, feed, row
}

// partition is where a row belongs: by the hash of its key that Java's producers use (murmur2), so that a device that another producer writes is in the
// same partition. Rows without a key are spread by their number.
func (w *writer) partition(it item) int {
	if it.row.Key == "" {
		return w.topic.partitions[int(it.row.Number)%len(w.topic.partitions)]
	}
	return w.keys.Balance(kafka.Message{Key: []byte(it.row.Key)}, w.topic.partitions...)
}

// holds reports whether the topic held the row when the feed began.
func (w *writer) holds(it item) bool {
	f := w.found[it.source.id]
	if f.rows.has(it.row.Number) {
		return true
	}
	return len(f.low) > 0 && it.row.Number < f.low[w.partition(it)]
}

// write puts items into the topic and returns when all are acknowledged by every replica in sync. Items that are larger than the broker takes are
// returned by their index, with its answer.
func (w *writer) write(ctx context.Context, items []item) (refused map[int]error, err error) {
	batches := make([][]int, len(w.topic.partitions))
	for i, it := range items {
		p := w.partition(it)
		batches[p] = append(batches[p], i)
	}
	refused = map[int]error{}
	err = each(len(batches), func(p int) error {
		for rest := batches[p]; len(rest) > 0; {
			n, bytes := 0, 0
			for n < len(rest) && (n == 0 || bytes+size(items[rest[n]]) <= batchBytes) {
				bytes += size(items[rest[n]])
				n++
			}
			if err := w.batch(ctx, p, items, rest[:n], refused); err != nil {
				return err
			}
			rest = rest[n:]
		}
		return nil
	})
	return refused, err
}

func size(it item) int { return len(it.row.Value) + len(it.row.Key) + recordExtra }

// batch writes some items to one partition. Brokers take or refuse a batch as a whole; when the answer is lost, the log tells which it was.
func (w *writer) batch(ctx context.Context, p int, items []item, which []int, refused map[int]error) error {
	began, backoff := time.Now(), firstBackoff
	for {
		err := w.produce(ctx, p, items, which)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, kafka.MessageSizeTooLarge) || errors.Is(err, kafka.RecordListTooLarge):
			if len(which) == 1 {
				w.mu.Lock()
				refused[which[0]] = err
				w.mu.Unlock()
				return nil
			}
			half := len(which) / 2
			if err := w.batch(ctx, p, items, which[:half], refused); err != nil {
				return err
			}
			return w.batch(ctx, p, items, which[half:], refused)
		case ctx.Err() != nil:
			return ctx.Err()
		case !temporary(err) || time.Since(began) > w.patience:
			return fmt.Errorf("write to partition %d: %w", p, err)
		}
		if err := pause(ctx, backoff); err != nil {
			return err
		}
		backoff = min(2*backoff, lastBackoff)
		if which, err = w.missing(ctx, p, items, which); err != nil {
			if !temporary(err) || time.Since(began) > w.patience {
				return err
			}
			continue
		}
		if len(which) == 0 {
			return nil
		}
	}
}

// produce sends one batch and waits for its acknowledgement.
func (w *writer) produce(ctx context.Context, p int, items []item, which []int) error {
	records := make([]kafka.Record, len(which))
	now := time.Now()
	for i, at := range which {
		records[i] = w.record(items[at], now)
	}
	r, err := w.topic.client.Produce(ctx, &kafka.ProduceRequest{
		Topic: w.topic.name, Partition: p, RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(records...),
	})
	if err != nil {
		return err
	}
	if r.Error != nil {
		return r.Error
	}
	w.mu.Lock()
	w.ends[p] = max(w.ends[p], r.BaseOffset+int64(len(which)))
	w.mu.Unlock()
	return nil
}

func (w *writer) record(it item, now time.Time) kafka.Record {
	r := kafka.Record{Time: now, Value: kafka.NewBytes(it.row.Value), Headers: []kafka.Header{
		{Key: HeaderFile, Value: []byte(it.source.id)},
		{Key: HeaderRow, Value: strconv.AppendInt(nil, it.row.Number, 10)},
	}}
	if it.row.Key != "" {
		r.Key = kafka.NewBytes([]byte(it.row.Key))
	}
	if it.source.feed != "" {
		r.Headers = append(r.Headers, kafka.Header{Key: HeaderID, Value: []byte(it.source.feed)})
	}
	if w.stream != "" {
		r.Headers = append(r.Headers, kafka.Header{Key: "stream", Value: []byte(w.stream)})
	}
	return r
}

// missing returns those of the items that the partition does not hold behind its last known end.
func (w *writer) missing(ctx context.Context, p int, items []item, which []int) ([]int, error) {
	spans, err := w.topic.spans(ctx)
	if err != nil {
		return which, err
	}
	type key struct {
		file, feed string
		row        int64
	}
	there := map[key]bool{}
	w.mu.Lock()
	from := max(w.ends[p], spans[p].first)
	w.mu.Unlock()
	err = w.topic.scan(ctx, p, from, spans[p].end, func(r *kafka.Record) {
		file, feed, row := mark(r)
		there[key{file, feed, row}] = true
	})
	if err != nil {
		return which, err
	}
	var rest []int
	for _, i := range which {
		if it := items[i]; !there[key{it.source.id, it.source.feed, it.row.Number}] {
			rest = append(rest, i)
		}
	}
	return rest, nil
}

// temporary reports whether trying again can help.
func temporary(err error) bool {
	var answer kafka.Error
	if errors.As(err, &answer) {
		return answer.Temporary() || answer.Timeout()
	}
	return !errors.Is(err, context.Canceled)
}

// each calls f with 0..n-1 at the same time and returns the first error in that order.
func each(n int, f func(int) error) error {
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { errs[i] = f(i) })
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// bits is a set of row numbers, from 0.
type bits []uint64

func (b *bits) set(n int64) {
	for int64(len(*b)) <= n/64 {
		*b = append(*b, 0)
	}
	(*b)[n/64] |= 1 << (n % 64)
}

func (b bits) has(n int64) bool { return n/64 < int64(len(b)) && b[n/64]>>(n%64)&1 == 1 }
