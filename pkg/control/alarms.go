package control

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// CommandSubject is where the owner of a topology's command log takes commands: a CommandRequest, answered by a CommandTaken.
func CommandSubject(topology string) string { return "bmctl." + topology + ".command" }

// What an alarm can be told to do.
const (
	CommandAck   = "ack"
	CommandClear = "clear"
)

// MaxNote and MaxBy bound what an operator writes, in bytes: it stays in the history of the episode.
const (
	MaxNote = 1024
	MaxBy   = 128
)

// CommandRequest asks the owner of the command log to append a command, once however often it is asked for under one id.
type CommandRequest struct {
	ID      string `json:"id"`
	Node    string `json:"node"`
	Group   string `json:"group"`
	Command string `json:"command"` // CommandAck or CommandClear
	By      string `json:"by,omitempty"`
	Note    string `json:"note,omitempty"`
}

// Check says what is wrong with a request, or nil.
func (q *CommandRequest) Check() error {
	switch {
	case q.ID == "" || len(q.ID) > 128:
		return errors.New("the id of a request has 1 to 128 bytes")
	case q.Command != CommandAck && q.Command != CommandClear:
		return fmt.Errorf("a command %q is not known to this version", q.Command)
	case q.Group == "" || len(q.Group) > tuple.MaxKey:
		return fmt.Errorf("a group has 1 to %d bytes", tuple.MaxKey)
	case len(q.Note) > MaxNote:
		return fmt.Errorf("the note has %d bytes, at most %d are kept", len(q.Note), MaxNote)
	case len(q.By) > MaxBy:
		return fmt.Errorf("the name has %d bytes, at most %d are kept", len(q.By), MaxBy)
	}
	return nil
}

// CommandTaken is the owner's answer.
type CommandTaken struct {
	Position int64  `json:"position"` // in the command log
	New      bool   `json:"new"`      // false: it had been given before
	Done     bool   `json:"done"`     // it is fully processed: what came of it is stored
	Error    string `json:"error,omitempty"`
}

// CommandOutcome is what became of a command.
type CommandOutcome struct {
	CommandRequest
	Position int64  `json:"position"`
	New      bool   `json:"new"`
	Refused  string `json:"refused,omitempty"` // why nothing was done
}

// Command has an alarm do something for one group, and returns what came of it once it is processed: its event is emitted and, if the alarm is saved,
// stored. An empty id is replaced by a new one. It waits for the log's owner and for the alarm as long as ctx lasts; an error then names the id under which
// to ask again.
func (c *Control) Command(ctx context.Context, name string, q CommandRequest) (CommandOutcome, error) {
	if q.ID == "" {
		q.ID = rand.Text()
	}
	out := CommandOutcome{CommandRequest: q}
	if err := q.Check(); err != nil {
		return out, err
	}
	if _, err := c.Get(ctx, name); err != nil {
		return out, err
	}
	letters, err := c.conn.Letters(ctx)
	if err != nil {
		return out, err
	}
	request, err := json.Marshal(q)
	if err != nil {
		return out, err
	}
	for taken := false; ; {
		a, err := c.askCommand(ctx, name, request)
		if err == nil && a.Error != "" {
			return out, errors.New(a.Error)
		}
		if err == nil {
			out.Position, out.New, taken = a.Position, out.New || a.New, true
		}
		if err == nil && a.Done {
			out.Refused, err = refusal(ctx, letters, name, q.Node, a.Position)
			return out, err
		}
		if wait(ctx, poll) == nil {
			continue
		}
		if taken {
			return out, fmt.Errorf("it is taken, and will be done, but is not yet: is %s paused, does an alarm worker run? Ask again with --request %s", name, q.ID)
		}
		return out, fmt.Errorf("nobody takes commands for %s: %w: does a spout run?", name, err)
	}
}

func (c *Control) askCommand(ctx context.Context, name string, request []byte) (a CommandTaken, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	answer, err := c.conn.Request(ctx, CommandSubject(name), request)
	if err == nil {
		err = json.Unmarshal(answer, &a)
	}
	return a, err
}

// refusal is what the dead letter of a command says, which was stored before the command counted as processed; "" when there is none. The letter is dropped:
// its tuple cannot come again, and whoever asked is told.
func refusal(ctx context.Context, letters *jetstream.Letters, name, node string, at int64) (string, error) {
	key := jetstream.LetterKey{Node: node, ID: spout.CommandID(name, at)}
	l, sequence, err := letters.Load(ctx, name, key.Node, key.ID)
	if err == nil {
		err = letters.Deal(ctx, name, key, jetstream.Dealt{Dropped: true, Position: -1, At: time.Now().UnixMilli()})
		if err == nil {
			_ = letters.Delete(ctx, sequence) // somebody who asked the same may have been faster
		}
		return l.Error, err
	}
	if !errors.Is(err, jetstream.ErrNotFound) {
		return "", err
	}
	dealt, err := letters.Dealt(ctx, name)
	if d, ok := dealt[key]; ok && d.Dropped {
		return "it was refused before, and whoever asked was told why", err
	}
	return "", err
}
