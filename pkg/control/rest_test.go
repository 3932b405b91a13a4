package control_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// TestSpoutThatHasJustBegun does not know its partitions yet: what its predecessor has emitted there is waited for.
func TestSpoutThatHasJustBegun(t *testing.T) {
	c, conn := setup(t)
	apply(t, c, rooms, control.ApplyOptions{})
	w := spoutWorker(10, 15)
	marks := w.self.Marks
	w.self.Partitions, w.self.Marks, w.settle = 0, nil, true
	w.start(t, c, conn)
	var told []string
	r := apply(t, c, changed(), control.ApplyOptions{Timeout: time.Minute, Tell: func(what string) {
		told = append(told, what)
		if strings.Contains(what, "no spout says yet which partitions there are") {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.self.Partitions, w.self.Marks = 1, marks
		}
	}})
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(told) == 0 || len(w.self.Marks) == 0 || w.self.Marks[0].Floor != 15 || r.Revision != 2 || r.Warning != "" {
		t.Errorf("told %q, %+v, marks %+v", told, r, w.self.Marks)
	}
}

// TestSpoutThatCannotRead may never know its partitions, as its brokers are none: it can be told of others.
func TestSpoutThatCannotRead(t *testing.T) {
	c, conn := setup(t)
	apply(t, c, rooms, control.ApplyOptions{})
	w := spoutWorker(0, 0)
	w.self.Partitions, w.self.Marks = 0, nil
	w.start(t, c, conn)
	if r := apply(t, c, changed(), control.ApplyOptions{Timeout: 2 * time.Second}); r.Revision != 2 || !strings.Contains(r.Warning, "which partitions there are") {
		t.Errorf("got %+v", r)
	}
}

// TestLeaseOfAnEarlierPause: what it says does not count, its worker may be emitting.
func TestLeaseOfAnEarlierPause(t *testing.T) {
	c, conn := setup(t)
	apply(t, c, rooms, control.ApplyOptions{})
	if _, err := c.Pause(t.Context(), "rooms"); err != nil {
		t.Fatal(err)
	}
	_, e := entry(t, conn)
	w := spoutWorker(15, 15)
	w.obey(e.Revision)
	w.unaware = true
	w.start(t, c, conn)
	if _, err := c.Resume(t.Context(), "rooms"); err != nil {
		t.Fatal(err)
	}
	_, err := c.Apply(t.Context(), document(t, changed()), control.ApplyOptions{Timeout: 300 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "worker s1 has not stopped emitting rooms/0") {
		t.Errorf("got %v", err)
	}
}

// TestFramesForTasksThatAreNoMore wait for nobody: they do not hold a change up.
func TestFramesForTasksThatAreNoMore(t *testing.T) {
	c, conn := setup(t)
	apply(t, c, rooms, control.ApplyOptions{})
	spoutWorker(15, 15).start(t, c, conn)
	if err := conn.Provision(t.Context(), []jetstream.Input{{Topology: "rooms", Node: "hot", Tasks: tuple.Tasks(12, false)}}); err != nil { // it had more
		t.Fatal(err)
	}
	if err := conn.Outbox("rooms").Publish(t.Context(), []bolt.Outgoing{{Node: "hot", Task: 11, Data: []byte("late")}}); err != nil {
		t.Fatal(err)
	}
	if r := apply(t, c, changed(), control.ApplyOptions{Timeout: 10 * time.Second}); r.Revision != 2 || r.Warning != "" {
		t.Errorf("got %+v", r)
	}
	if n, err := conn.Queued(t.Context(), "rooms", "hot"); err != nil || n.Sum() > 0 {
		t.Errorf("%d frames wait, %v", n, err)
	}
}

// TestInterruptedChange has left its pause behind: the next one ends it, and so does the same again, but for a pause that somebody has asked for.
func TestInterruptedChange(t *testing.T) {
	c, conn := setup(t)
	apply(t, c, rooms, control.ApplyOptions{})
	spoutWorker(15, 15).start(t, c, conn)
	o := control.ApplyOptions{Timeout: 10 * time.Second}
	interrupt(t, conn)
	if r := apply(t, c, rooms, o); !r.Unchanged || r.Paused {
		t.Errorf("the same again: %+v", r)
	}
	runs(t, c, 1, false)
	interrupt(t, conn)
	if r := apply(t, c, changed(), o); r.Revision != 2 || r.Paused {
		t.Errorf("another: %+v", r)
	}
	runs(t, c, 2, false)
	interrupt(t, conn)
	if changed, err := c.Pause(t.Context(), "rooms"); err != nil || !changed {
		t.Errorf("pause: %v, %v", changed, err)
	}
	if r := apply(t, c, rooms, o); r.Revision != 3 || !r.Paused {
		t.Errorf("paused by somebody: %+v", r)
	}
	runs(t, c, 3, true)
	if _, err := c.Resume(t.Context(), "rooms"); err != nil {
		t.Error(err)
	}
	runs(t, c, 3, false)
}

// TestTwoChangesAtOnce lets a second change begin while the first waits: the first cannot be made any more, and says so.
func TestTwoChangesAtOnce(t *testing.T) {
	c, conn := setup(t)
	apply(t, c, rooms, control.ApplyOptions{})
	w := spoutWorker(10, 15)
	w.start(t, c, conn)
	began, first := make(chan struct{}), make(chan error, 1)
	go func() {
		told := false
		_, err := c.Apply(t.Context(), document(t, changed()), control.ApplyOptions{Timeout: time.Minute, Tell: func(string) {
			if !told {
				told = true
				close(began)
			}
		}})
		first <- err
	}()
	<-began
	other := strings.Replace(rooms, "> 35", "> 37", 1)
	r := apply(t, c, other, control.ApplyOptions{Timeout: time.Minute, Tell: func(string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.settle = true
	}})
	err := <-first
	a, e := c.Get(t.Context(), "rooms")
	if e != nil {
		t.Fatal(e)
	}
	if err == nil || !strings.Contains(err.Error(), "apply it again") || !strings.Contains(a.Topology.Source, "> 37") || a.Paused || r.Revision != 2 {
		t.Errorf("first: %v; second: %+v; applied %+v", err, r, a)
	}
}

// TestOtherChangeMeanwhile lets a second change be made while the first still waits for a worker that does not follow: what the first removes behind it, the
// second may need.
func TestOtherChangeMeanwhile(t *testing.T) {
	c, conn := setup(t)
	apply(t, c, rooms, control.ApplyOptions{})
	w := spoutWorker(15, 15)
	w.follow = false
	w.start(t, c, conn)
	more := func(tasks string) string {
		return strings.Replace(changed(), "save: readings}", "save: readings, tasks: "+tasks+"}", 1)
	}
	first := make(chan control.Report, 1)
	go func() {
		r, err := c.Apply(t.Context(), document(t, more("3")), control.ApplyOptions{Timeout: 3 * time.Second})
		if err != nil {
			t.Error(err)
		}
		first <- r
	}()
	for { // until it waits
		a, err := c.Get(t.Context(), "rooms")
		if err != nil {
			t.Fatal(err)
		}
		if a.Revision == 2 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if r := apply(t, c, more("9"), control.ApplyOptions{Timeout: time.Second}); r.Revision != 3 {
		t.Errorf("second: %+v", r)
	}
	if r := <-first; !strings.Contains(r.Warning, "is being changed again, or has been") {
		t.Errorf("first: %+v", r)
	}
	in, err := conn.Take(t.Context(), "rooms", "clean", 8, 1, 8)
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
	runs(t, c, 3, false)
}

// interrupt leaves the topology as a change does that is killed.
func interrupt(t *testing.T, conn *jetstream.Conn) {
	t.Helper()
	b, e := entry(t, conn)
	var a control.Applied
	if err := json.Unmarshal(e.Value, &a); err != nil {
		t.Fatal(err)
	}
	a.Paused, a.Change = true, "killed"
	value, err := json.Marshal(a)
	if err == nil {
		_, err = b.Store(t.Context(), "rooms", value, e.Revision, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// entry is the topology's as it stands in its bucket.
func entry(t *testing.T, conn *jetstream.Conn) (*jetstream.Bucket, jetstream.Entry) {
	t.Helper()
	b, err := conn.Topologies(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	e, err := b.Load(t.Context(), "rooms")
	if err != nil {
		t.Fatal(err)
	}
	return b, e
}

func runs(t *testing.T, c *control.Control, revision uint32, paused bool) {
	t.Helper()
	a, err := c.Get(t.Context(), "rooms")
	if err != nil || a.Revision != revision || a.Paused != paused || a.Change != "" {
		t.Errorf("applied %+v, %v; want revision %d, paused: %v", a, err, revision, paused)
	}
}
