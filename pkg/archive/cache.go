package archive

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/boltmesh/boltmesh/pkg/trace"
)

// CacheName is what metrics call the cache.
const CacheName = "archiveCache"

// Key names a profile in caches.
func Key(archive, device string) string { return "arch-" + archive + "-" + device }

// CacheOptions bound a Cache.
type CacheOptions struct {
	Entries int           // the most profiles kept, unknown devices included; 0: 100,000
	Bytes   int64         // the most bytes that they take, approximately; 0: 64 MiB
	TTL     time.Duration // how long one is believed when no message says that it has changed; 0: 1 minute
}

// Cache is a Store as a worker reads it: with profiles, and what devices are unknown, kept in memory until a message says that they have changed. It
// is safe for concurrent use.
type Cache struct {
	source Source
	table  *otter.Cache[string, *entry]
	epoch  atomic.Uint64 // raised by every change: what was read under an earlier one may be old
	stats  struct{ hits, misses, loads atomic.Uint64 }

	telling sync.Mutex
	told    Stats // in events

	mu      sync.Mutex // of flights, and held while the table is written, so that no change falls between a load and its storing
	flights map[string]*flight
}

// Source is where a cache loads from: a Store.
type Source interface {
	Read(ctx context.Context, archive string, devices []string) ([]*Profile, error)
}

// entry is what is known of one device; fields is nil when the device is unknown. It is shared, and never changed.
type entry struct {
	fields map[string]any
	size   int
}

// weight is about what an entry takes in memory: decoded values take some times their text, and the table takes its share.
func (e *entry) weight(key string) int64 { return int64(len(key) + 4*e.size + 160) }

// flight is a profile on its way from the store.
type flight struct {
	done  chan struct{}
	entry *entry
	err   error
}

// Stats say how a cache has served since it was made.
type Stats struct {
	Hits, Misses uint64 // profiles found, and profiles that were not
	Loads        uint64 // round trips to the store
	Entries      int    // held now, approximately
}

// NewCache returns an empty cache in front of source.
func NewCache(source Source, o CacheOptions) *Cache {
	if o.Entries <= 0 {
		o.Entries = 100_000
	}
	if o.Bytes <= 0 {
		o.Bytes = 64 << 20
	}
	if o.TTL <= 0 {
		o.TTL = time.Minute
	}
	least := o.Bytes / int64(o.Entries) // one bound for both limits: an entry never weighs less than its share of the room
	return &Cache{source: source, flights: map[string]*flight{}, table: otter.Must(&otter.Options[string, *entry]{
		MaximumWeight:    uint64(o.Bytes),
		Weigher:          func(k string, e *entry) uint32 { return uint32(min(max(e.weight(k), least), 1<<31)) },
		ExpiryCalculator: otter.ExpiryWriting[string, *entry](o.TTL),
	})}
}

// Load returns the fields of each device, nil for those that are unknown. What is not cached is loaded in one round trip, except for what somebody
// else is loading already. The maps are shared: they must not be changed.
func (c *Cache) Load(ctx context.Context, archive string, devices []string) (map[string]map[string]any, error) {
	out := make(map[string]map[string]any, len(devices))
	for {
		missing := c.collect(archive, devices, out)
		if len(missing) == 0 {
			return out, nil
		}
		again, err := c.fetch(ctx, archive, missing, out)
		if err != nil {
			return nil, err
		}
		if len(again) == 0 {
			return out, nil
		}
		devices = again
	}
}

// collect takes from the table what is there and returns the rest, each device once.
func (c *Cache) collect(archive string, devices []string, out map[string]map[string]any) (missing []string) {
	hits := uint64(0)
	for _, d := range devices {
		if _, seen := out[d]; seen {
			continue
		}
		out[d] = nil
		if CheckDevice(d) != nil {
			continue // no store can know it
		}
		if e, ok := c.table.GetIfPresent(Key(archive, d)); ok {
			hits++
			out[d] = e.fields
			continue
		}
		missing = append(missing, d)
	}
	c.stats.hits.Add(hits)
	c.stats.misses.Add(uint64(len(missing)))
	return missing
}

// fetch loads what nobody is loading and waits for what others are. again are devices whose loader gave up: they are to be asked for anew.
func (c *Cache) fetch(ctx context.Context, archive string, missing []string, out map[string]map[string]any) (again []string, err error) {
	flights := make([]*flight, len(missing))
	var mine []string
	var own []*flight
	c.mu.Lock()
	for i, d := range missing {
		f := c.flights[Key(archive, d)]
		if f == nil {
			f = &flight{done: make(chan struct{})}
			c.flights[Key(archive, d)] = f
			mine, own = append(mine, d), append(own, f)
		}
		flights[i] = f
	}
	c.mu.Unlock()
	if len(mine) > 0 {
		c.land(ctx, archive, mine, own)
	}
	for i, f := range flights {
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		switch {
		case f.err == nil:
			out[missing[i]] = f.entry.fields
		case ctx.Err() == nil && (errors.Is(f.err, context.Canceled) || errors.Is(f.err, context.DeadlineExceeded)):
			delete(out, missing[i])
			again = append(again, missing[i])
		default:
			return nil, f.err
		}
	}
	return again, nil
}

// land loads devices and ends their flights. What has changed in the meantime is handed to those who asked before, and not kept.
func (c *Cache) land(ctx context.Context, archive string, devices []string, flights []*flight) {
	c.stats.loads.Add(1)
	profiles, err := c.source.Read(ctx, archive, devices)
	if err == nil && len(profiles) != len(devices) {
		err = fmt.Errorf("archive %s: %d answers for %d devices", archive, len(profiles), len(devices))
	}
	entries := make([]*entry, len(devices))
	for i := range devices {
		if entries[i] = (&entry{}); err == nil && profiles[i] != nil {
			entries[i].size = len(profiles[i].Fields)
			entries[i].fields, err = profiles[i].Decode()
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, f := range flights {
		key := Key(archive, devices[i])
		if c.flights[key] == f {
			delete(c.flights, key)
			if err == nil {
				c.table.Set(key, entries[i])
			}
		}
		f.entry, f.err = entries[i], err
		close(f.done)
	}
}

// Changed forgets devices, all of every archive when there are none: their profiles are loaded anew when they are asked for next.
func (c *Cache) Changed(archive string, devices []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range devices {
		key := Key(archive, d)
		delete(c.flights, key) // whoever waits gets what it asked for, but nobody else does
		c.table.Invalidate(key)
	}
	if len(devices) == 0 {
		clear(c.flights)
		c.table.InvalidateAll()
	}
	c.epoch.Add(1)
}

// Stats returns the counters.
func (c *Cache) Stats() Stats {
	return Stats{Hits: c.stats.hits.Load(), Misses: c.stats.misses.Load(), Loads: c.stats.loads.Load(), Entries: c.table.EstimatedSize()}
}

// report returns what the counters have gained since the last report, of whichever loop.
func (c *Cache) report(w trace.Where) trace.Cached {
	c.telling.Lock()
	defer c.telling.Unlock()
	now, last := c.Stats(), c.told
	c.told = now
	return trace.Cached{
		Where: w, Cache: CacheName, Hits: int64(now.Hits - last.Hits), Misses: int64(now.Misses - last.Misses), Loads: int64(now.Loads - last.Loads),
		Entries: now.Entries,
	}
}

// Close empties the cache and ends its background work. It must not be used afterwards.
func (c *Cache) Close() {
	c.table.InvalidateAll()
	c.table.StopAllGoroutines()
}
