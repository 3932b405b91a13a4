package service

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/spout"
)

// moments is an outbox that notes when it gets which task's frame, and refuses that of one.
type moments struct {
	began  time.Time
	at     []time.Duration
	tasks  []int32
	refuse int32
}

var errRefused = errors.New("refused")

func (m *moments) Publish(_ context.Context, frames []bolt.Outgoing) error {
	for _, f := range frames {
		if f.Task == m.refuse {
			return errRefused
		}
		m.at, m.tasks = append(m.at, time.Since(m.began)), append(m.tasks, f.Task)
	}
	return nil
}

// TestTicksAreStaggered: the frames of one moment go out in order, at even distances, none behind one that failed.
func TestTicksAreStaggered(t *testing.T) {
	const ms = time.Millisecond
	frames := []bolt.Outgoing{{Task: 0}, {Task: 1}, {Task: 2}, {Task: 3}}
	synctest.Test(t, func(t *testing.T) {
		m := &moments{began: time.Now(), refuse: -1}
		s := &staggered{m, spread([]spout.Due{{Every: 3_600_000}, {Every: 80}, {}})}
		if err := s.Publish(t.Context(), frames); err != nil {
			t.Fatal(err)
		}
		if want := []time.Duration{0, 10 * ms, 20 * ms, 30 * ms}; !slices.Equal(m.at, want) || !slices.Equal(m.tasks, []int32{0, 1, 2, 3}) {
			t.Errorf("tasks %v at %v, want all four in order at %v", m.tasks, m.at, want)
		}
		m.refuse, m.tasks = 1, nil
		if err := s.Publish(t.Context(), frames); !errors.Is(err, errRefused) || !slices.Equal(m.tasks, []int32{0}) {
			t.Errorf("tasks %v, %v; want the first, and an error", m.tasks, err)
		}
		over, end := context.WithCancel(t.Context())
		end()
		m.refuse, m.began, m.at = -1, time.Now(), nil
		if err := s.Publish(over, frames); err != nil || time.Since(m.began) > 0 {
			t.Errorf("a worker that ends waited for %v: %v", time.Since(m.began), err)
		}
	})
	if got := spread([]spout.Due{{}}); got != 500*ms {
		t.Errorf("ticks of watermarks are spread over %v", got)
	}
}
