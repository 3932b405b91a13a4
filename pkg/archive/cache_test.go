package archive_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/boltmesh/boltmesh/pkg/archive"
	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

var ctx = context.Background()

// source is a store whose reads are noted, and may be held up or fail.
type source struct {
	archive.Memory
	mu    sync.Mutex
	reads [][]string
	hold  chan struct{} // a read, once it has its answer, waits until it is closed
	err   error
}

func (s *source) Read(ctx context.Context, name string, devices []string) ([]*archive.Profile, error) {
	s.mu.Lock()
	s.reads = append(s.reads, slices.Clone(devices))
	hold, err := s.hold, s.err
	s.mu.Unlock()
	out, readErr := s.Memory.Read(ctx, name, devices)
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return out, errors.Join(err, readErr)
}

func (s *source) set(hold chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hold, s.err = hold, err
}

func (s *source) put(t *testing.T, device, fields string) {
	t.Helper()
	p, err := archive.New(device, []byte(fields))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Write(ctx, "m", []archive.Profile{p}); err != nil {
		t.Fatal(err)
	}
}

func cache(t *testing.T, s *source, o archive.CacheOptions) *archive.Cache {
	c := archive.NewCache(s, o)
	t.Cleanup(c.Close)
	return c
}

func load(t *testing.T, c *archive.Cache, devices ...string) string {
	t.Helper()
	got, err := c.Load(ctx, "m", devices)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, d := range devices {
		fields, ok := got[d]
		if !ok {
			t.Errorf("no answer for %s", d)
		}
		out = append(out, fmt.Sprint(d, fields))
	}
	return strings.Join(out, " ")
}

// TestOneRoundTrip: what a batch misses is loaded at once, unknown devices are remembered too, and a change is seen after its message.
func TestOneRoundTrip(t *testing.T) {
	s := &source{}
	s.put(t, "a", `{"n":1}`)
	s.put(t, "b", `{"n":2}`)
	c := cache(t, s, archive.CacheOptions{})
	if got := load(t, c, "a", "x", "b", "a"); got != "amap[n:1] xmap[] bmap[n:2] amap[n:1]" {
		t.Error(got)
	}
	load(t, c, "x", "a", "", "bad\x00")
	if got := fmt.Sprint(s.reads); got != "[[a x b]]" {
		t.Errorf("reads %s", got)
	}
	s.put(t, "x", `{"n":3}`)
	if got := load(t, c, "x"); got != "xmap[]" {
		t.Errorf("seen without a message: %s", got)
	}
	c.Changed("m", []string{"x"})
	if got := load(t, c, "x", "a"); got != "xmap[n:3] amap[n:1]" {
		t.Error(got)
	}
	c.Changed("", nil)
	load(t, c, "a", "b")
	if got := fmt.Sprint(s.reads); got != "[[a x b] [x] [a b]]" {
		t.Errorf("reads %s", got)
	}
	if got := c.Stats(); got.Hits != 4 || got.Misses != 6 || got.Loads != 3 {
		t.Errorf("%+v", got)
	}
}

// TestMissesCollapse: of many that ask for a device at once, one loads it.
func TestMissesCollapse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{hold: make(chan struct{})}
		s.put(t, "a", `{"n":1}`)
		c := archive.NewCache(s, archive.CacheOptions{})
		defer c.Close()
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				if got := load(t, c, "a", fmt.Sprint(i)); !strings.HasPrefix(got, "amap[n:1]") {
					t.Error(got)
				}
			})
		}
		synctest.Wait()
		close(s.hold)
		all.Wait()
		n := 0
		for _, r := range s.reads {
			if slices.Contains(r, "a") {
				n++
			}
		}
		if n != 1 {
			t.Errorf("a was read %d times", n)
		}
	})
}

// TestChangeDuringALoad: what was on its way when its change became known is not kept, nor given to anybody who asks afterwards.
func TestChangeDuringALoad(t *testing.T) {
	for _, devices := range [][]string{{"a"}, nil} {
		synctest.Test(t, func(t *testing.T) {
			hold := make(chan struct{})
			s := &source{hold: hold}
			s.put(t, "a", `{"n":1}`)
			c := archive.NewCache(s, archive.CacheOptions{})
			defer c.Close()
			var all sync.WaitGroup
			all.Go(func() { load(t, c, "a") })
			synctest.Wait()
			s.put(t, "a", `{"n":2}`)
			c.Changed("m", devices)
			s.set(nil, nil)
			if got := load(t, c, "a"); got != "amap[n:2]" {
				t.Errorf("after the change: %s", got)
			}
			close(hold)
			all.Wait()
			if got := load(t, c, "a"); got != "amap[n:2]" {
				t.Errorf("after the old load has landed: %s", got)
			}
		})
	}
}

// TestLoaderGivesUp: whoever waited for a load whose caller went away loads by itself; an outage is told to all, and remembered by none.
func TestLoaderGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{hold: make(chan struct{})}
		s.put(t, "a", `{"n":1}`)
		c := archive.NewCache(s, archive.CacheOptions{})
		defer c.Close()
		leaving, leave := context.WithCancel(ctx)
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := c.Load(leaving, "m", []string{"a"}); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		synctest.Wait()
		all.Go(func() {
			if got := load(t, c, "a"); got != "amap[n:1]" {
				t.Error(got)
			}
		})
		synctest.Wait()
		s.set(nil, nil)
		leave()
		all.Wait()
		c.Changed("m", []string{"a"})
		s.set(nil, errors.New("down"))
		if _, err := c.Load(ctx, "m", []string{"a"}); err == nil {
			t.Error("no error")
		}
		s.set(nil, nil)
		if got := load(t, c, "a"); got != "amap[n:1]" {
			t.Error(got)
		}
	})
}

func TestBounds(t *testing.T) {
	s := &source{}
	for i := range 400 {
		s.put(t, fmt.Sprint("d", i), `{"text":"`+strings.Repeat("x", 1000)+`"}`)
	}
	for what, o := range map[string]archive.CacheOptions{"entries": {Entries: 50}, "bytes": {Bytes: 200_000}} {
		c := cache(t, s, o)
		for i := range 400 {
			load(t, c, fmt.Sprint("d", i))
		}
		// otter evicts a moment later: ask until it has
		for end := time.Now().Add(10 * time.Second); c.Stats().Entries > 60 && time.Now().Before(end); {
			load(t, c, "d0")
		}
		if n := c.Stats().Entries; n > 60 {
			t.Errorf("%s: %d entries", what, n)
		}
	}
	c := cache(t, s, archive.CacheOptions{TTL: time.Millisecond})
	load(t, c, "d0")
	for end := time.Now().Add(10 * time.Second); c.Stats().Loads < 2; load(t, c, "d0") {
		if time.Now().After(end) {
			t.Fatal("a value never grew too old")
		}
	}
}

func batch(keys ...string) func(func(*tuple.Tuple) bool) {
	return func(yield func(*tuple.Tuple) bool) {
		for _, k := range keys {
			if !yield(&tuple.Tuple{Key: k}) {
				return
			}
		}
	}
}

func TestReader(t *testing.T) {
	s := &source{}
	s.put(t, "a", `{"n":1}`)
	r := &archive.Reader{Cache: cache(t, s, archive.CacheOptions{}), Archive: "m", Reject: true}
	if err := r.Prepare(ctx, batch("a", "a", "b", "", "a")); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Of(ctx, "a"); err != nil || fmt.Sprint(got) != "map[n:1]" {
		t.Error(got, err)
	}
	if _, err := r.Of(ctx, "b"); !bolt.IsReject(err) || !strings.Contains(err.Error(), `"b" is not in the archive m`) {
		t.Error(err)
	}
	if got, err := r.Of(ctx, ""); got != nil || err != nil {
		t.Error("a tuple of no device:", got, err)
	}
	r.Reject = false
	if got, err := r.Of(ctx, "b"); got != nil || err != nil {
		t.Error(got, err)
	}
	if fmt.Sprint(s.reads) != "[[a b]]" {
		t.Errorf("reads %v", s.reads)
	}
	s.put(t, "a", `{"n":2}`) // amid the batch
	r.Cache.Changed("m", []string{"a"})
	if got, err := r.Of(ctx, "a"); err != nil || fmt.Sprint(got) != "map[n:2]" {
		t.Error("after a change:", got, err)
	}
	s.set(nil, errors.New("down"))
	r.Cache.Changed("", nil)
	if err := r.Prepare(ctx, batch("a")); !bolt.IsUnavailable(err) {
		t.Error(err)
	}
	if _, err := r.Of(ctx, "a"); !bolt.IsUnavailable(err) {
		t.Error(err)
	}
	var none *archive.Reader
	if got, err := none.Of(ctx, "a"); got != nil || err != nil || none.Prepare(ctx, batch("a")) != nil {
		t.Error("a nil reader:", got, err)
	}
}

// BenchmarkCached is what a batch of 256 readings of 256 devices pays when all are cached.
func BenchmarkCached(b *testing.B) {
	s := &source{}
	keys := make([]string, 256)
	for i := range keys {
		keys[i] = fmt.Sprint("device-", i)
		p, _ := archive.New(keys[i], []byte(`{"site":"north","model":"x","limit":80,"gain":1.02}`))
		if err := s.Write(ctx, "m", []archive.Profile{p}); err != nil {
			b.Fatal(err)
		}
	}
	r := &archive.Reader{Cache: archive.NewCache(s, archive.CacheOptions{}), Archive: "m"}
	defer r.Cache.Close()
	for b.Loop() {
		if err := r.Prepare(ctx, batch(keys...)); err != nil {
			b.Fatal(err)
		}
		for _, k := range keys {
			if _, err := r.Of(ctx, k); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*256), "ns/reading")
}
