package rule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Commands, the "command" of a tuple on tuple.CommandStream.
const (
	CommandAck   = "ack"
	CommandClear = "clear"
)

// ErrNotOpen says that a command found no open episode.
var ErrNotOpen = errors.New("no open episode")

// command is the payload of a tuple on tuple.CommandStream. Its time is the tuple's, its group too.
type command struct {
	Command string `json:"command"`
	By      string `json:"by"`
	Note    string `json:"note"`
}

// command does what an operator asks for. What cannot be done is rejected: the dead letter is the answer to whoever asked.
func (b *Bolt) command(ctx context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	var q command
	if err := json.Unmarshal(t.Payload, &q); err != nil {
		return bolt.Reject(fmt.Errorf("the command: %w", err))
	}
	r, err := b.read(ctx, c)
	if err != nil {
		return err
	}
	said, what := Happening{At: t.Time, By: q.By, Note: q.Note}, Nothing
	switch q.Command {
	case CommandAck:
		what, err = r.Acknowledge(said)
	case CommandClear:
		what, err = r.End(said)
	default:
		err = fmt.Errorf("a command %q is not known to this version", q.Command)
	}
	if err != nil {
		return bolt.Reject(fmt.Errorf("%s of %s: %w", b.id, c.Group(), err))
	}
	if err := b.emit(what, cause{device: c.Group(), at: t.Time, by: q.By, note: q.Note}, c, &r.Episode); err != nil {
		return err
	}
	b.clock.wait(&r.watch, r.Waiting(&b.limits), c)
	return b.write(ctx, c, r)
}

// Acknowledge notes that somebody has seen the open episode, at the time of h.
func (e *Episode) Acknowledge(h Happening) (Change, error) {
	switch {
	case !e.Open:
		return Nothing, ErrNotOpen
	case e.Acknowledged != 0:
		return Nothing, fmt.Errorf("its episode %d has been acknowledged already%s", e.Number, byWhom(e.AcknowledgedBy))
	}
	e.Acknowledged, e.AcknowledgedBy = max(h.At, 1), h.By
	e.happen(Acknowledged, e.Severity, h)
	return Acknowledged, nil
}

// End clears the open episode, at the time of h, whatever the condition says: what levels have counted begins anew, so that readings for which it still
// holds raise the next one.
func (e *Episode) End(h Happening) (Change, error) {
	if !e.Open {
		return Nothing, ErrNotOpen
	}
	clear(e.Tracks)
	e.clear(h.At, h)
	return Cleared, nil
}

func byWhom(name string) string {
	if name == "" {
		return ""
	}
	return " by " + name
}
