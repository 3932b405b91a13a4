package spout

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// ReplayLog is the name of the log of replayed dead letters among a topology's logs; its entries are letters.
const ReplayLog = "replay"

// ReplayOptions say where replayed letters go.
type ReplayOptions struct {
	Decoder *Decoder
	Edges   []bolt.Edge // of the spout, for letters of its own: records that could not be decoded
	// Route returns the edge that leads a letter of another node back to that node. An error says that there is no way, for good.
	Route   func(l *tuple.Letter) (bolt.Edge, error)
	Letters bolt.Letters // takes what still cannot be emitted
}

// Replay owns a topology's log of replayed dead letters. Each enters again at the node where it failed, under the log's origin: a new position, and so a
// new id, which nobody has seen.
type Replay struct {
	*Log
	ReplayOptions
}

// NewReplay reads where the log stands. The generation in o has been raised for the log ReplayLog by the caller; o.Commit and o.Floor are set here.
func NewReplay(ctx context.Context, o Options, topology string, logs state.Logs, ro ReplayOptions) (*Replay, error) {
	r := &Replay{ReplayOptions: ro}
	var err error
	r.Log, err = openLog(ctx, o, topology, ReplayLog, logs, 0, r.emission)
	return r, err
}

// Append adds a letter to the log, once however often it is called, by whoever: it marks the letter as replayed and gives it its position in one step.
// It returns the position either way. It may be called concurrently with everything else.
func Append(ctx context.Context, logs state.Logs, l *tuple.Letter) (at int64, added bool, err error) {
	entry, err := json.Marshal(l)
	if err != nil {
		return 0, false, err
	}
	return logs.AppendOnce(ctx, l.Topology, ReplayLog, l.Node+"/"+l.ID.String(), entry)
}

func (r *Replay) emission(ctx context.Context, at int64, payload []byte) (emission, error) {
	var l tuple.Letter
	if err := json.Unmarshal(payload, &l); err != nil {
		return emission{}, fmt.Errorf("entry %d of the replay log: %w", at, err)
	}
	out, err := r.revive(&l, at)
	said := trace.Emitted{Where: r.Where, Root: tuple.Root{Origin: r.Origin, First: at, Attempt: r.ledger.Attempt()}, Records: 1, At: r.Clock.Now()}
	if err != nil {
		said.Rejected, out = 1, emission{}
		if err := r.bury(ctx, l, at, err); err != nil {
			return emission{}, err
		}
	}
	said.Accepted = len(out.tuples)
	r.Sink.Emit(said)
	for i := range out.tuples {
		if t := &out.tuples[i]; t.Trace.Sampled() {
			r.Sink.Emit(trace.Received{
				Where: r.Where, Tuple: t.ID, Root: said.Root, Offset: at, Key: t.Key, Stream: t.Stream,
				Topic: ReplayLog, Trace: t.Trace, Begun: said.At, Emitted: r.Clock.Now(),
			})
		}
	}
	return out, nil
}

// revive makes a tuple of a letter, under its new position. An error is final.
func (r *Replay) revive(l *tuple.Letter, at int64) (emission, error) {
	t := tuple.Tuple{
		ID: tuple.RootID(tuple.Position{Origin: r.Origin, Offset: at}), Offset: at,
		Stream: l.Stream, Key: l.Key, Time: l.Time, Group: l.Group, Payload: l.Payload, // without n: its place in the gate counts as received
	}
	if id, err := tuple.ParseID(l.TraceID); err == nil {
		t.Trace.TraceID = id // the trace in which it failed goes on
		copy(t.Trace.SpanID[:], t.ID[8:])
	}
	if l.Node != r.Where.Node {
		edge, err := r.Route(l)
		return emission{l.Source, []bolt.Edge{edge}, []tuple.Tuple{t}}, err
	}
	reading, err := r.Decoder.Decode(&Record{Offset: at, Key: l.Record, Value: l.Payload, Time: l.Time})
	if err != nil {
		return emission{}, err
	}
	t.Stream, t.Key, t.Time, t.Payload = tuple.DefaultStream, reading.Key, reading.Time, reading.Payload
	return emission{l.Node, r.Edges, []tuple.Tuple{t}}, nil
}

// bury makes a letter of a letter that cannot be emitted, under its new position.
func (r *Replay) bury(ctx context.Context, l tuple.Letter, at int64, why error) error {
	l.ID = tuple.RootID(tuple.Position{Origin: r.Origin, Offset: at})
	l.Origin, l.Offset, l.Generation, l.Count, l.N = r.Origin, at, r.Generation, 0, 0
	l.Topic, l.Partition = "", 0 // the new position is not a record's
	l.Worker, l.Revision, l.Error, l.Tries, l.FailedAt = r.Where.Worker, r.Revision, why.Error(), 1, r.Clock.Now().UnixMilli()
	return r.Letters.Put(ctx, &l)
}
