package service

import (
	"context"
	"encoding/json"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// holdersWait bounds how long a spout waits for workers to say what they hold.
const holdersWait = 200 * time.Millisecond

// works notes that a loop runs, so that it can be asked what it holds, until the returned function is called.
func (h *host) works(task int32, l *bolt.Loop) func() {
	h.working.Store(l, task)
	return func() { h.working.Delete(l) }
}

// answerHolders tells spouts which of this node's loops hold a root.
func (h *host) answerHolders() (stop func(), err error) {
	return h.Conn.Serve(control.HoldersSubject(h.plan.Topology.Name), func(question []byte) []byte {
		var root tuple.Root
		if json.Unmarshal(question, &root) != nil {
			return nil
		}
		var found []trace.Holder
		h.working.Range(func(l, task any) bool {
			if held := l.(*bolt.Loop).Held(); held != nil && holds(held, root) {
				found = append(found, trace.Holder{Node: h.node.ID, Task: task.(int32), Worker: h.Name, Since: held.Since})
			}
			return true
		})
		answer, _ := json.Marshal(found) // plain values always encode
		return answer
	})
}

func holds(held *bolt.Held, root tuple.Root) bool {
	for _, r := range held.Roots {
		if r.Origin == root.Origin && r.First == root.First {
			return true
		}
	}
	return false
}

// holders asks all workers who holds an overdue root. When nobody does, it names the nodes where frames are waiting.
func (h *host) holders(ctx context.Context, root tuple.Root) (found []trace.Holder) {
	name := h.plan.Topology.Name
	question, _ := json.Marshal(root)
	answers, err := h.Conn.Ask(ctx, control.HoldersSubject(name), question, holdersWait)
	if err != nil {
		h.failed(h.at(), "ask who holds a root", err)
	}
	for _, a := range answers {
		var some []trace.Holder
		if json.Unmarshal(a, &some) == nil {
			found = append(found, some...)
		}
	}
	if len(found) > 0 {
		return found
	}
	queues, err := h.Conn.Queues(ctx, name)
	if err != nil {
		h.failed(h.at(), "look where frames wait", err)
	}
	for _, n := range h.plan.Nodes {
		if queues[n.ID].Sum() > 0 {
			found = append(found, trace.Holder{Node: n.ID, Task: tuple.Shared})
		}
	}
	return found
}
