package control_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/partition"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

func byDevice([]string) func(*tuple.Tuple) (string, bool) {
	return func(t *tuple.Tuple) (string, bool) { return t.Key, true }
}

// TestAdviseNamesTheHotKey: one device sends 90 % of the readings. Its task is found by what the workers' leases count, and the device by what waits
// for the task.
func TestAdviseNamesTheHotKey(t *testing.T) {
	const tasks, hot = 8, "device-0007"
	c, conn := setup(t)
	topologies, err := conn.Topologies(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	value, err := json.Marshal(control.Applied{Revision: 1, Topology: document(t, rooms)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := topologies.Store(t.Context(), "rooms", value, 0, 0); err != nil {
		t.Fatal(err)
	}
	skewed(t, conn, hot)
	task := partition.Task(hot, tasks)
	self := member.Member{Topology: "rooms", Node: "hot", Kind: topology.KindAlarm, Worker: "w1", Since: 1, Procs: 2}
	for i := range int32(tasks) {
		self.Owned = append(self.Owned, member.Owned{Task: i, Epoch: 1})
	}
	w := &worker{self: self}
	w.start(t, c, conn)
	work(t, w, task)
	a, err := c.Advise(t.Context(), "rooms", control.AdviseOptions{Window: 2 * time.Second, Key: byDevice})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range a.Nodes {
		if n.Node != "hot" {
			continue
		}
		h := n.Hottest
		if h == nil || h.Task != task || h.Key != hot || h.KeyShare < 0.88 || h.Share < 0.88 || strings.Join(h.By, ",") != "device" {
			t.Errorf("hottest %+v", h)
		}
		if !strings.Contains(strings.Join(n.Do, "\n"), fmt.Sprintf("have one key, %q by device", hot)) {
			t.Errorf("%q", n.Do)
		}
	}
	if queued, err := conn.Queued(t.Context(), "rooms", "hot"); err != nil || queued.Sum() == 0 {
		t.Errorf("%d frames are left, %v: what waits must not be taken", queued, err)
	}
}

// skewed puts readings into the alarm's input, nine of ten of one device.
func skewed(t *testing.T, conn *jetstream.Conn, hot string) {
	t.Helper()
	if err := conn.Provision(t.Context(), []jetstream.Input{{Topology: "rooms", Node: "hot", Tasks: tuple.Tasks(8, false)}}); err != nil {
		t.Fatal(err)
	}
	p := bolt.Packer{Revision: 1, Source: "clean", Edges: []bolt.Edge{{To: "hot", Stream: "default", Tasks: 8, Key: byDevice(nil)}}}
	for i := range 2000 {
		x := tuple.Tuple{ID: tuple.ID{byte(i), byte(i >> 8)}, Offset: int64(i), Stream: "default", Key: hot, Payload: []byte("{}")}
		if i%10 == 0 {
			x.Key = fmt.Sprintf("device-%04d", i)
		}
		if _, _, err := p.Route(&x); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Outbox("rooms").Publish(t.Context(), p.Take()); err != nil {
		t.Fatal(err)
	}
}

// work counts in a worker's lease as if it handled such readings, until the test ends.
func work(t *testing.T, w *worker, hot int32) {
	ctx, stop := context.WithCancel(context.Background())
	var done sync.WaitGroup
	t.Cleanup(func() { stop(); done.Wait() })
	done.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			w.mu.Lock()
			for k := range w.self.Owned {
				n := int64(1)
				if int32(k) == hot {
					n = 73
				}
				o := append([]member.Owned(nil), w.self.Owned...)
				o[k].In, o[k].Busy = o[k].In+n, o[k].Busy+n*100
				w.self.Owned, w.self.In, w.self.Busy = o, w.self.In+n, w.self.Busy+n*100
			}
			w.self.At = time.Now().UnixMilli()
			w.mu.Unlock()
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
}
