package service

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

const buildsYAML = `
topology: tally
spout: {id: in, kafka: {topics: [readings]}, timeout: 3s}
bolts:
  - {id: step, kind: custom, service: step, build: v1, from: in}
  - {id: count, kind: custom, service: tally, build: v1, from: step, group: device, tasks: 4}
`

// takers remembers who handled each reading, whether or not that counted.
type takers struct {
	mu  sync.Mutex
	who map[int][]string
}

func (k *takers) took(reading int, who string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !slices.Contains(k.who[reading], who) {
		k.who[reading] = append(k.who[reading], who)
	}
}

// counts says how many readings each has handled, and which more than one did.
func (k *takers) counts() (each map[string]int, more []int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	each = map[string]int{}
	for reading, who := range k.who {
		for _, w := range who {
			each[w]++
		}
		if len(who) > 1 {
			more = append(more, reading)
		}
	}
	return each, more
}

// stepper is a build of a bolt without state: it emits each reading so many times.
type stepper struct {
	*takers
	build string
	times int
}

func (s stepper) Execute(_ context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	var x struct{ I int }
	if err := json.Unmarshal(t.Payload, &x); err != nil {
		return bolt.Reject(err)
	}
	s.took(x.I, s.build)
	for range s.times {
		c.Emit(bolt.Emission{Key: t.Key, Time: t.Time, Payload: t.Payload})
	}
	return nil
}

// weigher is a build of a bolt with state: it counts each tuple so many times.
type weigher struct {
	tally
	weight int
}

func (b *weigher) Execute(ctx context.Context, _ *tuple.Tuple, c *bolt.Collector) error {
	v, err := c.State().Edit(ctx, c.Group(), decodeNumber)
	if err != nil {
		return err
	}
	v.(*number).n += b.weight
	return nil
}

// numbered feeds numbered readings without a pause until stop is called, which returns how many there were.
func (m *mesh) numbered() (stop func() int) {
	quit, count := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				for range 4 {
					m.source.add(n%16, fmt.Sprintf(`{"i":%d}`, n))
					n++
				}
			case <-quit:
				count <- n
				return
			}
		}
	}()
	return sync.OnceValue(func() int { close(quit); return <-count })
}

// operate opens a control.
func (m *mesh) operate() *control.Control {
	m.t.Helper()
	c, err := control.New(m.t.Context(), m.connect())
	if err != nil {
		m.t.Fatal(err)
	}
	return c
}

func parse(t *testing.T, source string) topology.Document {
	t.Helper()
	top, problems := topology.Parse("t.yaml", []byte(source), topology.Options{})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	return top.Document
}

// TestBuilds replaces two bolts, one with state, by builds that do something else, under load: the old workers run revision 1, the new ones, which have been
// there all the time, revision 2, and no reading is handled by both.
func TestBuilds(t *testing.T) {
	m := newMesh(t)
	k := &takers{who: map[int][]string{}}
	m.worker(topology.KindSpout, "s1", nil)
	start := func(version string, times, weight int) (stops []func()) {
		m.version = version
		for i := range 2 {
			stops = append(stops,
				m.worker("step", fmt.Sprint("step", i, version), func(context.Context, Node) (bolt.Bolt, error) { return stepper{k, version, times}, nil }),
				m.worker("tally", fmt.Sprint("tally", i, version), func(context.Context, Node) (bolt.Bolt, error) { return &weigher{weight: weight}, nil }))
		}
		return stops
	}
	old := start("v1", 1, 1)
	start("v2", 2, 100)
	m.apply(buildsYAML)
	fed := m.numbered()
	handled := func(build string) func() bool {
		return func() bool { each, _ := k.counts(); return each[build] > 500 }
	}
	m.until("the old build works", handled("v1"))
	r, err := m.operate().Apply(t.Context(), parse(t, strings.ReplaceAll(buildsYAML, "build: v1", "build: v2")), control.ApplyOptions{Timeout: 20 * time.Second})
	if err != nil || r.Revision != 2 || len(r.Silent) > 0 || r.Warning != "" {
		t.Fatalf("%+v, %v", r, err)
	}
	m.until("the new build works", handled("v2"))
	for _, stop := range old {
		stop()
	}
	n := fed()
	m.until("everything processed", m.source.done)
	each, more := k.counts()
	t.Logf("of %d readings the old build handled %d and the new one %d; emission paused for %v", n, each["v1"], each["v2"], r.Pause.Round(time.Millisecond))
	if len(more) > 0 || each["v1"]+each["v2"] != n {
		t.Errorf("%d readings were handled by both builds", len(more))
	}
	if got, want := m.total(), each["v1"]+200*each["v2"]; got != want {
		t.Errorf("counted %d, want %d", got, want)
	}
	for _, e := range seen[trace.Changed](m) {
		if e.What == "task taken" && strings.HasSuffix(e.Worker, "v2") != (e.Revision == 2) {
			t.Errorf("%s took a task of revision %d", e.Worker, e.Revision)
		}
	}
}
