package observe

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/boltmesh/boltmesh/pkg/trace"
)

// caches are the numbers of a worker's caches, by their names.
type caches struct {
	hits, misses, loads *prometheus.CounterVec
	entries             *prometheus.GaugeVec
}

func newCaches(registry *prometheus.Registry) *caches {
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"cache"})
	}
	c := &caches{
		hits:   counter("boltmesh_cache_hits_total", "Values found in a cache."),
		misses: counter("boltmesh_cache_misses_total", "Values that a cache did not hold."),
		loads:  counter("boltmesh_cache_loads_total", "Round trips to what is behind a cache."),
		entries: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "boltmesh_cache_entries", Help: "Values that a cache holds, approximately.",
		}, []string{"cache"}),
	}
	registry.MustRegister(c.hits, c.misses, c.loads, c.entries)
	return c
}

func (c *caches) count(e *trace.Cached) {
	c.hits.WithLabelValues(e.Cache).Add(float64(e.Hits))
	c.misses.WithLabelValues(e.Cache).Add(float64(e.Misses))
	c.loads.WithLabelValues(e.Cache).Add(float64(e.Loads))
	if e.Entries >= 0 {
		c.entries.WithLabelValues(e.Cache).Set(float64(e.Entries))
	}
}
