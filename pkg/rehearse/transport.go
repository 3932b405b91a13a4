package rehearse

import (
	"context"
	"fmt"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// inbox is a task's input: first in, first out.
type inbox struct{ waiting []bolt.Delivery }

// Fetch implements bolt.Inbox.
func (i *inbox) Fetch(_ context.Context, most int) ([]bolt.Delivery, error) {
	n := min(most, len(i.waiting))
	out := i.waiting[:n:n]
	i.waiting = i.waiting[n:]
	return out, nil
}

// Ack implements bolt.Inbox.
func (*inbox) Ack(context.Context, []bolt.Delivery) error { return nil }

// Working implements bolt.Inbox. It is called when a bolt's dependency is away, which here nothing will bring back.
func (*inbox) Working(context.Context, []bolt.Delivery) error { return nil }

type outbox struct{ *Stage }

// Publish implements bolt.Outbox.
func (o outbox) Publish(_ context.Context, frames []bolt.Outgoing) error {
	for _, f := range frames {
		in := o.inputs[address{f.Node, f.Task}]
		if in == nil {
			return fmt.Errorf("no task %d of node %s", f.Task, f.Node)
		}
		in.waiting = append(in.waiting, bolt.Delivery{Data: f.Data})
	}
	return nil
}

type deltas struct{ *Stage }

// Send implements bolt.Deltas.
func (d deltas) Send(_ context.Context, origin tuple.Origin, deltas []tuple.Delta) error {
	switch origin {
	case d.partition.Origin:
		d.partition.Apply(deltas)
	case d.prompter.Origin:
		d.prompter.Apply(deltas)
	case d.ticker.Origin:
		d.ticker.Apply(deltas)
	}
	return nil
}

// letters are those of one node.
type letters struct {
	*Stage
	node string
}

// Put implements bolt.Letters.
func (l letters) Put(_ context.Context, letter *tuple.Letter) error {
	if key := (burial{l.node, letter.ID}); !l.buried[key] {
		l.buried[key] = true
		l.Letters = append(l.Letters, letter)
	}
	return nil
}

// Known implements bolt.Letters.
func (l letters) Known(_ context.Context, id tuple.ID) (bool, error) {
	return l.buried[burial{l.node, id}], nil
}

// clock is the stage's. Sleeping takes no time: a failing bolt is tried again at once.
type clock struct{ *Stage }

// Now implements bolt.Clock.
func (c clock) Now() time.Time { return c.now }

// Sleep implements bolt.Clock.
func (c clock) Sleep(ctx context.Context, _ time.Duration) error { return ctx.Err() }

// listener is the bolt of the tap.
type listener struct{ *Stage }

// Execute implements bolt.Bolt.
func (l listener) Execute(_ context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	e := Emitted{Node: c.Source(), Tuple: *t}
	e.Payload = append([]byte(nil), t.Payload...)
	l.Emitted = append(l.Emitted, e)
	return nil
}

// absent stands in for a bolt that nobody builds.
type absent struct{}

// Execute implements bolt.Bolt.
func (absent) Execute(context.Context, *tuple.Tuple, *bolt.Collector) error { return nil }
