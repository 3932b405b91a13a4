package service

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/spout"
)

// told is what a revision of a topology's key says about emitting: see control.Applied.
type told struct {
	key                    uint64 // the key's revision
	paused, rested, closed bool
}

func toldBy(e jetstream.Entry, a *control.Applied) told {
	return told{e.Revision, a.Paused, a.Rested, a.Closed}
}

// pause is what a mark or a log says in the lease when it has stopped for this: see member.Log.
func (t told) pause() uint64 {
	if !t.paused {
		return 0
	}
	return t.key
}

// tell notes what the key says, unless more recent news has come: by a watch, and by looking, which may overtake it.
func (r *running) tell(t told) {
	for {
		was := r.told.Load()
		if was != nil && was.key >= t.key || r.told.CompareAndSwap(was, &t) {
			return
		}
	}
}

// told returns what the topology is told, as far as this worker knows.
func (h *host) told() told { return *h.is.told.Load() }

// introduce has the lease tell, by update, of a partition or a log that this worker is about to emit from, and then looks what the topology is told by now, in this
// order. Whoever changes the topology closes it first and looks at the leases then: so one of the two sees the other. Where the topology is closed it waits. It
// returns false when ctx has ended: then nothing must be emitted.
func (h *host) introduce(ctx context.Context, update func(*member.Member)) bool {
	if !h.lease.tell(ctx, update) {
		return false
	}
	for ctx.Err() == nil {
		now, err := h.look(ctx)
		switch {
		case err == nil && !now.closed:
			return true
		case err == nil:
			sleep(ctx, spoutTick)
		case ctx.Err() == nil:
			h.failed(h.at(), "look whether the topology is being changed", err)
			sleep(ctx, 5*spoutTick)
		}
	}
	return false
}

// introducePartition is introduce for a partition, until the worker is to stop or the partition is taken away.
func (h *host) introducePartition(ctx, assigned context.Context, p *spout.Partition) bool {
	either, cancel := context.WithCancel(assigned)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	return h.introduce(either, func(m *member.Member) { h.show(m, p.Mark()) })
}

// look asks the bucket's leader what the topology is told. To a worker of another revision than the applied one it is closed: it is about to be replaced.
func (h *host) look(ctx context.Context) (told, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	e, err := h.applied.Load(ctx, h.plan.Topology.Name)
	if errors.Is(err, jetstream.ErrNotFound) {
		return told{closed: true}, nil
	}
	var a control.Applied
	if err == nil {
		err = json.Unmarshal(e.Value, &a)
	}
	if err != nil || a.Revision != h.revision {
		return told{closed: true}, err
	}
	now := toldBy(e, &a)
	h.is.tell(now)
	return now, nil
}
