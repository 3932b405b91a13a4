package service

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// strict is tally, but for readings that it rejects until it is mended.
type strict struct {
	tally
	mended *atomic.Bool
}

func (b *strict) Execute(ctx context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	if !b.mended.Load() && strings.Contains(string(t.Payload), "bad") {
		return bolt.Reject(errors.New("bad"))
	}
	return b.tally.Execute(ctx, t, c)
}

// TestReplayOutlivesItsOwner: letters of a stateful node that were appended by one spout are emitted by the next, and count once, whoever replays them
// how often.
func TestReplayOutlivesItsOwner(t *testing.T) {
	m := newMesh(t)
	var mended atomic.Bool
	m.worker("tally", "w1", func(context.Context, Node) (bolt.Bolt, error) { return &strict{mended: &mended}, nil })
	stop := m.worker(topology.KindSpout, "s1", nil)
	m.apply(fmt.Sprintf(tallyYAML, "2s"))
	for d := range 6 {
		m.source.add(d, map[bool]string{true: `{"bad":1}`, false: `{}`}[d%2 == 0])
	}
	m.until("all are processed, the bad ones too", m.source.done)
	conn, err := jetstream.Connect(t.Context(), jetstream.Options{URL: m.stack.NATSURL()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c, err := control.New(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Pause(t.Context(), "tally"); err != nil {
		t.Fatal(err)
	}
	m.until("the replay log rests", func() bool { return logOf(t, c).Pause > 0 })
	mended.Store(true)
	replay := func(fresh int) {
		t.Helper()
		done, err := c.Replay(t.Context(), "tally", control.LetterFilter{Node: "count"})
		if err != nil || len(done) != 3 {
			t.Fatalf("%+v, %v", done, err)
		}
		for _, r := range done {
			if r.New {
				fresh--
			}
			if r.Error != "" {
				t.Errorf("%+v", r)
			}
		}
		if fresh != 0 {
			t.Errorf("%+v: %d too few are new", done, fresh)
		}
	}
	replay(3)
	replay(0)
	stop()
	if got := m.total(); got != 3 {
		t.Errorf("counted %d readings, want 3: the topology is paused", got)
	}
	stop = m.worker(topology.KindSpout, "s2", nil)
	if _, err := c.Resume(t.Context(), "tally"); err != nil {
		t.Fatal(err)
	}
	m.until("all letters are processed", func() bool { return logOf(t, c).Floor == 3 })
	stop()
	m.worker(topology.KindSpout, "s3", nil)
	replay(0)
	m.source.add(1, `{}`)
	m.until("another reading is processed", m.source.done)
	if got := m.total(); got != 7 {
		t.Errorf("counted %d readings, want 7", got)
	}
	m.until("the last spout tells of the same three entries", func() bool { return logOf(t, c).Length == 3 })
}

// logOf is what the spout tells about the replay log.
func logOf(t *testing.T, c *control.Control) (log struct {
	Floor, Length int64
	Pause         uint64
},
) {
	t.Helper()
	members, err := c.Members(t.Context(), "tally")
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range members {
		for _, l := range x.Logs {
			if l.Name == "replay" {
				log.Floor, log.Length, log.Pause = l.Floor, l.Length, l.Pause
			}
		}
	}
	return log
}

func TestWayBack(t *testing.T) {
	top, problems := topology.Parse("t.yaml", []byte(`
topology: t
spout: {id: in, kafka: {topics: [a]}}
bolts:
  - {id: clean, kind: convert, from: in, save: readings}
  - {id: hourly, kind: stat, from: clean, window: {tumbling: 1h, time: event}, aggregates: {n: count}, tasks: 4, save: hourly}
  - {id: hot, kind: alarm, from: clean, when: x > 80, tasks: 4, save: alarms}
  - {id: each, kind: convert, from: {node: clean, grouping: all}, tasks: 3, save: copies}
`), topology.Options{})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	plan, err := top.Plan()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		letter tuple.Letter
		err    string
		task   int32
	}{
		"to a stateful node":    {tuple.Letter{Node: "hourly", Source: "clean", Stream: "default", Key: "m1"}, "", -2},
		"to the output":         {tuple.Letter{Node: "output", Source: "hourly", Stream: "default", Key: "m1"}, "", -2},
		"a tick":                {tuple.Letter{Node: "hourly", Stream: tuple.TickStream, Group: "m1", Task: 3}, "", 3},
		"a tick of more tasks":  {tuple.Letter{Node: "hourly", Stream: tuple.TickStream, Group: "m1", Task: 4}, "", 3},
		"a tick of no group":    {tuple.Letter{Node: "hourly", Stream: tuple.TickStream, Task: 3}, "no ticks any more", 0},
		"a command":             {tuple.Letter{Node: "hot", Source: "in", Stream: tuple.CommandStream, Group: "m1"}, "", 3},
		"a command to a stat":   {tuple.Letter{Node: "hourly", Source: "in", Stream: tuple.CommandStream, Group: "m1"}, "has no alarm hourly", 0},
		"to a node that left":   {tuple.Letter{Node: "daily", Source: "clean", Stream: "default"}, "no node daily any more", 0},
		"from a node that left": {tuple.Letter{Node: "hourly", Source: "washed", Stream: "default"}, "does not receive", 0},
		"of one of all tasks":   {tuple.Letter{Node: "each", Source: "clean", Stream: "default", Task: 2}, "", 2},
		"of one that left":      {tuple.Letter{Node: "each", Source: "clean", Stream: "default", Task: 3}, "does not receive", 0},
		"on another stream":     {tuple.Letter{Node: "hourly", Source: "clean", Stream: "late"}, "does not receive", 0},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := wayBack(plan, &c.letter)
			if c.err != "" || err != nil {
				if err == nil || c.err == "" || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v, want %q", err, c.err)
				}
				return
			}
			if e.To != c.letter.Node || e.Stream != c.letter.Stream || e.Direct != (c.task >= 0) || e.Direct && e.Task != c.task {
				t.Errorf("edge %+v", e)
			}
		})
	}
}
