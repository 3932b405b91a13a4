package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/service"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// replicasTopology has one bolt, whose replicas share its work as the grouping says. What is under way is enough for all of them, and waits a few seconds.
const replicasTopology = `
topology: bench
spout: {id: generated, kafka: {brokers: none, topics: [readings]}, decode: json, max_pending: 3000, timeout: 10m}
bolts:
  - {id: work, kind: custom, service: bench, from: {node: generated, %s}}
`

// consumers are the two ways in which replicas share work.
var consumers = []struct{ name, from string }{
	{"competing", "grouping: shuffle"},
	{"partitioned", "grouping: fields, by: [device]"},
}

// Work of one tuple, and of how many a replica waits at once: sleeping is not exact, and is less so for short times.
const (
	workOfTuple = 400 * time.Microsecond
	workAtOnce  = 20 * time.Millisecond
)

// desk is where all loops of one replica do their work, one after the other, as on a processor of its own. The work is a wait, so that replicas do not
// have to share the processors of this machine. A wait that took too long is made up for by the next.
type desk struct {
	mu   sync.Mutex
	owed time.Duration
}

// Execute implements bolt.Bolt.
func (d *desk) Execute(ctx context.Context, _ *tuple.Tuple, _ *bolt.Collector) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.owed += workOfTuple; d.owed < workAtOnce {
		return nil
	}
	began := time.Now()
	select {
	case <-time.After(d.owed):
	case <-ctx.Done():
		return ctx.Err()
	}
	d.owed -= time.Since(began)
	return nil
}

// scaled is how fast a number of replicas were.
type scaled struct {
	Consumers  string  `json:"consumers"`
	Replicas   int     `json:"replicas"`
	TuplesPerS float64 `json:"tuples_per_s"`
	Ratio      float64 `json:"ratio"`   // to the first number of replicas
	Wanted     float64 `json:"wanted"`  // least ratio that is right; 0 of the first number, and of one that is no greater
	CPU        float64 `json:"cpus"`    // processors that services and brokers used together
	Most       float64 `json:"at_most"` // tuples/s that the waits allow
}

// scale measures each number of replicas, competing and partitioned. Once all is printed, errTooFew says that some were slower than wanted.
func (f *benchFlags) scale(ctx context.Context, output string, stdout, stderr io.Writer) error {
	if slices.Min(f.replicas) < 1 || slices.Max(f.replicas) > topology.DefaultTasks {
		return usageError{fmt.Errorf("--replicas: write numbers from 1 to %d, such as 1,2,4", topology.DefaultTasks)}
	}
	var all []scaled
	for _, c := range consumers {
		var first float64
		for _, n := range f.replicas {
			s, err := f.scaleTo(ctx, c.from, n)
			if err != nil {
				return fmt.Errorf("%s, %d replicas: %w", c.name, n, err)
			}
			if first == 0 {
				first = s.TuplesPerS
			}
			s.Consumers, s.Replicas, s.Ratio = c.name, n, s.TuplesPerS/first
			s.Wanted = wantedOf(float64(n) / float64(f.replicas[0]))
			s.Most = float64(n) * float64(time.Second/workOfTuple)
			fmt.Fprintf(stderr, "%s, %s: %.0f/s, %.2f times the first\n", c.name, plural(n, "replica"), s.TuplesPerS, s.Ratio)
			all = append(all, s)
		}
	}
	if output == "json" {
		if err := json.NewEncoder(stdout).Encode(all); err != nil {
			return err
		}
	} else if err := printScaled(stdout, all); err != nil {
		return err
	}
	return tooFew(all)
}

func printScaled(stdout io.Writer, all []scaled) error {
	t := tabwriter.NewWriter(stdout, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "consumers\treplicas\ttuples/s\tof\tratio\twanted\tCPUs\t")
	for _, s := range all {
		wanted := ""
		if s.Wanted > 0 {
			wanted = fmt.Sprintf("%.2f", s.Wanted)
		}
		fmt.Fprintf(t, "%s\t%d\t%.0f\t%.0f\t%.2f\t%s\t%.2f\t\n", s.Consumers, s.Replicas, s.TuplesPerS, s.Most, s.Ratio, wanted, s.CPU)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(stdout, "\na tuple's work is a wait of %v, one after the other in each replica; load %s\n", workOfTuple, load())
	return err
}

// wantedOf is the throughput wanted of so many times the replicas: a twentieth less with each doubling, so 1.9 of twice and 3.6 of four times as many.
func wantedOf(times float64) float64 {
	if times <= 1 {
		return 0
	}
	return times * (1 - 0.05*math.Log2(times))
}

// errTooFew tells that replicas have not added what is wanted of them.
var errTooFew = errors.New("replicas add less than is wanted")

// tooFew names the numbers of replicas that were slower than wanted.
func tooFew(all []scaled) error {
	var below []string
	for _, s := range all {
		if s.Ratio < s.Wanted {
			below = append(below, fmt.Sprintf("%s, %s: %.2f of %.2f", s.Consumers, plural(s.Replicas, "replica"), s.Ratio, s.Wanted))
		}
	}
	if len(below) > 0 {
		return fmt.Errorf("%w: %s", errTooFew, strings.Join(below, "; "))
	}
	return nil
}

// scaleTo runs replicas of one bolt as workers of their own, on brokers of their own.
func (f *benchFlags) scaleTo(ctx context.Context, from string, replicas int) (s scaled, err error) {
	t := &trial{scenario: scenario{topology: fmt.Sprintf(replicasTopology, from), generate: true}, benchFlags: f, meter: &meter{}, mesh: &mesh{}, stores: &benchStores{}}
	if t.dir, err = os.MkdirTemp("", "boltmesh-bench-"); err != nil {
		return s, err
	}
	defer os.RemoveAll(t.dir)
	if t.brokers, err = startBrokers(ctx, filepath.Join(t.dir, "brokers")); err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, t.brokers.stop()) }()
	o := t.options()
	o.kinds, o.records, o.fetch = []string{topology.KindSpout}, 100, 2
	for i := range replicas {
		name := fmt.Sprint("replica", i)
		d := &desk{}
		o.workers[name] = benchService
		o.builds[name] = func(context.Context, service.Node) (bolt.Bolt, error) { return d, nil }
	}
	if err = t.beginWith(ctx, o); err == nil {
		if err = t.divided(ctx, replicas); err == nil {
			var r result
			r, err = t.take(ctx)
			s.TuplesPerS, s.CPU = r.TuplesPerS, r.TuplesPerS*r.CPU/1e6
		}
	}
	return s, errors.Join(err, t.end())
}

// divided waits until all workers of the bench's own bolts have their shares of the tasks, where these have owners.
func (t *trial) divided(ctx context.Context, workers int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return until(ctx, func() bool {
		members, err := t.mesh.control.Members(ctx, t.mesh.plan.Topology.Name)
		ready := 0
		for _, m := range members {
			ours := slices.ContainsFunc(t.mesh.plan.Topology.Bolts, func(b topology.Bolt) bool { return b.ID == m.Node })
			if ours && (slices.Contains(m.Tasks, tuple.Shared) || len(m.Owned) >= topology.DefaultTasks/workers) {
				ready++
			}
		}
		return err == nil && ready == workers*len(t.mesh.plan.Topology.Bolts)
	})
}
