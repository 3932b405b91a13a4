package tap

import (
	"context"
	"time"

	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// lookedMost is how many of the frames that wait for a task are looked into.
const lookedMost = 256

// Look looks for the quarry among the oldest frames that wait in the inputs or are being handled: what passed before Follow began, and has not been
// acknowledged. When that was, nobody says: such hops have no time.
func (f *Following) Look(ctx context.Context, conn *jetstream.Conn) error {
	name := f.plan.Topology.Name
	for i := range f.plan.Nodes {
		n := &f.plan.Nodes[i]
		if n.Kind == topology.KindSpout {
			continue
		}
		for _, task := range tuple.Tasks(n.Tasks, n.Shared) {
			frames, err := conn.Peek(ctx, name, n.ID, task, lookedMost, 0)
			if err != nil {
				return err
			}
			for _, data := range frames {
				h := jetstream.Heard{Subject: jetstream.Subject(name, n.ID, task), ID: frameID(n.ID, task, data), Data: data}
				if !f.before.has(h.ID) {
					f.frame(&h, time.Time{})
				}
			}
		}
	}
	return nil
}

// frameID computes the id that a frame was published under; "" when it cannot be read.
func frameID(node string, task int32, data []byte) string {
	var f tuple.Frame
	if f.Decode(data) != nil {
		return ""
	}
	to, ids := tuple.NameOf(node), make([]uint64, len(f.Tuples))
	for i := range f.Tuples {
		ids[i] = tuple.LedgerID(f.Tuples[i].ID, to, task, f.Tuples[i].Root.Attempt)
	}
	return tuple.FrameID(to, task, ids).String()
}
