package state

import (
	"sync/atomic"
	"time"
)

// CacheOptions bound a Cache.
type CacheOptions struct {
	Entries int           // the most values kept; 0: 100,000
	Bytes   int64         // the most bytes of encoded values and keys kept, approximately; 0: no such bound
	TTL     time.Duration // how long a value stays that nobody uses; 0: until there is no room
	Plain   bool          // a plain map that drops its oldest value when full: deterministic, for simulations; Bytes and TTL then mean nothing
}

// Cache keeps committed values of many tasks in memory. Because it holds nothing that is not in the store too, dropping any of it loses nothing. It is
// safe for concurrent use.
type Cache struct {
	table        table
	owners       atomic.Uint64
	hits, misses atomic.Uint64
}

// Stats say how a cache has served since it was made.
type Stats struct {
	Hits, Misses uint64 // values found, and values that had to be loaded
	Entries      int    // values held now, approximately
}

// NewCache returns an empty cache.
func NewCache(o CacheOptions) *Cache {
	if o.Entries <= 0 {
		o.Entries = 100_000
	}
	if o.Plain {
		return &Cache{table: &plainTable{most: o.Entries, values: map[cacheKey][]byte{}}}
	}
	return &Cache{table: newOtterTable(o.Entries, o.Bytes, o.TTL)}
}

// Open returns the view of a task for the owner that has claimed it in epoch. Nothing that was cached for another view can be seen through it, be it
// of another task, another epoch or the same.
func (c *Cache) Open(store Store, t Task, epoch uint64) *View {
	return &View{store: store, task: t, epoch: epoch, cache: c, owner: c.owners.Add(1), slots: map[string]*slot{}}
}

// Stats returns the counters.
func (c *Cache) Stats() Stats {
	return Stats{Hits: c.hits.Load(), Misses: c.misses.Load(), Entries: c.table.len()}
}

// Close empties the cache and ends its background work. Views must not be used afterwards.
func (c *Cache) Close() { c.table.close() }
