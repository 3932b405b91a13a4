package service

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/partition"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/trace"
)

const handoverYAML = `
topology: tally
spout: {id: in, kafka: {topics: [readings]}, timeout: 20s}
bolts:
  - {id: count, kind: custom, service: tally, from: in, group: device, tasks: 8}
`

// stream feeds readings of many devices without a pause until stop is called, which returns how many there were.
func (m *mesh) stream(devices int) (stop func() int) {
	quit, count := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				for range 4 {
					m.source.add(n%devices, `{}`)
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

// move is a task that went from one worker to another.
type move struct {
	task     int32
	from, to string
	silence  time.Duration // from the last batch here to the first one there
}

// moves lists the tasks that changed hands after a moment, and the longest time between two batches of a task that did not: as long as this machine lets
// anybody wait.
func (m *mesh) moves(since time.Time) (out []move, usual time.Duration) {
	last, stayed := map[int32]trace.Stepped{}, map[int32]time.Duration{}
	for _, e := range seen[trace.Stepped](m) {
		if e.Node != "count" || e.Frames == 0 {
			continue
		}
		before, known := last[e.Where.Task]
		if known && before.Worker != e.Worker && e.At.After(since) {
			out = append(out, move{e.Where.Task, before.Worker, e.Worker, e.At.Sub(before.At)})
		} else if known && before.Worker == e.Worker && before.At.After(since) {
			stayed[e.Where.Task] = max(stayed[e.Where.Task], e.At.Sub(before.At))
		}
		last[e.Where.Task] = e
	}
	for _, v := range out {
		delete(stayed, v.task)
	}
	for _, gap := range stayed {
		usual = max(usual, gap)
	}
	return out, usual
}

// owners says who has taken each task last.
func (m *mesh) owners() map[int32]string {
	out := map[int32]string{}
	for _, e := range seen[trace.Changed](m) {
		if e.Node == "count" && e.What == "task taken" {
			out[e.Where.Task] = e.Worker
		}
	}
	return out
}

// share is how many tasks a worker has.
func (m *mesh) share(worker string) (n int) {
	for _, w := range m.owners() {
		if w == worker {
			n++
		}
	}
	return n
}

// TestHandover lets replicas join and leave while readings flow: only the tasks that the newcomer gets, or the leaver had, change hands, at once,
// and every reading counts exactly once.
func TestHandover(t *testing.T) {
	m := newMesh(t)
	build := func(context.Context, Node) (bolt.Bolt, error) { return &tally{}, nil }
	m.worker(topology.KindSpout, "s1", nil)
	m.worker("tally", "w1", build)
	m.apply(handoverYAML)
	const devices = 64
	const most = 100 * time.Millisecond // on a quiet machine it is below 20 ms
	m.until("w1 has all tasks", func() bool { return m.share("w1") == 8 })
	fed := m.stream(devices)
	step := func(what string, act func(), wanted map[string]int, least int, concerns func(move) bool) {
		t.Helper()
		began := time.Now()
		act()
		m.until(what, func() bool {
			for w, n := range wanted {
				if m.share(w) != n {
					return false
				}
			}
			return m.settled()
		})
		var silences []time.Duration
		moved, usual := m.moves(began)
		for _, v := range moved {
			if !concerns(v) {
				t.Errorf("%s: task %d went from %s to %s", what, v.task, v.from, v.to)
			}
			silences = append(silences, v.silence)
		}
		slices.Sort(silences)
		if len(silences) < least {
			t.Fatalf("%s: %d tasks have moved, want %d", what, len(silences), least)
		}
		worst := silences[len(silences)-1].Round(time.Millisecond)
		t.Logf("%s: %d tasks moved, silence %v to %v; elsewhere up to %v", what, len(moved), silences[0].Round(time.Millisecond), worst, usual.Round(time.Millisecond))
		if worst >= most+8*usual { // a handover takes some eight messages, one after the other, and on a busy machine each waits as a batch does
			t.Errorf("%s: a task was silent for %v; others that did not move waited up to %v", what, worst, usual)
		}
	}
	step("w2 joins", func() { m.worker("tally", "w2", build) }, map[string]int{"w1": 4, "w2": 4}, 4, func(v move) bool { return v.to == "w2" })
	var stop func()
	step("w3 joins", func() { stop = m.worker("tally", "w3", build) }, map[string]int{"w3": 2}, 2, func(v move) bool { return v.to == "w3" })
	step("w3 leaves", stop, map[string]int{"w1": 4, "w2": 4, "w3": 0}, 2, func(v move) bool { return v.from == "w3" })
	n := fed()
	m.until("everything processed", m.source.done)
	if got := m.totalOf(8); got != n {
		t.Errorf("counted %d readings, want %d", got, n)
	}
}

// TestRebalance gives one worker two busy tasks: rebalance parts them, and nothing is lost or counted twice.
func TestRebalance(t *testing.T) {
	m := newMesh(t)
	build := func(context.Context, Node) (bolt.Bolt, error) { return &tally{}, nil }
	m.worker(topology.KindSpout, "s1", nil)
	m.worker("tally", "w1", build)
	m.worker("tally", "w2", build)
	m.apply(handoverYAML)
	m.until("the tasks are divided", func() bool { return m.share("w1") == 4 && m.share("w2") == 4 })
	var busy []int32
	for task, w := range m.owners() {
		if w == "w1" && len(busy) < 2 {
			busy = append(busy, task)
		}
	}
	quit, counted := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for round := 0; ; round++ {
			select {
			case <-tick.C:
				for device := range 64 { // each device of a busy task, and the others now and then
					if slices.Contains(busy, partition.Task(fmt.Sprint("d", device), 8)) || round%16 == 0 {
						m.source.add(device, `{}`)
						n++
					}
				}
			case <-quit:
				counted <- n
				return
			}
		}
	}()
	conn := m.connect()
	c, err := control.New(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	m.until("everybody works", m.settled)
	all, err := c.Rebalance(t.Context(), "tally", control.RebalanceOptions{Node: "count", Window: 2500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", all)
	if len(all) != 1 || len(all[0].Moves) == 0 || len(all[0].Moves) > 4 {
		t.Errorf("moves %+v", all)
	}
	m.until("the moved tasks are handled", func() bool { // a lease is written before its task is taken
		owners := m.owners()
		return m.settled() && !slices.ContainsFunc(all[0].Moves, func(x control.Move) bool { return owners[x.Task] != x.To })
	})
	if owners := m.owners(); owners[busy[0]] == owners[busy[1]] || m.share("w1") != 4 {
		t.Errorf("tasks %v are busy, and the owners are %v", busy, owners)
	}
	close(quit)
	n := <-counted
	m.until("everything processed", m.source.done)
	if got := m.totalOf(8); got != n {
		t.Errorf("counted %d readings, want %d", got, n)
	}
}

// settled reports whether every task has handled something since it was taken last.
func (m *mesh) settled() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	waiting := map[int32]bool{}
	for _, e := range m.events {
		switch e := e.(type) {
		case trace.Changed:
			if e.Node == "count" && e.What == "task taken" {
				waiting[e.Where.Task] = true
			}
		case trace.Stepped:
			if e.Node == "count" && e.Frames > 0 {
				delete(waiting, e.Where.Task)
			}
		}
	}
	return len(waiting) == 0
}
