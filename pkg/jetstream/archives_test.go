package jetstream_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/archive"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
)

// TestArchiveChanges: word of a change reaches whoever watches; who was cut off is told to forget everything, once it is sure to hear again.
func TestArchiveChanges(t *testing.T) {
	at := serve(t)
	w := newWire(t, at)
	teller := dial(t, jetstream.Options{URL: at})
	listener := dial(t, jetstream.Options{URL: "nats://" + w.Addr().String()})
	heard := make(chan string, 10_000)
	stop, err := listener.WatchArchives(t.Context(), func(archive string, devices []string) {
		heard <- fmt.Sprintf("%s%d%v", archive, len(devices), devices[:min(len(devices), 2)])
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	next := func() string {
		select {
		case s := <-heard:
			return s
		case <-time.After(30 * time.Second):
			t.Fatal("nothing was heard")
			return ""
		}
	}
	tell := func(devices ...string) {
		if err := teller.ArchiveChanged(t.Context(), "machines", devices); err != nil {
			t.Fatal(err)
		}
	}
	tell("a", "b")
	if got := next(); got != "machines2[a b]" {
		t.Error(got)
	}
	tell(slices.Repeat([]string{"x"}, 2500)...)
	if got := next() + next() + next(); got != "machines1000[x x]machines1000[x x]machines500[x x]" {
		t.Error(got)
	}
	tell()
	if got := next(); got != "machines0[]" {
		t.Error(got)
	}
	w.cut()
	tell("lost, perhaps")
	for n := 0; n < 2; { // one before the server has the subscription, one after
		if next() == "0[]" {
			n++
		}
	}
	tell("c")
	for got := next(); got != "machines1[c]"; got = next() {
		if got != "machines1[lost, perhaps]" {
			t.Error("after the break:", got)
		}
	}
}

// TestEveryWorkerSeesAChange: within a second after a profile was changed all workers, each with a cache and a connection of its own, read it as it is now.
func TestEveryWorkerSeesAChange(t *testing.T) {
	at := serve(t)
	connect := func() *jetstream.Conn { return dial(t, jetstream.Options{URL: at}) }
	store := &archive.Memory{}
	set := func(site int) {
		p, err := archive.New("m1", fmt.Appendf(nil, `{"site":%d}`, site))
		if err == nil {
			err = store.Write(t.Context(), "machines", []archive.Profile{p})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	set(0)
	workers := make([]*archive.Reader, 8)
	for i := range workers {
		cache := archive.NewCache(store, archive.CacheOptions{})
		t.Cleanup(cache.Close)
		stop, err := connect().WatchArchives(t.Context(), cache.Changed)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(stop)
		workers[i] = &archive.Reader{Cache: cache, Archive: "machines"}
	}
	teller := connect()
	for site := 1; site <= 5; site++ {
		for _, w := range workers { // now it is in every cache
			if _, err := w.Of(t.Context(), "m1"); err != nil {
				t.Fatal(err)
			}
		}
		set(site)
		if p, err := workers[0].Of(t.Context(), "m1"); err != nil || p["site"] != float64(site-1) {
			t.Fatalf("read %v, %v before anything was told: there is no cache to refresh", p, err)
		}
		began := time.Now()
		if err := teller.ArchiveChanged(t.Context(), "machines", []string{"m1"}); err != nil {
			t.Fatal(err)
		}
		for i, w := range workers {
			for {
				p, err := w.Of(t.Context(), "m1")
				if err != nil {
					t.Fatal(err)
				}
				if p["site"] == float64(site) {
					break
				}
				if time.Since(began) > time.Second {
					t.Fatalf("worker %d reads %v a second after site became %d", i, p, site)
				}
				time.Sleep(time.Millisecond)
			}
		}
		t.Logf("seen by %d workers after %v", len(workers), time.Since(began))
	}
}
