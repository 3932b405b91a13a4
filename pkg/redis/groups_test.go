//go:build unix

package redis_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/state/statetest"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// TestTickOverManyGroups: a tick of a global statistic outputs all its groups, those that were silent too, a slice of them at a time, with a cache that holds
// 100,000 values. One task has them all; -devices says how many.
func TestTickOverManyGroups(t *testing.T) {
	c := newCosts(t)
	groups, heapBefore := *devices, statetest.Heap()
	c.cache = state.NewCache(state.CacheOptions{Entries: 100_000})
	n := statistic(t, topology.Bolt{ID: "by-line", Group: []string{"line"}, Every: time.Minute}, "count", "mean")
	task := state.Task{Topology: "machine-health", Node: n.id}
	epoch, err := c.store.Claim(t.Context(), task)
	if err != nil {
		t.Fatal(err)
	}
	in, out := &feeder{}, &counted{}
	l := bolttest.Loop(t, bolt.Options{
		Bolt: n.bolt, Inbox: in, Outbox: out, Own: &bolt.Ownership{Store: c.store, Task: task, Epoch: epoch, View: c.cache.Open(c.store, task, epoch)},
		Edges: []bolt.Edge{{To: "next", Stream: tuple.DefaultStream, Shared: true}},
	})
	step := func(tuples ...tuple.Tuple) {
		t.Helper()
		f := tuple.Frame{Revision: 1, Source: "clean", Tuples: tuples}
		data, err := f.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		in.frames = append(in.frames, bolt.Delivery{Data: data})
		if _, err := l.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for i := 0; i < groups; {
		var readings []tuple.Tuple
		for floor := int64(i); len(readings) < 250 && i < groups; i++ {
			readings = append(readings, tuple.Tuple{
				ID: tuple.RootID(tuple.Position{Origin: 1, Offset: int64(i)}), Offset: int64(i), Stream: tuple.DefaultStream, Key: fmt.Sprintf("line-%07d", i), Time: 5,
				Root: tuple.Root{Origin: 1, First: int64(i), Attempt: tuple.Attempt{Generation: 1}, Floor: floor}, Payload: fmt.Appendf(nil, `{"x":%d.5}`, i%90),
			})
		}
		step(readings...)
	}
	for k, what := range []string{"with a reading each", "all silent"} {
		*out = counted{}
		began, cpu, server := time.Now(), cpuTime(t), c.serverCPU()
		at := tuple.Position{Origin: 2, Offset: int64(k)}
		step(tuple.Tuple{
			ID: tuple.RootID(at), Offset: at.Offset, Stream: tuple.TickStream, Payload: fmt.Appendf(nil, `{"n":%d,"last":%d,"time":%d}`, k, k*60_000, (k+1)*60_000),
			Root: tuple.Root{Origin: 2, First: at.Offset, Attempt: tuple.Attempt{Generation: 1}, Floor: at.Offset},
		})
		of := time.Duration(groups)
		t.Logf("a tick over %d groups, %s: %v of CPU a group, and %v of Redis's; %v in all; at most %d outputs held at once, %d MiB of heap", groups, what,
			(cpuTime(t)-cpu)/of, (c.serverCPU()-server)/of, time.Since(began).Round(time.Millisecond), out.most, (statetest.Heap()-heapBefore)>>20)
		if out.tuples != groups || out.most > 2000 {
			t.Errorf("%s: %d outputs, want %d; %d were held at once: a slice has 1000", what, out.tuples, groups, out.most)
		}
	}
}

// counted counts what is published.
type counted struct{ tuples, most int }

func (c *counted) Publish(_ context.Context, frames []bolt.Outgoing) error {
	n := 0
	for _, o := range frames {
		var f tuple.Frame
		if err := f.Decode(o.Data); err != nil {
			return err
		}
		n += len(f.Tuples)
	}
	c.tuples += n
	c.most = max(c.most, n)
	return nil
}

func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		t.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// serverCPU is the CPU time that Redis has used.
func (c *costs) serverCPU() (used time.Duration) {
	c.t.Helper()
	info, err := c.client.Info(c.t.Context(), "cpu").Result()
	if err != nil {
		c.t.Fatal(err)
	}
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "used_cpu_user" || name == "used_cpu_sys" {
			s, err := strconv.ParseFloat(value, 64)
			if err != nil {
				c.t.Fatal(err)
			}
			used += time.Duration(s * float64(time.Second))
		}
	}
	return used
}
