package main

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/tests/integration/mesh"
	"github.com/boltmesh/boltmesh/tests/servers"
)

//go:embed topology.yaml
var source []byte

// options of one run; all are required.
type settings struct {
	bin      string // where mesh.Build has put the programs
	dir      string // for data and logs; must not exist
	seed     uint64
	readings int
	devices  int
	replicas int
	rate     int           // readings fed per second
	every    time.Duration // mean time between two faults
	patience time.Duration // after the last fault
}

// report is what came out of a run.
type report struct {
	options  settings
	faults   map[string]int
	fed      time.Duration // how long the feed took
	settled  time.Duration // from the last fault until everything was processed
	whole    time.Duration
	replays  int
	starts   int      // again because of a missing server
	problems []string // none: everything was right
	history  []string
	tails    string // of the logs; when there are problems
}

// run starts servers and services, feeds, breaks, waits and compares. The error says what kept it from finding out.
func run(ctx context.Context, o settings, log io.Writer) (*report, error) {
	began := time.Now()
	if err := os.Mkdir(o.dir, 0o755); err != nil {
		return nil, err
	}
	replicas := map[string]int{}
	for _, kind := range mesh.Kinds {
		replicas[kind] = o.replicas
	}
	m, err := mesh.Start(ctx, mesh.Options{Bin: o.bin, Dir: o.dir, Replicas: replicas})
	if err != nil {
		return nil, err
	}
	defer m.Close()
	w := &world{settings: o, Mesh: m, fed: generate(o.seed, o.readings, o.devices), log: log}
	if err := w.prepare(ctx); err != nil {
		return nil, err
	}
	r := &report{options: o}
	w.wreck(ctx, r)
	if err := w.judge(ctx, r); err != nil {
		r.problems = append(r.problems, err.Error())
	}
	r.whole = time.Since(began)
	if len(r.problems) > 0 {
		tails := &strings.Builder{}
		m.Tails(tails, 15)
		r.tails = tails.String()
	}
	return r, nil
}

// world is one run under way.
type world struct {
	settings
	*mesh.Mesh
	top  *topology.Topology
	file string
	fed  []reading
	log  io.Writer

	replays replays
}

func (w *world) say(format string, args ...any) {
	fmt.Fprintf(w.log, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

func (w *world) prepare(ctx context.Context) error {
	w.file = filepath.Join(w.dir, "readings.jsonl")
	data, err := lines(w.fed)
	if err == nil {
		err = os.WriteFile(w.file, data, 0o600)
	}
	applied := filepath.Join(w.dir, "topology.yaml")
	if err == nil {
		err = os.WriteFile(applied, source, 0o600)
	}
	if err != nil {
		return err
	}
	if err = w.archive(ctx, false); err != nil {
		return err
	}
	w.top, err = w.Apply(ctx, applied)
	return err
}

// wreck feeds the readings and injects faults until all of them have been emitted.
func (w *world) wreck(ctx context.Context, r *report) {
	began := time.Now()
	faulty, calm := context.WithCancel(ctx)
	defer calm()
	in := newInjector(w.Mesh)
	var running sync.WaitGroup
	running.Go(func() { in.run(faulty, ctx, newPlanner(w.seed, w.every, w.replicas)) })
	running.Go(func() { w.replays.watch(faulty, w.Services["spout"]) })
	var moved, changed error
	running.Go(func() { moved = w.move(faulty, ctx) })
	running.Go(func() { changed = w.change(faulty, ctx) })
	if err := w.feed(ctx); err != nil {
		r.problems = append(r.problems, err.Error())
	}
	r.fed = time.Since(began)
	w.say("fed after %v", r.fed.Round(time.Second))
	most, cancel := context.WithTimeout(ctx, r.fed/2) // faults may come faster than anything can get done
	defer cancel()
	if err := mesh.Until(most, w.processed(0.97)); err != nil {
		w.say("the faults end before all is emitted: %v", err)
	}
	calm()
	running.Wait()
	for _, err := range []error{moved, changed} {
		if err != nil {
			r.problems = append(r.problems, err.Error())
		}
	}
	r.faults, r.history, r.replays = in.counts(), in.said, w.replays.sum()
	for _, line := range in.said {
		if strings.Contains(line, " again ") {
			r.starts++
		}
	}
	r.problems = append(r.problems, in.bad...)
	w.say("%d faults are over after %v", len(in.done), time.Since(began).Round(time.Second))
}

// feed sends what is not in the topic yet, again after errors: a row enters once, however often it is fed.
func (w *world) feed(ctx context.Context) error {
	for tries := 0; ; tries++ {
		_, err := w.Feed(ctx, w.top, w.rate, w.file)
		if err == nil || ctx.Err() != nil || tries == 100 {
			return err
		}
		said := strings.Split(strings.TrimSpace(err.Error()), "\n")
		w.say("feed again: %s", said[len(said)-1])
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

// processed asks whether a share of all readings is below the floors.
func (w *world) processed(share float64) func(context.Context) error {
	return func(ctx context.Context) error {
		p, err := w.Control.Progress(ctx, w.top.Name)
		if err != nil {
			return err
		}
		floors := map[int]int64{}
		for _, mark := range p.Partitions {
			floors[mark.Partition] = max(floors[mark.Partition], mark.Floor)
		}
		sum := int64(0)
		for _, f := range floors {
			sum += f
		}
		if float64(sum) < share*float64(w.readings) {
			return fmt.Errorf("%d of %d readings are processed", sum, w.readings)
		}
		return nil
	}
}

// judge waits until everything is processed and compares it with what the readings alone say.
func (w *world) judge(ctx context.Context, r *report) error {
	began := time.Now()
	wait, cancel := context.WithTimeout(ctx, w.patience)
	defer cancel()
	if err := w.Settle(wait, w.top); err != nil {
		return fmt.Errorf("not everything was processed: %w", err)
	}
	r.settled = time.Since(began)
	w.say("settled after %v", r.settled.Round(time.Second))
	for _, name := range w.Dead() {
		r.problems = append(r.problems, name+" has ended by itself")
	}
	letters, err := w.Control.Letters(ctx, w.top.Name, control.LetterFilter{})
	if err != nil {
		return err
	}
	for _, l := range letters {
		r.problems = append(r.problems, fmt.Sprintf("dead letter of %s: %s: %s", l.Node, l.Error, l.Payload))
	}
	s, err := load(ctx, w.Mongo.URL)
	if err != nil {
		return err
	}
	w.say("stored: %d readings, %d totals, %d intervals, %d alarms, %d episodes", len(s.readings), len(s.totals), len(s.intervals), len(s.alarms), len(s.episodes))
	w.say("stored: %d windows, %d of sites, %d intervals of sites, %d late readings", len(s.windows), len(s.sites), len(s.siteParts), len(s.late))
	at := byDevice(s.siteParts, func(i interval) string { return i.Device })
	w.say("stored: %d intervals of devices after they moved, %d of those before", len(at[elsewhere]), len(at[origin(elsewhere)]))
	r.problems = append(r.problems, check(w.fed, s)...)
	return nil
}

// replays adds up the roots that the spouts emitted again, over all their lives; what one counted in the second before it was killed is missed.
type replays struct {
	mu sync.Mutex
	of map[int]int // by process id
}

func (r *replays) watch(ctx context.Context, spouts []*servers.Process) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		for _, p := range spouts {
			one, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
			pid := p.PID()
			n, err := mesh.Metric(one, p, "boltmesh_replayed_total")
			cancel()
			if err == nil {
				r.mu.Lock()
				if r.of == nil {
					r.of = map[int]int{}
				}
				r.of[pid] = int(n)
				r.mu.Unlock()
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (r *replays) sum() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range r.of {
		n += one
	}
	return n
}

// String is one line for the eye.
func (r *report) String() string {
	var kinds []string
	whole := 0
	for what, n := range r.faults {
		whole += n
		kinds = append(kinds, fmt.Sprintf("%d %s", n, what))
	}
	slices.Sort(kinds)
	verdict := "right"
	if len(r.problems) > 0 {
		verdict = fmt.Sprintf("WRONG (%d differences)", len(r.problems))
	}
	return fmt.Sprintf("seed %d: %s; %d faults (%s); fed in %v, settled %v after the last fault, %v in all; %d replays, %d starts in vain",
		r.options.seed, verdict, whole, strings.Join(kinds, ", "), r.fed.Round(time.Second), r.settled.Round(100*time.Millisecond), r.whole.Round(time.Second), r.replays, r.starts)
}

// explain tells everything about a run that went wrong.
func (r *report) explain(to io.Writer) {
	o := r.options
	fmt.Fprintf(to, "again: make chaos RUNS=1 SEED=%d CHAOSFLAGS=%q\nlogs: %s\n", o.seed,
		fmt.Sprintf("-readings %d -devices %d -replicas %d -rate %d -every %v", o.readings, o.devices, o.replicas, o.rate, o.every), o.dir)
	fmt.Fprintf(to, "faults:\n  %s\n", strings.Join(r.history, "\n  "))
	fmt.Fprintf(to, "differences:\n")
	for i, p := range r.problems {
		if i == 50 {
			fmt.Fprintf(to, "  and %d more\n", len(r.problems)-i)
			break
		}
		fmt.Fprintf(to, "  %.600s\n", p)
	}
	fmt.Fprintf(to, "%s\n", r.tails)
}
