package spout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// TickLog is the name of the tick log among a topology's logs, and TickOrigin its origin.
const TickLog = "tick"

// TickOrigin returns the origin of a topology's tick log.
func TickOrigin(topology string) tuple.Origin { return LogOrigin(topology, TickLog) }

// Due is a node that wants ticks.
type Due struct {
	Node  string
	Every int64 // ms of processing time; 0: whenever the watermark has moved
	Level int
	After string    // a node: this one is due when all that was emitted at a tick of that one is fully processed; Every means nothing then
	Edge  bolt.Edge // Stream tuple.TickStream, All
}

// Ticker owns a topology's tick log: it appends an entry when a node is due, before anything is published, and emits every entry from the log's
// durable floor on, in order. Time is a tuple: what depends on it can be replayed.
type Ticker struct {
	*Log
	nodes []Due
	last  bolt.Tick // the last logged entry
}

// NewTicker reads where the log stands. The generation in o has been raised for the log TickLog by the caller; o.Commit and o.Floor are set here.
func NewTicker(ctx context.Context, o Options, topology string, logs state.Logs, nodes []Due) (*Ticker, error) {
	t := &Ticker{nodes: nodes}
	var err error // the last entry stays: its time and watermark are where the next owner goes on
	if t.Log, err = openLog(ctx, o, topology, TickLog, logs, 1, t.emission); err != nil {
		return nil, err
	}
	return t, t.read(ctx)
}

// read learns the log's length and last entry.
func (t *Ticker) read(ctx context.Context) error {
	before := t.length
	if err := t.measure(ctx); err != nil {
		return err
	}
	last := bolt.Tick{Watermark: math.MinInt64}
	if t.length > 0 {
		entries, _, _, err := t.logs.Read(ctx, t.topology, TickLog, t.length-1, 1)
		if err == nil && len(entries) == 0 {
			err = errors.New("it is not there")
		}
		if err == nil {
			err = json.Unmarshal(entries[0], &last)
		}
		if err != nil {
			err = fmt.Errorf("read entry %d of the tick log: %w", t.length-1, err)
			t.length = before // with the last entry unknown, the next append must conflict
			return err
		}
	}
	t.last = last
	return nil
}

// Advance appends an entry, and emits it, if a node is due at the clock's time or the watermark has moved.
func (t *Ticker) Advance(ctx context.Context, watermark int64) error {
	now := max(t.last.Time, t.Clock.Now().UnixMilli())
	entry := bolt.Tick{N: t.length, Time: now, Last: t.last.Time, Watermark: max(watermark, t.last.Watermark)}
	if t.length == 0 {
		entry.Last = now // nothing was due before the topology's first tick
	}
	for _, d := range t.nodes {
		if d.After == "" && (d.Every > 0 && now/d.Every > entry.Last/d.Every || d.Every == 0 && entry.Watermark > t.last.Watermark) {
			entry.Nodes = append(entry.Nodes, d.Node)
		}
	}
	if len(entry.Nodes) == 0 && t.length > 0 {
		return nil
	}
	if err := t.append(ctx, entry); err != nil {
		return err
	}
	return t.Pump(ctx)
}

// Tick replays what is overdue, commits the floor, and emits what the log holds beyond.
func (t *Ticker) Tick(ctx context.Context) error {
	if err := t.Loop.Tick(ctx); err != nil {
		return err
	}
	if err := t.Follow(ctx); err != nil {
		return err
	}
	return t.Pump(ctx)
}

// Follow appends an entry for the nodes that have to follow one which is fully processed. It is a later moment's entry with that one's moment in it: the
// log's own time does not move, so that no boundary is due twice or never.
func (t *Ticker) Follow(ctx context.Context) error {
	for {
		entry := bolt.Tick{N: t.length, Time: t.last.Time, Last: t.last.Time, Watermark: t.last.Watermark}
		first := int64(math.MaxInt64)
		for _, o := range t.last.Owed {
			if o.N < min(t.Floor(), first) {
				first, entry.Follows = o.N, &o.Moment
			}
		}
		if entry.Follows == nil {
			return nil
		}
		for _, o := range t.last.Owed {
			if o.N == first {
				entry.Nodes = append(entry.Nodes, o.Node)
			}
		}
		if err := t.append(ctx, entry); err != nil {
			return err
		}
	}
}

// owed is what will be owed with the entry: what was, without what the entry follows, and what its nodes make. Of entries that a node did not yet follow
// the first stays, and the last, which stands for those between.
func (t *Ticker) owed(entry *bolt.Tick) (owed []bolt.Owed) {
	for _, d := range t.nodes {
		if d.After == "" {
			continue
		}
		var mine []bolt.Owed
		for _, o := range t.last.Owed {
			if o.Node == d.Node && (entry.Follows == nil || o.N > entry.Follows.N) {
				mine = append(mine, o)
			}
		}
		if entry.Follows == nil && !entry.Flush && slices.Contains(entry.Nodes, d.After) {
			mine = append(mine[:min(len(mine), 1)], bolt.Owed{Node: d.Node, Moment: bolt.Moment{N: entry.N, Time: entry.Time, Last: entry.Last, Watermark: entry.Watermark}})
		}
		owed = append(owed, mine...)
	}
	return owed
}

// Flush appends the flush entry of one level of the graph. Call it when Flushed says that the level above is done.
func (t *Ticker) Flush(ctx context.Context, level int) error {
	entry := bolt.Tick{N: t.length, Time: max(t.last.Time, t.Clock.Now().UnixMilli()), Last: t.last.Time, Watermark: t.last.Watermark, Flush: true}
	for _, d := range t.nodes {
		if d.Level == level {
			entry.Nodes = append(entry.Nodes, d.Node)
		}
	}
	if len(entry.Nodes) == 0 {
		return nil
	}
	if err := t.append(ctx, entry); err != nil {
		return err
	}
	return t.Pump(ctx)
}

// Rest makes a log whose entries are all processed one that a later revision of the topology can go on with. A new owner emits the last entry again,
// as one entry always stays, and what nodes have recorded for it names edges and tasks that may be others by then: so the last one is an entry
// that is due nowhere. It does not move the time: what is due between the entry before and the next one stays due.
func (t *Ticker) Rest(ctx context.Context) error {
	if !t.Flushed() || len(t.last.Nodes) == 0 || len(t.last.Owed) > 0 {
		return nil
	}
	if err := t.append(ctx, bolt.Tick{N: t.length, Time: t.last.Time, Last: t.last.Time, Watermark: t.last.Watermark}); err != nil {
		return err
	}
	return t.Pump(ctx)
}

// Mark is Log.Mark; the log does not rest before Rest has done its part.
func (t *Ticker) Mark(pause uint64, end int64) member.Log {
	if len(t.last.Nodes) > 0 {
		pause = 0
	}
	return t.Log.Mark(pause, end)
}

// Levels lists the levels that have nodes with ticks, ascending.
func (t *Ticker) Levels() (levels []int) {
	for _, d := range t.nodes {
		if !slices.Contains(levels, d.Level) {
			levels = append(levels, d.Level)
		}
	}
	slices.Sort(levels)
	return levels
}

func (t *Ticker) append(ctx context.Context, entry bolt.Tick) error {
	entry.Owed = t.owed(&entry)
	b, err := json.Marshal(entry)
	if err != nil {
		return err
	}
	err = t.logs.Append(ctx, t.topology, TickLog, t.Generation, t.length, b)
	if errors.Is(err, state.ErrFenced) {
		return stale(err)
	}
	if err != nil { // an unknown outcome, or a conflict: what the log says counts
		return errors.Join(fmt.Errorf("append tick %d: %w", t.length, err), t.read(ctx))
	}
	t.length, t.last = t.length+1, entry
	return nil
}

func (t *Ticker) emission(_ context.Context, at int64, payload []byte) (emission, error) {
	var entry bolt.Tick
	if err := json.Unmarshal(payload, &entry); err != nil {
		return emission{}, fmt.Errorf("tick %d: %w", at, err)
	}
	var edges []bolt.Edge
	for _, d := range t.nodes {
		if slices.Contains(entry.Nodes, d.Node) {
			edges = append(edges, d.Edge)
		}
	}
	tick := tuple.Tuple{
		ID: tuple.RootID(tuple.Position{Origin: t.Origin, Offset: at}), Offset: at, Stream: tuple.TickStream, Time: entry.Time, Payload: payload,
	}
	return emission{t.Where.Node, edges, []tuple.Tuple{tick}}, nil
}
