package service

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/boltmesh/boltmesh/pkg/ack"
	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// commandOwner runs the topology's log of commands while this worker holds its lease.
func (h *host) commandOwner(ctx context.Context) {
	if len(h.plan.Alarms()) > 0 {
		h.ownLog(ctx, spout.CommandLog, h.commandLoop)
	}
}

// commandLoop owns the command log until ctx ends: it appends the commands that it is given, and emits them.
func (h *host) commandLoop(ctx, hard context.Context) error {
	name := h.plan.Topology.Name
	generation, err := h.Logs.Raise(hard, name, spout.CommandLog)
	if err != nil {
		return err
	}
	where := h.at()
	where.Task = -5 // no partition: the command log
	deltas, stop, err := h.deltas(spout.LogOrigin(name, spout.CommandLog), where)
	if err != nil {
		return err
	}
	defer stop()
	r, err := spout.NewCommands(hard, spout.Options{
		Where: where, Generation: generation, Revision: h.revision, Outbox: h.outbox, Clock: clock{}, Sink: h.Sink,
		Ledger: ack.Options{Timeout: h.plan.Topology.Spout.Timeout.Milliseconds()},
	}, name, h.Logs, spout.CommandOptions{
		Route: func(node, group string) (bolt.Edge, error) { return commandEdge(h.plan, node, group) }, Letters: h.dead,
	})
	if err != nil {
		return err
	}
	appended := make(chan struct{}, 1)
	unserve, err := h.Conn.Serve(control.CommandSubject(name), func(request []byte) []byte { return h.commanded(hard, request, appended) })
	if err != nil {
		return err
	}
	defer unserve()
	return h.runLog(ctx, hard, r.Log, deltas, appended, nil)
}

// commanded answers a request to do something.
func (h *host) commanded(ctx context.Context, request []byte, appended chan<- struct{}) []byte {
	var q control.CommandRequest
	var a control.CommandTaken
	err := json.Unmarshal(request, &q)
	if err == nil {
		a, err = h.takeCommand(ctx, q)
	}
	if err != nil {
		a.Error = err.Error()
	}
	if a.New {
		select {
		case appended <- struct{}{}:
		default:
		}
	}
	b, err := json.Marshal(a)
	if err != nil {
		h.Sink.Emit(trace.Failed{Where: h.at(), Doing: "answer a command", Err: err})
	}
	return b
}

func (h *host) takeCommand(ctx context.Context, q control.CommandRequest) (a control.CommandTaken, err error) {
	if err := q.Check(); err != nil {
		return a, err
	}
	if _, err := commandEdge(h.plan, q.Node, q.Group); err != nil {
		return a, err
	}
	payload, err := json.Marshal(struct {
		Command string `json:"command"`
		By      string `json:"by,omitempty"`
		Note    string `json:"note,omitempty"`
	}{q.Command, q.By, q.Note})
	if err != nil {
		return a, err
	}
	name := h.plan.Topology.Name
	a.Position, a.New, err = spout.AppendCommand(ctx, h.Logs, name, spout.Command{
		ID: q.ID, Node: q.Node, Group: q.Group, At: time.Now().UnixMilli(), Payload: payload,
	})
	if err != nil {
		return a, err
	}
	_, _, floor, err := h.Logs.Read(ctx, name, spout.CommandLog, math.MaxInt64, 0)
	a.Done = floor > a.Position
	return a, err
}

// commandEdge returns the edge to the task of an alarm that has a group.
func commandEdge(plan *topology.Plan, node, group string) (bolt.Edge, error) {
	alarms := plan.Alarms()
	i := slices.IndexFunc(alarms, func(n *topology.Node) bool { return n.ID == node })
	if i < 0 {
		var names []string
		for _, n := range alarms {
			names = append(names, n.ID)
		}
		return bolt.Edge{}, fmt.Errorf("%s has no alarm %s: its alarms are %s", plan.Topology.Name, node, strings.Join(names, ", "))
	}
	n := alarms[i]
	if by := n.Bolt.Group; slices.Equal(by, []string{"none"}) {
		if group != "all" {
			return bolt.Edge{}, fmt.Errorf("the alarm %s has one group, which is called all", node)
		}
	} else if given := strings.Count(group, separator) + 1; len(by) > 1 && given != len(by) {
		return bolt.Edge{}, fmt.Errorf("the alarm %s is grouped by %s: give %d values, not %d", node, strings.Join(by, ", "), len(by), given)
	}
	place, err := placeOf(n, n.Tasks)
	if err != nil {
		return bolt.Edge{}, fmt.Errorf("the alarm %s: %w", node, err)
	}
	task, err := place(group)
	if err != nil {
		return bolt.Edge{}, fmt.Errorf("the group %q of the alarm %s: %w", group, node, err)
	}
	return bolt.Edge{To: node, Stream: tuple.CommandStream, Tasks: int32(n.Tasks), Direct: true, Task: int32(task)}, nil
}
