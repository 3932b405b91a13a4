package spout_test

import (
	"errors"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

func (b *bench) commands() *spout.Commands {
	b.t.Helper()
	c, err := spout.NewCommands(b.t.Context(), b.options(spout.CommandLog), "test", b.logs, spout.CommandOptions{
		Letters: b,
		Route: func(node, group string) (bolt.Edge, error) {
			if b.nowhere {
				return bolt.Edge{}, errors.New("no such alarm")
			}
			return bolt.Edge{To: node, Stream: tuple.CommandStream, Tasks: 4, Direct: true, Task: 3}, nil
		},
	})
	check(b.t, err)
	return c
}

// A command is emitted as one tuple to the task of its group; the next owner emits it again under the same id, until it is processed.
func TestCommands(t *testing.T) {
	b := &bench{t: t, logs: state.NewMemory()}
	c := b.commands()
	for i, want := range []bool{true, false} {
		at, added, err := spout.AppendCommand(t.Context(), b.logs, "test", spout.Command{ID: "q1", Node: "hot", Group: "m1", At: int64(7 + i), Payload: []byte(`{"command":"ack"}`)})
		if err != nil || at != 0 || added != want {
			t.Errorf("%d, %v, %v", at, added, err)
		}
	}
	check(t, c.Look(t.Context()))
	check(t, c.Pump(t.Context()))
	c = b.commands() // the first owner died
	check(t, c.Pump(t.Context()))
	if len(b.frames) != 2 {
		t.Fatalf("%d frames", len(b.frames))
	}
	for _, f := range b.frames {
		x := f.Tuples[0]
		if f.Source != "readings>hot/3" || len(f.Tuples) != 1 || x.ID != spout.CommandID("test", 0) || x.Stream != tuple.CommandStream || x.Key != "m1" ||
			x.Group != "m1" || x.Time != 7 || x.N != 0 || string(x.Payload) != `{"command":"ack"}` {
			t.Errorf("%+v", f)
		}
	}
	b.frames = b.frames[1:]
	b.handle(c.Log)
	check(t, c.Settle(t.Context()))
	if !c.Flushed() || len(b.letters) > 0 {
		t.Error(c.Describe(), b.letters)
	}
}

// A command to a node that left becomes a dead letter under the id that the tuple would have had.
func TestCommandWithoutAWay(t *testing.T) {
	b := &bench{t: t, logs: state.NewMemory(), nowhere: true}
	_, _, err := spout.AppendCommand(t.Context(), b.logs, "test", spout.Command{ID: "q1", Node: "hot", Group: "m1", At: 7, Payload: []byte(`{}`)})
	check(t, err)
	c := b.commands()
	b.refuse = errors.New("the letters are away")
	if err := c.Pump(t.Context()); !errors.Is(err, b.refuse) || c.Next() != 0 {
		t.Errorf("%v, next is %d", err, c.Next())
	}
	b.refuse = nil
	check(t, c.Pump(t.Context()))
	check(t, c.Settle(t.Context()))
	if len(b.letters) != 1 || !c.Flushed() {
		t.Fatalf("%d letters", len(b.letters))
	}
	if l := b.letters[0]; l.ID != spout.CommandID("test", 0) || l.Node != "hot" || l.Group != "m1" || l.Error != "no such alarm" || l.Stream != tuple.CommandStream {
		t.Errorf("%+v", l)
	}
}
