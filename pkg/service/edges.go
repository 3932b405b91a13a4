package service

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tidwall/gjson"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	doc "github.com/boltmesh/boltmesh/pkg/document"
	"github.com/boltmesh/boltmesh/pkg/partition"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// edges turns a node's planned edges into the engine's.
func edges(plan *topology.Plan, n *topology.Node) []bolt.Edge {
	var out []bolt.Edge
	for _, e := range n.Out {
		to := nodeOf(plan, e.To)
		b := bolt.Edge{To: e.To, Stream: e.Stream, Shared: to.Shared, Tasks: int32(to.Tasks), Gated: e.Gated, All: e.Grouping == topology.All, Local: e.Local}
		b.Linger = lingerTo(plan, to)
		if e.Gated {
			b.Group = groupOf(to.Bolt)
		}
		switch {
		case to.Shared || b.All:
		case e.Grouping == topology.Global:
			b.Key = everything
		case e.Grouping == topology.Direct:
			b.Named = true
		case e.Grouping == topology.Fields, e.Grouping == topology.PartialKey, e.Grouping == topology.Custom:
			b.Key, b.Partial, b.Custom = KeyOf(e.By), e.Grouping == topology.PartialKey, e.Custom
		}
		if b.Stream == "" {
			b.Stream = tuple.DefaultStream
		}
		out = append(out, b)
	}
	if plan.Topology.Answers(n.Bolt) {
		out = append(out, bolt.Edge{To: topology.ReplyNode, Stream: topology.ReplyStream, Tasks: 1})
	}
	return out
}

// longest is how long tuples wait at most, on their way to where nobody waits for them, for others.
const longest = 20 * time.Millisecond

// lingerTo says how long what comes to a node may wait on its way: to a bolt as long as that has patience, to the output no longer than that waits itself. In a
// topology that takes calls somebody always waits.
func lingerTo(plan *topology.Plan, to *topology.Node) time.Duration {
	switch {
	case plan.Topology.Spout.Calls:
		return 0
	case to.Kind == topology.KindOutput:
		return min(longest, plan.Topology.Output.Linger)
	case to.Bolt == nil:
		return 0
	}
	return to.Bolt.Patience(longest)
}

// ticks lists the nodes that want tick entries.
func ticks(plan *topology.Plan) (out []spout.Due) {
	for _, n := range plan.Nodes {
		if n.Ticks {
			out = append(out, spout.Due{
				Node: n.ID, Every: n.Every.Milliseconds(), Level: n.Level, After: n.After,
				Edge: bolt.Edge{To: n.ID, Stream: tuple.TickStream, Tasks: int32(n.Tasks), All: true},
			})
		}
	}
	return out
}

func nodeOf(plan *topology.Plan, id string) *topology.Node {
	i := slices.IndexFunc(plan.Nodes, func(n topology.Node) bool { return n.ID == id })
	return &plan.Nodes[i]
}

// groupOf returns the function that says which group a tuple belongs to at a stateful node: the same one that its incoming edges divide tuples by. At
// the first stage of a statistic all that a task handles is one group, called by its number.
func groupOf(b *topology.Bolt) func(*tuple.Tuple) (string, bool) {
	if b.Stage == topology.StageFirst {
		return func(t *tuple.Tuple) (string, bool) {
			return strconv.Itoa(int(partition.Task(t.Key, b.Tasks))), t.Key != ""
		}
	}
	group := b.Group
	if len(group) == 0 {
		group = []string{"device"}
	}
	if slices.Equal(group, []string{"none"}) {
		return everything
	}
	return KeyOf(group)
}

// everything is the grouping of a node with one group.
func everything(*tuple.Tuple) (string, bool) { return "all", true }

// KeyOf reads the key that fields form: "device" is the tuple's key, any other a field of the payload. ok is false when one is absent. The parts of
// a key of several fields are divided by the unit separator, U+001F.
func KeyOf(fields []string) func(t *tuple.Tuple) (string, bool) {
	if slices.Equal(fields, []string{"device"}) {
		return func(t *tuple.Tuple) (string, bool) { return t.Key, t.Key != "" }
	}
	paths := make([]string, len(fields))
	for i, f := range fields {
		parts := strings.Split(f, ".")
		for k := range parts {
			parts[k] = gjson.Escape(parts[k])
		}
		paths[i] = strings.Join(parts, ".")
	}
	return func(t *tuple.Tuple) (string, bool) {
		var b strings.Builder
		for i, f := range fields {
			if i > 0 {
				b.WriteByte(0x1f)
			}
			part, ok := t.Key, t.Key != ""
			if f != "device" {
				part, ok = keyText(gjson.GetBytes(t.Payload, paths[i]))
			}
			if !ok {
				return "", false
			}
			b.WriteString(part)
		}
		return b.String(), b.Len() <= tuple.MaxKey
	}
}

// keyText is a plain value as part of a key; equal numbers have equal texts, however they were written.
func keyText(v gjson.Result) (string, bool) {
	switch v.Type {
	case gjson.String:
		return v.Str, v.Str != ""
	case gjson.True, gjson.False:
		return v.Raw, true
	case gjson.Number:
		if !strings.ContainsAny(v.Raw, ".eE") {
			return v.Raw, true
		}
		return strconv.FormatFloat(v.Num, 'g', -1, 64), true
	default:
		return "", false
	}
}

// database opens a topology's database once for all loops of a host, and its indexes.
type database struct {
	mu    sync.Mutex
	store doc.Store
}

func (d *database) open(ctx context.Context, h *host) (doc.Store, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.store != nil {
		return d.store, nil
	}
	name := h.plan.Topology.Output.Database
	if name == "" {
		name = h.plan.Topology.Name
	}
	store, err := h.Documents(ctx, name)
	if err != nil {
		return nil, err
	}
	wanted := indexes(h.plan)
	err = store.Ensure(ctx, wanted)
	if errors.Is(err, doc.ErrNoTTL) { // documents stay, as they do in `boltmesh dev`: no reason to store none
		h.failed(h.at(), "let documents vanish", err)
		for i := range wanted {
			wanted[i].TTL = 0
		}
		err = store.Ensure(ctx, wanted)
	}
	if err != nil {
		return nil, err
	}
	d.store = store
	return store, nil
}

// indexes are what the plan's documents want. An index on time alone and a TTL are one index.
func indexes(plan *topology.Plan) (out []doc.Index) {
	vanish := map[string]bool{}
	for _, n := range plan.Nodes {
		if n.Bolt != nil && n.Bolt.Save != nil && n.Bolt.Save.TTL > 0 {
			s := n.Bolt.Save
			if !vanish[s.Collection] {
				out = append(out, doc.Index{Collection: s.Collection, Fields: []string{"time"}, TTL: int64(s.TTL.Seconds())})
			}
			vanish[s.Collection] = true
		}
	}
	for _, n := range plan.Nodes {
		if n.Bolt == nil || n.Bolt.Save == nil {
			continue
		}
		s := n.Bolt.Save
		for _, fields := range s.Indexes {
			if !vanish[s.Collection] || !slices.Equal(fields, []string{"time"}) {
				out = append(out, doc.Index{Collection: s.Collection, Fields: fields})
			}
		}
	}
	return out
}
