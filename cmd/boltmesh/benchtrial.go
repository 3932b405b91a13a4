package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/service"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// trial is one run of a scenario, with its reference.
type trial struct {
	scenario
	*benchFlags
	dir     string
	stores  *benchStores
	brokers *child
	others  []*child // services that are processes of their own
	mesh    *mesh
	meter   *meter
}

// try measures a scenario once, on brokers of its own, right after its reference.
func (f *benchFlags) try(ctx context.Context, s scenario) (r result, err error) {
	if s.half {
		most, err := f.try(ctx, scenario{name: "device-expr", topology: deviceSpout + exprBolts, preload: true})
		if err != nil {
			return r, fmt.Errorf("the maximum: %w", err)
		}
		if s.rate = int(most.TuplesPerS / 2); s.rate == 0 {
			return r, errors.New("the maximum: no root was completed while it was measured")
		}
		defer func() { r.Maximum = most.TuplesPerS }()
	}
	t := &trial{scenario: s, benchFlags: f, meter: &meter{}, mesh: &mesh{}}
	if t.dir, err = os.MkdirTemp("", "boltmesh-bench-"); err != nil {
		return r, err
	}
	defer os.RemoveAll(t.dir)
	if t.stores, err = f.openStores(ctx, t.dir, s.devices()); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, t.stores.close(context.WithoutCancel(ctx), t.mesh.plan)) }()
	if t.brokers, err = startBrokers(ctx, filepath.Join(t.dir, "brokers")); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, t.brokers.stop()) }()
	ref, err := t.reference(ctx)
	if err == nil && s.preload {
		err = s.from.produce(ctx, t.brokers.Kafka, t.most())
	}
	if err != nil {
		return r, err
	}
	if err = t.begin(ctx); err == nil {
		r, err = t.take(ctx)
	}
	r.Name = s.name
	r.relate(ref)
	return r, errors.Join(err, t.end())
}

// most is how many readings there are to be processed.
func (t *trial) most() int {
	if t.seen > 0 {
		return max(t.preloaded, t.seen+t.preloaded/2)
	}
	return t.preloaded
}

// end stops the services, the spout first.
func (t *trial) end() error {
	err := t.mesh.stop()
	for _, w := range t.others {
		err = errors.Join(err, w.stop())
	}
	t.others = nil
	return err
}

// measured is what the reference came to.
type measured struct {
	perSecond float64
	cpu       time.Duration // per message, of both processes
	p50       time.Duration // of the bare chain; 0 when it was not asked for
	flush     time.Duration // of the disk; 0 when it was not asked for
	stored    float64       // documents a second, into the store of the scenario; 0 when it was not asked for
}

func (t *trial) reference(ctx context.Context) (m measured, err error) {
	from, err := t.look("usage")
	if err != nil {
		return m, err
	}
	n, elapsed, err := reference(ctx, t.brokers.NATS, t.compared)
	if err != nil {
		return m, fmt.Errorf("reference: %w", err)
	}
	to, err := t.look("usage")
	if err != nil {
		return m, err
	}
	m.perSecond = float64(n) / elapsed.Seconds()
	m.cpu = (to.engine.CPU + to.brokers.CPU - from.engine.CPU - from.brokers.CPU) / time.Duration(n)
	if t.store {
		if m.stored, err = t.stores.bulk(ctx, t.from, t.warm, t.measure); err != nil {
			return m, fmt.Errorf("reference of the store: %w", err)
		}
	}
	if t.rate > 0 {
		if m.flush, err = disk(t.dir); err != nil {
			return m, fmt.Errorf("reference of the disk: %w", err)
		}
	}
	if t.rate > 0 && !t.half { // a bare chain may not keep up with half of the maximum
		h, err := bareChain(ctx, t.brokers.NATS, t.rate, t.warm, t.measure)
		if err != nil {
			return m, fmt.Errorf("bare chain: %w", err)
		}
		m.p50 = h.quantile(0.5)
	}
	return m, nil
}

// options are those of a mesh with a worker of each kind, unless they are apart: then only the spout is here.
func (t *trial) options() meshOptions {
	o := meshOptions{
		name: "bench", dir: t.dir, nats: t.brokers.NATS, brokers: t.brokers.Kafka, kinds: append(slices.Clone(kinds), benchService),
		workers: map[string]string{}, builds: map[string]service.Build{benchService: t.build}, sink: t.meter.sink, log: os.Stderr,
		keep: t.stores.keep(), store: t.stores.documents(), storing: t.meter.storing,
	}
	if t.traced {
		o.otlp, o.sample = t.brokers.Collector, t.sample
	}
	if t.apart {
		o.kinds = []string{topology.KindSpout}
	}
	for i := 1; i < t.workers; i++ {
		o.workers[fmt.Sprint("bench-more-", i)] = benchService
	}
	return o
}

// begin starts the mesh and applies the topology.
func (t *trial) begin(ctx context.Context) error {
	if err := t.beginWith(ctx, t.options()); err != nil || t.workers < 2 {
		return err
	}
	return t.divided(ctx, t.workers)
}

func (t *trial) beginWith(ctx context.Context, o meshOptions) error {
	t.mesh = &mesh{meshOptions: o}
	if t.generate {
		t.mesh.from = generator{devPartitions, cmp.Or(t.payload, referenceBytes)}
	}
	text := t.stores.named(t.topology)
	top, err := parseBench(text)
	if err != nil {
		return err
	}
	if err := t.mesh.open(top); err != nil {
		return err
	}
	debug.FreeOSMemory() // what the reference and the run before have left
	if t.apart {
		if err := t.startApart(ctx, text); err != nil {
			return err
		}
	}
	if err := t.mesh.start(ctx); err != nil {
		return err
	}
	return t.mesh.apply(ctx)
}

func (t *trial) build(_ context.Context, n service.Node) (bolt.Bolt, error) {
	switch n.ID {
	case "sink":
		return null{}, nil
	case "last":
		return copying{cmp.Or(t.copies, 1)}, nil
	}
	return pass{}, nil
}

// leastMeasured is how many readings have to be processed while they are measured, or it goes on, up to four times as long: they come by the thousand.
const leastMeasured = 4000

// slowest is how long a reading may take of those that have to pass before anything is measured.
const slowest = time.Millisecond

// take warms up and measures.
func (t *trial) take(ctx context.Context) (r result, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute+t.warm+4*t.measure+time.Duration(t.seen)*slowest, errors.New("nothing moves any more"))
	defer cancel()
	sent := func() (int64, error) { return 0, nil }
	switch {
	case t.idle:
	case t.rate > 0:
		alarms, deaf := listen(ctx, t.brokers.NATS, t.mesh.plan, time.Now().Add(t.warm))
		if deaf != nil {
			return r, deaf
		}
		at := &placing{}
		defer func() {
			ages, unheard := alarms.close()
			r.latencies(ages)
			if err = errors.Join(err, unheard); err == nil {
				err = t.sinceKafka(&r, at.at, alarms.out)
			}
		}()
		gather := usualLinger
		if t.rate <= 1000 {
			gather = 0 // what is due is sent
		}
		c, err := producer(t.brokers.Kafka, gather)
		if err != nil {
			return r, err
		}
		defer c.Close()
		sent = t.produce(ctx, c, at)
	default:
		if err := until(ctx, func() bool { return t.meter.done.Load() > 0 }); err != nil {
			return r, fmt.Errorf("wait for the first reading: %w", context.Cause(ctx))
		}
	}
	most := int64(1 << 62)
	if t.preload {
		most = int64(t.most())
	}
	begin := time.Now().Add(t.warm) // or when a fifth of what there is has gone: the rest is to be measured
	if err := until(ctx, func() bool {
		done := t.meter.done.Load()
		return done >= int64(t.seen) && (!time.Now().Before(begin) || done >= most/5)
	}); err != nil {
		return r, context.Cause(ctx)
	}
	if t.rate == 0 {
		t.meter.swap(&histogram{})
	}
	from, err := t.look("profile")
	if err != nil {
		return r, err
	}
	end := time.Now().Add(t.measure)
	latest := end.Add(3 * t.measure)
	if err := until(ctx, func() bool {
		done, now := t.meter.done.Load(), time.Now()
		enough := t.rate > 0 || t.idle || done-from.done >= leastMeasured || now.After(latest)
		return now.After(end) && enough || done >= most
	}); err != nil {
		return r, context.Cause(ctx)
	}
	to, err := t.look("profiled")
	if err != nil {
		return r, err
	}
	n, err := sent()
	if err != nil {
		return r, err
	}
	if err := until(ctx, func() bool { return t.meter.done.Load() >= n }); err != nil {
		return r, fmt.Errorf("wait for the last reading: %w", context.Cause(ctx))
	}
	if bad := t.meter.bad.Load() + to.othersBad(); bad > 0 {
		return r, fmt.Errorf("%d tuples were dead-lettered", bad)
	}
	r = to.since(from)
	if t.half {
		r.Offered = float64(t.rate)
	}
	r.Replayed = t.meter.replayed.Load()
	if t.rate == 0 {
		r.latencies(t.meter.swap(nil))
	}
	return r, nil
}

// sinceKafka says how old alarms were, counted from when their readings had come to Kafka.
func (t *trial) sinceKafka(r *result, at []placed, out map[alarm]time.Time) error {
	u, err := t.brokers.ask("arrivals")
	if err != nil {
		return err
	}
	h, err := sinceKafka(t.from, at, u.Arrivals, out)
	if err != nil {
		return err
	}
	r.KafkaP50, r.KafkaP99 = ms(h.quantile(0.5)), ms(h.quantile(0.99))
	return nil
}

// produce sends readings at the scenario's rate and notes where in Kafka they are.
func (t *trial) produce(ctx context.Context, c *kgo.Client, placed *placing) func() (int64, error) {
	i := 0
	stored := kgo.AbortingFirstErrPromise(c)
	sent := paced(ctx, t.rate, t.warm+t.measure, func(due []time.Time) error {
		for _, at := range due {
			c.Produce(ctx, t.from.at(i, at), placed.add(at, stored.Promise()))
			i++
		}
		return nil
	})
	return func() (int64, error) {
		n, err := sent()
		if err := errors.Join(err, stored.Err()); err != nil {
			return n, fmt.Errorf("produce readings: %w", err)
		}
		return n, nil
	}
}

// moment is what has been used and done until then.
type moment struct {
	at              time.Time
	engine, brokers usage
	others          map[string]usage // of services that are processes of their own, by kind
	stores          time.Duration    // CPU of servers outside
	mallocs         uint64
	done, stored    int64
}

// othersBad is the number of tuples that the others have dead-lettered.
func (to moment) othersBad() (n int64) {
	for _, u := range to.others {
		n += u.Bad
	}
	return n
}

// look takes stock; with "profile" or "profiled" it also begins or ends the profiles, if any are wanted.
func (t *trial) look(what string) (m moment, err error) {
	if t.profile == "" {
		what = "usage"
	}
	line := what
	if what == "profile" {
		line += " " + t.profile + ".brokers"
	}
	if m.brokers, err = t.brokers.ask(line); err != nil {
		return m, err
	}
	m.others = map[string]usage{}
	for _, w := range t.others {
		if m.others[w.kind], err = w.ask("usage"); err != nil {
			return m, err
		}
	}
	if m.stores, err = cpuOf(t.pids); err != nil {
		return m, err
	}
	if what == "profiled" {
		pprof.StopCPUProfile()
	}
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	m.at, m.engine, m.mallocs = time.Now(), processUsage(), mem.Mallocs
	m.done, m.stored = t.meter.done.Load(), t.meter.stored.Load()
	if what != "profile" {
		return m, nil
	}
	file, err := os.Create(t.profile)
	if err != nil {
		return m, err
	}
	return m, pprof.StartCPUProfile(file) // closed with the process
}
