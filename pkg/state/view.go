package state

import (
	"context"
	"fmt"
	"strings"
)

// Value is a decoded state value: what bolts work on instead of bytes.
type Value interface {
	// Append encodes the value behind b.
	Append(b []byte) ([]byte, error)
}

// Decode makes a value from its bytes, which neither it nor the value may change, though both may keep them; from nil, the value that a key has before anything was
// stored. A key is always read with the same Decode.
type Decode func(b []byte) (Value, error)

// View is a task's state during one batch: committed values from the cache or the store, decoded when first read, and the batch's own changes. Its owner uses
// it batch after batch, from one goroutine; each batch ends with Committed, Discard or Forget. Nothing decoded outlives its batch: a value that is idle takes
// no more memory than its bytes.
type View struct {
	store Store
	task  Task
	epoch uint64
	cache *Cache
	owner uint64 // part of the cache key; a new number puts everything cached so far out of reach

	slots   map[string]*slot // the keys that this batch has met: eviction does not take them away in its midst
	spare   []*slot          // of earlier batches
	edits   []*slot          // those changed, in order of their first change
	missing []string         // scratch of Preload
	arena   []byte           // of Fill, used again with the next batch
	served  [len(names)]served
}

// slot is a key in the current batch.
type slot struct {
	key     string
	raw     []byte // committed, when known; nil: not in the store
	known   bool
	value   Value // of raw, decoded; of a changed key the batch's own
	asked   bool  // on its way from the store
	changed bool
	deleted bool
	encoded []byte // what Fill made of a changed value
}

// read returns the value as this batch sees it.
func (s *slot) read(decode Decode) (Value, error) {
	if s.value == nil {
		v, err := decode(s.raw)
		if err != nil {
			return nil, err
		}
		s.value = v
	}
	return s.value, nil
}

// Task returns the task that the view shows.
func (v *View) Task() Task { return v.task }

// Epoch returns the epoch of the owner that the view was opened for.
func (v *View) Epoch() uint64 { return v.epoch }

// Met returns how many keys this batch has asked for or changed.
func (v *View) Met() int { return len(v.slots) }

// Ample reports whether at most half of the room in the cache that the view shares with others is taken: then a batch may take memory too.
func (v *View) Ample() bool { return v.cache.table.ample() }

// Preload makes the values of keys ready for Read and Edit: those not cached are loaded in one round trip.
func (v *View) Preload(ctx context.Context, keys []string) error {
	v.missing = v.missing[:0]
	for _, key := range keys {
		s := v.slot(key)
		if s.asked || s.changed || v.cached(s) {
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

// Read returns the value of key as this batch sees it. The caller must not change it, and must not use it after an Edit of the key.
func (v *View) Read(ctx context.Context, key string, decode Decode) (Value, error) {
	return v.read(ctx, v.slot(key), decode)
}

func (v *View) read(ctx context.Context, s *slot, decode Decode) (Value, error) {
	if !s.changed && !v.cached(s) {
		if err := v.load(ctx, []string{s.key}); err != nil {
			return nil, err
		}
	}
	value, err := s.read(decode)
	if err != nil {
		return nil, fmt.Errorf("decode %q of %s: %w", s.key, v.task, err)
	}
	return value, nil
}

// Edit returns the batch's own value of key, the same one at every call: what the caller does to it is committed with the batch.
func (v *View) Edit(ctx context.Context, key string, decode Decode) (Value, error) {
	s := v.slot(key)
	value, err := v.read(ctx, s, decode)
	if err != nil {
		return nil, err
	}
	s.deleted = false
	v.change(s)
	return value, nil
}

// Put replaces the value of key in this batch. The view keeps value until the batch ends.
func (v *View) Put(key string, value Value) {
	s := v.slot(key)
	s.value, s.deleted = value, false
	v.change(s)
}

// Delete removes key in this batch.
func (v *View) Delete(key string) {
	s := v.slot(key)
	s.value, s.raw, s.deleted = nil, nil, true
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
		arena, err := s.value.Append(v.arena)
		if err != nil {
			return fmt.Errorf("encode %q of %s: %w", s.key, v.task, err)
		}
		v.arena = arena
		s.encoded = arena[start:len(arena):len(arena)]
		b.Set = append(b.Set, Entry{Key: s.key, Value: s.encoded})
	}
	return nil
}

// Committed ends a batch that the store has taken: what Fill added is the committed state now.
func (v *View) Committed() {
	for _, s := range v.edits {
		var raw []byte
		if !s.deleted {
			raw = append(make([]byte, 0, len(s.encoded)), s.encoded...) // not nil where it is empty
		}
		v.cache.table.set(cacheKey{v.owner, s.key}, raw)
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
	for _, s := range v.slots {
		*s = slot{}
		v.spare = append(v.spare, s)
	}
	clear(v.slots)
	clear(v.edits)
	v.edits = v.edits[:0]
	if len(v.spare) > spareSlots {
		clear(v.spare[spareSlots:])
		v.spare = v.spare[:spareSlots]
	}
}

// spareSlots bounds the slots kept for later batches: a tick over many groups would leave more than any other needs.
const spareSlots = 1 << 10

// slot returns the batch's slot for key.
func (v *View) slot(key string) *slot {
	s := v.slots[key]
	if s == nil {
		if n := len(v.spare); n > 0 {
			s, v.spare = v.spare[n-1], v.spare[:n-1]
		} else {
			s = &slot{}
		}
		s.key = strings.Clone(key) // it may be part of a larger string, and the cache keeps it
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

// cached reports whether the committed value is in s, taking it from the cache if it is there.
func (v *View) cached(s *slot) bool {
	if s.known {
		return true
	}
	s.raw, s.known = v.cache.table.get(cacheKey{v.owner, s.key})
	if s.known {
		v.cache.hits.Add(1)
		v.served[cacheOf(s.key)].hits++
	}
	return s.known
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
		s := v.slots[key]
		s.raw, s.known = values[i], true
		v.cache.table.set(cacheKey{v.owner, s.key}, s.raw)
	}
	return nil
}
