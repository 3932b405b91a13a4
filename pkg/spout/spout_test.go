package spout_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/ack"
	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// reader drives one partition by hand: it is the broker, the dead letters, the clock and Kafka's commits. The cases are those of
// storm-kafka-client's tests.
type reader struct {
	*spout.Partition
	t         *testing.T
	now       int64
	frames    []tuple.Frame // published since the last take
	buried    []*tuple.Letter
	commits   []int64
	refusal   error // of the next commits
	completed []int64
	down      error // of the broker
}

const to = "bolt"

func newReader(t *testing.T, generation uint32, floor int64, span int64) *reader {
	b := &reader{t: t}
	b.Partition = spout.NewPartition(spout.Options{
		Where: trace.Where{Topology: "t", Node: "in"}, Origin: 7, Generation: generation, Floor: floor, Revision: 1,
		Ledger: ack.Options{Timeout: 1000, Span: span}, Outbox: b, Clock: b, Sink: b.hear,
		Commit: func(_ context.Context, floor int64) error {
			if b.refusal == nil {
				b.commits = append(b.commits, floor)
			}
			return b.refusal
		},
	}, spout.PartitionOptions{
		Topic: "readings", Decoder: spout.NewDecoder(topology.Spout{Key: "device"}), Letters: b,
		Edges: []bolt.Edge{{To: to, Stream: tuple.DefaultStream, Shared: true}},
	})
	return b
}

func (b *reader) hear(e trace.Event) {
	if c, ok := e.(trace.Completed); ok {
		b.completed = append(b.completed, c.Root.First)
	}
}

func (b *reader) Now() time.Time                             { return time.UnixMilli(b.now) }
func (b *reader) Sleep(context.Context, time.Duration) error { return nil }
func (b *reader) Put(_ context.Context, l *tuple.Letter) error {
	b.buried = append(b.buried, l)
	return nil
}

func (b *reader) Known(_ context.Context, id tuple.ID) (bool, error) {
	return slices.ContainsFunc(b.buried, func(l *tuple.Letter) bool { return l.ID == id }), nil
}

func (b *reader) Publish(_ context.Context, out []bolt.Outgoing) error {
	if b.down != nil {
		return b.down
	}
	for _, o := range out {
		var f tuple.Frame
		if err := f.Decode(o.Data); err != nil {
			b.t.Fatal(err)
		}
		b.frames = append(b.frames, f)
	}
	return nil
}

// take returns the frames published since the last call, by the offset of their first tuple.
func (b *reader) take() map[int64]tuple.Frame {
	m := map[int64]tuple.Frame{}
	for _, f := range b.frames {
		m[f.Tuples[0].Offset] = f
	}
	b.frames = nil
	return m
}

// offsets lists the offsets published since the last call, in order, and forgets them.
func (b *reader) offsets() (all []int64) {
	for _, f := range b.frames {
		for _, t := range f.Tuples {
			all = append(all, t.Offset)
		}
	}
	b.frames = nil
	return all
}

// offer emits the records from..next-1 as roots of one record each.
func (b *reader) offer(from, next int64) {
	b.t.Helper()
	for o := from; o < next; o++ {
		if err := b.Offer(context.Background(), []spout.Record{record(o)}, o+1); err != nil {
			b.t.Fatal(err)
		}
	}
}

func record(o int64) spout.Record {
	return spout.Record{Offset: o, Value: fmt.Appendf(nil, `{"device":"d","n":%d}`, o)}
}

// handle reports a frame as handled by its bolt.
func (b *reader) handle(f tuple.Frame) { b.Apply([]tuple.Delta{handled(f)}) }

func handled(f tuple.Frame) tuple.Delta {
	ids := make([]uint64, len(f.Tuples))
	d := tuple.Delta{First: f.Tuples[0].Root.First, Attempt: f.Tuples[0].Root.Attempt}
	for i, t := range f.Tuples {
		ids[i] = tuple.LedgerID(t.ID, tuple.NameOf(to), tuple.Shared, t.Root.Attempt)
		d.XOR ^= ids[i]
	}
	d.Frame = tuple.FrameID(tuple.NameOf(to), tuple.Shared, ids)
	return d
}

func (b *reader) tick(at int64) {
	b.t.Helper()
	b.now = at
	if err := b.Tick(context.Background()); err != nil {
		b.t.Fatal(err)
	}
}

func (b *reader) want(what string, got []int64, want ...int64) {
	b.t.Helper()
	if !slices.Equal(got, want) {
		b.t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// TestReplayKeepsTheOrder: whichever fail, and in whatever order the others complete, what comes again comes in the order of its offsets.
func TestReplayKeepsTheOrder(t *testing.T) {
	for name, c := range map[string]struct{ handled, again []int64 }{
		"the oldest fails":             {[]int64{1, 2, 3, 4}, []int64{0}},
		"the first and the third fail": {[]int64{4, 3, 1}, []int64{0, 2}},
		"all fail":                     {nil, []int64{0, 1, 2, 3, 4}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newReader(t, 1, 0, 0)
			b.offer(0, 5)
			frames := b.take()
			for _, o := range c.handled {
				b.handle(frames[o])
			}
			b.tick(1000)
			b.want("came again", b.offsets(), c.again...)
		})
	}
}

// TestTickDoesNotWait: where commits can be begun, a tick begins one, and again until the floor is durable; Settle waits for the rest.
func TestTickDoesNotWait(t *testing.T) {
	b := newReader(t, 1, 0, 0)
	var begun []int64
	durable, failure := int64(0), error(nil)
	b.Begin = func(floor int64) (int64, error) {
		begun = append(begun, floor)
		return durable, failure
	}
	b.offer(0, 4)
	frames := b.take()
	b.tick(1)
	b.want("begun before anything is complete", begun)
	b.handle(frames[0])
	b.handle(frames[1])
	b.tick(2)
	b.tick(3)
	durable = 2
	b.tick(4)
	b.tick(5)
	b.want("begun", begun, 2, 2, 2)
	b.want("committed by ticks", b.commits)
	b.handle(frames[2])
	failure = spout.ErrStale
	if err := b.Tick(t.Context()); !errors.Is(err, spout.ErrStale) {
		t.Errorf("a commit that failed gives %v", err)
	}
	if err := b.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.want("committed in the end", b.commits, 3)
	failure = nil
	b.tick(6)
	b.want("begun, all in all", begun, 2, 2, 2, 3)
}

// TestCommitsUpToTheGap: nothing behind a root that is open is committed, and nothing is committed twice.
func TestCommitsUpToTheGap(t *testing.T) {
	b := newReader(t, 1, 0, 0)
	b.offer(0, 5)
	frames := b.take()
	b.handle(frames[0])
	b.handle(frames[3])
	b.tick(1)
	b.tick(2)
	b.handle(frames[2])
	b.tick(3)
	b.handle(frames[1])
	b.tick(4)
	b.want("commits", b.commits, 1, 4)
}

// TestMaxInFlight: emission stops at the span, what comes again goes out beyond it.
func TestMaxInFlight(t *testing.T) {
	b := newReader(t, 1, 100, 4)
	next := b.Next()
	for ; b.Room(next, 0); next++ {
		b.offer(next, next+1)
	}
	if next != 104 {
		t.Fatalf("emitted up to %d, the span ends at 104", next)
	}
	frames := b.take()
	for _, o := range []int64{101, 102, 103} {
		b.handle(frames[o])
	}
	if b.Room(104, 0) {
		t.Error("the span counts from the oldest that is open, not the number of open ones")
	}
	b.tick(1000)
	b.want("came again though there is no room", b.offsets(), 100)
	b.handle(frames[100])
	if !b.Room(107, 0) || b.Room(108, 0) {
		t.Error("the span must move with the floor")
	}
}

// TestTracesReach: whatever is emitted between two ticks, a successor that begins at the committed floor knows how far it can reach.
func TestTracesReach(t *testing.T) {
	b := newReader(t, 1, 100, 4)
	for range 20 {
		for next := b.Next(); b.Room(next, 0); next++ {
			b.offer(next, next+1)
		}
		committed := int64(100)
		if n := len(b.commits); n > 0 {
			committed = b.commits[n-1]
		}
		if reach := newReader(t, 2, committed, 4).Traces(1000); b.Next() > reach {
			t.Fatalf("emitted up to %d, a successor at %d counts with %d", b.Next(), committed, reach)
		}
		for _, f := range b.take() {
			b.handle(f)
		}
	}
	if end := newReader(t, 2, 100, 4).Traces(103); end != 103 {
		t.Errorf("traces reach %d, the log ends at 103", end)
	}
	if len(b.commits) > 10 {
		t.Errorf("%d commits for 20 spans", len(b.commits))
	}
}

// TestResume: a new reader begins at what was committed, under a new generation, and ignores what is still reported to the old one.
func TestResume(t *testing.T) {
	old := newReader(t, 1, 0, 0)
	old.offer(0, 3)
	late := old.take()
	old.handle(late[0])
	old.tick(1)
	old.want("commits of the old reader", old.commits, 1)

	b := newReader(t, 2, old.commits[0], 0)
	b.offer(1, 4)
	frames := b.take()
	if id := frames[1].Tuples[0].ID; id != late[1].Tuples[0].ID {
		t.Errorf("offset 1 has another id after the restart: %s", id)
	}
	b.handle(late[1]) // meant for the generation before
	b.handle(late[2])
	b.tick(2)
	b.want("commits after reports to the old reader", b.commits)
	b.handle(frames[1])
	b.handle(frames[1])
	b.tick(3)
	b.want("commits of the new reader", b.commits, 2)
}

// TestLostPartition: once a commit is refused, the reader stops.
func TestLostPartition(t *testing.T) {
	b := newReader(t, 1, 0, 0)
	b.offer(0, 1)
	frames := b.take()
	b.handle(frames[0])
	b.refusal = fmt.Errorf("the group has another generation: %w", spout.ErrStale)
	if err := b.Tick(context.Background()); !errors.Is(err, spout.ErrStale) {
		t.Errorf("tick after the partition was lost: %v", err)
	}
	b.want("commits", b.commits)
}

// TestCommitIsTriedAgain: an error that does not say that the partition is lost leaves the floor to be committed later.
func TestCommitIsTriedAgain(t *testing.T) {
	b := newReader(t, 1, 0, 0)
	b.offer(0, 1)
	b.handle(b.take()[0])
	b.refusal = errors.New("no answer")
	if err := b.Tick(context.Background()); err == nil || errors.Is(err, spout.ErrStale) {
		t.Errorf("tick without an answer: %v", err)
	}
	b.refusal = nil
	b.tick(2)
	b.want("commits", b.commits, 1)
}

// TestBackoff: what is not handled comes again after 1, 2, 4 ... timeouts, at most 64.
func TestBackoff(t *testing.T) {
	b := newReader(t, 1, 0, 0)
	b.offer(0, 1)
	b.take()
	last, pauses := int64(0), []int64(nil)
	for now := int64(500); len(pauses) < 9; now += 500 {
		b.tick(now)
		if len(b.offsets()) > 0 {
			pauses = append(pauses, (now-last)/1000)
			last = now
		}
	}
	b.want("timeouts between attempts", pauses, 1, 2, 4, 8, 16, 32, 64, 64, 64)
	if len(b.buried) != 0 {
		t.Error("a timeout alone dead-letters nothing")
	}
}

// TestNothingToDo: null values and records of other streams count as processed; what cannot be decoded is buried and counts too.
func TestNothingToDo(t *testing.T) {
	b := newReader(t, 1, 0, 0)
	for o, r := range []spout.Record{{Value: nil}, {Value: []byte("{")}, {Value: []byte(`{"no":"device"}`)}, record(3)} {
		r.Offset = int64(o)
		if err := b.Offer(context.Background(), []spout.Record{r}, int64(o)+1); err != nil {
			t.Fatal(err)
		}
	}
	b.tick(1)
	b.want("commits", b.commits, 3)
	if len(b.buried) != 2 || b.buried[0].Offset != 1 || b.buried[1].Offset != 2 {
		t.Errorf("buried %+v", b.buried)
	}
	b.handle(b.take()[3]) // what follows on dead letters is committed as ever
	b.tick(2)
	b.want("commits", b.commits, 3, 4)
}

// TestBrokerDown: a root that could not be published stays tracked, and comes once the broker is back.
func TestBrokerDown(t *testing.T) {
	b := newReader(t, 1, 0, 0)
	b.down = errors.New("no broker")
	if err := b.Offer(context.Background(), []spout.Record{record(0)}, 1); !errors.Is(err, b.down) {
		t.Fatalf("offer without a broker: %v", err)
	}
	b.down = nil
	b.tick(1000)
	frames := b.take()
	if len(frames) != 1 {
		t.Fatalf("%d frames after the broker came back", len(frames))
	}
	b.handle(frames[0])
	b.tick(1001)
	b.want("commits", b.commits, 1)
}

// TestTracksBeforeItPublishes: a report may come before the publish has returned, and counts.
func TestTracksBeforeItPublishes(t *testing.T) {
	b := newReader(t, 1, 0, 0)
	early := &eager{reader: b}
	b.Options.Outbox = early
	b.offer(0, 1)
	b.want("completed during the publish", b.completed, 0)
}

// eager is a broker whose consumer is done before the publisher knows that the frame is stored.
type eager struct{ *reader }

func (e *eager) Publish(ctx context.Context, out []bolt.Outgoing) error {
	if err := e.reader.Publish(ctx, out); err != nil {
		return err
	}
	for _, f := range e.take() {
		e.handle(f)
	}
	return nil
}

// TestRootsAreCarried checks that new roots are offered to whoever may carry them with others, that those are tracked and replayed, by themselves, and that what
// is not carried has frames of its own.
func TestRootsAreCarried(t *testing.T) {
	b := newReader(t, 1, 0, 100)
	var shared *bolt.Packer
	carried, offered := true, 0
	b.Carry = func(_ context.Context, tuples int, pack func() *bolt.Packer, load func(*bolt.Packer) error) (bool, error) {
		if offered++; tuples != 1 {
			t.Errorf("a root of %d tuples", tuples)
		}
		if !carried {
			return false, nil
		}
		if shared == nil {
			shared = pack()
		}
		return true, load(shared)
	}
	b.offer(0, 2)
	if got := b.offsets(); len(got) > 0 {
		t.Errorf("carried, and yet published: %v", got)
	}
	if open, _ := b.Open(); open != 2 {
		t.Errorf("%d roots are tracked", open)
	}
	out := shared.Take()
	if err := b.Publish(t.Context(), out); err != nil {
		t.Fatal(err)
	}
	if len(b.frames) != 1 || len(b.frames[0].Roots()) != 2 {
		t.Fatalf("frames: %+v", b.frames)
	}
	carried = false
	b.offer(2, 3)
	if got := b.offsets(); !slices.Equal(got, []int64{0, 1, 2}) {
		t.Errorf("published: %v", got)
	}
	b.now = 5000
	if err := b.Tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := b.offsets(); !slices.Equal(got, []int64{0, 1, 2}) || offered != 3 {
		t.Errorf("replayed: %v, offered %d times", got, offered)
	}
	b.Carry = func(context.Context, int, func() *bolt.Packer, func(*bolt.Packer) error) (bool, error) {
		return true, errors.New("the drain is over")
	}
	if err := b.Offer(t.Context(), []spout.Record{record(3)}, 4); err == nil {
		t.Error("what was not stored counts as emitted")
	}
}
