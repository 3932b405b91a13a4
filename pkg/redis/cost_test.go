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
	"github.com/boltmesh/boltmesh/pkg/state/statetest"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
	"github.com/boltmesh/boltmesh/services/alarm/rule"
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

// costs measures what a task takes in Redis and in a worker's cache.
type costs struct {
	t       *testing.T
	client  *goredis.Client
	store   *redis.Store
	cache   *state.Cache
	batches int
}

func newCosts(t *testing.T) *costs {
	t.Helper()
	url := server(t, "--appendfsync", "no") // it is about memory
	o, err := goredis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	c := &costs{t: t, client: goredis.NewClient(o), cache: state.NewCache(state.CacheOptions{Entries: 8 * *devices})}
	t.Cleanup(func() { _ = c.client.Close() })
	if c.store, err = redis.Open(t.Context(), redis.Options{URL: url}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.store.Close() })
	return c
}

// measure has the bolts of some nodes handle one reading of each device, and a tick at the end if asked for. It returns the bytes that a device takes.
func (c *costs) measure(tick string, nodes ...node) (remote, local float64) {
	redisBefore, heapBefore := used(c.t, c.client), statetest.Heap()
	for _, n := range nodes {
		c.fill(n, tick)
	}
	of := float64(*devices)
	return float64(used(c.t, c.client)-redisBefore) / of, float64(statetest.Heap()-heapBefore) / of
}

// node is a bolt that is measured.
type node struct {
	id   string
	bolt bolt.Bolt
}

// statistic is a node of kind stat; every field but the aggregates of x is spec's.
func statistic(t *testing.T, spec topology.Bolt, functions ...string) node {
	t.Helper()
	spec.Kind = topology.KindStat
	for _, f := range functions {
		spec.Aggregates = append(spec.Aggregates, topology.Aggregate{Name: f, Func: f, Arg: &topology.Expr{Source: "x"}})
	}
	b, err := window.Make(spec, byDevice, nil)
	if err != nil {
		t.Fatal(err)
	}
	return node{spec.ID, b}
}

func byDevice(t *tuple.Tuple) (string, bool) { return t.Key, true }

func (c *costs) fill(n node, tick string) {
	c.t.Helper()
	task := state.Task{Topology: "machine-health", Node: n.id}
	epoch, err := c.store.Claim(c.t.Context(), task)
	if err != nil {
		c.t.Fatal(err)
	}
	in := &feeder{}
	l := bolttest.Loop(c.t, bolt.Options{
		Bolt: n.bolt, Inbox: in, Outbox: nowhere{}, Own: &bolt.Ownership{Store: c.store, Task: task, Epoch: epoch, View: c.cache.Open(c.store, task, epoch)},
	})
	push := func(f *tuple.Frame) {
		data, err := f.Append(nil)
		if err != nil {
			c.t.Fatal(err)
		}
		in.frames = append(in.frames, bolt.Delivery{Data: data})
	}
	step := func() {
		if _, err := l.Step(c.t.Context()); err != nil {
			c.t.Fatal(err)
		}
		c.batches++
	}
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
			push(&f)
		}
		step()
	}
	for n := range int64(2) { // the second says that the first is fully processed, so that nothing of it is kept
		if tick != "" {
			at := tuple.Position{Origin: 2, Offset: n}
			push(&tuple.Frame{Revision: 1, Source: "spout", Tuples: []tuple.Tuple{{
				ID: tuple.RootID(at), Offset: n, Stream: tuple.TickStream, Payload: []byte(tick), Root: tuple.Root{Origin: 2, First: n, Attempt: tuple.Attempt{Generation: 1}, Floor: n},
			}}})
			step()
		}
	}
}

// nowhere takes what is published.
type nowhere struct{}

func (nowhere) Publish(context.Context, []bolt.Outgoing) error { return nil }

// TestDeviceCosts says what a device takes with two statistics, in Redis and in a worker's cache.
func TestDeviceCosts(t *testing.T) {
	c := newCosts(t)
	began := time.Now()
	remote, local := c.measure("",
		statistic(t, topology.Bolt{ID: "hourly", Window: topology.Window{Kind: topology.WindowTumbling, Size: time.Hour}}, "count", "mean", "min", "max"),
		statistic(t, topology.Bolt{ID: "totals", Window: topology.Window{Kind: topology.WindowLifetime}}, "count", "mean", "min", "max", "stddev"))
	t.Logf("%d devices x 2 statistics: %.0f bytes a device in Redis, %.0f in the cache (%d entries); %v in %d batches", *devices, remote, local, c.cache.Stats().Entries, time.Since(began).Round(time.Millisecond), c.batches)
	if *devices >= 2000 && (remote > 2000 || local > 4000) {
		t.Errorf("more than 2000 bytes in Redis or 4000 in the cache")
	}
	runtime.KeepAlive(c)
}

// TestRowCosts says what a device takes by the rows of the table of caches.
func TestRowCosts(t *testing.T) {
	when := func(source string) *topology.Expr { return &topology.Expr{Source: source} }
	alarm := func(id string, spec topology.Bolt) node {
		spec.ID, spec.Kind, spec.RaiseAfter, spec.ClearAfter = id, topology.KindAlarm, 2, 1
		b, err := rule.New(spec, byDevice, nil)
		if err != nil {
			t.Fatal(err)
		}
		return node{id, b}
	}
	const four = "count mean min max"
	for _, row := range []struct {
		what string
		tick string
		node node
	}{
		{"an hour, four aggregates", "", statistic(t, topology.Bolt{ID: "hourly", Window: topology.Window{Kind: topology.WindowTumbling, Size: time.Hour}}, strings.Fields(four)...)},
		{"a lifetime, five aggregates", "", statistic(t, topology.Bolt{ID: "totals", Window: topology.Window{Kind: topology.WindowLifetime}}, strings.Fields(four+" stddev")...)},
		{"the time of the last output", `{"n":1,"time":1767225600000}`, statistic(t, topology.Bolt{ID: "interval", Every: time.Minute}, strings.Fields(four)...)},
		{"a group of a global statistic by the clock, four aggregates, output once", `{"n":1,"time":1767225600000}`, statistic(t, topology.Bolt{ID: "global", Every: time.Minute, Group: []string{"line"}}, strings.Fields(four)...)},
		{"a group in a task of a first stage, an hour, four aggregates", "", statistic(t, topology.Bolt{
			ID: "sites-part", Stage: topology.StageFirst, Group: []string{topology.GroupScript}, Window: topology.Window{Kind: topology.WindowTumbling, Size: time.Hour},
			Script: &topology.Script{File: "group.js", Text: `function group(t) { return t.x + "-" + t.device }`},
		}, strings.Fields(four)...)},
		{"an alarm that counts", "", alarm("counting", topology.Bolt{When: when("x > 0")})},
	} {
		c := newCosts(t)
		remote, local := c.measure(row.tick, row.node)
		t.Logf("%s: %.0f bytes a device in Redis, %.0f in the cache (%d entries of %d devices)", row.what, remote, local, c.cache.Stats().Entries, *devices)
		if *devices >= 2000 && (remote > 1000 || local > 2000) {
			t.Errorf("%s: more than 1000 bytes in Redis or 2000 in the cache", row.what)
		}
		runtime.KeepAlive(c)
	}
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
