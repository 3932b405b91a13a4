package services

import (
	"context"
	"io"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/service"
	"github.com/boltmesh/boltmesh/pkg/webhook"
	"github.com/boltmesh/boltmesh/services/output/notify"
)

// notifying builds the bolt of a node that notifies, with the targets that its settings name here.
func notifying(n service.Node) (*notifier, error) {
	if n.Notices == nil {
		b, err := notify.New(nil)
		return &notifier{Bolt: b}, err
	}
	o, err := n.Bolt.Notify.Resolve(n.Env)
	if err != nil {
		return nil, err
	}
	out := &notifier{}
	var to []notify.To
	if o.Subject != "" {
		to = append(to, notify.To{Name: "subject", Target: subject{n.Notices, o.Subject}})
	}
	if o.Webhook != "" {
		hook, err := webhook.New(webhook.Options{Address: o.Webhook, Secret: o.Secret, Timeout: o.Timeout})
		if err != nil {
			return nil, err
		}
		out.hook, to = hook, append(to, notify.To{Name: "webhook", Target: posted{hook}})
	}
	out.Bolt, err = notify.New(n.Notices, to...)
	return out, err
}

// notifier is a notifying bolt with the connections that end with it.
type notifier struct {
	*notify.Bolt
	hook io.Closer // nil when there is none
}

// Close implements io.Closer.
func (n *notifier) Close() error {
	if n.hook == nil {
		return nil
	}
	return n.hook.Close()
}

// subject is a target on NATS.
type subject struct {
	notices *jetstream.Notices
	name    string
}

// Deliver implements notify.Target. Whatever NATS says is an outage: it takes any event.
func (s subject) Deliver(ctx context.Context, n notify.Notice) error {
	if err := s.notices.Publish(ctx, s.name, n.ID, n.Body); err != nil {
		return bolt.Unavailable(err)
	}
	return nil
}

// posted is a target by HTTP.
type posted struct{ hook *webhook.Hook }

// Deliver implements notify.Target.
func (p posted) Deliver(ctx context.Context, n notify.Notice) error {
	return p.hook.Post(ctx, n.ID, n.Body)
}
