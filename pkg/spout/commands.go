package spout

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// CommandLog is the name of the log of commands among a topology's logs; its entries are of type Command.
const CommandLog = "command"

// Command is what an operator asks of a node for one group.
type Command struct {
	ID      string          `json:"id"` // the asker's: a command given again under its id is the same command
	Node    string          `json:"node"`
	Group   string          `json:"group"`
	At      int64           `json:"at"` // ms: when it was taken
	Payload json.RawMessage `json:"payload"`
}

// CommandOptions say where commands go.
type CommandOptions struct {
	// Route returns the edge that leads to the task which has the group. An error says that there is no way, for good.
	Route   func(node, group string) (bolt.Edge, error)
	Letters bolt.Letters // takes what cannot be emitted
}

// Commands owns a topology's log of commands. Each is emitted as a root of its own, to one task, where it stands among the readings of its group: in order,
// once, and replayed like them. A node that cannot do what it is asked rejects the tuple, so that the dead letter under the command's position is the answer.
type Commands struct {
	*Log
	CommandOptions
}

// NewCommands reads where the log stands. The generation in o has been raised for the log CommandLog by the caller; o.Commit and o.Floor are set here.
func NewCommands(ctx context.Context, o Options, topology string, logs state.Logs, co CommandOptions) (*Commands, error) {
	c := &Commands{CommandOptions: co}
	var err error
	c.Log, err = openLog(ctx, o, topology, CommandLog, logs, 0, c.emission)
	return c, err
}

// AppendCommand adds a command to the log, once however often it is given, by whoever. It returns its position either way. It may be called concurrently
// with everything else.
func AppendCommand(ctx context.Context, logs state.Logs, topology string, q Command) (at int64, added bool, err error) {
	entry, err := json.Marshal(q)
	if err != nil {
		return 0, false, err
	}
	return logs.AppendOnce(ctx, topology, CommandLog, q.ID, entry)
}

// CommandID is the id of the tuple that the command at a position is, and of its dead letter.
func CommandID(topology string, at int64) tuple.ID {
	return tuple.RootID(tuple.Position{Origin: LogOrigin(topology, CommandLog), Offset: at})
}

func (c *Commands) emission(ctx context.Context, at int64, payload []byte) (emission, error) {
	var q Command
	if err := json.Unmarshal(payload, &q); err != nil {
		return emission{}, fmt.Errorf("entry %d of the command log: %w", at, err)
	}
	said := trace.Emitted{Where: c.Where, Root: tuple.Root{Origin: c.Origin, First: at, Attempt: c.ledger.Attempt()}, Records: 1, At: c.Clock.Now()}
	t := tuple.Tuple{
		ID: CommandID(c.topology, at), Offset: at, Stream: tuple.CommandStream, Key: q.Group, Group: q.Group, Time: q.At, Payload: q.Payload,
	}
	edge, err := c.Route(q.Node, q.Group)
	if err != nil {
		if err := c.bury(ctx, q.Node, &t, err); err != nil {
			return emission{}, err
		}
		said.Rejected = 1
		c.Sink.Emit(said)
		return emission{}, nil
	}
	said.Accepted = 1
	c.Sink.Emit(said)
	return emission{c.Where.Node, []bolt.Edge{edge}, []tuple.Tuple{t}}, nil
}

// bury makes a letter of a command that has nowhere to go: the topology has changed since it was taken.
func (c *Commands) bury(ctx context.Context, node string, t *tuple.Tuple, why error) error {
	return c.Letters.Put(ctx, &tuple.Letter{
		ID: t.ID, Topology: c.topology, Node: node, Worker: c.Where.Worker, Revision: c.Revision, Origin: c.Origin, Offset: t.Offset, Generation: c.Generation,
		Source: c.Where.Node, Stream: t.Stream, Key: t.Key, Group: t.Group, Time: t.Time, Payload: t.Payload, Error: why.Error(), Tries: 1,
		FailedAt: c.Clock.Now().UnixMilli(),
	})
}
