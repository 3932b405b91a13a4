package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/devstack"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func connect(t *testing.T) *jetstream.Conn {
	t.Helper()
	return dial(t, jetstream.Options{URL: serve(t), Name: t.Name()})
}

// serve starts a server for a test and returns its URL.
func serve(t *testing.T) string {
	t.Helper()
	stack, err := devstack.Start(t.Context(), devstack.Options{Dir: t.TempDir(), NoKafka: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stack.Close() })
	return stack.NATSURL()
}

// dial connects for the length of a test.
func dial(t *testing.T, o jetstream.Options) *jetstream.Conn {
	t.Helper()
	c, err := jetstream.Connect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func frame(node string, task int32, n int) bolt.Outgoing {
	return bolt.Outgoing{Node: node, Task: task, ID: tuple.FrameID(tuple.NameOf(node), task, []uint64{uint64(n)}), Data: fmt.Append(nil, n)}
}

// receive fetches until n frames came or the time is up.
func receive(t *testing.T, in *jetstream.Inbox, n int) (out []bolt.Delivery) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); len(out) < n && time.Now().Before(end); {
		ds, err := in.Fetch(t.Context(), n-len(out))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, ds...)
	}
	return out
}

func texts(ds []bolt.Delivery) (out []string) {
	for _, d := range ds {
		out = append(out, string(d.Data))
	}
	return out
}

// TestTakeover shows what a new epoch does to the old owner: its waiting pull ends, what it had not acknowledged comes to the new owner, in order.
func TestTakeover(t *testing.T) {
	c := connect(t)
	if err := c.Provision(t.Context(), []jetstream.Input{{Topology: "a", Node: "stat", Tasks: tuple.Tasks(4, false)}}); err != nil {
		t.Fatal(err)
	}
	var frames []bolt.Outgoing
	for n := range 5 {
		frames = append(frames, frame("stat", 3, n))
	}
	if err := c.Outbox("a").Publish(t.Context(), append(frames, frames...)); err != nil { // each twice: one id, one message
		t.Fatal(err)
	}
	old, err := c.Take(t.Context(), "a", "stat", 3, 1, 8)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	first := receive(t, old, 5)
	if got := texts(first); !slices.Equal(got, []string{"0", "1", "2", "3", "4"}) {
		t.Fatalf("the owner got %v", got)
	}
	if err := old.Ack(t.Context(), first[:3]); err != nil { // that of the third waits
		t.Fatal(err)
	}
	owner, err := c.Take(t.Context(), "a", "stat", 3, 2, 8)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close()
	if err := c.Outbox("a").Publish(t.Context(), []bolt.Outgoing{frame("stat", 3, 5)}); err != nil {
		t.Fatal(err)
	}
	if got := texts(receive(t, owner, 4)); !slices.Equal(got, []string{"2", "3", "4", "5"}) {
		t.Errorf("the new owner got %v", got)
	}
	for {
		ds, err := old.Fetch(t.Context(), 8)
		if errors.Is(err, jetstream.ErrReplaced) {
			break
		}
		if err != nil || len(ds) > 0 {
			t.Fatalf("the old owner got %v, %v", texts(ds), err)
		}
	}
}

// TestTheLastAcknowledgementWaits checks that a frame stays until a later one is acknowledged, nothing comes for a while, or its inbox is closed.
func TestTheLastAcknowledgementWaits(t *testing.T) {
	c := connect(t)
	if err := c.Provision(t.Context(), []jetstream.Input{{Topology: "a", Node: "stat", Tasks: tuple.Tasks(1, false)}}); err != nil {
		t.Fatal(err)
	}
	in, err := c.Take(t.Context(), "a", "stat", 0, 1, 8)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	handle := func(from, to int) {
		t.Helper()
		var frames []bolt.Outgoing
		for n := from; n < to; n++ {
			frames = append(frames, frame("stat", 0, n))
		}
		if err := c.Outbox("a").Publish(t.Context(), frames); err != nil {
			t.Fatal(err)
		}
		if err := in.Ack(t.Context(), receive(t, in, to-from)); err != nil {
			t.Fatal(err)
		}
	}
	left := func(want uint64) {
		t.Helper()
		var n uint64
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			q, err := c.Queued(t.Context(), "a", "stat")
			if err != nil {
				t.Fatal(err)
			}
			if n = q.Sum(); n == want {
				return
			}
		}
		t.Fatalf("%d frames are left, want %d", n, want)
	}
	handle(0, 3)
	left(1)
	handle(3, 4)
	left(1)
	if ds, err := in.Fetch(t.Context(), 8); len(ds) > 0 || err != nil {
		t.Fatalf("got %v, %v", texts(ds), err)
	}
	left(0)
	handle(4, 6)
	left(1)
	in.Close()
	left(0)
}

// TestStreamOfAnEarlierBuild has the subjects of a whole node: who provisions it is told what to do.
func TestStreamOfAnEarlierBuild(t *testing.T) {
	at := serve(t)
	c := dial(t, jetstream.Options{URL: at})
	nc, err := nats.Connect(at)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), natsjs.StreamConfig{Name: "BM_a_stat", Subjects: []string{"bm.a.stat.*"}}); err != nil {
		t.Fatal(err)
	}
	err = c.Provision(t.Context(), []jetstream.Input{{Topology: "a", Node: "stat", Tasks: tuple.Tasks(1, false)}})
	if err == nil || !strings.Contains(err.Error(), "remove the stream that has bm.a.stat.0") {
		t.Errorf("got %v", err)
	}
}

// TestTrim has a node lose tasks, then all of them to workers that compete, and get others.
func TestTrim(t *testing.T) {
	c := connect(t)
	other := jetstream.Input{Topology: "a", Node: "stat-2", Tasks: tuple.Tasks(3, false)}
	for round, tasks := range []int{4, 2, 0, 5} {
		want := []string{"[0 1 2 3]", "[0 1]", "[-1]", "[0 1 2 3 4]"}[round]
		in := jetstream.Input{Topology: "a", Node: "stat", Tasks: tuple.Tasks(tasks, tasks == 0)}
		if err := errors.Join(c.Provision(t.Context(), []jetstream.Input{in, other}), c.Trim(t.Context(), []jetstream.Input{in})); err != nil {
			t.Fatal(err)
		}
		var frames []bolt.Outgoing
		for task := tuple.Shared; task < 6; task++ {
			frames = append(frames, frame("stat", task, round))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if err := c.Outbox("a").Publish(ctx, frames); err == nil {
			t.Errorf("%d tasks: frames for others were taken", tasks)
		}
		cancel()
		q, err := c.Queued(t.Context(), "a", "stat")
		if got := fmt.Sprint(slices.Sorted(maps.Keys(q))); err != nil || got != want {
			t.Errorf("%d tasks: frames wait for %s, want %s (%v)", tasks, got, want, err)
		}
		for task := range q {
			if err := c.Purge(t.Context(), "a", "stat", task); err != nil {
				t.Error(err)
			}
		}
	}
	if err := c.Remove(t.Context(), "a", []string{"stat"}); err != nil {
		t.Fatal(err)
	}
	if nodes, err := c.Inputs(t.Context(), "a"); err != nil || !slices.Equal(nodes, []string{"stat-2"}) {
		t.Errorf("inputs of %v are left, %v", nodes, err)
	}
}

func TestRefusedPublishIsRepeatedUntilThereIsRoom(t *testing.T) {
	c := connect(t)
	if err := c.Provision(t.Context(), []jetstream.Input{{Topology: "a", Node: "slow", Tasks: tuple.Tasks(0, true)}}); err != nil {
		t.Fatal(err)
	}
	out := c.Outbox("a")
	var refused sync.Once
	full := make(chan struct{})
	out.Refused = func(string, error) { refused.Do(func() { close(full) }) }
	const n = 1100 // more than a subject holds
	var frames []bolt.Outgoing
	for i := range n {
		frames = append(frames, frame("slow", tuple.Shared, i))
	}
	done := make(chan error, 1)
	go func() { done <- out.Publish(t.Context(), frames) }()
	<-full
	in, err := c.Join(t.Context(), "a", "slow", 64)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	got := map[string]bool{}
	for len(got) < n {
		ds := receive(t, in, 1)
		if len(ds) == 0 {
			t.Fatalf("%d of %d frames came", len(got), n)
		}
		for _, d := range ds {
			got[string(d.Data)] = true
		}
		if err := in.Ack(t.Context(), ds); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestDeltas(t *testing.T) {
	c := connect(t)
	got := make(chan []tuple.Delta, 1)
	stop, err := c.SubscribeDeltas("a", 7, func(ds []tuple.Delta, err error) {
		if err != nil {
			t.Error(err)
		}
		got <- ds
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	want := []tuple.Delta{{Frame: tuple.ID{1}, First: 3, XOR: 9}}
	if err := c.Deltas("a").Send(t.Context(), 8, want); err != nil { // another origin
		t.Fatal(err)
	}
	if err := c.Deltas("a").Send(t.Context(), 7, want); err != nil {
		t.Fatal(err)
	}
	if ds := <-got; !slices.Equal(ds, want) {
		t.Errorf("got %+v", ds)
	}
}

func TestLettersAreStoredOnce(t *testing.T) {
	c := connect(t)
	letters, err := c.Letters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []*tuple.Letter{
		{ID: tuple.ID{1}, Topology: "a", Node: "x", Error: "first"},
		{ID: tuple.ID{1}, Topology: "a", Node: "x", Error: "again"},
		{ID: tuple.ID{1}, Topology: "a", Node: "y", Error: "elsewhere"},
		{ID: tuple.ID{1}, Topology: "b", Node: "x", Error: "another topology"},
	} {
		if err := letters.Put(t.Context(), l); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	err = letters.Each(t.Context(), "a", func(_ uint64, l *tuple.Letter) error {
		got = append(got, l.Error)
		return nil
	})
	if err != nil || !slices.Equal(got, []string{"first", "elsewhere"}) {
		t.Errorf("letters %v, %v", got, err)
	}
}

// TestLeases shows that renewing keeps a key's time to live, that a stale writer is refused, and that an unrenewed key vanishes for its watchers.
func TestLeases(t *testing.T) {
	c := connect(t)
	b, err := c.Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const ttl = time.Second
	first, err := b.Store(t.Context(), "a.member.x.w1", []byte("1"), 0, ttl)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Store(t.Context(), "a.member.x.w1", []byte("2"), 0, ttl); !errors.Is(err, jetstream.ErrExists) {
		t.Errorf("created twice: %v", err)
	}
	second, err := b.Store(t.Context(), "a.member.x.w1", []byte("2"), first, ttl)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Store(t.Context(), "a.member.x.w1", []byte("3"), first, ttl); !errors.Is(err, jetstream.ErrExists) {
		t.Errorf("a stale writer: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	gone := false
	_ = b.Watch(ctx, "a.>", func(e jetstream.Entry) {
		if e.Key == "a.member.x.w1" && e.Revision > second && e.Value == nil {
			gone = true
			cancel()
		}
	})
	if !gone {
		t.Error("the renewed lease did not expire")
	}
	if _, err := b.Store(t.Context(), "a.member.x.w1", []byte("4"), 0, ttl); err != nil {
		t.Errorf("taken anew after it expired: %v", err)
	}
}

// TestKnownLetters shows that a letter is known to whoever asks, whatever became of it, also to one who has been watching.
func TestKnownLetters(t *testing.T) {
	c := connect(t)
	letters, err := c.Letters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	put := func(topology, node string, n byte) jetstream.LetterKey {
		t.Helper()
		if err := letters.Put(t.Context(), &tuple.Letter{ID: tuple.ID{n}, Topology: topology, Node: node}); err != nil {
			t.Fatal(err)
		}
		return jetstream.LetterKey{Node: node, ID: tuple.ID{n}}
	}
	known := func(l *jetstream.NodeLetters, n byte) bool {
		t.Helper()
		k, err := l.Known(t.Context(), tuple.ID{n})
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	none := letters.Of("a", "nobody")
	defer none.Close()
	if known(none, 1) {
		t.Error("a letter of nobody")
	}
	first := put("a", "x", 1)
	put("a", "y", 2)
	put("b", "x", 3)
	x := letters.Of("a", "x")
	defer x.Close()
	for n, want := range []bool{1: true, 2: false, 3: false} {
		if known(x, byte(n)) != want {
			t.Errorf("letter %d: known %v", n, !want)
		}
	}
	put("a", "x", 4)
	for end := time.Now().Add(10 * time.Second); !known(x, 4); {
		if time.Now().After(end) {
			t.Fatal("a letter of another worker was never seen")
		}
		time.Sleep(time.Millisecond)
	}
	for _, d := range []jetstream.Dealt{{Position: 5, At: 7}, {Position: -1, Dropped: true}} { // what was noted first stays
		if err := letters.Deal(t.Context(), "a", first, d); err != nil {
			t.Fatal(err)
		}
	}
	dealt, err := letters.Dealt(t.Context(), "a")
	if err != nil || len(dealt) != 1 || dealt[first] != (jetstream.Dealt{Position: 5, At: 7}) {
		t.Errorf("dealt %+v, %v", dealt, err)
	}
	l, sequence, err := letters.Load(t.Context(), "a", "x", first.ID)
	if err != nil || l.ID != first.ID {
		t.Fatalf("load: %+v, %v", l, err)
	}
	if err := letters.Delete(t.Context(), sequence); err != nil {
		t.Fatal(err)
	}
	if _, _, err := letters.Load(t.Context(), "a", "x", first.ID); !errors.Is(err, jetstream.ErrNotFound) {
		t.Errorf("load a letter that was dropped: %v", err)
	}
	later := letters.Of("a", "x")
	defer later.Close()
	if !known(later, 1) || !known(later, 4) || !known(x, 1) {
		t.Error("a letter that was dropped is forgotten")
	}
	if n, err := letters.Count(t.Context(), "a"); err != nil || n != 2 {
		t.Errorf("%d letters, %v", n, err)
	}
}

// TestBucketLoad reads what was written last, and nothing of what is gone.
func TestBucketLoad(t *testing.T) {
	c := connect(t)
	b, err := c.Topologies(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if e, err := b.Load(t.Context(), "none"); !errors.Is(err, jetstream.ErrNotFound) {
		t.Errorf("got %+v, %v", e, err)
	}
	first, err := b.Store(t.Context(), "one", []byte("1"), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	second, err := b.Store(t.Context(), "one", []byte("2"), first, 0)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := b.Load(t.Context(), "one"); err != nil || e.Key != "one" || string(e.Value) != "2" || e.Revision != second {
		t.Errorf("got %+v, %v", e, err)
	}
	if err := b.Delete(t.Context(), "one", second); err != nil {
		t.Fatal(err)
	}
	if e, err := b.Load(t.Context(), "one"); !errors.Is(err, jetstream.ErrNotFound) {
		t.Errorf("got %+v, %v", e, err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Load(gone, "one"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
