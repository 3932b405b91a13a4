package window

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"iter"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/boltmesh/boltmesh/pkg/archive"
	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/script"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// FirstStage is the first stage of a statistic in two. It finds out which group a reading belongs to, which may depend on its device's profile or on a script:
// that is decided once, when the reading is applied. What it keeps is per task and group: the aggregates of what came since it last told the second stage.
// What cannot be merged it sends on, reading by reading. It implements bolt.Stateful; all that a task handles is one group, of the task's number.
type FirstStage struct {
	stat     *Bolt // what is kept of a group; no more than a filter when readings are sent on
	forwards bool
	parts    []*script.Expr // what the group is made of
	namer    *script.Runtime

	named map[tuple.ID]naming // what Prepare has found out about the batch
	fresh []string            // state keys of the batch, until its first reading
}

// naming is the group that a reading belongs to.
type naming struct {
	group string
	ok    bool
	err   error
}

// NewFirst makes the first stage of the statistic that spec declares; spec is a planned one of that stage, group its function.
func NewFirst(spec topology.Bolt, group func(*tuple.Tuple) (string, bool), params map[string]any) (*FirstStage, error) {
	f := &FirstStage{forwards: spec.Forwards(), named: map[tuple.ID]naming{}}
	var err error
	if f.forwards { // the second stage does the rest
		f.stat = &Bolt{id: spec.ID, group: group, spec: spec, watermark: math.MinInt64}
		if spec.Where != nil {
			if f.stat.where, err = compile(*spec.Where, script.Bool); err != nil {
				return nil, fmt.Errorf("stat %s: %w", spec.ID, err)
			}
			f.stat.profiles = topology.UsesArchive(f.stat.where.Fields())
		}
	} else if f.stat, err = New(spec, group, params); err != nil {
		return nil, err
	}
	if spec.Script != nil && len(spec.Group) == 1 && spec.Group[0] == topology.GroupScript {
		if f.namer, err = scriptOf(*spec.Script, params, "group"); err != nil {
			return nil, fmt.Errorf("stat %s: %w", spec.ID, err)
		}
		f.stat.profiles = f.stat.profiles || spec.Script.UsesArchive()
		return f, nil
	}
	for _, g := range spec.Group {
		e, err := script.CompileExpr(g, script.ExprOptions{Open: true})
		if err != nil {
			return nil, fmt.Errorf("stat %s: group: %w", spec.ID, err)
		}
		f.parts = append(f.parts, e)
		f.stat.profiles = f.stat.profiles || topology.UsesArchive(e.Fields())
	}
	return f, nil
}

// UsesArchive reports whether the bolt reads profiles of devices.
func (f *FirstStage) UsesArchive() bool { return f.stat.profiles }

// SetArchive says where profiles come from, before the first batch.
func (f *FirstStage) SetArchive(r *archive.Reader) { f.stat.Archive = r }

// Group implements bolt.Stateful.
func (f *FirstStage) Group(t *tuple.Tuple) (string, bool) { return f.stat.group(t) }

// separator stands between the parts of a group, and between a task's number and a group on the task's agenda.
const separator = "\x1f"

// Keys implements bolt.Stateful: of a group on the agenda, that is one of the task's own. What readings need is known after Prepare.
func (f *FirstStage) Keys(name string, add func(string)) {
	if strings.Contains(name, separator) {
		add(f.stat.key(name))
	}
}

// Patience implements bolt.Patient.
func (f *FirstStage) Patience() time.Duration { return f.stat.Patience() }

// GroupOf implements bolt.Divisible.
func (f *FirstStage) GroupOf(key string) (name string, ok bool) { return f.stat.GroupOf(key) }

// agenda is what a group is called in the task's state and on its agenda: other tasks have their share of the group under other names.
func (f *FirstStage) agenda(t *tuple.Tuple, group string) string {
	task, _ := f.stat.group(t)
	return task + separator + group
}

// Due implements bolt.Stateful.
func (f *FirstStage) Due(tick bolt.Tick) (until int64, ok bool) {
	switch {
	case f.forwards:
		return 0, false
	case f.stat.mode == session: // it may go on in another task: what there is of it is told at once
		f.stat.watermark = max(f.stat.watermark, tick.Watermark)
		return 0, true
	}
	return f.stat.Due(tick)
}

// Prepare implements bolt.Preparer: it loads profiles, and finds out every reading's group, so that what is kept of them can be loaded in one round trip.
func (f *FirstStage) Prepare(ctx context.Context, batch iter.Seq[*tuple.Tuple]) error {
	if err := f.stat.Prepare(ctx, batch); err != nil {
		return err
	}
	clear(f.named)
	f.fresh = f.fresh[:0]
	seen := map[string]bool{}
	for t := range batch {
		n := f.name(ctx, t)
		if bolt.IsUnavailable(n.err) {
			return n.err
		}
		f.named[t.ID] = n
		if n.ok && !f.forwards && !seen[n.group] {
			seen[n.group] = true
			f.fresh = append(f.fresh, f.stat.key(f.agenda(t, n.group)))
		}
	}
	return nil
}

// name finds out a reading's group. One without a group counts nowhere, like one without the field that it would be grouped by.
func (f *FirstStage) name(ctx context.Context, t *tuple.Tuple) (n naming) {
	if n.err = f.stat.enter(ctx, t); n.err != nil {
		return n
	}
	if f.namer != nil {
		n.group, n.err = f.namer.Group(&script.Input{Doc: &f.stat.doc, ID: t.ID, Device: t.Key, Stream: t.Stream, Time: t.Time, Archive: f.stat.env.Archive})
	} else {
		n.group, n.err = f.join()
	}
	switch {
	case errors.Is(n.err, script.ErrAbsent):
		n.err = nil
	case n.err != nil:
		n.err = fault(n.err)
	default:
		n.ok = n.group != "" && len(n.group) <= maxGroup
	}
	return n
}

// maxGroup leaves room in a key for a task's number.
const maxGroup = tuple.MaxKey - 8

// join makes the group of its parts.
func (f *FirstStage) join() (string, error) {
	var b strings.Builder
	for i, e := range f.parts {
		v, err := e.Eval(&f.stat.env)
		if err != nil {
			return "", err
		}
		part, ok := plain(v)
		if !ok {
			return "", script.ErrAbsent
		}
		if i > 0 {
			b.WriteString(separator)
		}
		b.WriteString(part)
	}
	return b.String(), nil
}

// plain is a value as part of a group; equal numbers have equal texts.
func plain(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, v != ""
	case bool:
		return strconv.FormatBool(v), true
	case int:
		return strconv.Itoa(v), true
	case int64:
		return strconv.FormatInt(v, 10), true
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return strconv.FormatInt(int64(v), 10), true
		}
		return strconv.FormatFloat(v, 'g', -1, 64), true
	}
	return "", false
}

// prepared is what Prepare found out. It is found out anew where nobody has prepared the batch, and where what failed is tried again, such as a script that
// took too long.
func (f *FirstStage) prepared(ctx context.Context, t *tuple.Tuple) naming {
	n, known := f.named[t.ID]
	if !known || n.err != nil && !bolt.IsReject(n.err) {
		n = f.name(ctx, t)
	}
	return n
}

// Execute implements bolt.Bolt.
func (f *FirstStage) Execute(ctx context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	n := f.prepared(ctx, t)
	if n.err != nil || !n.ok {
		return n.err
	}
	if len(f.fresh) > 0 {
		if err := c.State().Preload(ctx, f.fresh); err != nil {
			return err
		}
		f.fresh = f.fresh[:0]
	}
	if f.forwards {
		return f.forward(ctx, t, n.group, c)
	}
	counts, err := f.stat.measure(ctx, t)
	if err != nil || !counts {
		return err
	}
	return f.gather(ctx, t, f.agenda(t, n.group), c)
}

// gather takes a reading into what the task knows of its group.
func (f *FirstStage) gather(ctx context.Context, t *tuple.Tuple, name string, c *bolt.Collector) error {
	r, err := f.stat.read(ctx, c, name)
	if err != nil {
		return err
	}
	windows := f.stat.windows(r, t.Time)
	if len(windows) == 0 {
		f.stat.emitLate(t, c)
		return nil
	}
	if r, err = f.stat.edit(ctx, c, name); err != nil {
		return err
	}
	f.stat.add(r, windows, nil)
	c.WakeFor(name, f.first(r))
	return nil
}

// first is when a group with something open is due.
func (f *FirstStage) first(r *record) int64 {
	if f.stat.mode == session {
		return 0
	}
	at, _ := f.stat.next(r)
	return at
}

// forward sends a reading on with its group.
func (f *FirstStage) forward(ctx context.Context, t *tuple.Tuple, group string, c *bolt.Collector) error {
	if err := f.stat.enter(ctx, t); err != nil {
		return err
	}
	if pass, err := f.stat.passes(); err != nil || !pass {
		return err
	}
	f.stat.out.Reset([]byte("{}"))
	f.stat.out.Set("group", group)
	payload, err := f.stat.out.Bytes()
	if err != nil {
		return bolt.Reject(err)
	}
	// {"group":"...","reading":{...}}: the reading's own bytes, which nobody has to read here
	payload = append(payload[:len(payload)-1:len(payload)-1], `,"reading":`...)
	payload = append(append(payload, t.Payload...), '}')
	c.Emit(bolt.Emission{Key: t.Key, Time: t.Time, Payload: payload})
	return nil
}

// Tick implements bolt.Stateful: it tells the second stage what has closed or, where nothing closes, what came since it told last.
func (f *FirstStage) Tick(ctx context.Context, tick bolt.Tick, name string, c *bolt.Collector) error {
	_, group, ok := strings.Cut(name, separator)
	if !ok {
		return nil
	}
	r, err := f.stat.edit(ctx, c, name)
	if err != nil {
		return err
	}
	if f.stat.mode == aligned && len(r.open) > 0 {
		r.open[0].place(tick, f.stat.size)
	}
	until := int64(math.MaxInt64)
	switch {
	case tick.Flush:
	case f.stat.mode == sliding:
		until = tick.Watermark
	case f.stat.mode == aligned:
		until = tick.Time
	}
	n := 0
	for ; n < len(r.open) && r.open[n].End <= until; n++ {
		p := r.open[n]
		if f.stat.mode == interval {
			p.Bounds = Bounds{tick.Time, tick.Time}
		}
		f.tell(c, group, &p)
	}
	if r.open = r.open[n:]; len(r.open) > 0 {
		c.WakeFor(name, f.first(r))
	}
	if f.stat.mode == sliding || f.stat.mode == session {
		r.closed = max(r.closed, tick.Watermark)
	} else if len(r.open) == 0 {
		c.State().Delete(f.stat.key(name))
	}
	return nil
}

// tell emits a window's aggregates, as far as this task knows them.
func (f *FirstStage) tell(c *bolt.Collector, group string, p *pane) {
	raw, _ := (&record{layout: &f.stat.layout, open: []pane{*p}}).Append(nil) // it has no errors
	f.stat.out.Reset([]byte("{}"))
	f.stat.out.Set("group", group)
	f.stat.out.Set("readings", p.n)
	f.stat.out.Set("part", base64.StdEncoding.EncodeToString(raw))
	payload, err := f.stat.out.Bytes()
	if err != nil {
		panic(err) // of texts and a number
	}
	c.Emit(bolt.Emission{Key: group, Time: p.last, Payload: payload})
}
