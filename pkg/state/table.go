package state

import (
	"sync"
	"time"

	"github.com/maypok86/otter/v2"
)

// cacheKey names a value: which opening of which task, and the user's key. Another epoch has another owner number, so its values are out of reach.
type cacheKey struct {
	owner uint64
	key   string
}

// table is where the cache keeps its values, encoded; nil for a key that is not in the store.
type table interface {
	get(k cacheKey) (raw []byte, ok bool)
	set(k cacheKey, raw []byte)
	len() int
	ample() bool // whether at most half of the room is taken
	close()
}

// otterTable evicts by frequency and recency (W-TinyLFU), which stands a scan over more devices than it has room for.
type otterTable struct {
	cache *otter.Cache[cacheKey, []byte]
	most  uint64 // entries, or bytes
}

func newOtterTable(entries int, bytes int64, ttl time.Duration) *otterTable {
	o := &otter.Options[cacheKey, []byte]{MaximumSize: entries}
	if bytes > 0 {
		// One bound for both limits: a value weighs its bytes, but never less than its share of the room.
		least := bytes / int64(entries)
		o.MaximumSize, o.MaximumWeight = 0, uint64(bytes)
		o.Weigher = func(k cacheKey, raw []byte) uint32 { return uint32(min(max(weight(k.key, raw), least), 1<<31)) }
	}
	if ttl > 0 {
		o.ExpiryCalculator = otter.ExpiryAccessing[cacheKey, []byte](ttl)
	}
	return &otterTable{otter.Must(o), max(uint64(o.MaximumSize), o.MaximumWeight)}
}

// weight is what a value costs in bytes: itself and its key, and what the table takes beside them.
func weight(key string, raw []byte) int64 { return int64(len(key) + len(raw) + 128) }

func (t *otterTable) get(k cacheKey) ([]byte, bool) { return t.cache.GetIfPresent(k) }
func (t *otterTable) set(k cacheKey, raw []byte)    { t.cache.Set(k, raw) }
func (t *otterTable) len() int                      { return t.cache.EstimatedSize() }
func (t *otterTable) ample() bool                   { return 2*max(uint64(t.len()), t.cache.WeightedSize()) <= t.most }

func (t *otterTable) close() { t.cache.InvalidateAll(); t.cache.StopAllGoroutines() }

// plainTable is a map that forgets its oldest value when it is full: deterministic, for simulations.
type plainTable struct {
	mu     sync.Mutex
	most   int
	values map[cacheKey][]byte
	order  []cacheKey // a ring once it has grown to most
	next   int
}

func (t *plainTable) get(k cacheKey) ([]byte, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	raw, ok := t.values[k]
	return raw, ok
}

func (t *plainTable) set(k cacheKey, raw []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.values[k]; !ok {
		if len(t.order) < t.most {
			t.order = append(t.order, k)
		} else {
			delete(t.values, t.order[t.next])
			t.order[t.next] = k
			t.next = (t.next + 1) % t.most
		}
	}
	t.values[k] = raw
}

func (t *plainTable) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.values)
}

func (t *plainTable) ample() bool { return 2*t.len() <= t.most }

func (t *plainTable) close() {}
