// Package notify is what a notifying node does: it hands what an alarm emits with notify: true to the outside, once per event and target, in the order of
// its group. The output service runs one Bolt per task. It never stores a document, and never knows how a target is reached.
package notify

import (
	"context"
	"errors"
	"fmt"

	"github.com/tidwall/gjson"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Notice is one event on its way out.
type Notice struct {
	ID   string // of the event, 32 hexadecimal digits: the same however often it comes
	Body []byte // the event, a JSON object; it must not be changed
}

// Target is where notices go.
type Target interface {
	// Deliver returns nil when the other side has taken the notice. Errors are those of a bolt: bolt.Reject is final, bolt.Unavailable is an outage and
	// waited out, any other is tried again as often as the node's retry says.
	Deliver(ctx context.Context, n Notice) error
}

// Notes remember what was delivered, beyond the life of this process.
type Notes interface {
	// Noted reports whether Note was called for the key.
	Noted(ctx context.Context, key string) (bool, error)
	Note(ctx context.Context, key string) error
}

// To is a target with the word under which its deliveries are noted: letters only.
type To struct {
	Name   string
	Target Target
}

// Bolt implements bolt.Bolt.
type Bolt struct {
	notes Notes
	to    []To
	owed  map[string]bool // delivered by this process, and not noted since the notes were away
}

// New returns the bolt of one task. Without targets it takes events and tells nobody, as in a rehearsal.
func New(notes Notes, to ...To) (*Bolt, error) {
	if len(to) > 0 && notes == nil {
		return nil, errors.New("a notifying node needs its notes")
	}
	return &Bolt{notes, to, map[string]bool{}}, nil
}

// Execute implements bolt.Bolt. What was delivered to one target is noted before the next is tried, so that an attempt after a failure or a crash leaves
// out what is done; only a crash between a target's answer and the note of it delivers again.
func (b *Bolt) Execute(ctx context.Context, t *tuple.Tuple, _ *bolt.Collector) error {
	if gjson.GetBytes(t.Payload, "notify").Type != gjson.True {
		return nil
	}
	n := Notice{t.ID.String(), t.Payload}
	for _, to := range b.to {
		if err := b.deliver(ctx, n, to); err != nil {
			return err
		}
	}
	return nil
}

func (b *Bolt) deliver(ctx context.Context, n Notice, to To) error {
	key := n.ID + "." + to.Name
	if !b.owed[key] {
		noted, err := b.notes.Noted(ctx, key)
		if err != nil {
			return bolt.Unavailable(fmt.Errorf("look up whether the %s was told of event %s: %w", to.Name, n.ID, err))
		}
		if noted {
			return nil
		}
		if err := to.Target.Deliver(ctx, n); err != nil {
			return fmt.Errorf("tell the %s of event %s: %w", to.Name, n.ID, err)
		}
		b.owed[key] = true
	}
	if err := b.notes.Note(ctx, key); err != nil {
		return bolt.Unavailable(fmt.Errorf("note that the %s was told of event %s: %w", to.Name, n.ID, err))
	}
	delete(b.owed, key)
	return nil
}
