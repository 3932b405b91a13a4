package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/boltmesh/boltmesh/tests/integration/mesh"
	"github.com/boltmesh/boltmesh/tests/servers"
)

// Words for what is done to a process.
const (
	kill  = "kill -9" // and start again after a while
	leave = "stop"    // by SIGTERM: it drains; started again after a while
	pause = "pause"   // SIGSTOP, and SIGCONT after a while: a zombie, when that was longer than its lease
	join  = "join"    // one replica more than there are: it takes its share of the tasks, and leaves by SIGTERM after a while
)

// fault is one entry of the plan.
type fault struct {
	at     time.Duration // since the faults began
	what   string
	target string        // a process, or "all of <kind>"
	length time.Duration // until it is started or resumed
}

func (f fault) String() string {
	return fmt.Sprintf("%7.2fs %-7s %-14s for %5.2fs", f.at.Seconds(), f.what, f.target, f.length.Seconds())
}

// planner draws faults from a seed: the same seed gives the same plan, however the run goes.
type planner struct {
	random   *rand.Rand
	mean     time.Duration // between two faults
	replicas int
	at       time.Duration
	until    map[string]time.Duration // when a target is whole again
}

func newPlanner(seed uint64, mean time.Duration, replicas int) *planner {
	return &planner{rand.New(rand.NewPCG(seed, 2)), mean, replicas, 0, map[string]time.Duration{}}
}

// kinds of faults and how often they are drawn. Spouts are drawn once more: each time one leaves or comes, Kafka rebalances.
var kinds = []struct {
	weight        int
	what, who     string
	least, longer time.Duration // length: from least to least + longer
}{
	{30, kill, "service", 0, 6 * time.Second},
	{24, pause, "service", 500 * time.Millisecond, 8 * time.Second},
	{8, leave, "service", 0, 10 * time.Second},          // long enough for its tasks to move, and to move back
	{10, join, newcomer, time.Second, 12 * time.Second}, // long enough to take tasks, and short enough to leave with them
	{6, leave, "spout", 0, 2 * time.Second},
	{6, kill, "spout", 0, 8 * time.Second},
	{4, kill, "all", 0, 3 * time.Second},
	{5, kill, "nats", 0, 3 * time.Second},
	{4, pause, "nats", 500 * time.Millisecond, 5 * time.Second},
	{5, kill, "redis", 0, 3 * time.Second},
	{3, pause, "redis", 500 * time.Millisecond, 5 * time.Second},
	{5, kill, "mongo", 0, 3 * time.Second},
	{3, pause, "mongo", 500 * time.Millisecond, 5 * time.Second},
	{2, kill, "kafka", 0, 3 * time.Second},
	{2, pause, "kafka", 500 * time.Millisecond, 8 * time.Second},
}

// next draws the next fault. A target that another fault holds is drawn again; at most one server is away at a time.
func (p *planner) next() fault {
	p.at += time.Duration(p.random.ExpFloat64() * float64(p.mean))
	for {
		f := p.draw()
		held := p.targets(f.target)
		if slices.ContainsFunc(held, func(name string) bool { return p.until[name] > f.at }) {
			p.at += p.mean / 10 // so that the search ends when everything is held
			continue
		}
		for _, name := range held {
			p.until[name] = f.at + f.length + time.Second
		}
		return f
	}
}

func (p *planner) draw() fault {
	whole := 0
	for _, k := range kinds {
		whole += k.weight
	}
	roll := p.random.IntN(whole)
	i := 0
	for ; roll >= kinds[i].weight; i++ {
		roll -= kinds[i].weight
	}
	k := kinds[i]
	f := fault{p.at, k.what, k.who, k.least + time.Duration(p.random.Int64N(int64(k.longer)))}
	switch k.who {
	case "service":
		f.target = fmt.Sprintf("%s-%d", mesh.Kinds[p.random.IntN(len(mesh.Kinds))], p.random.IntN(p.replicas))
	case newcomer:
		f.target = fmt.Sprintf("%s-%d", mesh.Kinds[p.random.IntN(len(mesh.Kinds))], p.replicas+p.random.IntN(newcomers))
	case "spout":
		f.target = fmt.Sprintf("spout-%d", p.random.IntN(p.replicas))
	case "all":
		f.target = allOf + mesh.Kinds[p.random.IntN(len(mesh.Kinds))]
	}
	return f
}

const (
	allOf     = "all of "
	newcomer  = "newcomer"
	newcomers = 2 // of a kind, at a time
)

// targets are the names that a fault holds; "server" stands for any of them.
func (p *planner) targets(name string) []string {
	if kind, all := strings.CutPrefix(name, allOf); all {
		var out []string
		for i := range p.replicas {
			out = append(out, fmt.Sprintf("%s-%d", kind, i))
		}
		return out
	}
	if !strings.Contains(name, "-") {
		return []string{"server"}
	}
	return []string{name}
}

// running is what is broken: a mesh.
type running interface {
	Processes() []*servers.Process
	Join(ctx context.Context, kind, name string) (*servers.Process, error)
}

// injector carries a plan out and writes down what it did.
type injector struct {
	mesh  running
	began time.Time

	busy sync.WaitGroup
	mu   sync.Mutex
	on   map[string]*sync.Mutex // one fault at a time per process
	done []fault
	said []string // what happened, in order
	bad  []string // what must never happen
}

func newInjector(m running) *injector {
	return &injector{mesh: m, began: time.Now(), on: map[string]*sync.Mutex{}}
}

// hold waits until no fault has a process, newcomers included, and keeps others from it until release is called.
func (in *injector) hold(name string) (release func()) {
	in.mu.Lock()
	one := in.on[name]
	if one == nil {
		one = &sync.Mutex{}
		in.on[name] = one
	}
	in.mu.Unlock()
	one.Lock()
	return one.Unlock
}

// run carries out the plan until ctx ends; hard ends the waiting of what is under way. Every process runs when it returns nil.
func (in *injector) run(ctx, hard context.Context, plan *planner) {
	for {
		f := plan.next()
		wait := time.NewTimer(f.at - time.Since(in.began))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			in.busy.Wait()
			return
		}
		in.mu.Lock()
		in.done = append(in.done, f)
		in.mu.Unlock()
		in.say("plan  %s", f)
		if f.what == join {
			in.busy.Go(func() { in.newcomer(hard, f) })
			continue
		}
		for _, p := range in.processes(f.target) {
			in.busy.Go(func() { in.inflict(hard, f, p) })
		}
	}
}

func (in *injector) processes(target string) (out []*servers.Process) {
	kind, all := strings.CutPrefix(target, allOf)
	for _, p := range in.mesh.Processes() {
		if p.Name == target || all && strings.HasPrefix(p.Name, kind+"-") {
			out = append(out, p)
		}
	}
	return out
}

// inflict does one fault to one process and undoes it.
func (in *injector) inflict(ctx context.Context, f fault, p *servers.Process) {
	defer in.hold(p.Name)()
	if !p.Running() {
		in.wrong("%s had ended by itself before it was to be hit", p.Name)
	}
	switch f.what {
	case kill:
		p.Kill()
	case leave:
		if err := p.Stop(); err != nil {
			in.wrong("%v", err)
		}
	case pause:
		p.Pause()
	}
	in.say("did   %-7s %s", f.what, p.Name)
	select {
	case <-time.After(f.length):
	case <-ctx.Done():
	}
	if f.what == pause {
		p.Resume()
		in.say("back  resumed %s", p.Name)
		return
	}
	for ctx.Err() == nil { // as a supervisor does: a service that finds a server missing at its start may give up
		err := p.Restart(ctx)
		if err == nil {
			in.say("back  started %s", p.Name)
			return
		}
		first, _, _ := strings.Cut(err.Error(), "\n")
		in.say("again %s", first)
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	in.wrong("%s could not be started again", p.Name)
}

// newcomer starts a replica and stops it when its time is over, or when hard ends. Nothing of it runs when this returns.
func (in *injector) newcomer(hard context.Context, f fault) {
	defer in.hold(f.target)()
	kind, _, _ := strings.Cut(f.target, "-")
	for hard.Err() == nil {
		p, err := in.mesh.Join(hard, kind, f.target)
		if err == nil {
			in.stay(hard, f, p)
			return
		}
		first, _, _ := strings.Cut(err.Error(), "\n")
		in.say("again %s", first)
		select {
		case <-time.After(500 * time.Millisecond):
		case <-hard.Done():
		}
	}
}

// stay keeps a newcomer for its time, and takes leave of it.
func (in *injector) stay(hard context.Context, f fault, p *servers.Process) {
	defer p.Close()
	in.say("did   %-7s %s", f.what, p.Name)
	select {
	case <-time.After(f.length):
	case <-hard.Done():
	}
	if !p.Running() {
		in.wrong("%s had ended by itself before it was to leave", p.Name)
		return
	}
	if err := p.Stop(); err != nil {
		in.wrong("%v", err)
	}
	in.say("back  %s has left", p.Name)
}

func (in *injector) say(format string, args ...any) {
	in.mu.Lock()
	defer in.mu.Unlock()
	now := time.Now()
	in.said = append(in.said, fmt.Sprintf("%s %7.2fs ", now.Format("15:04:05.000"), now.Sub(in.began).Seconds())+fmt.Sprintf(format, args...))
}

func (in *injector) wrong(format string, args ...any) {
	in.say("WRONG "+format, args...)
	in.mu.Lock()
	defer in.mu.Unlock()
	in.bad = append(in.bad, fmt.Sprintf(format, args...))
}

// counts are the faults by what was done to which kind of process.
func (in *injector) counts() map[string]int {
	in.mu.Lock()
	defer in.mu.Unlock()
	out := map[string]int{}
	for _, f := range in.done {
		who, _, _ := strings.Cut(f.target, "-")
		out[f.what+" "+who]++
	}
	return out
}
