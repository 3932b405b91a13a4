package redis_test

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/redis"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
	"github.com/boltmesh/boltmesh/services/stat/window"
)

var devices = flag.Int("devices", 2000, "how many devices TestDeviceCosts counts")

// feeder is an inbox that holds one frame.
type feeder struct{ frames []bolt.Delivery }

func (f *feeder) Fetch(context.Context, int) ([]bolt.Delivery, error) {
	out := f.frames
	f.frames = nil
	return out, nil
}
func (f *feeder) Ack(context.Context, []bolt.Delivery) error     { return nil }
func (f *feeder) Working(context.Context, []bolt.Delivery) error { return nil }

// TestDeviceCosts says what a device takes with two statistics, in Redis and in a worker's cache.
func TestDeviceCosts(t *testing.T) {
	url := server(t, "--appendfsync", "no") // it is about memory
	o, err := goredis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	client := goredis.NewClient(o)
	defer client.Close()
	store, err := redis.Open(t.Context(), redis.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	aggregates := func(of string, functions ...string) (out []topology.Aggregate) {
		for _, f := range functions {
			out = append(out, topology.Aggregate{Name: f, Func: f, Arg: &topology.Expr{Source: of}})
		}
		return out
	}
	specs := []topology.Bolt{
		{ID: "hourly", Kind: topology.KindStat, Window: topology.Window{Kind: topology.WindowTumbling, Size: time.Hour}, Aggregates: aggregates("x", "count", "mean", "min", "max")},
		{ID: "totals", Kind: topology.KindStat, Window: topology.Window{Kind: topology.WindowLifetime}, Aggregates: aggregates("x", "count", "mean", "min", "max", "stddev")},
	}
	cache := state.NewCache(state.CacheOptions{Entries: 4 * *devices})
	redisBefore, heapBefore := used(t, client), heap()
	began, cpu := time.Now(), 0
	for _, spec := range specs {
		b, err := window.New(spec, func(t *tuple.Tuple) (string, bool) { return t.Key, true }, nil)
		if err != nil {
			t.Fatal(err)
		}
		task := state.Task{Topology: "machine-health", Node: spec.ID}
		epoch, err := store.Claim(t.Context(), task)
		if err != nil {
			t.Fatal(err)
		}
		in := &feeder{}
		l := bolttest.Loop(t, bolt.Options{Bolt: b, Inbox: in, Own: &bolt.Ownership{Store: store, Task: task, Epoch: epoch, View: cache.Open(store, task, epoch)}})
		for i := int64(0); i <= int64(*devices); {
			from := i
			for k := 0; k < 8 && i <= int64(*devices); k++ {
				f := tuple.Frame{Revision: 1, Source: "clean"}
				for k := 0; k < 250 && i <= int64(*devices); k++ {
					r := tuple.Root{Origin: 1, First: i, Attempt: tuple.Attempt{Generation: 1}, Floor: from}
					f.Tuples = append(f.Tuples, tuple.Tuple{
						ID: tuple.RootID(tuple.Position{Origin: 1, Offset: i}), Root: r, Offset: i, Stream: tuple.DefaultStream,
						Key: fmt.Sprintf("device-%07d", i%int64(*devices)), Time: 1_767_225_600_000 + i, Payload: fmt.Appendf(nil, `{"x":%d.5}`, i%90),
					})
					i++
				}
				data, err := f.Append(nil)
				if err != nil {
					t.Fatal(err)
				}
				in.frames = append(in.frames, bolt.Delivery{Data: data})
			}
			if _, err := l.Step(t.Context()); err != nil {
				t.Fatal(err)
			}
			cpu++
		}
	}
	n := float64(*devices)
	local := float64(heap()-heapBefore) / n
	remote := float64(used(t, client)-redisBefore) / n
	t.Logf("%d devices x 2 statistics: %.0f bytes a device in Redis, %.0f in the cache (%d entries); %v in %d batches", *devices, remote, local, cache.Stats().Entries, time.Since(began).Round(time.Millisecond), cpu)
	if *devices >= 2000 && (remote > 2000 || local > 4000) {
		t.Errorf("more than 2000 bytes in Redis or 4000 in the cache")
	}
	runtime.KeepAlive(cache)
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// used is what Redis says its data take, without its own beginnings.
func used(t *testing.T, c *goredis.Client) int64 {
	t.Helper()
	info, err := c.Info(t.Context(), "memory").Result()
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(info, "used_memory_dataset:")
	line, _, _ := strings.Cut(rest, "\r\n")
	v, err := strconv.ParseInt(line, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
