package bolt

import (
	"context"
	"encoding/json"
	"fmt"
	"math"

	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Func is a Bolt without state that is one function.
type Func func(ctx context.Context, t *tuple.Tuple, c *Collector) error

// Execute implements Bolt.
func (f Func) Execute(ctx context.Context, t *tuple.Tuple, c *Collector) error { return f(ctx, t, c) }

// Keyed is a Stateful bolt that keeps one value of type T per group, stored as JSON; a new group's is T's zero value. Each tuple is in the value exactly
// once, whatever crashes or is replayed. GroupBy and Update are required; Keyed is not safe for concurrent use, as no bolt is.
type Keyed[T any] struct {
	// GroupBy says which group a tuple belongs to: give it the Group of the service.Node, so that router and bolt agree.
	GroupBy func(t *tuple.Tuple) (group string, ok bool)
	// Update takes a tuple into its group's value, a copy of the one that is stored: after an error nothing has changed.
	Update func(ctx context.Context, t *tuple.Tuple, value *T, c *Collector) error
	// Output is called at the first tick after a group was updated: at the node's interval (every), or without one when the watermark has moved, and at a
	// flush. The value may be changed there too; c.Wake(0) asks for the next tick, whether or not tuples come. nil: ticks mean nothing to the bolt.
	Output func(ctx context.Context, tick Tick, group string, value *T, c *Collector) error
}

var _ Stateful = (*Keyed[int])(nil)

// Group implements Stateful.
func (k *Keyed[T]) Group(t *tuple.Tuple) (string, bool) { return k.GroupBy(t) }

// Keys implements Stateful.
func (k *Keyed[T]) Keys(group string, add func(key string)) { add(valueKey + group) }

const valueKey = "value-"

// Execute implements Bolt.
func (k *Keyed[T]) Execute(ctx context.Context, t *tuple.Tuple, c *Collector) error {
	err := k.change(ctx, c, func(v *T) error { return k.Update(ctx, t, v, c) })
	if err == nil && k.Output != nil {
		c.Wake(0)
	}
	return err
}

// Due implements Stateful.
func (k *Keyed[T]) Due(Tick) (until int64, ok bool) { return math.MaxInt32, k.Output != nil }

// Tick implements Stateful.
func (k *Keyed[T]) Tick(ctx context.Context, tick Tick, group string, c *Collector) error {
	return k.change(ctx, c, func(v *T) error { return k.Output(ctx, tick, group, v, c) })
}

// change has f work on a copy of the group's value, which replaces it if f succeeds.
func (k *Keyed[T]) change(ctx context.Context, c *Collector, f func(*T) error) error {
	key := valueKey + c.Group()
	old, err := c.State().Read(ctx, key, decodeKept)
	if err != nil {
		return err
	}
	var v T
	raw, _ := old.(*kept)
	if raw.json != nil {
		if err := json.Unmarshal(raw.json, &v); err != nil {
			return Reject(fmt.Errorf("the stored value of %q cannot be read: %w", c.Group(), err))
		}
	}
	if err := f(&v); err != nil {
		return err
	}
	if err := c.declared(); err != nil { // nothing has changed yet
		return err
	}
	changed, err := json.Marshal(v)
	if err != nil {
		return Reject(fmt.Errorf("the value of %q cannot be stored: %w", c.Group(), err))
	}
	c.State().Put(key, &kept{changed})
	return nil
}

// kept is a T in the state, encoded; nil before anything was stored. It is replaced, never changed.
type kept struct{ json []byte }

// Append implements state.Value.
func (k *kept) Append(b []byte) ([]byte, error) { return append(b, k.json...), nil }

func decodeKept(b []byte) (state.Value, error) { return &kept{b}, nil }

// EmitJSON emits v, which must have the form of a JSON object, on a stream ("" is the default one) with the key and the event time of t. An error is final.
func (c *Collector) EmitJSON(t *tuple.Tuple, stream string, v any) error {
	payload, err := json.Marshal(v)
	if err != nil {
		return Reject(fmt.Errorf("emit: %w", err))
	}
	if payload[0] != '{' {
		return Reject(fmt.Errorf("emit: a JSON object is wanted, not %.40s", payload))
	}
	c.Emit(Emission{Stream: stream, Key: t.Key, Time: t.Time, Payload: payload})
	return nil
}
