package jetstream_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// wire is a connection's way to the server, which can lose what the server sends, and be cut.
type wire struct {
	net.Listener
	to    string
	mute  atomic.Bool
	mu    sync.Mutex
	conns []net.Conn
	lost  bytes.Buffer
}

func newWire(t *testing.T, server string) *wire {
	t.Helper()
	at, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	to := at.Host
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: l, to: to}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				_ = client.Close()
				continue
			}
			w.mu.Lock()
			w.conns = append(w.conns, client, server)
			w.mu.Unlock()
			running.Go(func() { _, _ = io.Copy(server, client); _ = server.Close() })
			running.Go(func() { _, _ = io.Copy(muted{client, w}, server); _ = client.Close() })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		w.cut()
		running.Wait()
	})
	return w
}

// cut ends all connections; the next ones lose nothing.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.conns = nil
	w.mute.Store(false)
}

// muted loses what is written while it is told to.
type muted struct {
	net.Conn
	wire *wire
}

func (m muted) Write(b []byte) (int, error) {
	if m.wire.mute.Load() {
		m.wire.mu.Lock()
		defer m.wire.mu.Unlock()
		return m.wire.lost.Write(b)
	}
	return m.Conn.Write(b)
}

// frames counts the frames that were lost.
func (w *wire) frames() int { return w.count("$JS.ACK.") }

// count says how often something was in what was lost.
func (w *wire) count(what string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Count(w.lost.Bytes(), []byte(what))
}

// TestNothingOvertakesWhatABreakLost has the server hand out frames that never arrive. It waits half a minute for their acknowledgements, and those
// behind them must not come first.
func TestNothingOvertakesWhatABreakLost(t *testing.T) {
	at := serve(t)
	w := newWire(t, at)
	direct := dial(t, jetstream.Options{URL: at})
	c := dial(t, jetstream.Options{URL: "nats://" + w.Addr().String()})
	if err := direct.Provision(t.Context(), []jetstream.Input{{Topology: "a", Node: "stat", Tasks: tuple.Tasks(4, false)}}); err != nil {
		t.Fatal(err)
	}
	take := func() *jetstream.Inbox {
		for {
			in, err := c.Take(t.Context(), "a", "stat", 3, 1, 8) // of a stateless node: the epoch is that of the lease, also after the break
			if err == nil {
				return in
			}
			if t.Context().Err() != nil {
				t.Fatal(err)
			}
		}
	}
	publish := func(from, to int) {
		var frames []bolt.Outgoing
		for n := from; n < to; n++ {
			frames = append(frames, frame("stat", 3, n))
		}
		if err := direct.Outbox("a").Publish(t.Context(), frames); err != nil {
			t.Fatal(err)
		}
	}
	in := take()
	publish(0, 1)
	if got := texts(receive(t, in, 1)); !slices.Equal(got, []string{"0"}) { // not acknowledged
		t.Fatalf("before the break came %v", got)
	}
	w.mute.Store(true)
	publish(1, 5)
	for end := time.Now().Add(10 * time.Second); w.frames() < 4; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the server has handed out %d frames, want 4", w.frames())
		}
	}
	w.cut()
	publish(5, 8)
	var got []string
	for end := time.Now().Add(10 * time.Second); len(got) < 8 && time.Now().Before(end); {
		ds, err := in.Fetch(t.Context(), 8)
		if errors.Is(err, jetstream.ErrInterrupted) {
			in.Close()
			in, got = take(), nil
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, texts(ds)...)
	}
	in.Close()
	if !slices.Equal(got, []string{"0", "1", "2", "3", "4", "5", "6", "7"}) {
		t.Errorf("after the break came %v", got)
	}
}

// TestChangeNamesServer cuts a connection: what is told of it names the server, and says how long it was away.
func TestChangeNamesServer(t *testing.T) {
	w := newWire(t, serve(t))
	changes := make(chan jetstream.Change, 8)
	dial(t, jetstream.Options{URL: "nats://somebody:secret@" + w.Addr().String(), Changed: func(c jetstream.Change) { changes <- c }})
	w.cut()
	for _, lost := range []bool{true, false} {
		select {
		case c := <-changes:
			if c.Server == "" || c.Addr != w.Addr().String() || (c.Err != nil) != lost || (c.Away == 0) != lost {
				t.Errorf("told %+v", c)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("not told")
		}
	}
}

// TestDeltasOutliveABreak loses deltas on their way to their origin's owner, whose connection then is made anew; then the connection of their sender is.
func TestDeltasOutliveABreak(t *testing.T) {
	at := serve(t)
	var wires [2]*wire
	var conns [2]*jetstream.Conn
	for i := range conns {
		wires[i] = newWire(t, at)
		conns[i] = dial(t, jetstream.Options{URL: "nats://" + wires[i].Addr().String()})
	}
	owner, sender := conns[0], conns[1]
	came := make(chan uint64, 100)
	stop, err := owner.SubscribeDeltas("a", 7, func(ds []tuple.Delta, err error) {
		if err != nil {
			t.Error(err)
		}
		for _, d := range ds {
			came <- d.XOR
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	want := func(what string) {
		t.Helper()
		for x := range uint64(5) {
			select {
			case got := <-came:
				if got != x {
					t.Errorf("%s: came %d, want %d", what, got, x)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("%s: delta %d did not come", what, x)
			}
		}
	}
	wires[0].mute.Store(true)
	for x := range uint64(5) {
		if err := sender.Deltas("a").Send(t.Context(), 7, []tuple.Delta{{XOR: x}}); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(10 * time.Second); wires[0].count("bmdelta.a.") < 5; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the server does not pass the deltas on")
		}
	}
	wires[0].cut()
	want("the owner's connection was lost")
	wires[1].cut()
	want("the sender's connection was lost")
}
