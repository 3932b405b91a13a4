package control

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// HoldersSubject is where workers say which of their loops hold a root: a tuple.Root, answered by a list of trace.Holder.
func HoldersSubject(topology string) string { return "bmctl." + topology + ".holders" }

// holdersPatience is how long is waited for workers to say what they hold.
const holdersPatience = 300 * time.Millisecond

// Holders asks the workers of a topology which of their loops hold a part of a root. The answer is empty when none does, or nobody answers.
func (c *Control) Holders(ctx context.Context, name string, root tuple.Root) (found []trace.Holder, err error) {
	question, err := json.Marshal(root)
	if err != nil {
		return nil, err
	}
	answers, err := c.conn.Ask(ctx, HoldersSubject(name), question, holdersPatience)
	if err != nil {
		return nil, err
	}
	for _, a := range answers {
		var some []trace.Holder
		if err := json.Unmarshal(a, &some); err != nil {
			return nil, fmt.Errorf("who holds a root: %w", err)
		}
		found = append(found, some...)
	}
	slices.SortFunc(found, func(a, b trace.Holder) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Task, b.Task), cmp.Compare(a.Worker, b.Worker))
	})
	return found, nil
}

// State is how far what stands at a position is.
type State string

// The states of a position.
const (
	Processed State = "processed" // fully: it lies below the floor
	UnderWay  State = "under way" // emitted; or processed before something in front of it
	Ahead     State = "not emitted yet"
	Unknown   State = "unknown" // no live spout tells of the origin
)

// span is what a spout tells of one origin.
type span struct {
	origin            tuple.Origin
	floor, next, last int64
}

// spans lists the origins that live spouts tell of.
func (o Origins) spans(alive []member.Member) (out []span) {
	of := map[string]tuple.Origin{}
	for origin := range o {
		of[o.Name(origin)] = origin
	}
	for _, m := range alive {
		for _, k := range m.Marks {
			out = append(out, span{of[fmt.Sprintf("%s/%d", k.Topic, k.Partition)], k.Floor, k.Next, k.End})
		}
		for _, l := range m.Logs {
			out = append(out, span{of[l.Name+"-log"], l.Floor, l.Next, l.Length})
		}
	}
	return out
}

// State says how far a position is, as the leases tell: up to a second ago.
func (o Origins) State(alive []member.Member, at tuple.Position) State {
	for _, s := range o.spans(alive) {
		switch {
		case s.origin != at.Origin || s.origin == 0:
		case at.Offset < s.floor:
			return Processed
		case at.Offset < s.next:
			return UnderWay
		default:
			return Ahead
		}
	}
	return Unknown
}

// searchedMost is how many positions are tried to find one, of all origins together: half a second's work.
const searchedMost = 4_000_000

// Locate finds the position of a tuple that a spout emitted, by its id: among the latest positions of every origin that a live spout tells of.
func (o Origins) Locate(alive []member.Member, id tuple.ID) (at tuple.Position, found bool) {
	spans := o.spans(alive)
	for _, s := range spans {
		end := max(s.next, s.last)
		for offset := end - 1; offset >= max(0, end-searchedMost/int64(len(spans))); offset-- {
			if p := (tuple.Position{Origin: s.origin, Offset: offset}); tuple.RootID(p) == id {
				return p, true
			}
		}
	}
	return at, false
}

// Position reads what is written as topic/partition@offset, or for the topology's own logs as in tick-log@offset.
func (o Origins) Position(name string, offset int64) (at tuple.Position, known bool) {
	for origin := range o {
		if o.Name(origin) == name {
			return tuple.Position{Origin: origin, Offset: offset}, true
		}
	}
	return at, false
}

// Workers are the leases of a topology, as Members returns them.
type Workers []member.Member

// Of names who has a task of a node, or a partition that is written topic/partition, or, where workers compete or nobody says, all who may.
func (w Workers) Of(node, task string) string {
	var owner string
	var all []string
	for _, m := range w {
		if m.Node != node {
			continue
		}
		all = append(all, m.Worker)
		for _, o := range m.Owned {
			if fmt.Sprint(o.Task) == task {
				owner = m.Worker
			}
		}
		for _, k := range m.Marks {
			if fmt.Sprintf("%s/%d", k.Topic, k.Partition) == task {
				owner = m.Worker
			}
		}
	}
	return cmp.Or(owner, strings.Join(all, " or "))
}
