package bolt_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// desk is the transports of a loop; it counts what the loop tells others.
type desk struct {
	frames                           []bolt.Delivery
	acked, published, sent, lettered int
}

func (d *desk) Fetch(context.Context, int) ([]bolt.Delivery, error) {
	in := d.frames
	d.frames = nil
	return in, nil
}

func (d *desk) Ack(_ context.Context, ds []bolt.Delivery) error { d.acked += len(ds); return nil }

func (*desk) Working(context.Context, []bolt.Delivery) error { return nil }

func (d *desk) Publish(_ context.Context, frames []bolt.Outgoing) error {
	d.published += len(frames)
	return nil
}

func (d *desk) Send(_ context.Context, _ tuple.Origin, ds []tuple.Delta) error {
	d.sent += len(ds)
	return nil
}

func (d *desk) Put(context.Context, *tuple.Letter) error { d.lettered++; return nil }

func (*desk) Known(context.Context, tuple.ID) (bool, error) { return false, nil }

// TestNewerFrameWaits gives a bolt, with state and without, a frame of this version and one of the next: it says so, and nobody is told anything, for as long as
// it runs; a build that reads both handles both.
func TestNewerFrameWaits(t *testing.T) {
	for name, b := range map[string]bolt.Bolt{"with state": &counting{}, "without state": says("!")} {
		d, store, task := &desk{}, state.NewMemory(), state.Task{Topology: "test", Node: "node"}
		loop := func() *bolt.Loop {
			o := bolt.Options{
				Where: trace.Where{Topology: "test", Node: "node", Worker: "w"}, Revision: 1, Bolt: b, Edges: []bolt.Edge{{To: "next", Stream: tuple.DefaultStream, Shared: true}},
				Inbox: d, Outbox: d, Deltas: d, Letters: d, Clock: bolttest.Clock{},
			}
			if _, ok := b.(bolt.Stateful); ok {
				epoch, err := store.Claim(t.Context(), task)
				if err != nil {
					t.Fatal(err)
				}
				o.Own = &bolt.Ownership{Store: store, Task: task, Epoch: epoch, View: state.NewCache(state.CacheOptions{Plain: true}).Open(store, task, epoch)}
			}
			l, err := bolt.New(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		var frames []bolt.Delivery
		for i := range int64(2) {
			x := at("a")
			x.ID, x.Offset, x.Stream = tuple.RootID(tuple.Position{Origin: 1, Offset: i}), i, tuple.DefaultStream
			x.Root = tuple.Root{Origin: 1, First: i, Attempt: tuple.Attempt{Generation: 1}}
			f := tuple.Frame{Revision: 1, Source: "source", Tuples: []tuple.Tuple{x}}
			data, err := f.Append(nil)
			if err != nil {
				t.Fatal(err)
			}
			frames = append(frames, bolt.Delivery{Data: data})
		}
		frames[1].Data[1] = tuple.Version + 1
		d.frames = frames
		l := loop()
		for range 3 {
			n, err := l.Step(t.Context())
			if n != 0 || !errors.Is(err, tuple.ErrVersion) || !strings.Contains(err.Error(), "upgrade this service") {
				t.Errorf("%s: %d frames, %v", name, n, err)
			}
		}
		if d.acked+d.published+d.sent+d.lettered > 0 || len(store.Values(task)) > 0 {
			t.Errorf("%s: %+v, %d values", name, d, len(store.Values(task)))
		}
		frames[1].Data[1] = tuple.Version // as the upgraded service reads it
		d.frames = frames
		if n, err := loop().Step(t.Context()); n != 2 || err != nil {
			t.Errorf("%s: after the upgrade %d frames, %v", name, n, err)
		}
		if d.acked != 2 || d.sent != 2 || d.published == 0 || d.lettered > 0 {
			t.Errorf("%s: after the upgrade %+v", name, d)
		}
	}
}
