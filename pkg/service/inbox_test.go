package service

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
)

// drip is an inbox where a frame comes every so often.
type drip struct {
	bolt.Inbox
	every time.Duration
}

func (d drip) Fetch(ctx context.Context, _ int) ([]bolt.Delivery, error) {
	select {
	case <-time.After(d.every):
		return []bolt.Delivery{{}}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// TestPatience checks how many frames a batch has that waits for more, and how long it waits: not at all the first time, until it is full, or until the
// worker is to stop.
func TestPatience(t *testing.T) {
	const every, linger = 10 * time.Millisecond, 35 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		stop, tell := context.WithCancel(t.Context())
		in := &gentle{Inbox: drip{every: every}, stop: stop, linger: linger}
		time.AfterFunc(2*every+linger+2*every+every/2, tell) // while the third batch waits for more
		for i, want := range []struct {
			most, frames int
			after        time.Duration
		}{
			{32, 1, every}, {32, 4, every + linger}, {32, 2, 2*every + every/2}, {32, 0, 0},
		} {
			began := time.Now()
			out, _ := in.Fetch(t.Context(), want.most)
			if took := time.Since(began); len(out) != want.frames || took != want.after {
				t.Errorf("batch %d: %d frames after %v, want %d after %v", i, len(out), took, want.frames, want.after)
			}
		}
		in = &gentle{Inbox: drip{every: every}, stop: t.Context(), linger: time.Hour, begun: true}
		if out, err := in.Fetch(t.Context(), 3); len(out) != 3 || err != nil {
			t.Errorf("a batch with room for 3 frames has %d (%v)", len(out), err)
		}
	})
}
