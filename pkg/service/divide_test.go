//go:build divide

package service

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
	"github.com/boltmesh/boltmesh/services/alarm/rule"
	"github.com/boltmesh/boltmesh/services/stat/window"
)

const divideYAML = `
topology: halls
spout: {id: in, kafka: {topics: [readings]}, timeout: 5s}
bolts:
  - {id: total, kind: stat, from: in, window: lifetime, every: 500ms, aggregates: {n: count()}}
  - {id: recent, kind: stat, from: in, every: 300ms, aggregates: {n: count()}}
  - {id: hot, kind: alarm, from: in, when: v >= 5}
  - {id: busy, kind: alarm, from: recent, when: n > 0}
  - {id: seen, kind: custom, service: seen, from: [total, recent, hot, busy]}
`

// outcome is what the last node has seen, each once.
type outcome struct {
	mu     sync.Mutex
	totals map[string]int64            // by device, the greatest
	parts  map[string]map[int64]recent // by device and end
	events map[string]int              // of alarms
}

type recent struct{ start, n int64 }

func (o *outcome) Execute(_ context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	var x struct {
		N            int64
		Alarm, Event string
		Episode      struct{ Number int64 }
		Window       struct{ Start, End int64 }
	}
	if err := json.Unmarshal(t.Payload, &x); err != nil {
		return bolt.Reject(err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	switch c.Source() {
	case "total":
		o.totals[t.Key] = max(o.totals[t.Key], x.N)
	case "recent":
		if o.parts[t.Key] == nil {
			o.parts[t.Key] = map[int64]recent{}
		}
		o.parts[t.Key][x.Window.End] = recent{x.Window.Start, x.N}
	default:
		o.events[fmt.Sprint(x.Alarm, " ", t.Key, " ", x.Event, " ", x.Episode.Number)] = 1
	}
	return nil
}

// hall is the mesh of divideYAML with a control.
type hall struct {
	*mesh
	*outcome
	control *control.Control
	conn    *jetstream.Conn
	fed     int // readings of each device
}

const hallDevices = 24

func newHall(t *testing.T) *hall {
	h := &hall{mesh: newMesh(t), outcome: &outcome{totals: map[string]int64{}, parts: map[string]map[int64]recent{}, events: map[string]int{}}}
	h.worker(topology.KindSpout, "s1", nil)
	for _, w := range []string{"1", "2"} {
		h.worker(topology.KindStat, "stat"+w, func(_ context.Context, n Node) (bolt.Bolt, error) {
			return window.New(*n.Bolt, n.Group, n.Plan.Topology.Params)
		})
		h.worker(topology.KindAlarm, "alarm"+w, func(_ context.Context, n Node) (bolt.Bolt, error) {
			return rule.New(*n.Bolt, n.Group, n.Plan.Topology.Params)
		})
	}
	h.worker("seen", "seen1", func(context.Context, Node) (bolt.Bolt, error) { return h.outcome, nil })
	h.apply(divideYAML)
	conn, err := jetstream.Connect(t.Context(), jetstream.Options{URL: h.stack.NATSURL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	h.conn = conn
	if h.control, err = control.New(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	return h
}

// feed adds readings whose value rises from 0 to 9 and falls back.
func (h *hall) feed(each int) {
	for range each {
		for d := range hallDevices {
			h.source.add(d, fmt.Sprintf(`{"v":%d}`, h.fed%10))
		}
		h.fed++
	}
}

// under feeds while f runs.
func (h *hall) under(f func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				h.feed(2)
			}
		}
	}()
	f()
	close(stop)
	<-done
}

func (h *hall) divide(node string, tasks int) control.Report {
	h.t.Helper()
	r, err := h.control.Divide(h.t.Context(), "halls", node, tasks, control.ApplyOptions{Timeout: 20 * time.Second})
	if err != nil {
		h.t.Fatal(err)
	}
	if r.Warning != "" || len(r.Silent) > 0 {
		h.t.Errorf("%s in %d tasks: %+v", node, tasks, r)
	}
	return r
}

// check completes what is open and compares what was seen with what the readings say.
func (h *hall) check() {
	h.t.Helper()
	for h.fed%10 != 0 {
		h.feed(1)
	}
	h.until("everything is processed", h.source.done)
	if err := h.control.Flush(h.t.Context(), "halls"); err != nil {
		h.t.Fatal(err)
	}
	h.outcome.mu.Lock()
	defer h.outcome.mu.Unlock()
	wanted := 0
	for d := range hallDevices {
		device := fmt.Sprint("d", d)
		if got := h.totals[device]; got != int64(h.fed) {
			h.t.Errorf("%s: %d readings in the total, want %d", device, got, h.fed)
		}
		sum, last := int64(0), int64(0)
		var ends []int64
		for end := range h.parts[device] {
			ends = append(ends, end)
		}
		slices.Sort(ends)
		for _, end := range ends {
			p := h.parts[device][end]
			if last != 0 && p.start != last {
				h.t.Errorf("%s: an interval begins at %d, the one before ended at %d", device, p.start, last)
			}
			sum, last = sum+p.n, end
		}
		if sum != int64(h.fed) {
			h.t.Errorf("%s: %d readings in %d intervals, want %d", device, sum, len(ends), h.fed)
		}
		for n := 1; n <= h.fed/10; n++ {
			wanted++
			if h.outcome.events[fmt.Sprint("hot ", device, " raise ", n)] != 1 {
				h.t.Errorf("%s: episode %d was not raised", device, n)
			}
			if n > 1 {
				wanted++
				if h.outcome.events[fmt.Sprint("hot ", device, " clear ", n-1)] != 1 {
					h.t.Errorf("%s: episode %d was not cleared", device, n-1)
				}
			}
		}
		wanted++
		if h.outcome.events["busy "+device+" raise 1"] != 1 {
			h.t.Errorf("%s: the alarm over intervals was not raised", device)
		}
	}
	if len(h.outcome.events) != wanted {
		h.t.Errorf("%d alarm events, want %d", len(h.outcome.events), wanted)
	}
}

// kept lists the tasks of a node, under any number of them, in which something is kept.
func (h *hall) kept(node string) (out []string) {
	for n := 1; n <= topology.MaxTasks; n++ {
		for i := range int32(n) {
			if t := state.TaskOf("halls", node, n, i); len(h.store.Values(t)) > 0 {
				out = append(out, fmt.Sprint(n))
			}
		}
	}
	return slices.Compact(out)
}

// TestDivide gives nodes with state other numbers of tasks under load: totals and intervals are exact, alarms go on with their episodes.
func TestDivide(t *testing.T) {
	h := newHall(t)
	h.under(func() {
		for _, tasks := range []int{12, 3} {
			for _, node := range []string{"recent", "busy"} {
				r := h.divide(node, tasks)
				if len(r.Divided) != 1 || r.Divided[0].To != tasks || node == "recent" && r.Divided[0].Keys < hallDevices { // busy sees the first interval later
					t.Errorf("%s: %+v", node, r.Divided)
				}
				t.Logf("%s: %d keys into %d tasks, emission paused for %s", node, r.Divided[0].Keys, tasks, r.Pause.Round(time.Millisecond))
			}
			a, err := h.control.Get(t.Context(), "halls")
			if err != nil {
				t.Fatal(err)
			}
			for _, node := range []string{"total", "hot"} {
				if a.Topology, err = a.Topology.WithTasks(node, tasks); err != nil {
					t.Fatal(err)
				}
			}
			r, err := h.control.Apply(t.Context(), a.Topology, control.ApplyOptions{Timeout: 20 * time.Second})
			if err != nil || len(r.Divided) != 2 {
				t.Fatalf("%+v, %v", r, err)
			}
		}
	})
	h.check()
	for _, node := range []string{"total", "recent", "hot", "busy"} {
		if kept := h.kept(node); !slices.Equal(kept, []string{"3"}) {
			t.Errorf("%s keeps state in divisions into %v", node, kept)
		}
	}
}

// TestDivideInterrupted copies the state and stops there, as a command does that is killed: the topology goes on as it was. A command that is given again
// completes it, and removes what an earlier one has left.
func TestDivideInterrupted(t *testing.T) {
	h := newHall(t)
	h.feed(7)
	h.until("everything is processed", h.source.done)
	ask := func(q control.DivideRequest) (a control.DivideAnswer) {
		request, err := json.Marshal(q)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := h.conn.Request(t.Context(), control.DivideSubject("halls", "total", "stat1"), request)
		if err == nil {
			err = json.Unmarshal(answer, &a)
		}
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	if a := ask(control.DivideRequest{Tasks: 12}); a.Error == "" {
		t.Error("a topology that emits was divided")
	}
	if _, err := h.control.Pause(t.Context(), "halls"); err != nil {
		t.Fatal(err)
	}
	h.until("the spout rests", func() bool {
		seen, err := h.control.Members(t.Context(), "halls")
		if err != nil {
			t.Fatal(err)
		}
		return len(member.Unrest(seen, 2, nil)) == 0
	})
	h.until("it is copied", func() bool { a := ask(control.DivideRequest{Tasks: 12}); return a.Error == "" && a.Keys == hallDevices })
	if _, err := h.control.Resume(t.Context(), "halls"); err != nil {
		t.Fatal(err)
	}
	h.feed(11)
	h.until("everything is processed in the old tasks", h.source.done)
	h.divide("total", 12)
	h.feed(5)
	h.until("everything is processed in the new tasks", h.source.done)
	left := state.TaskOf("halls", "total", 5, 2)
	epoch, err := h.store.Claim(t.Context(), left)
	if err == nil {
		err = h.store.Commit(t.Context(), left, epoch, &state.Batch{Set: []state.Entry{{Key: "left"}}, Floors: map[tuple.Origin]int64{1: 1}})
	}
	if err != nil {
		t.Fatal(err)
	}
	if r := h.divide("total", 12); !r.Unchanged {
		t.Errorf("%+v", r)
	}
	if kept := h.kept("total"); !slices.Equal(kept, []string{"12"}) {
		t.Errorf("state in divisions into %v", kept)
	}
	h.check()
}
