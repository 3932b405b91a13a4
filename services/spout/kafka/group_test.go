package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"go.uber.org/goleak"

	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/services/spout/kafka"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStart(t *testing.T) {
	t.Parallel()
	b := start(t, 1)
	b.write(0, 100, 120) // at offsets 0 to 19, of which 0 to 4 are gone
	b.cut(5)
	for i, c := range []struct {
		name      string
		begin     string
		committed int64 // -1: nothing
		want      int64
		told      string // what is said
		refused   bool
	}{
		{name: "by default", committed: -1, want: 5},
		{name: "earliest", begin: "earliest", committed: -1, want: 5},
		{name: "latest", begin: "latest", committed: -1, want: 20},
		{name: "a time", begin: time.Unix(110, 0).UTC().Format(time.RFC3339), committed: -1, want: 10},
		{name: "a time before all", begin: "1970-01-01T00:00:00Z", committed: -1, want: 5},
		{name: "a time after all", begin: "2100-01-01T00:00:00+01:00", committed: -1, want: 20},
		{name: "committed", begin: "committed", committed: 12, want: 12},
		{name: "committed at the end", begin: "earliest", committed: 20, want: 20},
		{name: "what is committed comes before latest", begin: "latest", committed: 7, want: 7},
		{name: "nothing committed", begin: "committed", committed: -1, refused: true, told: "commit an offset, or write earliest, latest or a time"},
		{name: "committed beyond the end", committed: 21, refused: true, told: "give spout.kafka.incarnation another value"},
		{name: "committed below the start", committed: 2, want: 5, told: "offsets 2 to 4 of readings/0 are gone"},
		{name: "no time", begin: "yesterday", committed: -1, refused: true, told: "spout.kafka.start"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := *b
			b.t = t
			group := fmt.Sprint("group-", i)
			if c.committed >= 0 {
				b.commit(group, c.committed)
			}
			m := b.join(group, c.begin, nil)
			if c.told != "" {
				if got := m.failure(); !strings.Contains(got, c.told) {
					t.Fatalf("told %q, want %q", got, c.told)
				}
			}
			if c.refused {
				if got := b.committed(group); got != c.committed {
					t.Errorf("committed %d though it was refused", got)
				}
				return
			}
			p := m.partition()
			if p.Start() != c.want || p.End() != 20 || p.Topic() != topic || p.Index() != 0 || m.count.Load() != 1 {
				t.Errorf("%s/%d of %d from %d to %d, want from %d", p.Topic(), p.Index(), m.count.Load(), p.Start(), p.End(), c.want)
			}
			if got := b.committed(group); got != c.want {
				t.Errorf("the start %d is not durable: committed is %d", c.want, got)
			}
			records := read(t, p, 20)
			if int64(len(records)) != 20-c.want || len(records) > 0 && records[0].Offset != c.want {
				t.Errorf("%d records, want those from %d", len(records), c.want)
			}
		})
	}
}

// TestSetBack: a group that has committed less than is processed is refused with the remedy, and keeps what it has committed.
func TestSetBack(t *testing.T) {
	t.Parallel()
	b := start(t, 1)
	b.write(0, 0, 20)
	for i, c := range []struct {
		name      string
		begin     string
		committed int64 // -1: nothing
		processed int64
		err       error
		told      []string // nothing: it begins
	}{
		{name: "nothing is known", committed: 5},
		{name: "nothing is known of a new group", committed: -1},
		{name: "all that is known is committed", committed: 12, processed: 12},
		{name: "set forward", committed: 15, processed: 12},
		{name: "set back", committed: 5, processed: 12, told: []string{
			"group set-back-4 has committed offset 5 for readings/0", "below offset 12 is processed", "spout.kafka.incarnation", "set the group to offset 12",
		}},
		{name: "set back to the start", committed: 0, processed: 1, told: []string{"committed offset 0 for readings/0"}},
		{name: "deleted", committed: -1, processed: 12, told: []string{"committed nothing for readings/0", "spout.kafka.incarnation"}},
		{name: "deleted, to begin at the end", begin: "latest", committed: -1, processed: 12, told: []string{"committed nothing for readings/0"}},
		{name: "the topic created anew, and so nothing committed", committed: -1, processed: 100, told: []string{"the topic created anew"}},
		{name: "nobody can say", committed: 12, err: errors.New("no answer"), told: []string{"no answer"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := *b
			b.t = t
			group := fmt.Sprint("set-back-", i)
			if c.committed >= 0 {
				b.commit(group, c.committed)
			}
			m := b.joinKnowing(group, c.begin, nil, func(_ context.Context, of string, partition int) (int64, error) {
				if of != topic || partition != 0 {
					t.Errorf("asked for %s/%d", of, partition)
				}
				return c.processed, c.err
			})
			if c.told == nil {
				if p := m.partition(); p.Start() != max(c.committed, 0) {
					t.Errorf("begun at %d", p.Start())
				}
				return
			}
			got := m.failure()
			for _, want := range c.told {
				if !strings.Contains(got, want) {
					t.Errorf("told %q, want %q", got, want)
				}
			}
			if got := b.committed(group); got != c.committed {
				t.Errorf("committed %d though it was refused", got)
			}
		})
	}
}

func TestResume(t *testing.T) {
	t.Parallel()
	b := start(t, 1)
	b.write(0, 0, 20)
	m := b.join("g", "latest", nil)
	p := m.partition()
	check(t, p.Commit(t.Context(), 13))
	m.leave()
	if err := p.Commit(t.Context(), 20); !errors.Is(err, spout.ErrStale) {
		t.Errorf("a commit after the end gives %v", err)
	}
	p = b.join("g", "latest", nil).partition()
	if records := read(t, p, 20); p.Start() != 13 || len(records) != 7 {
		t.Errorf("resumed at %d with %d records", p.Start(), len(records))
	}
}

// TestRebalance lets a second member come and go: each partition has one handler at a time, and the first member's old assignment is worth nothing.
func TestRebalance(t *testing.T) {
	t.Parallel()
	b := start(t, 4)
	var mu sync.Mutex
	held := map[int]int{}
	changed := make(chan struct{}, 1000)
	handle := func(ctx, stop context.Context, p *kafka.Partition) {
		mu.Lock()
		held[p.Index()]++
		if held[p.Index()] > 1 {
			t.Errorf("partition %d has %d handlers", p.Index(), held[p.Index()])
		}
		mu.Unlock()
		changed <- struct{}{}
		await(ctx, stop)
		mu.Lock()
		held[p.Index()]--
		mu.Unlock()
	}
	all := func() {
		t.Helper()
		late := time.After(patience)
		for {
			mu.Lock()
			n := 0
			for _, h := range held {
				n += h
			}
			mu.Unlock()
			if n == 4 {
				return
			}
			select {
			case <-changed:
			case <-late:
				t.Fatalf("%d of 4 partitions are handled", n)
			}
		}
	}
	first := b.join("g", "", handle)
	var old []*kafka.Partition
	for range 4 {
		old = append(old, first.partition())
	}
	second := b.join("g", "", handle)
	var mine []int
	for range 2 {
		mine = append(mine, second.partition().Index(), first.partition().Index())
	}
	all()
	if slices.Sort(mine); !slices.Equal(mine, []int{0, 1, 2, 3}) {
		t.Errorf("handled are %v", mine)
	}
	for _, p := range old {
		if err := p.Commit(t.Context(), 0); !errors.Is(err, spout.ErrStale) {
			t.Errorf("a commit of an old generation gives %v", err)
		}
	}
	first.leave()
	for range 4 {
		second.partition()
	}
	all()
}

// TestStopDrains: when a member is stopped, its handlers go on as long as they need, with their assignments alive, and can commit; then it leaves.
// forgetful shares nothing out the first time, as a leader does that has not heard of the topic.
type forgetful struct {
	kafkago.RoundRobinGroupBalancer
	asked atomic.Int64
}

func (f *forgetful) AssignGroups(members []kafkago.GroupMember, partitions []kafkago.Partition) kafkago.GroupMemberAssignments {
	if f.asked.Add(1) == 1 {
		partitions = nil
	}
	return f.RoundRobinGroupBalancer.AssignGroups(members, partitions)
}

// TestSharedOutAnew: a group whose leader knew of no partition is joined again; a member that is one too many is not disturbed.
func TestSharedOutAnew(t *testing.T) {
	b := start(t, 1)
	share := &forgetful{}
	g := &kafka.Group{ID: "g"}
	g.Share(share)
	m := b.joinWith(g, "earliest", nil)
	if f := m.failure(); !strings.Contains(f, "no member of group g has one") {
		t.Error(f)
	}
	m.partition()
	spare := b.join("g", "earliest", nil)
	select {
	case <-m.given:
	case <-spare.given:
	case <-time.After(patience):
		t.Fatal("nobody has the partition")
	}
	select {
	case <-m.given:
	case <-spare.given:
		t.Error("the group was shared out again though somebody had the partition")
	case f := <-m.failed:
		t.Error(f)
	case f := <-spare.failed:
		t.Error(f)
	case <-time.After(7 * time.Second): // longer than a member without partitions waits before it looks around
	}
}

func TestStopDrains(t *testing.T) {
	t.Parallel()
	b := start(t, 2)
	b.write(0, 0, 20)
	b.write(1, 0, 20)
	release, draining := make(chan struct{}), make(chan struct{})
	errs := make(chan error, 2)
	m := b.join("g", "", func(ctx, stop context.Context, p *kafka.Partition) {
		<-stop.Done()
		if p.Index() == 0 { // the other one is done at once: that must not end this one
			close(draining)
			<-release
		}
		errs <- errors.Join(ctx.Err(), p.Commit(ctx, 9))
	})
	m.partition()
	m.partition()
	m.stop()
	<-draining
	check(t, <-errs)
	select {
	case err := <-m.done:
		t.Fatalf("ended with a handler at work: %v", err)
	default:
	}
	if n := b.members("g"); n != 1 {
		t.Errorf("%d members while draining", n)
	}
	close(release)
	check(t, <-errs)
	m.leave()
	if n, at := b.members("g"), b.committed("g"); n != 0 || at != 9 {
		t.Errorf("after the drain: %d members, committed %d", n, at)
	}
}

func TestHardStop(t *testing.T) {
	t.Parallel()
	b := start(t, 2)
	m := b.join("g", "", func(ctx, _ context.Context, _ *kafka.Partition) { <-ctx.Done() })
	m.partition()
	m.partition()
	m.stop()
	m.hard()
	m.leave()
	if n := b.members("g"); n != 0 {
		t.Errorf("%d members are left", n)
	}
}
