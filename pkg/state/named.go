package state

import (
	"strings"

	"github.com/boltmesh/boltmesh/pkg/trace"
)

// The caches that a worker's Cache stands for, by what they hold. They share its room, so one that is busy gets more of it.
const (
	MidStatCache        = "midStatCache"        // what a statistic has gathered: cache-<statId>-<group>, and the closed windows that it keeps: closed-<statId>-<group>
	LastStatOutputCache = "lastStatOutputCache" // when it was last output: stat_last_time-<statId>-<group>
	LastAlarmCache      = "lastAlarmCache"      // an alarm's episode and what it counts: alarm_last-<alarmId>-<group>
	StateCache          = "stateCache"          // all others: counters of edges and gates, and the keys of custom bolts; it comes last
)

// names are the caches with the beginnings of their keys, in the order of served.
var names = [...]struct {
	cache    string
	prefixes []string
}{
	{MidStatCache, []string{"cache-", "closed-"}},
	{LastStatOutputCache, []string{"stat_last_time-"}},
	{LastAlarmCache, []string{"alarm_last-"}},
	{StateCache, nil},
}

// CacheOf names the cache of a key.
func CacheOf(key string) string { return names[cacheOf(key)].cache }

func cacheOf(key string) int {
	for i := range names {
		for _, p := range names[i].prefixes {
			if strings.HasPrefix(key, p) {
				return i
			}
		}
	}
	return len(names) - 1
}

// served is how one cache has served a view since it was last told.
type served struct{ hits, misses, loads int64 }

// Tell reports how the caches have served the view since the last call, an event for each that was asked anything. The values held are told with
// StateCache, for all of them. Like the view it is not for use by two goroutines at once.
func (v *View) Tell(where trace.Where, sink trace.Sink) {
	asked := false
	for i := range v.served {
		s := v.served[i]
		v.served[i] = served{}
		asked = asked || s != (served{})
		e := trace.Cached{Where: where, Cache: names[i].cache, Hits: s.hits, Misses: s.misses, Loads: s.loads, Entries: -1}
		if e.Cache == StateCache {
			e.Entries = v.cache.table.len()
		} else if s == (served{}) {
			continue
		}
		if asked {
			sink.Emit(e)
		}
	}
}
