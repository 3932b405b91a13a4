// Package tap shows the tuples of a topology while they pass from node to node. The CLI's tap and trace hold one; it listens to the frames that services
// publish, as one more subscriber. It never takes a frame from a stream, acknowledges one, or makes anybody wait: what it is too slow for, it loses and counts.
package tap

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/script"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Options say which tuples are wanted. Only Node is required.
type Options struct {
	Node   string
	Stream string  // "": all but ticks
	In     bool    // what comes to the node, instead of what it emits
	To     string  // of what it emits, only what goes to this node
	Device string  // "": all
	Where  string  // an expression over the payload's fields, device, time and stream
	Sample float64 // share of the tuples, chosen by their ids; 0: all
	Buffer int     // tuples that wait for Next at most; default 1000
}

// Seen is one delivery of a tuple: what one node emitted to a task of another.
type Seen struct {
	At       time.Time // when its frame passed
	From, To string    // nodes
	Task     int32     // tuple.Shared where workers compete
	Frame    string    // the frame's id
	Revision uint32    // of the topology that it was emitted under
	tuple.Tuple
}

// Lost is what a Tap has not shown.
type Lost struct {
	Tuples     uint64 // wanted ones that passed while Buffer of them waited for Next
	Frames     uint64 // passed unread: more came than could be looked into
	Unreadable uint64 // frames of a newer version, or damaged
	Faults     uint64 // tuples on which the expression failed
	Fault      error  // the first such failure
}

// Tap is an open tap.
type Tap struct {
	options Options
	ear     *jetstream.Ear
	where   *script.Expr
	env     script.Env
	doc     script.Doc
	out     chan Seen
	cancel  context.CancelFunc
	done    chan struct{}
	before  recent

	tuples, frames, unreadable, faults atomic.Uint64
	fault                              atomic.Pointer[error]
}

// Open begins to listen to an edge of a topology; errors name what there is instead.
func Open(ctx context.Context, conn *jetstream.Conn, plan *topology.Plan, o Options) (*Tap, error) {
	if o.Buffer <= 0 {
		o.Buffer = 1000
	}
	nodes, err := o.receivers(plan)
	if err != nil {
		return nil, err
	}
	t := &Tap{options: o, out: make(chan Seen, o.Buffer), done: make(chan struct{}), before: newRecent()}
	if o.Where != "" {
		if t.where, err = script.CompileExpr(o.Where, script.ExprOptions{Open: true, Want: script.Bool, File: "where"}); err != nil {
			return nil, err
		}
	}
	var subjects []string
	for _, n := range nodes {
		subjects = append(subjects, jetstream.Frames(plan.Topology.Name, n))
	}
	if t.ear, err = conn.Overhear(ctx, subjects...); err != nil {
		return nil, err
	}
	ctx, t.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go t.listen(ctx)
	return t, nil
}

// Next waits for the next tuple, or the end of ctx.
func (t *Tap) Next(ctx context.Context) (Seen, error) {
	select {
	case s := <-t.out:
		return s, nil
	case <-ctx.Done():
		return Seen{}, ctx.Err()
	}
}

// Lost says what has not been shown so far.
func (t *Tap) Lost() Lost {
	l := Lost{Tuples: t.tuples.Load(), Frames: t.frames.Load(), Unreadable: t.unreadable.Load(), Faults: t.faults.Load()}
	if err := t.fault.Load(); err != nil {
		l.Fault = *err
	}
	return l
}

// Close stops listening.
func (t *Tap) Close() {
	t.cancel()
	<-t.done
	t.ear.Close()
}

// listen reads what passes and keeps what is wanted, as long as there is room for it.
func (t *Tap) listen(ctx context.Context) {
	defer close(t.done)
	for {
		h, err := t.ear.Next(ctx)
		if err != nil {
			return
		}
		t.frames.Store(t.ear.Missed())
		if t.before.has(h.ID) {
			continue // it was refused, or its acknowledgement is late
		}
		t.read(&h, time.Now())
	}
}

func (t *Tap) read(h *jetstream.Heard, now time.Time) {
	var f tuple.Frame
	if f.Decode(h.Data) != nil {
		t.unreadable.Add(1)
		return
	}
	to, task := destination(h.Subject)
	for i := range f.Tuples {
		s := Seen{At: now, From: f.Source, To: to, Task: task, Frame: h.ID, Revision: f.Revision, Tuple: f.Tuples[i]}
		if !t.wanted(&s) {
			continue
		}
		s.Payload = append([]byte(nil), s.Payload...) // one tuple that waits must not hold its whole frame
		select {
		case t.out <- s:
		default:
			t.tuples.Add(1)
		}
	}
}

// destination reads the node and the task out of a subject.
func destination(subject string) (node string, task int32) {
	parts := strings.Split(subject, ".")
	if len(parts) != 4 {
		return subject, tuple.Shared
	}
	n, err := strconv.ParseInt(parts[3], 10, 32)
	if err != nil {
		return parts[2], tuple.Shared
	}
	return parts[2], int32(n)
}

// wanted applies the options to a delivery.
func (t *Tap) wanted(s *Seen) bool {
	o := &t.options
	switch {
	case !o.In && s.From != o.Node:
	case o.Stream == "" && s.Stream == tuple.TickStream, o.Stream != "" && s.Stream != o.Stream:
	case o.Device != "" && s.Key != o.Device:
	case o.Sample > 0 && o.Sample < 1 && float64(binary.BigEndian.Uint32(s.ID[12:])) >= o.Sample*(1<<32):
	case t.where != nil && !t.holds(&s.Tuple):
	default:
		return true
	}
	return false
}

// holds evaluates the expression; where a field is absent it does not hold.
func (t *Tap) holds(s *tuple.Tuple) bool {
	t.doc.Reset(s.Payload)
	t.env.Doc, t.env.Device, t.env.Time, t.env.Stream = &t.doc, s.Key, s.Time, s.Stream
	yes, err := t.where.EvalBool(&t.env)
	if err != nil && !errors.Is(err, script.ErrAbsent) {
		if t.faults.Add(1) == 1 {
			err = fmt.Errorf("tuple %s: %w", s.ID, err)
			t.fault.Store(&err)
		}
	}
	return err == nil && yes
}

// recentMost is how many ids of frames are remembered: a publish is repeated within a few seconds.
const recentMost = 8192

// recent remembers the last ids that it was asked about.
type recent struct {
	seen  map[string]struct{}
	order []string
	next  int
}

func newRecent() recent {
	return recent{seen: map[string]struct{}{}, order: make([]string, recentMost)}
}

// has reports whether it was asked about id before, and remembers it.
func (r *recent) has(id string) bool {
	if id == "" {
		return false
	}
	if _, known := r.seen[id]; known {
		return true
	}
	delete(r.seen, r.order[r.next])
	r.order[r.next] = id
	r.seen[id] = struct{}{}
	r.next = (r.next + 1) % len(r.order)
	return false
}
