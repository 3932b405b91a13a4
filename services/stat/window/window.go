// Package window is what a stat node does: it keeps aggregates, or a script's state, per group and window, and outputs them when the window closes.
// The stat service and the single-process mode run one Bolt per loop, since the script's engine is not safe for concurrent use.
// It never reads a clock: event time comes with readings and watermarks, processing time with ticks.
package window

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/boltmesh/boltmesh/pkg/archive"
	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/script"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Limits of a declaration and of event time.
const (
	maxAggregates = 64
	maxOverlap    = 1000    // windows that one reading may belong to
	maxCount      = 10_000  // readings that a count window keeps
	maxTop        = 100     // values that a topk tells
	maxTime       = 1 << 52 // event times beyond ±maxTime ms cannot be put on an agenda
	endOfTime     = 1 << 53 // the agenda's time of what only a flush outputs
	stateKey      = "cache-"
	timeKey       = "stat_last_time-"
)

// mode is how windows open and close.
type mode byte

const (
	interval mode = 1 + iota // from one tick to the next
	aligned                  // tumbling by processing time: an interval with round bounds
	lifetime                 // one window without end
	sliding                  // by event time; tumbling is its simplest case
	session                  // by event time
	counted                  // by number of readings
)

// Bolt keeps one statistic. It implements bolt.Stateful.
type Bolt struct {
	// Archive is where the profiles of devices come from, set before the first batch if UsesArchive says so; nil: nobody has one.
	Archive *archive.Reader

	id       string
	group    func(*tuple.Tuple) (string, bool)
	byDevice bool
	global   bool // what goes by processing time is output for silent groups too
	profiles bool // expressions or the script read the archive
	mode     mode
	kind     string // of the window, in outputs
	spec     topology.Bolt
	size     int64 // ms
	slide    int64
	gap      int64
	keep     int64 // how long a closed window takes late readings, ms of event time; 0: not at all
	late     string

	where   *script.Expr
	outs    []out
	args    []int // of the cells: index into exprs, -1 for a bare count
	exprs   []argument
	script  *script.Runtime
	recalls bool // the script sees the group's previous reading
	layout  layout
	decoder state.Decode

	keptLayout layout // of closed windows that are kept

	watermark int64 // of the last tick
	doc       script.Doc
	before    script.Doc // the previous reading
	env       script.Env
	out       script.Doc
	inputs    []input
	row       row
	text      bytes.Buffer
}

// out is an aggregate as it is output. Several share a cell when they are about the same, as the quantiles of one argument are.
type out struct {
	name  string
	cell  int
	param float64 // of a quantile and a topk
}

// argument is what one or more cells are about.
type argument struct {
	source string
	expr   *script.Expr
	takes  taking
}

// taking is what an aggregate needs of its argument's value.
type taking byte

const (
	number   taking = iota
	presence        // of count: only whether there is a value matters
	hash            // of distinct
	text            // of topk
)

func (k Kind) taking() taking {
	switch k {
	case Count:
		return presence
	case Distinct:
		return hash
	case TopK:
		return text
	}
	return number
}

// input is the value of an argument in the current reading.
type input struct {
	x    float64
	text string
	ok   bool
}

// Group implements bolt.Stateful.
func (b *Bolt) Group(t *tuple.Tuple) (string, bool) { return b.group(t) }

// Keys implements bolt.Stateful.
func (b *Bolt) Keys(group string, add func(string)) {
	add(b.key(group))
	if b.mode == interval {
		add(timeKey + b.id + "-" + group)
	}
	if b.corrects() {
		add(b.keptKey(group))
	}
}

// patience is how long a reading waits for others: hot groups are written once for all of them, and a result comes with a tick, of which there is hardly more
// than one a second.
const patience = 50 * time.Millisecond

// Patience implements bolt.Patient.
func (b *Bolt) Patience() time.Duration { return b.spec.Patience(patience) }

func (b *Bolt) key(group string) string { return stateKey + b.id + "-" + group }

// Execute implements bolt.Bolt: it counts a reading, or sends it on to the late stream when all windows that it belongs to have closed.
func (b *Bolt) Execute(ctx context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	counts, err := b.measure(ctx, t)
	if err != nil || !counts {
		return err
	}
	r, err := b.read(ctx, c, c.Group())
	if err != nil {
		return err
	}
	windows := b.windows(r, t.Time)
	if len(windows) == 0 {
		if b.corrects() {
			if done, err := b.correct(ctx, t, c); done || err != nil {
				return err
			}
		}
		b.emitLate(t, c)
		return nil
	}
	states, err := b.compute(r, windows, t)
	if err != nil {
		return err
	}
	if r, err = b.edit(ctx, c, c.Group()); err != nil {
		return err
	}
	b.remember(r, t)
	if b.mode == counted {
		b.count(r, c)
		return nil
	}
	b.add(r, windows, states)
	if b.corrects() {
		k, err := b.kept(ctx, c, c.Group())
		if err == nil {
			b.wakeKept(r, k, c)
		}
		return err
	}
	b.wake(r, c)
	return nil
}

// read returns what is kept of a group.
func (b *Bolt) read(ctx context.Context, c *bolt.Collector, group string) (*record, error) {
	v, err := c.State().Read(ctx, b.key(group), b.decoder)
	if err != nil {
		return nil, unread(err)
	}
	return v.(*record), nil
}

// edit returns it to be changed.
func (b *Bolt) edit(ctx context.Context, c *bolt.Collector, group string) (*record, error) {
	v, err := c.State().Edit(ctx, b.key(group), b.decoder)
	if err != nil {
		return nil, unread(err)
	}
	return v.(*record), nil
}

// emitLate sends a reading on to the late stream.
func (b *Bolt) emitLate(t *tuple.Tuple, c *bolt.Collector) {
	c.Emit(bolt.Emission{Stream: b.late, Key: t.Key, Time: t.Time, Payload: slices.Clone(t.Payload)})
}

// add takes the reading into its windows, with the states that the script has computed for them.
func (b *Bolt) add(r *record, windows []Bounds, states [][]byte) {
	for i, w := range windows {
		var p *pane
		if b.mode == session {
			p = r.join(w)
		} else {
			p = r.pane(w)
		}
		p.add(b.layout.funcs, b.row)
		if states != nil {
			p.script = states[i]
		}
	}
}

// UsesArchive reports whether the bolt reads profiles of devices.
func (b *Bolt) UsesArchive() bool { return b.profiles }

// SetArchive says where profiles come from, before the first batch.
func (b *Bolt) SetArchive(r *archive.Reader) { b.Archive = r }

// Prepare implements bolt.Preparer.
func (b *Bolt) Prepare(ctx context.Context, batch iter.Seq[*tuple.Tuple]) error {
	return b.Archive.Prepare(ctx, batch)
}

// enter makes a reading what expressions and the script see.
func (b *Bolt) enter(ctx context.Context, t *tuple.Tuple) (err error) {
	b.doc.Reset(t.Payload)
	b.env.Doc, b.env.Device, b.env.Time, b.env.Stream = &b.doc, t.Key, t.Time, t.Stream
	b.env.Archive, err = b.Archive.Of(ctx, t.Key)
	return err
}

// passes evaluates the filter.
func (b *Bolt) passes() (bool, error) {
	if b.where == nil {
		return true, nil
	}
	pass, err := b.where.EvalBool(&b.env)
	if err != nil && !errors.Is(err, script.ErrAbsent) {
		return false, bolt.Reject(err)
	}
	return pass && err == nil, nil
}

// measure evaluates the filter and the arguments for a reading. It reports whether the reading concerns the statistic at all: it passes the filter
// and has a value that is counted.
func (b *Bolt) measure(ctx context.Context, t *tuple.Tuple) (counts bool, err error) {
	if t.Time < -maxTime || t.Time > maxTime {
		return false, bolt.Reject(fmt.Errorf("event time %d ms is out of range", t.Time))
	}
	if err := b.enter(ctx, t); err != nil {
		return false, err
	}
	if pass, err := b.passes(); err != nil || !pass {
		return false, err
	}
	if b.script != nil {
		b.row = row{at: t.Time}
		return true, nil
	}
	for i, a := range b.exprs {
		if b.inputs[i], err = b.evaluate(a); err != nil {
			return false, bolt.Reject(err)
		}
	}
	b.row.at, b.row.present = t.Time, 0
	for i, arg := range b.args {
		if arg < 0 {
			b.row.present |= 1 << i
		} else if b.inputs[arg].ok {
			b.row.present |= 1 << i
			b.row.values[i] = b.inputs[arg].x
			if b.layout.texts {
				b.row.texts[i] = b.inputs[arg].text
			}
		}
	}
	return b.row.present != 0, nil
}

func (b *Bolt) evaluate(a argument) (in input, err error) {
	if a.takes != number {
		v, err := a.expr.Eval(&b.env)
		switch {
		case errors.Is(err, script.ErrAbsent) || err == nil && v == nil:
			return input{}, nil
		case err != nil || a.takes == presence:
			return input{ok: true}, err
		}
		return b.inputOf(v, a.takes)
	}
	in.x, err = a.expr.EvalNumber(&b.env)
	switch {
	case errors.Is(err, script.ErrAbsent):
		return input{}, nil
	case err != nil:
		return input{}, err
	}
	in.ok = true
	return in, countable(in.x)
}

// inputOf makes what is kept of a value that need not be a number. Equal values have equal texts: those of objects have their fields in order, and
// numbers that are equal as doubles are written alike.
func (b *Bolt) inputOf(v any, takes taking) (in input, err error) {
	b.text.Reset()
	e := json.NewEncoder(&b.text)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return input{}, fmt.Errorf("a value that cannot be counted: %w", err)
	}
	raw := bytes.TrimSuffix(b.text.Bytes(), []byte("\n"))
	if takes == hash {
		return input{x: distinctBits(raw), ok: true}, nil
	}
	in = input{text: string(raw), ok: true}
	return in, checkText(in.text)
}

// windows returns those that a reading at ts belongs to and that are not closed; none means that it is late. A window by event time that is open is not closed,
// whatever the watermark: the tick that closes it is on its way through the groups, or was not committed.
func (b *Bolt) windows(r *record, ts int64) []Bounds {
	passed := max(b.watermark, r.closed)
	switch b.mode {
	case sliding:
		ws := Sliding(ts, b.size, b.slide)
		return slices.DeleteFunc(ws, func(w Bounds) bool { return w.End <= passed && !r.has(w) })
	case session:
		open := make([]Bounds, len(r.open))
		for i := range r.open {
			open[i] = r.open[i].Bounds
		}
		w := Session(ts, b.gap, open)
		if w.End <= passed {
			return nil
		}
		return []Bounds{w}
	}
	if len(r.open) > 0 {
		return []Bounds{r.open[0].Bounds}
	}
	return []Bounds{{}}
}

// compute runs the script's compute over a reading for each window and returns the new states; nil without a script.
func (b *Bolt) compute(r *record, windows []Bounds, t *tuple.Tuple) ([][]byte, error) {
	if b.script == nil {
		return nil, nil
	}
	states := make([][]byte, len(windows))
	for i, w := range windows {
		s := script.NewState(nil)
		for k := range r.open {
			if r.open[k].Bounds == w {
				s.Reset(r.open[k].script)
			}
		}
		if i > 0 {
			b.doc.Reset(t.Payload) // what the script did to t for another window stays there
		}
		err := b.script.Compute(&script.Input{Doc: &b.doc, ID: t.ID, Device: t.Key, Stream: t.Stream, Time: t.Time, Archive: b.env.Archive, Previous: b.recall(r)}, s)
		if err == nil {
			states[i], err = s.Bytes()
		}
		if err != nil {
			return nil, fault(err)
		}
	}
	return states, nil
}

// count takes the reading into a count window and outputs it when it is complete.
func (b *Bolt) count(r *record, c *bolt.Collector) {
	drop, complete := Counted{b.spec.Window.Count, b.spec.Window.CountSlide}.Next(len(r.rows), r.since)
	w := b.row
	w.values, w.texts = slices.Clone(w.values), slices.Clone(w.texts)
	r.rows = append(r.rows[drop:], w)
	r.since++
	if complete {
		r.since = 0
		p := r.fold(len(r.rows))
		b.emit(c, &p, p.last)
	}
	b.wake(r, c)
}

// wake puts the group on the agenda for when something of it will have to be output.
func (b *Bolt) wake(r *record, c *bolt.Collector) {
	if at, ok := b.next(r); ok {
		c.Wake(at)
	} else if b.mode == counted {
		c.Rest()
	}
}

// next is when something of a group will have to be output; ok is false when there is nothing.
func (b *Bolt) next(r *record) (at int64, ok bool) {
	switch {
	case b.mode == counted:
		return endOfTime, r.since > 0
	case len(r.open) == 0:
		return 0, b.mode != sliding && b.mode != session
	case b.mode == sliding || b.mode == session || b.mode == aligned: // aligned: 0 until a tick has told where the window lies
		return r.open[0].End, true
	}
	return 0, true
}

// unread classifies an error of the state: an unreadable value is final, anything else is an outage.
func unread(err error) error {
	if errors.Is(err, errCorrupt) {
		return bolt.Reject(err)
	}
	return bolt.Unavailable(err)
}

func fault(err error) error {
	if errors.Is(err, script.ErrDeadline) {
		return err
	}
	return bolt.Reject(err)
}
