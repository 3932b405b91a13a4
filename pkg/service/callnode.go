package service

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/call"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// anew is how often a bolt's call is made again under another id when its answer is lost.
const anew = 3

// asking is what a node's bolts call with.
type asking struct {
	client  *call.Client
	timeout time.Duration
}

// asks returns what the bolts of this host call with. A call is given up when the root that it is made for is overdue: by then it comes again.
func (h *host) asks() *asking {
	return &asking{call.New(h.Conn), h.plan.Topology.Spout.Timeout}
}

// Call asks a topology a question, whatever v encodes as, a JSON object, and waits for the whole answer, for as long as a root of this node's own topology
// may take (`timeout` of its spout). It is for Execute of a node without state, with the tuple that Execute handles. While it waits the broker is told that
// the frame is being worked on, and the loop does nothing else: a node that calls takes fetch.frames: 1, so that it holds back no others, and needs as
// many loops as calls are to be under way.
//
// The call's id follows from the tuple and the question: when the tuple comes again, after a crash or since its root was overdue, it is the same call,
// and its answer is still there for a minute. If it is lost all the same, the call is made anew: who is called may work twice, the caller answers once.
//
// Return its error from Execute: where dead letters or too many replies leave no answer it rejects the tuple; a deadline counts as one of the
// node's attempts (`retry`).
func (n Node) Call(ctx context.Context, t *tuple.Tuple, topology string, v any) (*call.Answer, error) {
	question, err := spout.JSON(v)
	if err != nil {
		return nil, bolt.Reject(fmt.Errorf("call %s: %w", topology, err))
	}
	switch {
	case n.Stateful:
		return nil, bolt.Reject(fmt.Errorf("node %s keeps state: it cannot call and wait, as all that its task owns would wait too", n.ID))
	case n.asking == nil:
		return nil, bolt.Reject(fmt.Errorf("node %s calls %s: there is nobody to call here", n.ID, topology))
	}
	if err := spout.CheckCall(question); err != nil {
		return nil, bolt.Reject(fmt.Errorf("call %s: %w", topology, err))
	}
	id := n.callID(t, topology, question)
	var a *call.Answer
	for i := range anew {
		o := call.Options{ID: id, Timeout: n.asking.timeout, Keep: true}
		if i > 0 {
			o.ID = fmt.Sprint(id, "-", i)
		}
		if a, err = n.asking.client.Call(ctx, topology, question, o); !errors.Is(err, call.ErrLost) {
			break
		}
	}
	switch {
	case err == nil:
		return a, nil
	case errors.As(err, new(*call.FailedError)), errors.Is(err, call.ErrTooMany):
		return nil, bolt.Reject(fmt.Errorf("call %s: %w", topology, err))
	}
	return nil, fmt.Errorf("call %s: %w", topology, err)
}

// callID names the call that a node makes for a tuple, the same at every attempt, another in each task that has got the tuple.
func (n Node) callID(t *tuple.Tuple, topology string, question []byte) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s %s %d %s %s", t.ID, n.ID, n.Task, topology, question)
	return "bolt-" + hex.EncodeToString(h.Sum(nil)[:16])
}
