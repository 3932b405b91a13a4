//go:build unix

package window

import (
	"context"
	"flag"
	"fmt"
	"math"
	"syscall"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

var many = flag.Int("groups", 20_000, "how many groups TestTickOverManyGroups has, a multiple of 250")

// TestTickOverManyGroups: a tick of a statistic by processing time outputs all its groups, those that were silent as well, and holds a slice of them at a time.
func TestTickOverManyGroups(t *testing.T) {
	groups := *many
	spec := stat(topology.Window{}, aggregate("n", "count", ""), aggregate("mean", "mean", "x"))
	spec.Kind, spec.Every, spec.Group = topology.KindStat, time.Minute, []string{"line"}
	h := bolttest.New(t, open(t, spec))
	sink := &counter{}
	h.Outbox(sink)
	began := cpuTime(t)
	for i := 0; i < groups; {
		var readings []tuple.Tuple
		for range 250 {
			readings = append(readings, at(fmt.Sprintf("line-%07d", i), 5, i))
			i++
		}
		h.Feed(readings...)
		h.Floor, h.Deltas = h.Floor+250, nil
	}
	t.Logf("%d groups: %v of CPU a reading", groups, (cpuTime(t)-began)/time.Duration(groups))
	for n, what := range []string{"with a reading each", "all silent"} {
		sink.tuples, sink.most = 0, 0
		began = cpuTime(t)
		h.Tick(bolt.Tick{Last: int64(n) * 60_000, Time: int64(n+1) * 60_000, Watermark: math.MinInt64})
		t.Logf("a tick over %d groups, %s: %v of CPU a group, at most %d outputs held at once", groups, what, (cpuTime(t)-began)/time.Duration(groups), sink.most)
		if sink.tuples != groups {
			t.Errorf("%s: %d outputs, want %d", what, sink.tuples, groups)
		}
		if sink.most > 2000 {
			t.Errorf("%s: %d outputs were held at once: a slice has 1000", what, sink.most)
		}
	}
}

func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		t.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// counter counts what is published.
type counter struct {
	tuples, most int
}

func (c *counter) Publish(_ context.Context, frames []bolt.Outgoing) error {
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
