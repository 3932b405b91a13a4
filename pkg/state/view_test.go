package state_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/boltmesh/boltmesh/pkg/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var ctx = context.Background()

// counter is a small state value: a number, and whether anything was stored.
type counter struct{ n uint64 }

func (c *counter) Append(b []byte) ([]byte, error) { return binary.AppendUvarint(b, c.n), nil }

func decodeCounter(b []byte) (state.Value, error) {
	if b == nil {
		return &counter{}, nil
	}
	n, size := binary.Uvarint(b)
	if size != len(b) {
		return nil, errors.New("not a counter")
	}
	return &counter{n}, nil
}

// counting is a store that counts its round trips.
type counting struct {
	state.Store
	loads, keys int
	fail        error
}

func (c *counting) Load(ctx context.Context, t state.Task, keys []string) ([][]byte, error) {
	c.loads, c.keys = c.loads+1, c.keys+len(keys)
	if c.fail != nil {
		return nil, c.fail
	}
	return c.Store.Load(ctx, t, keys)
}

// owner is a task with all that an owner has.
type owner struct {
	t     testing.TB
	store *counting
	task  state.Task
	epoch uint64
	cache *state.Cache
	view  *state.View
}

func newOwner(t testing.TB, o state.CacheOptions) *owner {
	w := &owner{t: t, store: &counting{Store: state.NewMemory()}, task: state.Task{Topology: "t", Node: "n"}, cache: state.NewCache(o)}
	t.Cleanup(w.cache.Close)
	w.claim()
	return w
}

func (o *owner) claim() {
	var err error
	if o.epoch, err = o.store.Claim(ctx, o.task); err != nil {
		o.t.Fatal(err)
	}
	o.view = o.cache.Open(o.store, o.task, o.epoch)
}

func (o *owner) commit() {
	o.t.Helper()
	var b state.Batch
	if err := o.view.Fill(&b); err != nil {
		o.t.Fatal(err)
	}
	if err := o.store.Commit(ctx, o.task, o.epoch, &b); err != nil {
		o.t.Fatal(err)
	}
	o.view.Committed()
}

func (o *owner) read(key string) uint64 {
	o.t.Helper()
	v, err := o.view.Read(ctx, key, decodeCounter)
	if err != nil {
		o.t.Fatal(err)
	}
	return v.(*counter).n
}

func (o *owner) edit(key string) *counter {
	o.t.Helper()
	v, err := o.view.Edit(ctx, key, decodeCounter)
	if err != nil {
		o.t.Fatal(err)
	}
	return v.(*counter)
}

func caches() map[string]state.CacheOptions {
	return map[string]state.CacheOptions{
		"otter": {}, "plain": {Plain: true}, "tiny plain": {Plain: true, Entries: 2}, "tiny otter": {Entries: 2},
		"bytes": {Bytes: 1 << 20, TTL: time.Hour},
	}
}

func TestEditsAreSeenByTheBatchAndStoredByItsCommit(t *testing.T) {
	for name, options := range caches() {
		t.Run(name, func(t *testing.T) {
			o := newOwner(t, options)
			for range 3 {
				for _, key := range []string{"a", "b", "c", "d"} {
					o.edit(key).n++
					before := o.read(key)
					o.edit(key).n++
					if got := o.read(key); got != before+1 {
						t.Fatalf("%s is %d after one more edit of %d", key, got, before)
					}
				}
				o.commit()
			}
			for _, key := range []string{"a", "b", "c", "d"} {
				if got := o.read(key); got != 6 {
					t.Errorf("%s = %d, want 6", key, got)
				}
			}
		})
	}
}

// TestEmptyIsNotAbsent stores a value that is encoded as nothing, which is not the value that a key has before anything is stored.
func TestEmptyIsNotAbsent(t *testing.T) {
	o := newOwner(t, state.CacheOptions{})
	decode := func(b []byte) (state.Value, error) {
		if b == nil {
			return text("new"), nil
		}
		return text(b), nil
	}
	o.view.Put("a", text(nil))
	o.commit()
	v, err := o.view.Read(ctx, "a", decode)
	if err != nil || len(v.(text)) != 0 {
		t.Errorf("read %q, %v", v, err)
	}
}

// TestIdleValuesAreBytes checks what a cached value takes when no batch works on it: its bytes, not what it is decoded to.
func TestIdleValuesAreBytes(t *testing.T) {
	const values = 20_000
	o := newOwner(t, state.CacheOptions{Entries: values})
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	for i := range values {
		v, err := o.view.Edit(ctx, fmt.Sprint("device-", i), func([]byte) (state.Value, error) { return &wide{}, nil })
		if err != nil {
			t.Fatal(err)
		}
		v.(*wide).n = 7
		if i%100 == 99 {
			var b state.Batch
			if err := o.view.Fill(&b); err != nil {
				t.Fatal(err)
			}
			o.view.Committed() // no store: it would take memory too
		}
	}
	if each := (heap() - before) / values; each > 512 {
		t.Errorf("a value of a byte, decoded 4 KB, takes %d bytes", each)
	}
	if n := o.cache.Stats().Entries; n < values/2 {
		t.Errorf("%d values are cached", n)
	}
}

// wide is a state value that is decoded to much more than its bytes.
type wide struct {
	n byte
	_ [4096]byte
}

func (w *wide) Append(b []byte) ([]byte, error) { return append(b, w.n), nil }

func TestDiscardAndForgetDropEdits(t *testing.T) {
	o := newOwner(t, state.CacheOptions{})
	o.edit("a").n = 1
	o.commit()
	o.edit("a").n = 2
	o.view.Put("b", &counter{5})
	o.view.Delete("c")
	o.view.Discard()
	if a, b := o.read("a"), o.read("b"); a != 1 || b != 0 {
		t.Errorf("after Discard a = %d, b = %d, want 1, 0", a, b)
	}
	o.edit("a").n = 3
	loads := o.store.loads
	o.view.Forget()
	if a := o.read("a"); a != 1 || o.store.loads != loads+1 {
		t.Errorf("after Forget a = %d with %d loads, want 1 with 1", a, o.store.loads-loads)
	}
}

func TestPreloadIsOneRoundTripForWhatIsNotCached(t *testing.T) {
	o := newOwner(t, state.CacheOptions{})
	o.edit("a").n = 1
	o.commit()
	o.store.loads, o.store.keys = 0, 0
	if err := o.view.Preload(ctx, []string{"a", "b", "c", "b", "c"}); err != nil {
		t.Fatal(err)
	}
	o.read("a")
	o.read("b")
	o.edit("c")
	o.view.Discard()
	o.read("b") // absence is cached as well
	if o.store.loads != 1 || o.store.keys != 2 {
		t.Errorf("%d loads of %d keys, want 1 of 2", o.store.loads, o.store.keys)
	}
	if s := o.cache.Stats(); s.Misses != 3 || s.Hits == 0 || s.Entries != 3 {
		t.Errorf("stats %+v, want 3 misses, some hits, 3 entries", s)
	}
}

func TestPreloadOutlivesEviction(t *testing.T) {
	o := newOwner(t, state.CacheOptions{Plain: true, Entries: 1})
	if err := o.view.Preload(ctx, []string{"a", "b", "c"}); err != nil {
		t.Fatal(err)
	}
	o.read("a")
	o.read("b")
	o.read("c")
	if o.store.loads != 1 {
		t.Errorf("%d loads, want 1: a batch keeps what it has loaded", o.store.loads)
	}
}

func TestFailedLoadCanBeTriedAgain(t *testing.T) {
	o := newOwner(t, state.CacheOptions{})
	o.store.fail = errors.New("down")
	if err := o.view.Preload(ctx, []string{"a"}); !errors.Is(err, o.store.fail) {
		t.Fatalf("Preload: %v, want the store's error", err)
	}
	if _, err := o.view.Read(ctx, "a", decodeCounter); !errors.Is(err, o.store.fail) {
		t.Fatalf("Read: %v, want the store's error", err)
	}
	o.store.fail = nil
	if err := o.view.Preload(ctx, []string{"a"}); err != nil {
		t.Fatal(err)
	}
	if got := o.read("a"); got != 0 {
		t.Errorf("a = %d, want 0", got)
	}
}

func TestAnotherEpochSeesNothingCached(t *testing.T) {
	o := newOwner(t, state.CacheOptions{})
	o.edit("a").n = 1
	o.commit()
	other := &owner{t: t, store: o.store, task: o.task, cache: state.NewCache(state.CacheOptions{})}
	t.Cleanup(other.cache.Close)
	other.claim()
	other.edit("a").n = 2
	other.commit()
	o.claim() // comes back on the worker whose cache still holds the old value
	if got := o.read("a"); got != 2 {
		t.Errorf("a = %d in the new epoch, want 2", got)
	}
}

func TestUndecodableValueIsAnError(t *testing.T) {
	o := newOwner(t, state.CacheOptions{})
	b := state.Batch{Set: []state.Entry{{Key: "a", Value: []byte{0x80}}}}
	if err := o.store.Commit(ctx, o.task, o.epoch, &b); err != nil {
		t.Fatal(err)
	}
	if _, err := o.view.Edit(ctx, "a", decodeCounter); err == nil {
		t.Error("Edit decoded what is no counter")
	}
}

// TestViewIsTheStoreWithEditsApplied compares a view over a tiny cache with a map, over random operations.
func TestViewIsTheStoreWithEditsApplied(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		entries := rapid.IntRange(1, 4).Draw(r, "entries")
		o := newOwner(t, state.CacheOptions{Plain: true, Entries: entries})
		committed, batch := map[string]uint64{}, map[string]uint64{}
		reset := func() {
			clear(batch)
			for k, n := range committed {
				batch[k] = n
			}
		}
		key := rapid.SampledFrom([]string{"a", "b", "c", "d", "e"})
		r.Repeat(map[string]func(*rapid.T){
			"read": func(r *rapid.T) {
				k := key.Draw(r, "key")
				if got := o.read(k); got != batch[k] {
					r.Fatalf("%s = %d, want %d", k, got, batch[k])
				}
			},
			"edit":   func(r *rapid.T) { k := key.Draw(r, "key"); o.edit(k).n++; batch[k]++ },
			"put":    func(r *rapid.T) { k := key.Draw(r, "key"); o.view.Put(k, &counter{7}); batch[k] = 7 },
			"delete": func(r *rapid.T) { k := key.Draw(r, "key"); o.view.Delete(k); delete(batch, k) },
			"preload": func(r *rapid.T) {
				if err := o.view.Preload(ctx, rapid.SliceOfN(key, 0, 5).Draw(r, "keys")); err != nil {
					r.Fatal(err)
				}
			},
			"commit": func(r *rapid.T) {
				o.commit()
				clear(committed)
				for k, n := range batch {
					committed[k] = n
				}
				got := map[string]uint64{}
				for _, e := range o.store.Store.(*state.Memory).Values(o.task) {
					got[e.Key], _ = binary.Uvarint(e.Value)
				}
				if d := cmp.Diff(committed, got); d != "" {
					r.Fatalf("stored (-want +got):\n%s", d)
				}
			},
			"discard": func(*rapid.T) { o.view.Discard(); reset() },
			"forget":  func(*rapid.T) { o.view.Forget(); reset() },
		})
	})
}

// discarding is a store whose commits cost nothing, so that a benchmark measures the view alone.
type discarding struct{ state.Store }

func (discarding) Load(_ context.Context, _ state.Task, keys []string) ([][]byte, error) {
	return make([][]byte, len(keys)), nil
}

// BenchmarkBatch is the view's part of one batch, per key: Edit, Fill, Committed.
func BenchmarkBatch(b *testing.B) {
	for name, options := range map[string]state.CacheOptions{"otter": {}, "bytes": {Bytes: 1 << 30}, "plain": {Plain: true}} {
		b.Run(name, func(b *testing.B) {
			const batch = 1000
			cache := state.NewCache(options)
			defer cache.Close()
			view := cache.Open(discarding{}, state.Task{}, 1)
			keys := make([]string, 20*batch)
			for i := range keys {
				keys[i] = fmt.Sprintf("cache-hourly-device-%06d", i)
			}
			var out state.Batch
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				v, err := view.Edit(ctx, keys[i%len(keys)], decodeCounter)
				if err != nil {
					b.Fatal(err)
				}
				v.(*counter).n++
				if i%batch == batch-1 {
					out.Set = out.Set[:0]
					if err := view.Fill(&out); err != nil {
						b.Fatal(err)
					}
					view.Committed()
				}
			}
		})
	}
}

func TestLoadFailureIsAnOutage(t *testing.T) {
	o := newOwner(t, state.CacheOptions{})
	o.store.fail = errors.New("connection refused")
	_, err := o.view.Read(ctx, "a", decodeCounter)
	if !errors.Is(err, state.ErrUnavailable) || !errors.Is(err, o.store.fail) {
		t.Errorf("read: %v", err)
	}
	if _, err := o.view.Edit(ctx, "a", decodeCounter); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("edit: %v", err)
	}
	if err := o.view.Preload(ctx, []string{"a"}); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("preload: %v", err)
	}
}
