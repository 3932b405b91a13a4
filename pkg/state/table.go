package state

import (
	"sync"
	"time"

	"github.com/maypok86/otter/v2"
)

// cacheKey names a cell: which opening of which task, and the user's key. Another epoch has another owner number, so its cells are out of reach.
type cacheKey struct {
	owner uint64
	key   string
}

// table is where the cache keeps its cells.
type table interface {
	get(k cacheKey) (*cell, bool)
	set(k cacheKey, c *cell)
	len() int
	close()
}

// otterTable evicts by frequency and recency (W-TinyLFU), which stands a scan over more devices than it has room for.
type otterTable struct {
	cache *otter.Cache[cacheKey, *cell]
}

func newOtterTable(entries int, bytes int64, ttl time.Duration) *otterTable {
	o := &otter.Options[cacheKey, *cell]{MaximumSize: entries}
	if bytes > 0 {
		// One bound for both limits: a cell weighs its bytes, but never less than its share of the room.
		least := bytes / int64(entries)
		o.MaximumSize, o.MaximumWeight = 0, uint64(bytes)
		o.Weigher = func(k cacheKey, c *cell) uint32 { return uint32(min(max(c.weight(k.key), least), 1<<31)) }
	}
	if ttl > 0 {
		o.ExpiryCalculator = otter.ExpiryAccessing[cacheKey, *cell](ttl)
	}
	return &otterTable{otter.Must(o)}
}

func (t *otterTable) get(k cacheKey) (*cell, bool) { return t.cache.GetIfPresent(k) }
func (t *otterTable) set(k cacheKey, c *cell)      { t.cache.Set(k, c) }
func (t *otterTable) len() int                     { return t.cache.EstimatedSize() }
func (t *otterTable) close()                       { t.cache.InvalidateAll(); t.cache.StopAllGoroutines() }

// plainTable is a map that forgets its oldest cell when it is full: deterministic, for simulations.
type plainTable struct {
	mu    sync.Mutex
	most  int
	cells map[cacheKey]*cell
	order []cacheKey // a ring once it has grown to most
	next  int
}

func (t *plainTable) get(k cacheKey) (*cell, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, ok := t.cells[k]
	return c, ok
}

func (t *plainTable) set(k cacheKey, c *cell) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.cells[k]; !ok {
		if len(t.order) < t.most {
			t.order = append(t.order, k)
		} else {
			delete(t.cells, t.order[t.next])
			t.order[t.next] = k
			t.next = (t.next + 1) % t.most
		}
	}
	t.cells[k] = c
}

func (t *plainTable) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.cells)
}

func (t *plainTable) close() {}
