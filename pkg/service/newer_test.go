package service

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// TestNewerDeltas sends the spout deltas of a newer wire version: it refuses them with what to do, and completes what others report.
func TestNewerDeltas(t *testing.T) {
	m := newMesh(t)
	nc, err := nats.Connect(m.stack.NATSURL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	deltas, err := nc.SubscribeSync("bmdelta.tally.>")
	if err != nil {
		t.Fatal(err)
	}
	m.worker(topology.KindSpout, "s1", nil)
	m.worker("tally", "w1", func(context.Context, Node) (bolt.Bolt, error) { return &tally{}, nil })
	m.apply(fmt.Sprintf(tallyYAML, "5s"))
	m.source.add(0, `{}`)
	d, err := deltas.NextMsg(20 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	d.Data[1] = tuple.Version + 1
	if err := nc.Publish(d.Subject, d.Data); err != nil {
		t.Fatal(err)
	}
	m.until("the spout refuses them", func() bool {
		for _, e := range seen[trace.Failed](m) {
			if errors.Is(e.Err, tuple.ErrVersion) && e.Node == "in" && strings.Contains(e.Err.Error(), "upgrade this service") {
				return true
			}
		}
		return false
	})
	m.source.add(1, `{}`)
	m.until("everything processed", m.source.done)
	if got := m.total(); got != 2 {
		t.Errorf("counted %d readings, want 2", got)
	}
}

const sideYAML = `
topology: tally
spout: {id: in, kafka: {topics: [readings]}, timeout: 2s}
bolts:
  - {id: step, kind: custom, service: step, from: {node: in, grouping: shuffle}}
  - {id: count, kind: custom, service: tally, from: step, group: device, tasks: 4}
`

// TestRevisionsSideBySide keeps one worker of each bolt on revision 1 while the others, and the spout, run revision 2: it leaves alone what it gets of
// revision 2, which comes again, and everything counts once.
func TestRevisionsSideBySide(t *testing.T) {
	m := newMesh(t)
	m.lease = time.Minute // nobody is taken for dead
	k := &takers{who: map[int][]string{}}
	m.worker(topology.KindSpout, "s1", nil)
	for _, w := range []string{"1", "2"} {
		m.worker("step", "step"+w, func(context.Context, Node) (bolt.Bolt, error) { return stepper{k, w, 1}, nil })
		m.worker("tally", "tally"+w, func(context.Context, Node) (bolt.Bolt, error) { return &tally{}, nil })
	}
	m.apply(sideYAML)
	m.until("the tasks are divided", func() bool { return m.share("tally1") == 2 && m.share("tally2") == 2 })
	const devices = 16
	feed := func() {
		for d := range devices * 20 {
			m.source.add(d%devices, fmt.Sprintf(`{"i":%d}`, d))
		}
	}
	feed()
	m.until("everything processed", m.source.done)
	late := []*Worker{m.workers["step1"], m.workers["tally1"]}
	for _, w := range late {
		w.mu.Lock() // so that it hears of no revision
	}
	r, err := m.operate().Apply(t.Context(), parse(t, strings.Replace(sideYAML, "timeout: 2s", "timeout: 1s", 1)), control.ApplyOptions{Timeout: 2 * time.Second})
	if got := strings.Join(r.Silent, " "); err != nil || r.Revision != 2 || got != "step1/step tally1/count" {
		t.Errorf("%+v, %v", r, err)
	}
	feed()
	held := func(worker string) func() bool {
		return func() bool {
			n := 0
			for _, e := range seen[trace.Stepped](m) {
				if e.Worker == worker {
					n += e.Held
				}
			}
			return n > 0
		}
	}
	m.until("step1 has got some of revision 2", held("step1"))
	m.until("tally1 has got some of revision 2", held("tally1"))
	for _, w := range late {
		w.mu.Unlock()
	}
	m.until("everything processed", m.source.done)
	if got := m.total(); got != 2*devices*20 {
		t.Errorf("counted %d readings, want %d", got, 2*devices*20)
	}
}
