package state

import (
	"context"
	"fmt"
	"strings"
)

// Value is a decoded state value: what bolts work on instead of bytes.
type Value interface {
	// Clone returns a copy that shares nothing mutable.
	Clone() Value
	// Append encodes the value behind b.
	Append(b []byte) ([]byte, error)
}

// Decode makes a value from its bytes, which it may keep but not change; from nil, the value that a key has before anything was stored. A key is
// always read with the same Decode.
type Decode func(b []byte) (Value, error)

// View is a task's state during one batch: committed values from the cache or the store, and the batch's private copies. Its owner uses it batch after
// batch, from one goroutine; each batch ends with Committed, Discard or Forget.
type View struct {
	store Store
	task  Task
	epoch uint64
	cache *Cache
	owner uint64 // part of the cache key; a new number puts everything cached so far out of reach

	slots   map[string]*slot // the keys that this batch has met: eviction does not take them away in its midst
	edits   []*slot          // those changed, in order of their first change
	missing []string         // scratch of Preload
	arena   []byte           // of Fill, used again with the next batch
	served  [len(names)]served
}

// cell is a committed value, decoded when first read; raw and value nil: the key is not in the store.
type cell struct {
	raw   []byte
	value Value
	size  int // encoded
}

// weight is what a cell costs in bytes: key and value, and what the cell and the table take beside them.
func (c *cell) weight(key string) int64 { return int64(len(key) + c.size + 128) }

func (c *cell) read(decode Decode) (Value, error) {
	if c.value == nil {
		v, err := decode(c.raw)
		if err != nil {
			return nil, err
		}
		c.value, c.raw = v, nil
	}
	return c.value, nil
}

// slot is a key in the current batch.
type slot struct {
	key     string
	cell    *cell // committed; nil when the key was put or deleted without having been read
	edit    Value // the private copy
	asked   bool  // on its way from the store
	changed bool
	deleted bool
	size    int // of the edit, encoded by Fill
}

// Task returns the task that the view shows.
func (v *View) Task() Task { return v.task }

// Epoch returns the epoch of the owner that the view was opened for.
func (v *View) Epoch() uint64 { return v.epoch }

// Preload makes the values of keys ready for Read and Edit: those not cached are loaded in one round trip.
func (v *View) Preload(ctx context.Context, keys []string) error {
	v.missing = v.missing[:0]
	for _, key := range keys {
		s := v.slots[key]
		if s == nil {
			s = v.slot(key)
		}
		if s.asked || s.cell != nil || s.changed || v.cached(s) {
			continue
		}
		s.asked = true
		v.missing = append(v.missing, s.key)
	}
	if len(v.missing) == 0 {
		return nil
	}
	return v.load(ctx, v.missing)
}

// Read returns the value of key as this batch sees it. The caller must not change it.
func (v *View) Read(ctx context.Context, key string, decode Decode) (Value, error) {
	s, err := v.find(ctx, key)
	if err != nil {
		return nil, err
	}
	if s.edit != nil {
		return s.edit, nil
	}
	var value Value
	if s.deleted {
		value, err = decode(nil)
	} else {
		value, err = s.cell.read(decode)
	}
	if err != nil {
		return nil, fmt.Errorf("decode %q of %s: %w", key, v.task, err)
	}
	return value, nil
}

// Edit returns the batch's own copy of the value of key, the same one at every call: what the caller does to it is committed with the batch.
func (v *View) Edit(ctx context.Context, key string, decode Decode) (Value, error) {
	value, err := v.Read(ctx, key, decode)
	if err != nil {
		return nil, err
	}
	s := v.slots[key]
	if s.edit == nil {
		s.edit = value.Clone()
		v.change(s)
		s.deleted = false
	}
	return s.edit, nil
}

// Put replaces the value of key in this batch. The view keeps value.
func (v *View) Put(key string, value Value) {
	s := v.slot(key)
	s.edit, s.deleted = value, false
	v.change(s)
}

// Delete removes key in this batch.
func (v *View) Delete(key string) {
	s := v.slot(key)
	s.edit, s.deleted, s.size = nil, true, 0
	v.change(s)
}

// Fill adds the batch's changes to b, encoded, in the order in which keys were first changed. What it adds is valid until the next Fill.
func (v *View) Fill(b *Batch) error {
	v.arena = v.arena[:0]
	for _, s := range v.edits {
		if s.deleted {
			b.Delete = append(b.Delete, s.key)
			continue
		}
		start := len(v.arena)
		arena, err := s.edit.Append(v.arena)
		if err != nil {
			return fmt.Errorf("encode %q of %s: %w", s.key, v.task, err)
		}
		v.arena = arena
		s.size = len(arena) - start
		b.Set = append(b.Set, Entry{Key: s.key, Value: arena[start:len(arena):len(arena)]})
	}
	return nil
}

// Committed ends a batch that the store has taken: what it changed is the committed state now.
func (v *View) Committed() {
	for _, s := range v.edits {
		if s.cell == nil {
			s.cell = &cell{}
		}
		s.cell.raw, s.cell.value, s.cell.size = nil, s.edit, s.size
		v.cache.table.set(cacheKey{v.owner, s.key}, s.cell)
	}
	v.reset()
}

// Discard ends a batch that was not committed: its changes are forgotten.
func (v *View) Discard() { v.reset() }

// Forget ends a batch whose commit may or may not have happened: its changes and everything cached for the task are forgotten.
func (v *View) Forget() {
	v.owner = v.cache.owners.Add(1)
	v.reset()
}

func (v *View) reset() {
	clear(v.slots)
	clear(v.edits)
	v.edits = v.edits[:0]
}

// slot returns the batch's slot for key.
func (v *View) slot(key string) *slot {
	s := v.slots[key]
	if s == nil {
		s = &slot{key: strings.Clone(key)} // the key may be part of a larger string, and the cache keeps it
		v.slots[s.key] = s
	}
	return s
}

func (v *View) change(s *slot) {
	if !s.changed {
		s.changed = true
		v.edits = append(v.edits, s)
	}
}

// find returns the slot of key with something to read in it.
func (v *View) find(ctx context.Context, key string) (*slot, error) {
	s := v.slot(key)
	if s.cell != nil || s.changed || v.cached(s) {
		return s, nil
	}
	return s, v.load(ctx, []string{s.key})
}

// cached takes the committed value from the cache into s, if it is there.
func (v *View) cached(s *slot) bool {
	c, ok := v.cache.table.get(cacheKey{v.owner, s.key})
	if ok {
		s.cell = c
		v.cache.hits.Add(1)
		v.served[cacheOf(s.key)].hits++
	}
	return ok
}

// load takes committed values from the store into the slots of keys and the cache.
func (v *View) load(ctx context.Context, keys []string) error {
	values, err := v.store.Load(ctx, v.task, keys)
	for _, key := range keys {
		v.slots[key].asked = false
	}
	if err != nil {
		return fmt.Errorf("load %d values of %s: %w: %w", len(keys), v.task, ErrUnavailable, err)
	}
	v.cache.misses.Add(uint64(len(keys)))
	var asked [len(names)]bool
	for i, key := range keys {
		n := cacheOf(key)
		v.served[n].misses++
		if !asked[n] {
			asked[n] = true
			v.served[n].loads++
		}
		c := &cell{raw: values[i], size: len(values[i])}
		v.slots[key].cell = c
		v.cache.table.set(cacheKey{v.owner, key}, c)
	}
	return nil
}
