package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Letter is a dead letter as an operator sees it.
type Letter struct {
	tuple.Letter
	// Path is the way that the tuple came, as far as the letter tells: its input position, the node that emitted it, the node where it failed.
	Path  string           `json:"path"`
	Dealt *jetstream.Dealt `json:"dealt,omitempty"` // what was done with it
	// ReplayOf is the letter whose replay this is, when it failed again.
	ReplayOf *jetstream.LetterKey `json:"replay_of,omitempty"`

	sequence uint64
}

// Key names the letter within its topology.
func (l *Letter) Key() jetstream.LetterKey { return jetstream.LetterKey{Node: l.Node, ID: l.ID} }

// LetterFilter chooses dead letters; what is zero chooses all.
type LetterFilter struct {
	IDs          []string // beginnings of ids; any of them
	Node         string
	Device       string
	Error        string    // part of the error
	Since, Until time.Time // when it failed: from Since on, before Until
}

func (f *LetterFilter) matches(l *tuple.Letter) bool {
	id := l.ID.String()
	return (len(f.IDs) == 0 || slices.ContainsFunc(f.IDs, func(p string) bool { return strings.HasPrefix(id, strings.ToLower(p)) })) &&
		(f.Node == "" || l.Node == f.Node) && (f.Device == "" || l.Key == f.Device) && strings.Contains(l.Error, f.Error) &&
		(f.Since.IsZero() || l.FailedAt >= f.Since.UnixMilli()) && (f.Until.IsZero() || l.FailedAt < f.Until.UnixMilli())
}

// Letters returns the dead letters of a topology that the filter chooses, oldest first. The topology need not be applied any more.
func (c *Control) Letters(ctx context.Context, name string, f LetterFilter) ([]Letter, error) {
	letters, err := c.conn.Letters(ctx)
	if err != nil {
		return nil, err
	}
	dealt, err := letters.Dealt(ctx, name)
	if err != nil {
		return nil, err
	}
	inputs, err := c.origins(ctx, name)
	if err != nil {
		return nil, err
	}
	replays := map[int64]jetstream.LetterKey{} // by position in the replay log
	for k, d := range dealt {
		replays[d.Position] = k
	}
	var out []Letter
	err = letters.Each(ctx, name, func(sequence uint64, l *tuple.Letter) error {
		if !f.matches(l) {
			return nil
		}
		one := Letter{Letter: *l, sequence: sequence}
		if d, ok := dealt[one.Key()]; ok {
			one.Dealt = &d
		}
		if in, ok := inputs[l.Origin]; ok && l.Topic == "" && in.topic {
			one.Topic, one.Partition = in.name, in.partition
		}
		if k, ok := replays[l.Offset]; ok && l.Origin == tuple.OriginOf(name, replayLog) {
			one.ReplayOf = &k
		}
		one.Path = path(&one.Letter, inputs[l.Origin])
		out = append(out, one)
		return nil
	})
	return out, err
}

// path draws the way of a letter.
func path(l *tuple.Letter, in input) string {
	at := fmt.Sprintf("origin %016x@%d", uint64(l.Origin), l.Offset)
	switch {
	case l.Origin == 0:
		at = "a damaged frame"
	case l.Topic != "":
		at = fmt.Sprintf("%s/%d@%d", l.Topic, l.Partition, l.Offset)
	case in.name != "":
		at = fmt.Sprintf("%s log@%d", in.name, l.Offset)
	}
	if l.Source != "" {
		at += " > " + l.Source + "." + l.Stream
	}
	return at + " > " + l.Node
}

// input is what an origin stands for: a partition of a topic, or one of the topology's own logs.
type input struct {
	name      string
	topic     bool
	partition int
}

// partitionsMost is how many partitions of a topic are tried to find the one that an origin stands for.
const partitionsMost = 1024

// origins names the origins of a topology, as it is applied now and as its spouts tell; none when it is not applied.
func (c *Control) origins(ctx context.Context, name string) (map[tuple.Origin]input, error) {
	a, err := c.Get(ctx, name)
	if errors.Is(err, ErrUnknown) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	plan, err := a.Plan()
	if err != nil {
		return nil, err
	}
	members, err := c.Members(ctx, name)
	if err != nil {
		return nil, err
	}
	s := plan.Topology.Spout
	topics := slices.Clone(s.Kafka.Topics)
	out := map[tuple.Origin]input{}
	for _, m := range members {
		for _, k := range m.Marks {
			topics = append(topics, k.Topic) // the topology may name it by a variable
		}
	}
	slices.Sort(topics)
	for _, t := range slices.Compact(topics) {
		for p := range partitionsMost {
			out[tuple.OriginOf(name, s.ID, t, s.Kafka.Incarnation, strconv.Itoa(p))] = input{t, true, p}
		}
	}
	for _, log := range []string{tickLog, replayLog, spout.CallLog, spout.CommandLog} {
		out[tuple.OriginOf(name, log)] = input{name: log}
	}
	return out, nil
}

// Names of the topology's own logs.
const (
	tickLog   = "tick"
	replayLog = "replay"
)

// ReplayRequest asks the owner of the replay log to replay letters.
type ReplayRequest struct {
	Letters []jetstream.LetterKey `json:"letters"`
}

// ReplayAnswer says what became of each of them.
type ReplayAnswer struct {
	Letters []Replayed `json:"letters"`
	Error   string     `json:"error,omitempty"` // the request was not understood
}

// Replayed is the outcome for one letter.
type Replayed struct {
	jetstream.LetterKey
	Position int64  `json:"position"` // in the replay log
	New      bool   `json:"new"`      // false: it had been replayed before
	Error    string `json:"error,omitempty"`
}

// replayAtOnce is how many letters one request carries.
const replayAtOnce = 100

// Replay has the letters that the filter chooses enter again at the nodes where they failed, each once however often it is asked for. It returns when
// they are in the replay log; they are processed after that, if the topology is not paused. It waits for the log's owner as long as ctx lasts.
func (c *Control) Replay(ctx context.Context, name string, f LetterFilter) ([]Replayed, error) {
	if _, err := c.Get(ctx, name); err != nil {
		return nil, err
	}
	chosen, err := c.Letters(ctx, name, f)
	if err != nil {
		return nil, err
	}
	out := []Replayed{}
	for part := range slices.Chunk(chosen, replayAtOnce) {
		var q ReplayRequest
		for i := range part {
			q.Letters = append(q.Letters, part[i].Key())
		}
		a, err := c.askReplay(ctx, name, q)
		if err != nil {
			return out, err
		}
		out = append(out, a.Letters...)
	}
	return out, nil
}

// askReplay sends one request, again when nobody answers: to ask twice does no harm.
func (c *Control) askReplay(ctx context.Context, name string, q ReplayRequest) (a ReplayAnswer, err error) {
	request, err := json.Marshal(q)
	if err != nil {
		return a, err
	}
	for {
		one, cancel := context.WithTimeout(ctx, 10*time.Second)
		answer, err := c.conn.Request(one, ReplaySubject(name), request)
		cancel()
		if err == nil {
			if err = json.Unmarshal(answer, &a); err == nil && a.Error != "" {
				err = errors.New(a.Error)
			}
			return a, err
		}
		if e := wait(ctx, poll); e != nil {
			return a, fmt.Errorf("replay letters of %s: %w (last: %w): does a spout run?", name, e, err)
		}
	}
}

// Dropped is the outcome for one letter.
type Dropped struct {
	jetstream.LetterKey
	Kept string `json:"kept,omitempty"` // why it was not dropped
}

// Drop removes the letters that the filter chooses for good. One whose tuple may still come again, or whose replay is not fully processed, is kept: the
// letter would be needed to tell what has been done. Of a topology that is not applied any letter can be dropped.
func (c *Control) Drop(ctx context.Context, name string, f LetterFilter) ([]Dropped, error) {
	chosen, err := c.Letters(ctx, name, f)
	if err != nil {
		return nil, err
	}
	floors, err := c.floors(ctx, name)
	if err != nil {
		return nil, err
	}
	letters, err := c.conn.Letters(ctx)
	if err != nil {
		return nil, err
	}
	out := []Dropped{}
	for i := range chosen {
		l := &chosen[i]
		d := Dropped{LetterKey: l.Key(), Kept: floors.hold(l)}
		if d.Kept == "" { // noted first: from then on its tuple is known to be dealt with, letter or not
			if err := letters.Deal(ctx, name, l.Key(), jetstream.Dealt{Dropped: true, Position: -1, At: time.Now().UnixMilli()}); err != nil {
				return out, err
			}
			if err := letters.Delete(ctx, l.sequence); err != nil {
				return out, fmt.Errorf("drop letter %s: %w", l.ID, err)
			}
		}
		out = append(out, d)
	}
	return out, nil
}

// floors are what the spouts of an applied topology tell.
type floors struct {
	inputs map[tuple.Origin]input // nil: the topology is not applied
	told   map[input]int64
}

func (c *Control) floors(ctx context.Context, name string) (floors, error) {
	inputs, err := c.origins(ctx, name)
	if err != nil || inputs == nil {
		return floors{}, err
	}
	members, err := c.Members(ctx, name)
	if err != nil {
		return floors{}, err
	}
	told := map[input]int64{}
	for _, m := range members {
		for _, k := range m.Marks {
			in := input{k.Topic, true, k.Partition}
			told[in] = max(told[in], k.Floor)
		}
		for _, k := range m.Logs {
			told[input{name: k.Name}] = max(told[input{name: k.Name}], k.Floor)
		}
	}
	return floors{inputs, told}, nil
}

// hold says why a letter cannot be dropped yet; "" when it can. What came from an input that is none of the topology's any more cannot come again.
func (f floors) hold(l *Letter) string {
	if in, ok := f.inputs[l.Origin]; ok {
		if floor, ok := f.told[in]; !ok {
			return "no spout tells how far its input is: start the spout, or delete the topology first"
		} else if floor <= l.Offset {
			return fmt.Sprintf("its input is processed up to %d, and it stands at %d: it may come again", floor, l.Offset)
		}
	}
	if f.inputs == nil || l.Dealt == nil || l.Dealt.Dropped {
		return ""
	}
	if floor, ok := f.told[input{name: replayLog}]; !ok {
		return "it was replayed, and no spout tells how far that is: start the spout"
	} else if floor <= l.Dealt.Position {
		return fmt.Sprintf("it was replayed at %d of the replay log, which is processed up to %d", l.Dealt.Position, floor)
	}
	return ""
}
