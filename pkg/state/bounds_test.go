package state_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/state"
)

// text is a state value of some size.
type text []byte

func (t text) Append(b []byte) ([]byte, error) { return append(b, t...), nil }

func decodeText(b []byte) (state.Value, error) { return text(b), nil }

// TestBounds: a cache holds so many values, and so many bytes of them, and none that nobody has used for its time; what it drops is loaded again as it was stored.
func TestBounds(t *testing.T) {
	const values, size = 400, 1000
	key := func(i int) string { return fmt.Sprintf("cache-totals-%03d", i) }
	for _, c := range []struct {
		what  string
		most  int
		cache state.CacheOptions
	}{
		{"entries", 50, state.CacheOptions{Entries: 50}},
		{"bytes", 50, state.CacheOptions{Bytes: 50 * (size + 200)}},
		{"entries before bytes", 50, state.CacheOptions{Entries: 50, Bytes: 1 << 30}},
		{"bytes before entries", 50, state.CacheOptions{Entries: values, Bytes: 50 * (size + 200)}},
	} {
		o := newOwner(t, c.cache)
		for i := range values {
			o.view.Put(key(i), text(bytes.Repeat([]byte{byte(i)}, size)))
			o.commit()
			if i == c.most/3 && !o.view.Ample() {
				t.Errorf("%s: no ample room with %d values", c.what, i)
			}
		}
		check := func(i int) {
			v, err := o.view.Read(ctx, key(i), decodeText)
			if err != nil || len(v.(text)) != size || v.(text)[0] != byte(i) {
				t.Fatalf("%s: value %d is %v, %v", c.what, i, v, err)
			}
			o.view.Discard()
		}
		// otter evicts a moment later: use values until it has
		for end := time.Now().Add(10 * time.Second); o.cache.Stats().Entries > c.most*6/5 && time.Now().Before(end); {
			check(0)
		}
		if n := o.cache.Stats().Entries; n > c.most*6/5 || n < c.most/2 {
			t.Errorf("%s: %d entries, want about %d", c.what, n, c.most)
		}
		if o.view.Ample() {
			t.Errorf("%s: ample room when it is full", c.what)
		}
		o.store.loads = 0
		for i := range values {
			check(i)
		}
		if o.store.loads < values-c.most*6/5 {
			t.Errorf("%s: only %d of %d values had to be loaded, so that more were held", c.what, o.store.loads, values)
		}
	}
	o := newOwner(t, state.CacheOptions{TTL: time.Millisecond})
	for end := time.Now().Add(10 * time.Second); o.store.loads < 2; o.view.Discard() {
		if _, err := o.view.Read(ctx, key(0), decodeText); err != nil || time.Now().After(end) {
			t.Fatalf("a value never grew too old: %v", err)
		}
	}
}
