package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/boltmesh/boltmesh/pkg/ack"
	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// lookAgain is how often such a log is looked at for entries that a former owner has appended.
const lookAgain = 5 * time.Second

// replayOwner runs the topology's log of replayed dead letters while this worker holds its lease.
func (h *host) replayOwner(ctx context.Context) { h.ownLog(ctx, spout.ReplayLog, h.replayLoop) }

// replayLoop owns the replay log until ctx ends: it appends the letters that it is asked to, and emits them.
func (h *host) replayLoop(ctx, hard context.Context) error {
	name := h.plan.Topology.Name
	generation, err := h.Logs.Raise(hard, name, spout.ReplayLog)
	if err != nil {
		return err
	}
	where := h.at()
	where.Task = -3 // no partition: the replay log
	deltas, stop, err := h.deltas(spout.LogOrigin(name, spout.ReplayLog), where)
	if err != nil {
		return err
	}
	defer stop()
	spec := h.plan.Topology.Spout
	r, err := spout.NewReplay(hard, spout.Options{
		Where: where, Generation: generation, Revision: h.revision, Outbox: h.outbox, Clock: clock{}, Sink: h.Sink,
		Ledger: ack.Options{Timeout: spec.Timeout.Milliseconds()},
	}, name, h.Logs, spout.ReplayOptions{
		Decoder: spout.NewDecoder(spec), Edges: edges(h.plan, &h.node), Letters: h.dead,
		Route: func(l *tuple.Letter) (bolt.Edge, error) { return wayBack(h.plan, l) },
	})
	if err != nil {
		return err
	}
	appended := make(chan struct{}, 1)
	unserve, err := h.Conn.Serve(control.ReplaySubject(name), func(request []byte) []byte { return h.replay(hard, request, appended) })
	if err != nil {
		return err
	}
	defer unserve()
	return h.runLog(ctx, hard, r.Log, deltas, appended, nil)
}

// runLog emits what is in one of the topology's own logs and what comes into it, until ctx ends or broken says why it cannot go on.
func (h *host) runLog(ctx, hard context.Context, r *spout.Log, deltas <-chan []tuple.Delta, appended <-chan struct{}, broken <-chan error) error {
	tick := time.NewTicker(spoutTick)
	defer tick.Stop()
	traces, looked := r.Traces(), time.Now()
	for {
		var err error
		select {
		case ds := <-deltas:
			r.Apply(ds)
			drain(deltas, r.Apply)
			err = r.Settle(hard)
		case <-appended:
			err = r.Look(hard)
		case err = <-broken:
		case <-tick.C:
			if time.Since(looked) >= lookAgain {
				looked, err = time.Now(), r.Look(hard)
			}
			if err == nil {
				err = r.Tick(hard)
			}
		case <-ctx.Done():
			if n, _ := r.Open(); n == 0 || hard.Err() != nil {
				return r.Settle(hard)
			}
			sleep(hard, spoutTick/10)
			drain(deltas, r.Apply)
			err = r.Tick(hard)
		}
		end, told := r.Length(), h.told()
		if told.paused {
			end = traces // what an earlier owner may have emitted must not meet another revision
		}
		if err == nil && ctx.Err() == nil {
			err = r.PumpTo(hard, end)
		}
		if err != nil {
			return err
		}
		h.markLog(r.Mark(told.pause(), traces))
	}
}

// markLog shows in the lease how far one of the topology's own logs is.
func (h *host) markLog(log member.Log) {
	came := false // to rest, just now: somebody may be waiting for it
	h.lease.update(func(m *member.Member) { came = showLog(m, log) })
	if came {
		h.lease.kick()
	}
}

// showLog puts a log into a lease, and reports whether it has just come to rest.
func showLog(m *member.Member, log member.Log) (came bool) {
	m.Logs = slices.Clone(m.Logs) // the lease may be encoding the old ones
	i := slices.IndexFunc(m.Logs, func(o member.Log) bool { return o.Name == log.Name })
	if i < 0 {
		m.Logs = append(m.Logs, log)
		return false
	}
	came = log.Rests(log.Pause) && !m.Logs[i].Rests(log.Pause)
	m.Logs[i] = log
	return came
}

// forgetLog takes a log that was given up out of the lease.
func (h *host) forgetLog(name string) {
	h.lease.update(func(m *member.Member) {
		m.Logs = slices.DeleteFunc(slices.Clone(m.Logs), func(l member.Log) bool { return l.Name == name })
	})
}

// replay answers a request to replay letters.
func (h *host) replay(ctx context.Context, request []byte, appended chan<- struct{}) []byte {
	var q control.ReplayRequest
	var a control.ReplayAnswer
	if err := json.Unmarshal(request, &q); err != nil {
		a.Error = err.Error()
	}
	for _, k := range q.Letters {
		one := control.Replayed{LetterKey: k}
		var err error
		if one.Position, one.New, err = h.replayOne(ctx, k); err != nil {
			one.Error = err.Error()
		}
		a.Letters = append(a.Letters, one)
	}
	select {
	case appended <- struct{}{}:
	default:
	}
	b, err := json.Marshal(a)
	if err != nil {
		h.Sink.Emit(trace.Failed{Where: h.at(), Doing: "answer a replay request", Err: err})
	}
	return b
}

// replayOne appends one letter to the log, unless it was, and notes its position beside the letter. The log decides whether it is new: a crash before
// the note is mended by the next request.
func (h *host) replayOne(ctx context.Context, k jetstream.LetterKey) (at int64, added bool, err error) {
	name := h.plan.Topology.Name
	l, _, err := h.letters.Load(ctx, name, k.Node, k.ID)
	if errors.Is(err, jetstream.ErrNotFound) {
		return 0, false, errors.New("there is no such letter any more")
	}
	if err != nil {
		return 0, false, err
	}
	if err := h.replayable(l); err != nil {
		return 0, false, err
	}
	if at, added, err = spout.Append(ctx, h.Logs, l); err != nil {
		return 0, false, err
	}
	return at, added, h.letters.Deal(ctx, name, k, jetstream.Dealt{Position: at, At: time.Now().UnixMilli()})
}

func (h *host) replayable(l *tuple.Letter) error {
	switch {
	case l.Origin == 0:
		return errors.New("it is a frame that arrived damaged: its tuples have been sent again by themselves, drop it")
	case l.Size > len(l.Payload):
		return fmt.Errorf("only the first %d of its %d bytes were kept: feed the record again", len(l.Payload), l.Size)
	case l.Node == h.node.ID:
		return nil
	}
	_, err := wayBack(h.plan, l)
	return err
}

// wayBack returns the edge by which a letter gets back to the node where it failed, and there to the task that has its group.
func wayBack(plan *topology.Plan, l *tuple.Letter) (bolt.Edge, error) {
	find := func(id string) *topology.Node {
		if i := slices.IndexFunc(plan.Nodes, func(n topology.Node) bool { return n.ID == id }); i >= 0 {
			return &plan.Nodes[i]
		}
		return nil
	}
	to, from := find(l.Node), find(l.Source)
	if to == nil {
		return bolt.Edge{}, fmt.Errorf("the topology has no node %s any more", l.Node)
	}
	if l.Stream == tuple.TickStream {
		task := int(l.Task)
		if place, err := placeOf(to, to.Tasks); err == nil {
			if now, err := place(l.Group); err == nil { // otherwise the node has the number of tasks that it has always had
				task = now
			}
		}
		if !to.Ticks || l.Group == "" || task >= to.Tasks {
			return bolt.Edge{}, fmt.Errorf("task %d of %s takes no ticks any more", task, l.Node)
		}
		return bolt.Edge{To: l.Node, Stream: tuple.TickStream, Tasks: int32(to.Tasks), Direct: true, Task: int32(task)}, nil
	}
	if l.Stream == tuple.CommandStream {
		return commandEdge(plan, l.Node, l.Group)
	}
	if from != nil {
		for _, e := range edges(plan, from) {
			if e.To != l.Node || e.Stream != l.Stream {
				continue
			}
			if e.Custom == "" && !e.Named && !e.All {
				return e, nil
			}
			if l.Task < e.Tasks && l.Task >= 0 { // only the emitting service can divide, and has done so; or all got it, and this task could not handle it
				return bolt.Edge{To: l.Node, Stream: l.Stream, Tasks: e.Tasks, Direct: true, Task: l.Task, Gated: e.Gated}, nil
			}
		}
	}
	return bolt.Edge{}, fmt.Errorf("node %s does not receive the stream %s of %s any more", l.Node, l.Stream, l.Source)
}
