package bolt_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// keeper keeps the frames that it is given, as the fakes of tests do.
type keeper struct{ frames []bolt.Outgoing }

func (s *keeper) Publish(_ context.Context, frames []bolt.Outgoing) error {
	s.frames = append(s.frames, frames...)
	return nil
}

// wire has written them elsewhere when it returns.
type wire struct {
	keeper
	memory map[*byte]int // how often each was used
}

func (w *wire) Publish(_ context.Context, frames []bolt.Outgoing) error {
	for _, f := range frames {
		w.memory[&f.Data[0]]++
		f.Data = bytes.Clone(f.Data)
		w.frames = append(w.frames, f)
	}
	return nil
}

func (w *wire) Forgets() {}

// TestMemoryOfFrames has the memory of frames used again after an outbox that forgets them, and never after one that does not.
func TestMemoryOfFrames(t *testing.T) {
	check := func(t *testing.T, o bolt.Outbox, frames *[]bolt.Outgoing) {
		h := bolttest.New(t, passing{})
		h.Outbox(o)
		const rounds = 50
		for i := range rounds {
			h.Feed(tuple.Tuple{Key: "a", Payload: fmt.Appendf(nil, `{"n":%d}`, i)})
		}
		if len(*frames) != rounds {
			t.Fatalf("%d frames", len(*frames))
		}
		for i, f := range *frames {
			if got := bolttest.Tuples(t, f); len(got) != 1 || string(got[0].Payload) != fmt.Sprintf(`{"n":%d}`, i) {
				t.Fatalf("frame %d holds %v", i, payloads(got))
			}
		}
	}
	t.Run("forgotten", func(t *testing.T) {
		w := &wire{memory: map[*byte]int{}}
		check(t, w, &w.frames)
		if len(w.memory) == len(w.frames) {
			t.Errorf("%d frames had memory of their own", len(w.frames))
		}
	})
	t.Run("kept", func(t *testing.T) {
		s := &keeper{}
		check(t, s, &s.frames)
	})
}
