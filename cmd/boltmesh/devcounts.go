package main

import (
	"context"
	"io"
	"iter"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/tidwall/gjson"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/feed"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// nodeCounts are what went through one node.
type nodeCounts struct {
	In     int64 `json:"in"`
	Out    int64 `json:"out"`
	Failed int64 `json:"failed"`
}

// alarmCounts are one alarm node's events.
type alarmCounts struct {
	Raises int64 `json:"raises"`
	Clears int64 `json:"clears"`
	Active int64 `json:"active"`
}

// counts sums events up while the topology runs.
type counts struct {
	mu      sync.Mutex
	nodes   map[string]*nodeCounts
	alarms  map[string]*alarmCounts
	floors  map[tuple.Origin]int64
	handled int64 // records whose trees are complete
	changed chan struct{}
}

func newCounts() *counts {
	return &counts{nodes: map[string]*nodeCounts{}, alarms: map[string]*alarmCounts{}, floors: map[tuple.Origin]int64{}, changed: make(chan struct{})}
}

// sink counts events and passes them on.
func (c *counts) sink(next trace.Sink) trace.Sink {
	return func(e trace.Event) {
		c.take(e)
		next.Emit(e)
	}
}

func (c *counts) take(e trace.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch e := e.(type) {
	case trace.Stepped:
		n := c.node(e.Node)
		n.In += int64(e.Tuples)
		n.Out += int64(e.Emitted)
		n.Failed += int64(e.DeadLettered)
	case trace.Emitted:
		n := c.node(e.Node)
		n.In += int64(e.Records)
		n.Out += int64(e.Accepted)
		n.Failed += int64(e.Rejected)
	case trace.Completed:
		if e.Task >= 0 {
			c.handled += e.Next - e.Root.First
		}
	case trace.Progress:
		c.floors[e.Origin] = e.Floor
		close(c.changed)
		c.changed = make(chan struct{})
	}
}

func (c *counts) node(id string) *nodeCounts {
	n := c.nodes[id]
	if n == nil {
		n = &nodeCounts{}
		c.nodes[id] = n
	}
	return n
}

// await returns when an origin's floor has reached end.
func (c *counts) await(ctx context.Context, o tuple.Origin, end int64) error {
	for {
		c.mu.Lock()
		floor, changed := c.floors[o], c.changed
		c.mu.Unlock()
		if floor >= end {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *counts) processed() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.handled
}

// alarm counts the events of an alarm node that is not saved; those that are, are counted from their documents.
func (c *counts) alarm(node string, b bolt.Bolt) bolt.Bolt {
	s, ok := b.(bolt.Stateful)
	if !ok {
		return b
	}
	return countedAlarm{s, func(payload []byte) {
		c.mu.Lock()
		defer c.mu.Unlock()
		a := c.alarms[node]
		if a == nil {
			a = &alarmCounts{}
			c.alarms[node] = a
		}
		a.add(gjson.GetBytes(payload, "event").Str)
	}}
}

func (a *alarmCounts) add(event string) {
	switch event {
	case "raise":
		a.Raises++
	case "clear":
		a.Clears++
	}
	a.Active = a.Raises - a.Clears
}

type countedAlarm struct {
	bolt.Stateful
	count func(payload []byte)
}

func (a countedAlarm) Execute(ctx context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	err := a.Stateful.Execute(ctx, t, c)
	if err == nil {
		for _, e := range c.Emitted() {
			a.count(e.Payload)
		}
	}
	return err
}

// Prepare implements bolt.Preparer for alarms that do.
func (a countedAlarm) Prepare(ctx context.Context, batch iter.Seq[*tuple.Tuple]) error {
	if p, ok := a.Stateful.(bolt.Preparer); ok {
		return p.Prepare(ctx, batch)
	}
	return nil
}

// bar shows how far the readings are, on a terminal; elsewhere it says so every few seconds.
type bar struct {
	bar    *progressbar.ProgressBar
	counts *counts
	stop   chan struct{}
	done   chan struct{}
}

func newBar(w io.Writer, quiet bool, c *counts) *bar {
	b := &bar{counts: c, stop: make(chan struct{}), done: make(chan struct{})}
	file, isFile := w.(*os.File)
	if quiet || !isFile || !terminal(file) {
		close(b.done)
		return b
	}
	b.bar = progressbar.NewOptions64(-1,
		progressbar.OptionSetWriter(w), progressbar.OptionSetDescription("readings"), progressbar.OptionShowCount(), progressbar.OptionShowIts(),
		progressbar.OptionSetItsString("tuples"), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish(),
		progressbar.OptionSetWidth(30), progressbar.OptionFullWidth(),
	)
	go func() {
		defer close(b.done)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-b.stop:
				return
			case <-tick.C:
				_ = b.bar.Set64(c.processed())
			}
		}
	}()
	return b
}

func terminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// fed learns the number of rows.
func (b *bar) fed(p feed.Progress) {
	if b.bar != nil && p.Doing == "send" && p.Total > 0 {
		b.bar.ChangeMax64(p.Total)
	}
}

func (b *bar) close() {
	close(b.stop)
	<-b.done
	if b.bar != nil {
		_ = b.bar.Finish()
	}
}
