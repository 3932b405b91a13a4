package service

import (
	"context"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

const leaderYAML = `
topology: tally
spout: {id: in, kafka: {topics: [readings]}, timeout: 10s}
bolts:
  - {id: pass, kind: custom, service: pass, from: in}
  - {id: first, kind: custom, service: tally, from: pass, group: device, tasks: 8}
  - {id: count, kind: custom, service: tally, from: first, group: device, tasks: 8}
`

// pass hands on what it gets.
type pass struct{}

func (pass) Execute(_ context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	c.Emit(bolt.Emission{Key: t.Key, Time: t.Time, Payload: t.Payload})
	return nil
}

// through counts and hands on.
type through struct{ tally }

func (b *through) Execute(ctx context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	if err := b.tally.Execute(ctx, t, c); err != nil {
		return err
	}
	return pass{}.Execute(ctx, t, c)
}

// trickle adds a reading each millisecond, of so many devices in turn, until stopped; then it says how many.
func (m *mesh) trickle(devices int) (stop func() int) {
	quit, count := make(chan struct{}), make(chan int)
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-tick.C:
				m.source.add(n%devices, `{}`)
			case <-quit:
				count <- n
				return
			}
		}
	}()
	return func() int { close(quit); return <-count }
}

// TestLeaderKilled kills one of three NATS servers under load: the one that leads the leases' bucket, and with it many of the streams and consumers, and to
// which a part of the workers is connected. Every reading counts once, and soon. Servers need 4 to 9 s to notice that a leader is gone.
func TestLeaderKilled(t *testing.T) {
	c := newCluster(t)
	m := c.tallies(t)
	stop := m.trickle(64)
	m.until("all tasks are at work", m.settled)

	victim := c.leader("KV_BM_leases")
	killed := time.Now()
	c.kill(victim)
	sleep(t.Context(), 3*time.Second) // readings go on coming
	n := stop()
	const limit = 30 * time.Second
	for !m.source.done() && time.Since(killed) < 2*limit {
		sleep(t.Context(), 20*time.Millisecond)
	}
	took := time.Since(killed)
	t.Logf("n%d killed under load, %d readings: all processed %.1f s later", victim, n, took.Seconds())
	m.phases(killed)
	if got := m.totalOf(8); got != n {
		t.Errorf("counted %d readings, want %d", got, n)
	}
	if took > limit {
		t.Errorf("it took %s, want %s at most", took, limit)
	}
}

// tallies starts the cluster and the workers of leaderYAML, of which a part is connected to each server.
func (c *cluster) tallies(t *testing.T) *mesh {
	t.Helper()
	for i := range servers {
		c.start(i)
	}
	m := &mesh{t: t, on: c, store: state.NewMemory(), source: newSource()}
	m.leases() // waits until the cluster is formed
	build := func(_ context.Context, n Node) (bolt.Bolt, error) {
		if n.ID == "first" {
			return &through{}, nil
		}
		return &tally{}, nil
	}
	m.workerAt(c.at(0), topology.KindSpout, "s1", nil)
	m.workerAt(c.at(1), "pass", "p1", func(context.Context, Node) (bolt.Bolt, error) { return pass{}, nil })
	m.workerAt(c.at(1), "tally", "w1", build)
	m.workerAt(c.at(2), "tally", "w2", build)
	m.apply(leaderYAML)
	m.until("the tasks are owned", func() bool { return m.share("w1") == 4 && m.share("w2") == 4 })
	return m
}

// phases logs when what came back after a server was killed.
func (m *mesh) phases(killed time.Time) {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	var renewed, taken, stepped float64
	tasks, overdue := 0, 0
	for i, e := range m.events {
		at := m.times[i].Sub(killed).Seconds()
		if at < 0 {
			continue
		}
		switch e := e.(type) {
		case trace.Failed:
			if e.Doing == "renew the lease" {
				renewed = at
			} else {
				m.t.Logf("  %.1f s: %s of %s, %s: %v", at, e.Node, e.Worker, e.Doing, e.Err)
			}
		case trace.Changed:
			if e.What == "task taken" {
				tasks, taken = tasks+1, at
			}
		case trace.Overdue:
			overdue++
		case trace.Stepped:
			if stepped == 0 && at > 1 && e.Node == "count" && e.Tuples > 0 { // what had been fetched before is done by then
				stepped = at
			}
		}
	}
	said, last := m.on.elections(killed)
	for _, s := range said {
		m.t.Log("  " + s)
	}
	m.t.Logf("after the kill: the last leader was elected at %.1f s, a lease could not be renewed until %.1f s, the last of %d tasks was taken anew at %.1f s, "+
		"the last bolt went on at %.1f s; %d roots were overdue", last.Seconds(), renewed, tasks, taken, stepped, overdue)
}
