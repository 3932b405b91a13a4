package bolt

import (
	"strings"
	"time"

	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// tell1 counts what became of one tuple, and keeps an event about it if it is sampled or has failed.
func (r *run) tell1(it *item, o trace.Outcome, err error) {
	switch o {
	case trace.Acked:
		r.sum.Acked++
	case trace.Dropped:
		r.sum.Dropped++
	case trace.Held:
		r.sum.Held++
	case trace.DeadLettered:
		r.sum.DeadLettered++
	}
	if r.Sink == nil || err == nil && !it.Trace.Sampled() {
		return
	}
	h := trace.Handled{
		Where: r.where, Tuple: it.ID, Root: it.Root, Offset: it.Offset, Key: strings.Clone(it.Key), Stream: it.Stream, Source: it.source,
		Parent: it.Trace, Span: it.ledger, Emitted: it.out, Tries: it.tries, Outcome: o, Err: err,
		Fetched: r.fetched, Begun: it.begun,
	}
	if !it.begun.IsZero() {
		h.Executed = r.Clock.Now()
	}
	r.said = append(r.said, h)
}

// tell reports the batch, now that all of it has happened: its publishing took so long, if for another node of the loop too.
func (r *run) tell(now time.Time, publish time.Duration) {
	if r.Sink == nil {
		return
	}
	r.sum.At = now
	for i := range r.said {
		h := &r.said[i]
		published := now
		h.PublishBegun, h.Published = published.Add(-publish), published
		if r.Own != nil {
			h.Committed = h.PublishBegun
			h.CommitBegun = h.Committed.Add(-r.sum.Commit)
		}
		r.Sink(*h)
	}
	r.Sink(r.sum)
	if r.Own != nil {
		r.Own.View.Tell(r.where, r.Sink)
	}
}

// stream returns the hash of a stream's name, remembered.
func (l *Loop) stream(name string) tuple.Name {
	h, ok := l.streams[name]
	if !ok {
		h = tuple.NameOf(name)
		l.streams[name] = h
	}
	return h
}
