package state_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/trace"
)

func TestCacheOf(t *testing.T) {
	for key, want := range map[string]string{
		"cache-hourly-m1": state.MidStatCache, "closed-hourly-m1": state.MidStatCache, "stat_last_time-hourly-m1": state.LastStatOutputCache,
		"alarm_last-hot-m1": state.LastAlarmCache, "cache": state.StateCache, "odometer": state.StateCache, "": state.StateCache,
	} {
		if got := state.CacheOf(key); got != want {
			t.Errorf("%q is in %s, want %s", key, got, want)
		}
	}
}

// What a batch finds and misses is told once, by cache, with one load for all that a cache missed.
func TestTell(t *testing.T) {
	o := newOwner(t, state.CacheOptions{Plain: true})
	var told []string
	tell := func() string {
		told = nil
		o.view.Tell(trace.Where{Node: "hourly"}, func(e trace.Event) {
			c := e.(trace.Cached)
			told = append(told, fmt.Sprintf("%s %s %d/%d/%d of %d", c.Node, c.Cache, c.Hits, c.Misses, c.Loads, c.Entries))
		})
		return strings.Join(told, ", ")
	}
	if got := tell(); got != "" {
		t.Errorf("told %s before anything was asked", got)
	}
	keys := []string{"cache-hourly-a", "cache-hourly-b", "alarm_last-hot-a", "mine"}
	if err := o.view.Preload(ctx, keys); err != nil {
		t.Fatal(err)
	}
	if got, want := tell(), "hourly midStatCache 0/2/1 of -1, hourly lastAlarmCache 0/1/1 of -1, hourly stateCache 0/1/1 of 4"; got != want {
		t.Errorf("told %s, want %s", got, want)
	}
	o.view.Discard()
	if err := o.view.Preload(ctx, keys[:3]); err != nil {
		t.Fatal(err)
	}
	if got, want := tell(), "hourly midStatCache 2/0/0 of -1, hourly lastAlarmCache 1/0/0 of -1, hourly stateCache 0/0/0 of 4"; got != want {
		t.Errorf("told %s, want %s", got, want)
	}
	if got := tell(); got != "" {
		t.Errorf("told %s twice", got)
	}
}
