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
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/trace"
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

const (
	hallDevices  = 24
	hallBacklog  = 2000            // readings that may wait to be processed
	hallLease    = time.Minute     // so that nobody is taken for dead who only waits for a processor: that is another test's
	hallPatience = 4 * time.Minute // a quiet machine needs a few seconds
)

func newHall(t *testing.T) *hall {
	h := &hall{mesh: newMesh(t), outcome: &outcome{totals: map[string]int64{}, parts: map[string]map[int64]recent{}, events: map[string]int{}}}
	h.lease = hallLease
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
	h.conn = h.connect()
	var err error
	if h.control, err = control.New(t.Context(), h.conn); err != nil {
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

// under feeds while f runs, so much as gets through: what waits to be processed stays about the same on a slow machine.
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
				if h.source.behind() < hallBacklog {
					h.feed(2)
				}
			}
		}
	}()
	f()
	close(stop)
	<-done
}

// await waits for a condition, long enough for a machine that has much else to do.
func (h *hall) await(what string, ok func() bool) {
	h.t.Helper()
	deadline := time.NewTimer(hallPatience)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			p, err := h.control.Progress(h.t.Context(), "halls")
			h.t.Fatalf("not in time: %s; %+v, %v\n%s", what, p, err, h.troubles())
		}
	}
}

// troubles are the last errors of the workers.
func (h *hall) troubles() string {
	b := &strings.Builder{}
	failed := seen[trace.Failed](h.mesh)
	for _, e := range failed[max(0, len(failed)-40):] {
		fmt.Fprintf(b, "%s/%s/%d: %s: %v\n", e.Worker, e.Node, e.Where.Task, e.Doing, e.Err)
	}
	return b.String()
}

// options are those of a change: what it waits for is told every now and then.
func (h *hall) options() control.ApplyOptions {
	told := time.Now()
	return control.ApplyOptions{Timeout: hallPatience, Tell: func(what string) {
		if time.Since(told) > 5*time.Second {
			told = time.Now()
			h.t.Logf("waiting: %s", what)
		}
	}}
}

func (h *hall) divide(node string, tasks int) control.Report {
	h.t.Helper()
	r, err := h.control.Divide(h.t.Context(), "halls", node, tasks, h.options())
	if err != nil {
		h.t.Fatalf("%v\n%s", err, h.troubles())
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
	h.await("everything is processed", h.source.done)
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

// behind is how many readings are not fully processed.
func (s *source) behind() (n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.logs {
		n += int64(len(s.logs[i])) - s.committed[i]
	}
	return n
}
