package spout_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// ticks says what has been published: to whom, and of which moment.
func (b *bench) ticks() string {
	b.t.Helper()
	var out []string
	for _, f := range b.frames {
		var tick bolt.Tick
		check(b.t, json.Unmarshal(f.Tuples[0].Payload, &tick))
		_, to, _ := strings.Cut(f.Source, ">")
		text := fmt.Sprintf("%s %d of %d", to, tick.N, tick.Time)
		if tick.Follows != nil {
			text += fmt.Sprintf(" follows %d of %d, watermark %d", tick.Follows.N, tick.Follows.Time, tick.Follows.Watermark)
		}
		out = append(out, text)
	}
	return strings.Join(out, "; ")
}

// TestTicksFollow: a node that follows another gets that one's ticks when everything emitted at them is processed, also from a later owner of the log.
func TestTicksFollow(t *testing.T) {
	b := &bench{t: t, logs: state.NewMemory()}
	edge := func(to string) bolt.Edge { return bolt.Edge{To: to, Stream: tuple.TickStream, Tasks: 1, All: true} }
	due := []spout.Due{{Node: "part", Every: 10, Edge: edge("part")}, {Node: "whole", Every: 10, After: "part", Edge: edge("whole")}}
	clocked := &reader{now: 1000}
	open := func() *spout.Ticker {
		t.Helper()
		o := b.options(spout.TickLog)
		o.Clock = clocked
		k, err := spout.NewTicker(t.Context(), o, "test", b.logs, due)
		check(t, err)
		return k
	}
	expect := func(want string) {
		t.Helper()
		if got := b.ticks(); got != want {
			t.Errorf("%s; want %s", got, want)
		}
	}
	k := open()
	check(t, k.Advance(t.Context(), 0)) // the first entry is due nowhere
	b.handle(k.Log)
	check(t, k.Settle(t.Context()))
	for range 3 {
		clocked.now += 10
		k = open()
		check(t, k.Tick(t.Context()))
		check(t, k.Advance(t.Context(), clocked.now-1000))
	}
	b.frames = nil
	k = open()
	check(t, k.Tick(t.Context()))
	expect("part/0 1 of 1010; part/0 2 of 1020; part/0 3 of 1030")
	b.handle(k.Log)
	check(t, k.Settle(t.Context()))
	clocked.now += 3
	k = open() // all that it knows is the last entry
	b.frames = nil
	check(t, k.Tick(t.Context()))
	expect("part/0 3 of 1030; whole/0 4 of 1030 follows 1 of 1010, watermark 10") // the last entry is emitted again
	b.handle(k.Log)
	check(t, k.Settle(t.Context()))
	check(t, k.Tick(t.Context()))
	expect("whole/0 5 of 1030 follows 3 of 1030, watermark 30")
	b.handle(k.Log)
	check(t, k.Settle(t.Context()))
	check(t, k.Tick(t.Context()))
	expect("")
	clocked.now += 7
	check(t, k.Advance(t.Context(), 40))
	expect("part/0 6 of 1040")
	b.handle(k.Log)
	check(t, k.Settle(t.Context()))
	check(t, k.Rest(t.Context()))
	if m := k.Mark(3, 7); m.Rests(3) {
		t.Error("rests while a node has to follow")
	}
	check(t, k.Tick(t.Context()))
	expect("whole/0 7 of 1040 follows 6 of 1040, watermark 40")
}
