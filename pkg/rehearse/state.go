package rehearse

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// Shower is a stateful bolt that can show what it keeps for a group, and be given it. Others must keep JSON to be looked at.
type Shower interface {
	// Show returns as JSON what the values under the keys that Keys names for group mean; nil when nothing is kept. read returns nil for a key without a value.
	Show(group string, read func(key string) []byte) ([]byte, error)
	// Seed returns the values that make the bolt begin with what Show would show, by key, and when the group is due (see bolt.Collector.Wake).
	Seed(group string, shown []byte) (values map[string][]byte, due int64, err error)
}

// State returns what a stateful node keeps for a group, as JSON; nil when it keeps nothing.
func (s *Stage) State(ctx context.Context, node, group string) ([]byte, error) {
	n, b, err := s.stateful(ctx, node)
	if err != nil {
		return nil, err
	}
	kept := map[string][]byte{}
	var keys []string
	b.Keys(group, func(key string) { keys = append(keys, key) })
	values, err := s.store.Load(ctx, s.task(n, group), keys)
	if err != nil {
		return nil, err
	}
	for i, key := range keys {
		kept[key] = values[i]
	}
	if shower, ok := b.(Shower); ok {
		return shower.Show(group, func(key string) []byte { return kept[key] })
	}
	if len(keys) == 1 {
		return asJSON(values[0]), nil
	}
	shown := map[string]json.RawMessage{}
	for key, v := range kept {
		if v != nil {
			shown[key] = asJSON(v)
		}
	}
	return json.Marshal(shown)
}

// asJSON is a value as it is, or as a text when it is not JSON.
func asJSON(v []byte) []byte {
	if v == nil || json.Valid(v) {
		return v
	}
	text, _ := json.Marshal(string(v)) // a string always has a JSON form
	return text
}

// Seed makes a stateful node begin with what it is said to keep for a group, a JSON value as State returns it. Its tasks get new owners.
func (s *Stage) Seed(ctx context.Context, node, group string, shown []byte) error {
	n, b, err := s.stateful(ctx, node)
	if err != nil {
		return err
	}
	values, due := map[string][]byte{}, int64(0)
	if shower, ok := b.(Shower); ok {
		if values, due, err = shower.Seed(group, shown); err != nil {
			return fmt.Errorf("node %s: %w", node, err)
		}
	} else {
		b.Keys(group, func(key string) { values[key] = shown })
		if len(values) != 1 {
			return fmt.Errorf("node %s keeps its state under %d keys: give it tuples instead", node, len(values))
		}
	}
	t := s.task(n, group)
	epoch, err := s.store.Claim(ctx, t)
	if err != nil {
		return err
	}
	batch := state.Batch{Agenda: []state.Due{{Key: group, At: due}}}
	for key, v := range values {
		batch.Set = append(batch.Set, state.Entry{Key: key, Value: v})
	}
	if err := s.store.Commit(ctx, t, epoch, &batch); err != nil {
		return err
	}
	return s.enter(ctx)
}

func (s *Stage) task(n *topology.Node, group string) state.Task {
	return state.Task{Topology: s.name(), Node: n.ID, Index: task(n, group)}
}

// stateful finds a node and makes another bolt of it, to be asked.
func (s *Stage) stateful(ctx context.Context, node string) (*topology.Node, bolt.Stateful, error) {
	i := slices.IndexFunc(s.o.Plan.Nodes, func(n topology.Node) bool { return n.ID == node })
	if i < 0 {
		return nil, nil, fmt.Errorf("the topology has no node %q", node)
	}
	n := &s.o.Plan.Nodes[i]
	if n.Kind == topology.KindSpout {
		return nil, nil, fmt.Errorf("node %s keeps no state", node)
	}
	b, err := s.build(ctx, n)
	if err != nil {
		return nil, nil, err
	}
	stateful, ok := b.(bolt.Stateful)
	if !ok {
		return nil, nil, fmt.Errorf("node %s keeps no state", node)
	}
	return n, stateful, nil
}
