package service

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// gate is closed and opened by a test: what passes waits in front of it.
type gate struct {
	mu   sync.Mutex
	shut chan struct{} // nil: open
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = make(chan struct{})
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut != nil {
		close(g.shut)
		g.shut = nil
	}
}

func (g *gate) pass() {
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	if shut != nil {
		<-shut
	}
}

// link carries connections to the server until it is frozen: then nothing arrives on either side, and nothing is lost.
type link struct {
	gate
	url string
}

func newLink(t *testing.T, to string) *link {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &link{url: "nats://" + l.Addr().String()}
	var all sync.WaitGroup
	t.Cleanup(func() { k.open(); _ = l.Close(); all.Wait() })
	all.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", strings.TrimPrefix(to, "nats://"))
			if err != nil {
				_ = near.Close()
				continue
			}
			all.Go(func() { k.copy(near, far) })
			all.Go(func() { k.copy(far, near) })
		}
	})
	return k
}

func (k *link) copy(to, from net.Conn) {
	defer to.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		k.pass()
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// takeover is how long a task may be silent when its owner is gone without a word: until the lease has expired, and somebody has seen it.
const takeover = 4 * time.Second

// TestFrozenOwner stops the owner of all tasks in the midst of its batches while it is to hand half of them over, and cuts it off, as SIGSTOP does. The
// newcomer takes what it was to get and, when the lease has expired, the rest. What the first does when it wakes changes nothing.
func TestFrozenOwner(t *testing.T) {
	m := newMesh(t)
	k := newLink(t, m.stack.NATSURL())
	var batches gate
	m.worker(topology.KindSpout, "s1", nil)
	m.workerAt(k.url, "tally", "w1", func(context.Context, Node) (bolt.Bolt, error) {
		return &tally{hold: func(*tuple.Tuple) { batches.pass() }}, nil
	})
	m.apply(handoverYAML)
	m.until("w1 has all tasks", func() bool { return m.share("w1") == 8 })
	fed := m.stream(64)
	m.until("w1 handles all tasks", m.settled)
	batches.close()
	m.worker("tally", "w2", func(context.Context, Node) (bolt.Bolt, error) { return &tally{}, nil })
	leases := m.leases()
	m.until("w2 is there", func() bool {
		_, err := leases.Load(t.Context(), member.Key("tally", "count", "w2"))
		return err == nil
	})
	k.close()
	frozen := time.Now()
	m.until("w2 has all tasks", func() bool { return m.share("w2") == 8 && m.settled() })
	moved, usual := m.moves(frozen)
	worst := time.Duration(0)
	for _, v := range moved {
		worst = max(worst, v.silence)
	}
	t.Logf("%d tasks were taken over, silence up to %v; elsewhere up to %v", len(moved), worst.Round(time.Millisecond), usual.Round(time.Millisecond))
	if worst > takeover+usual {
		t.Errorf("a task was silent for %v", worst)
	}
	batches.open()
	k.open()
	m.until("w1 has its share again", func() bool { return m.share("w1") == 4 && m.share("w2") == 4 && m.settled() })
	n := fed()
	m.until("everything processed", m.source.done)
	if got := m.totalOf(8); got != n {
		t.Errorf("counted %d readings, want %d", got, n)
	}
}

// connect opens a connection for the test itself.
func (m *mesh) connect() *jetstream.Conn {
	m.t.Helper()
	conn, err := jetstream.Connect(m.t.Context(), m.nats())
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(conn.Close)
	return conn
}

// leases opens the bucket of leases.
func (m *mesh) leases() *jetstream.Bucket {
	m.t.Helper()
	b, err := m.connect().Leases(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	return b
}

// TestFewWatchers counts what two workers have open on the server beside their inputs: it does not grow with the number of tasks.
func TestFewWatchers(t *testing.T) {
	count := func(tasks int) map[string]int {
		m := newMesh(t)
		m.worker(topology.KindSpout, "s1", nil)
		m.worker("tally", "w1", func(context.Context, Node) (bolt.Bolt, error) { return &tally{}, nil })
		m.apply(strings.Replace(handoverYAML, "tasks: 8", fmt.Sprint("tasks: ", tasks), 1))
		m.until("w1 has all tasks", func() bool { return m.share("w1") == tasks })
		for d := range 64 {
			m.source.add(d, `{}`)
		}
		m.until("everything processed", m.source.done)
		nc, err := nats.Connect(m.stack.NATSURL())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		js, err := natsjs.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]int{}
		streams := js.ListStreams(t.Context())
		for s := range streams.Info() {
			out[s.Config.Name] = s.State.Consumers
		}
		if err := streams.Err(); err != nil {
			t.Fatal(err)
		}
		return out
	}
	few, many := count(2), count(16)
	t.Logf("consumers by stream: with 2 tasks %v, with 16 tasks %v", few, many)
	for task := range int32(16) {
		name, want := jetstream.StreamName("tally", "count", task), 1
		if many[name] != want || task < 2 && few[name] != want {
			t.Errorf("%d and %d consumers on %s, want one", few[name], many[name], name)
		}
	}
	for _, m := range []map[string]int{few, many} {
		for stream, want := range map[string]int{"KV_BM_leases": 2, "KV_BM_topologies": 2, "BM_dead_letters": 2} { // one a worker
			if m[stream] > want {
				t.Errorf("%d consumers on %s, want %d at most", m[stream], stream, want)
			}
		}
	}
}
