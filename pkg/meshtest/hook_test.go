package meshtest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/services/output/notify"
)

// hook is the other side of notices, with the notes of what it was told.
type hook struct {
	notes map[string]bool
	told  map[string]int // by event: how often
	order []alarmEvent   // as each came first
}

func newHook() *hook { return &hook{notes: map[string]bool{}, told: map[string]int{}} }

// teller is what one loop has of it. Every call may find nobody, be the loop's last one, or go without an answer.
type teller struct {
	*hook
	env Env
}

var errNobody = bolt.Unavailable(errors.New("nobody answers"))

func (x teller) call(do func() error) error {
	if x.env.Pause(); x.env.Away() {
		return errNobody
	}
	err := do()
	if x.env.Pause(); x.env.Away() {
		return errNobody
	}
	return err
}

func (x teller) Noted(_ context.Context, key string) (noted bool, err error) {
	err = x.call(func() error { noted = x.notes[key]; return nil })
	return noted, err
}

func (x teller) Note(_ context.Context, key string) error {
	return x.call(func() error { x.notes[key] = true; return nil })
}

func (x teller) Deliver(_ context.Context, n notify.Notice) error {
	return x.call(func() error {
		var e alarmEvent
		if err := json.Unmarshal(n.Body, &e); err != nil {
			return bolt.Reject(err)
		}
		if x.told[n.ID]++; x.told[n.ID] == 1 {
			e.ID = n.ID
			x.order = append(x.order, e)
		}
		return nil
	})
}

// heard checks that what was told is what was stored and is not muted, in the order of each group's events.
func (h *hook) heard(events []alarmEvent) error {
	loud := map[string]bool{}
	for _, e := range events {
		if e.Notify {
			loud[e.ID] = true
		}
		if e.Notify && h.told[e.ID] == 0 {
			return fmt.Errorf("nobody was told of %+v", e)
		}
	}
	last := map[string]alarmEvent{}
	for _, e := range h.order {
		if !loud[e.ID] {
			return fmt.Errorf("told of what is not stored, or muted: %+v", e)
		}
		at := e.Alarm + " " + e.Group
		if before, ok := last[at]; ok && cmp.Or(cmp.Compare(before.Episode.Number, e.Episode.Number), cmp.Compare(before.Episode.Version, e.Episode.Version)) >= 0 {
			return fmt.Errorf("%s: told of episode %d, version %d, after %d, %d", at, e.Episode.Number, e.Episode.Version, before.Episode.Number, before.Episode.Version)
		}
		last[at] = e
	}
	return nil
}
