package observe

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

const (
	logQueue = 1024
	// linesPerNode bounds the lines of one kind about one node between two lines of counts: an outage concerns every tuple.
	linesPerNode = 50
)

// logs writes lines about what deserves one, from one goroutine.
type logs struct {
	logger   *slog.Logger
	metrics  *metrics
	queue    chan trace.Event
	stop     chan struct{}
	stopping sync.Once
	done     chan struct{}

	written map[subject]int          // lines since the last counts
	before  map[place]*[counters]int // counts that have been told
}

// subject is what lines are limited by.
type subject struct{ topology, node, message string }

func startLogs(logger *slog.Logger, m *metrics, every time.Duration) *logs {
	l := &logs{
		logger: logger, metrics: m, queue: make(chan trace.Event, logQueue), stop: make(chan struct{}), done: make(chan struct{}),
		written: map[subject]int{}, before: map[place]*[counters]int{},
	}
	go l.run(every)
	return l
}

func (l *logs) offer(e trace.Event) {
	select {
	case l.queue <- e:
	default:
		l.metrics.lostLogs.Inc()
	}
}

func (l *logs) run(every time.Duration) {
	defer close(l.done)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case e := <-l.queue:
			l.write(e)
		case <-tick.C:
			l.counts()
		case <-l.stop:
			for len(l.queue) > 0 {
				l.write(<-l.queue)
			}
			l.counts()
			return
		}
	}
}

func (l *logs) close(ctx context.Context) error {
	l.stopping.Do(func() { close(l.stop) })
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("write the last log lines: %w", ctx.Err())
	}
}

func (l *logs) write(event trace.Event) {
	switch e := event.(type) {
	case trace.Handled:
		l.handled(&e)
	case trace.Overdue:
		l.line(slog.LevelWarn, "root overdue", &e.Where, append(root(e.Root), slog.Float64("age_s", e.Age.Seconds()), slog.Any("holders", holders(e.Holders)))...)
	case trace.Failed:
		level := slog.LevelWarn
		if e.Fatal {
			level = slog.LevelError
		}
		l.line(level, "failed", &e.Where, slog.String("doing", e.Doing), slog.String("error", text(e.Err)), slog.Bool("fatal", e.Fatal))
	case trace.Changed:
		l.line(slog.LevelInfo, e.What, &e.Where, slog.Uint64("revision", uint64(e.Revision)), slog.Uint64("epoch", e.Epoch))
	}
}

func (l *logs) handled(e *trace.Handled) {
	level, message := slog.LevelWarn, "tuple failed"
	if e.Outcome == trace.DeadLettered {
		level, message = slog.LevelError, "tuple dead-lettered"
	}
	attrs := make([]slog.Attr, 0, 16)
	if e.Parent.Sampled() {
		attrs = append(attrs, slog.String("trace_id", hex.EncodeToString(e.Parent.TraceID[:])), slog.String("span_id", fmt.Sprintf("%016x", e.Span)))
	}
	attrs = append(attrs, slog.String("tuple", e.Tuple.String()), slog.String("device", e.Key), slog.String("stream", e.Stream),
		slog.String("source", e.Source), slog.Int64("offset", e.Offset))
	attrs = append(attrs, root(e.Root)...)
	attrs = append(attrs, slog.Int("tries", e.Tries), slog.String("outcome", string(e.Outcome)), slog.String("error", text(e.Err)))
	l.line(level, message, &e.Where, attrs...)
}

func root(r tuple.Root) []slog.Attr {
	return []slog.Attr{
		slog.String("origin", fmt.Sprintf("%016x", uint64(r.Origin))), slog.Int64("first", r.First),
		slog.Uint64("generation", uint64(r.Attempt.Generation)), slog.Uint64("attempt", uint64(r.Attempt.Count)),
	}
}

// holder is trace.Holder in the words of log lines.
type holder struct {
	Node   string    `json:"node"`
	Task   string    `json:"task"`
	Worker string    `json:"worker,omitempty"`
	Since  time.Time `json:"since,omitzero"`
}

func holders(hs []trace.Holder) []holder {
	out := make([]holder, len(hs))
	for i, h := range hs {
		out[i] = holder{h.Node, taskName(h.Task), h.Worker, h.Since}
	}
	return out
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// line writes one line, unless there have been enough like it.
func (l *logs) line(level slog.Level, message string, w *trace.Where, attrs ...slog.Attr) {
	s := subject{w.Topology, w.Node, message}
	l.written[s]++
	if l.written[s] > linesPerNode {
		return
	}
	all := append(where(w), attrs...)
	l.logger.LogAttrs(context.Background(), level, message, all...)
}

// where leaves out what is not known: an error at start-up has no node yet.
func where(w *trace.Where) []slog.Attr {
	attrs := make([]slog.Attr, 0, 20)
	if w.Topology != "" {
		attrs = append(attrs, slog.String("topology", w.Topology))
	}
	if w.Node != "" {
		attrs = append(attrs, slog.String("node", w.Node), slog.String("kind", w.Kind), slog.String("task", taskName(w.Task)))
	}
	return attrs
}

// counts writes a line per node whose numbers have moved since the last one, and one per subject that had lines left out.
func (l *logs) counts() {
	moved := map[place]*[counters]int{}
	for p, c := range *l.metrics.cells.Load() {
		told := l.before[p]
		if told == nil {
			told = new([counters]int)
			l.before[p] = told
		}
		node := place{topology: p.topology, node: p.node}
		for k := range c.n {
			now := int(c.n[k].Load())
			if now == told[k] {
				continue
			}
			if moved[node] == nil {
				moved[node] = new([counters]int)
			}
			moved[node][k] += now - told[k]
			told[k] = now
		}
	}
	for _, p := range ordered(moved) {
		attrs := []slog.Attr{slog.String("topology", p.topology), slog.String("node", p.node)}
		for k, n := range moved[p] {
			if n != 0 {
				attrs = append(attrs, slog.Int(counterNames[k].word, n))
			}
		}
		l.logger.LogAttrs(context.Background(), slog.LevelInfo, "counts", attrs...)
	}
	for s, n := range l.written {
		if n > linesPerNode {
			l.logger.Warn("lines left out", "topology", s.topology, "node", s.node, "of", s.message, "lines", n-linesPerNode)
		}
	}
	clear(l.written)
}

func ordered(m map[place]*[counters]int) []place {
	ps := make([]place, 0, len(m))
	for p := range m {
		ps = append(ps, p)
	}
	slices.SortFunc(ps, func(a, b place) int { return cmp.Or(cmp.Compare(a.topology, b.topology), cmp.Compare(a.node, b.node)) })
	return ps
}
