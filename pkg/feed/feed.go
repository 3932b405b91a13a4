// Package feed writes the rows of data files into a Kafka topic, each exactly once however often it is started: it marks every record with its file and
// row, and finds out what the topic holds before it sends. `boltmesh feed` and `boltmesh dev` use it, and tests do.
// It never changes a row that it cannot read: the row goes to the topic as it is, where the spout dead-letters it.
package feed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/time/rate"

	"github.com/boltmesh/boltmesh/pkg/topology"
)

// Headers of the records written.
const (
	HeaderFile = "feed-file" // of which content: the first 16 hex digits of its SHA-256; "stream-" and a random id for what cannot be read twice
	HeaderRow  = "feed-row"  // which row of it, from 1; a CSV header and blank lines do not count
	HeaderID   = "feed-id"   // set when the file was fed anew
)

// Defaults of Options.
const (
	DefaultPartitions = 4
	DefaultChunk      = 1000
	DefaultPatience   = time.Minute
)

// Options say what to feed and where to. Spout and Files are required.
type Options struct {
	Spout topology.Spout // of the topology that is to read the rows; its Kafka settings are resolved
	Topic string         // default: the first topic of the spout
	Files []string       // CSV with a header, or JSON lines, also compressed by gzip; "-" is Stdin
	Stdin io.Reader

	Partitions int           // of the topic, when it has to be created; default DefaultPartitions
	Rate       float64       // rows per second; 0: as fast as the brokers take them
	Again      bool          // feed every row, also those that the topic holds
	Chunk      int           // rows between two waits for acknowledgements; default DefaultChunk
	Patience   time.Duration // how long brokers may refuse or be away before the feed gives up; default DefaultPatience
	Progress   func(Progress)

	wrap func(transport) transport // for tests: loses answers
}

// Progress is how far a feed is. Calls come from one goroutine at a time.
type Progress struct {
	Doing string // "read", "look for" (Done and Total are records of the topic) or "send" (rows)
	Done  int64
	Total int64 // 0: not known
}

// Result is what a feed has done. Rows = Found + Sent + Refused.
type Result struct {
	Topic string       `json:"topic"`
	Files []FileResult `json:"files"`
	// Ends are the end offsets of the topic's partitions after the last write, by "<topic>/<partition>".
	Ends map[string]int64 `json:"ends"`
}

// FileResult counts one file's rows.
type FileResult struct {
	File    string `json:"file"`
	ID      string `json:"id"` // as in HeaderFile
	Rows    int64  `json:"rows"`
	Found   int64  `json:"found"` // were in the topic
	Sent    int64  `json:"sent"`
	Bad     int64  `json:"bad"`     // among Rows: the spout will dead-letter them
	Refused int64  `json:"refused"` // larger than the broker takes; not in the topic
	// FirstBad and FirstRefused say which row it was and why.
	FirstBad     string `json:"first_bad,omitempty"`
	FirstRefused string `json:"first_refused,omitempty"`
}

// Sent returns the number of rows sent, of all files.
func (r *Result) Sent() (n int64) {
	for i := range r.Files {
		n += r.Files[i].Sent
	}
	return n
}

// Run feeds the files. When it fails, what has been sent stays, and the next run goes on behind it; the result tells how far it got.
func Run(ctx context.Context, o Options) (Result, error) {
	if err := o.complete(); err != nil {
		return Result{}, err
	}
	result := Result{Topic: o.Topic, Files: make([]FileResult, len(o.Files))}
	sources, err := prepare(o)
	defer closeAll(sources)
	if err != nil {
		return result, err
	}
	var total int64
	for i, s := range sources {
		result.Files[i].File, result.Files[i].ID = s.name, s.id
		total += s.rows
	}
	t, err := dial(o)
	if err != nil {
		return result, err
	}
	defer t.close()
	if err := t.ensure(ctx, o.Partitions); err != nil {
		return result, err
	}
	w := &writer{topic: t, stream: o.Spout.Stream, patience: o.Patience}
	if err := w.begin(ctx, sources, o); err != nil {
		return result, err
	}
	f := &run{Options: o, writer: w, result: &result, total: total}
	if err := f.send(ctx, sources); err != nil {
		return result, fmt.Errorf("feed topic %s: %w", o.Topic, err)
	}
	result.Ends, err = t.ends(ctx)
	return result, err
}

func (o *Options) complete() error {
	if len(o.Files) == 0 {
		return errors.New("no file to feed")
	}
	if o.Topic == "" {
		if len(o.Spout.Kafka.Topics) == 0 {
			return errors.New("no topic to feed: the spout names none")
		}
		o.Topic = o.Spout.Kafka.Topics[0]
	}
	if o.Partitions <= 0 {
		o.Partitions = DefaultPartitions
	}
	if o.Chunk <= 0 {
		o.Chunk = DefaultChunk
	}
	if o.Patience <= 0 {
		o.Patience = DefaultPatience
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	return nil
}

// run is one feed under way.
type run struct {
	Options
	writer *writer
	result *Result
	total  int64
	done   int64
}

// send merges the sources and writes them chunk by chunk.
func (f *run) send(ctx context.Context, sources []*source) error {
	size := f.Chunk
	var limit *rate.Limiter
	if f.Rate > 0 {
		size = max(1, min(size, int(f.Rate/10)))
		limit = rate.NewLimiter(rate.Limit(f.Rate), size)
	}
	m := merge{sources: sources, ordered: f.Spout.Time.Field != "" && f.Spout.Decode != "raw"}
	chunk := make([]item, 0, size)
	flush := func() error {
		if len(chunk) == 0 {
			return nil
		}
		if limit != nil {
			if err := limit.WaitN(ctx, len(chunk)); err != nil {
				return err
			}
		}
		refused, err := f.writer.write(ctx, chunk)
		if err != nil {
			return err
		}
		f.count(chunk, refused)
		chunk = chunk[:0]
		return nil
	}
	f.Progress(Progress{"send", 0, f.total})
	for {
		it, err := m.next()
		if errors.Is(err, io.EOF) {
			return flush()
		}
		if err != nil {
			return errors.Join(err, flush())
		}
		r := &f.result.Files[it.source.index]
		r.Rows++
		if it.row.Bad != nil {
			if r.Bad++; r.Bad == 1 {
				r.FirstBad = fmt.Sprintf("row %d: %v", it.row.Number, it.row.Bad)
			}
		}
		if f.writer.holds(it) {
			r.Found++
			f.done++
			continue
		}
		if chunk = append(chunk, it); len(chunk) == size {
			if err := flush(); err != nil {
				return err
			}
		}
	}
}

func (f *run) count(chunk []item, refused map[int]error) {
	for i, it := range chunk {
		r := &f.result.Files[it.source.index]
		if why := refused[i]; why != nil {
			if r.Refused++; r.Refused == 1 {
				r.FirstRefused = fmt.Sprintf("row %d of %d bytes: %v", it.row.Number, len(it.row.Value), why)
			}
			continue
		}
		r.Sent++
	}
	f.done += int64(len(chunk))
	f.Progress(Progress{"send", f.done, f.total})
}
