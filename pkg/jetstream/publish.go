package jetstream

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Pauses between attempts of a publish that was refused or not answered.
const (
	firstPause = 2 * time.Millisecond
	lastPause  = 250 * time.Millisecond
)

// ackPatience is how long an acknowledgement of a frame is waited for before the frame is sent again under its id. One that was on its way to a server that
// died is never answered, and all that comes behind it on its subject waits too.
const ackPatience = 2 * time.Second

// Outbox publishes the frames of one topology. It implements bolt.Outbox and is safe for concurrent use.
type Outbox struct {
	conn     *Conn
	topology string
	// Refused is told of a publish that has to be repeated, and why: back-pressure, or a broker that does not answer.
	Refused func(node string, err error)
}

// Outbox returns where a topology's frames are published.
func (c *Conn) Outbox(topology string) *Outbox { return &Outbox{conn: c, topology: topology} }

type pending struct {
	frame  bolt.Outgoing
	future jetstream.PubAckFuture
}

// Forgets implements bolt.Forgetful: a frame has been written to the connection before its acknowledgement comes, and is not looked at again.
func (o *Outbox) Forgets() {}

// Publish implements bolt.Outbox: in rounds, each with the next frame of every destination, so that none overtakes its predecessor. Frames for
// competing workers have no order and go at once.
func (o *Outbox) Publish(ctx context.Context, frames []bolt.Outgoing) error {
	for len(frames) > 0 {
		var round []pending
		var rest []bolt.Outgoing
		busy := map[string]bool{}
		for _, f := range frames {
			subject := Subject(o.topology, f.Node, f.Task)
			if f.Task != tuple.Shared && busy[subject] {
				rest = append(rest, f)
				continue
			}
			busy[subject] = true
			future, err := o.send(subject, f)
			if err != nil {
				future = nil
			}
			round = append(round, pending{f, future})
		}
		if err := o.await(ctx, round); err != nil {
			return err
		}
		frames = rest
	}
	return nil
}

func (o *Outbox) send(subject string, f bolt.Outgoing) (jetstream.PubAckFuture, error) {
	msg := &nats.Msg{Subject: subject, Data: f.Data, Header: nats.Header{jetstream.MsgIDHeader: []string{f.ID.String()}}}
	return o.conn.js.PublishMsgAsync(msg, jetstream.WithRetryAttempts(0))
}

// await waits for every acknowledgement, sending again, under the same id, what was refused or not answered.
func (o *Outbox) await(ctx context.Context, round []pending) error {
	pause := firstPause
	for {
		var again []pending
		for _, p := range round {
			if p.future == nil {
				again = append(again, p)
				continue
			}
			select {
			case <-p.future.Ok():
			case err := <-p.future.Err():
				if o.Refused != nil {
					o.Refused(p.frame.Node, err)
				}
				again = append(again, p)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if len(again) == 0 {
			return nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
		pause = min(2*pause, lastPause)
		for i, p := range again {
			again[i].future, _ = o.send(Subject(o.topology, p.frame.Node, p.frame.Task), p.frame)
		}
		round = again
	}
}

var _ bolt.Forgetful = (*Outbox)(nil)
