package meshtest

import (
	"context"
	"slices"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
)

// convoy is what several partitions have packed into the same frames. It is stored by an actor of its own, which goes on when one of the partitions is taken
// away, and dies with the last of them, as a worker that is killed does.
type convoy struct {
	pack    *bolt.Packer
	members []*actor
	done    bool
}

// carry implements spout.Options.Carry.
func (t *transport) carry(_ context.Context, tuples int, pack func() *bolt.Packer, load func(*bolt.Packer) error) (bool, error) {
	m := t.m
	if tuples == 0 || m.rng.IntN(4) == 0 {
		return false, nil
	}
	c := m.convoys[t.a.revision]
	if c == nil {
		c = &convoy{pack: pack()}
		m.convoys[t.a.revision] = c
		revision := t.a.revision
		m.spawn("convoy", func(a *actor) error {
			a.sleep(time.Duration(m.rng.IntN(20)) * time.Millisecond)
			delete(m.convoys, revision)
			with := &transport{m: m, a: a, in: t.in}
			for _, f := range c.pack.Take() {
				if !slices.ContainsFunc(c.members, func(x *actor) bool { return !x.over }) {
					return nil
				}
				if err := with.Publish(context.Background(), []bolt.Outgoing{f}); err != nil {
					return err
				}
			}
			c.done = true
			return nil
		})
	}
	if err := load(c.pack); err != nil {
		return true, err
	}
	c.members = append(c.members, t.a)
	for !c.done {
		t.a.sleep(time.Millisecond)
	}
	return true, nil
}
