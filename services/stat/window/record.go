package window

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/boltmesh/boltmesh/pkg/state"
)

// layout says what a record's cells are. A record that was stored under another layout keeps the cells of the aggregates that are still there.
type layout struct {
	window byte       // kind of window, as stored; records of another kind start anew
	funcs  []Function // of the cells
	names  []uint64   // hashes of function and argument
	texts  bool       // there is a topk, whose values are texts
	kept   bool       // of closed windows, which have versions
}

// record is what the state keeps for one group.
type record struct {
	layout *layout
	closed int64  // windows that end up to here have been output, ms of event time
	open   []pane // by end, then start
	since  int    // count windows: readings since the last output
	rows   []row  // count windows: the last readings

	previous []byte // the payload of the last reading, where a script looks at it; replaced, never changed
}

// pane is one open window.
type pane struct {
	Bounds
	n      int64 // readings
	last   int64 // greatest event time among them
	cells  []Cell
	script []byte // a script's state, a JSON object; nil before its first reading

	version int64 // how often a kept window was output
	dirty   bool  // a kept window has changed since
}

// row is one reading of a count window.
type row struct {
	at      int64
	present uint64 // a bit per cell
	values  []float64
	texts   []string // of the cells of a topk; nil when there is none
}

// never is the closed of a group that has output nothing.
const never = math.MinInt64

var errCorrupt = errors.New("the stored state cannot be read")

// find returns where the open window with bounds b is, or would be.
func (r *record) find(b Bounds) (i int, found bool) {
	return slices.BinarySearchFunc(r.open, b, func(p pane, b Bounds) int {
		return cmp.Or(cmp.Compare(p.End, b.End), cmp.Compare(p.Start, b.Start))
	})
}

// has says whether the window with bounds b is open.
func (r *record) has(b Bounds) bool {
	_, found := r.find(b)
	return found
}

// pane returns the open window with bounds b, a new one if there is none, ready to be written to.
func (r *record) pane(b Bounds) *pane {
	i, found := r.find(b)
	if !found {
		r.open = slices.Insert(r.open, i, pane{Bounds: b, cells: make([]Cell, len(r.layout.funcs))})
	}
	return &r.open[i]
}

// add takes one reading into a window.
func (p *pane) add(funcs []Function, w row) {
	if p.n == 0 || w.at > p.last {
		p.last = w.at
	}
	p.n++
	for i, f := range funcs {
		if w.present&(1<<i) == 0 {
			continue
		}
		text := ""
		if f.Kind == TopK {
			text = w.texts[i]
		}
		p.cells[i].Add(f, w.values[i], text, w.at)
	}
}

// join makes one session of bounds b out of all open ones that overlap it.
func (r *record) join(b Bounds) *pane {
	joined := pane{Bounds: b, cells: make([]Cell, len(r.layout.funcs))}
	r.open = slices.DeleteFunc(r.open, func(p pane) bool {
		if !p.overlaps(b) {
			return false
		}
		if joined.n == 0 || p.last > joined.last {
			joined.last = p.last
		}
		joined.n += p.n
		for i, f := range r.layout.funcs {
			joined.cells[i].Merge(f.Kind, p.cells[i])
		}
		return true
	})
	p := r.pane(b)
	*p = joined
	return p
}

// fold computes the pane of a count window over the last n readings, or all if they are fewer.
func (r *record) fold(n int) pane {
	p := pane{cells: make([]Cell, len(r.layout.funcs))}
	for i, w := range r.rows[max(len(r.rows)-n, 0):] {
		if i == 0 || w.at < p.Start {
			p.Start = w.at
		}
		p.add(r.layout.funcs, w)
	}
	p.End = p.last
	return p
}

// Versions of the encoding. The first had no sketches, and so no columns of texts in rows; closed windows that are kept have a version each; the last
// reading stands at the end of those that have it.
const (
	versionPrevious = 4
	versionKept     = 3
	version         = 2
	versionPlain    = 1
)

// Append implements state.Value.
func (r *record) Append(b []byte) ([]byte, error) {
	v := byte(version)
	switch {
	case r.layout.kept:
		v = versionKept
	case len(r.previous) > 0:
		v = versionPrevious
	}
	b = append(b, v, r.layout.window)
	b = binary.AppendVarint(b, r.closed)
	b = binary.AppendUvarint(b, uint64(len(r.layout.names)))
	for _, n := range r.layout.names {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	b = binary.AppendUvarint(b, r.layout.textual())
	b = binary.AppendUvarint(b, uint64(len(r.open)))
	for i := range r.open {
		p := &r.open[i]
		b = binary.AppendVarint(b, p.Start)
		b = binary.AppendVarint(b, p.End-p.Start)
		b = binary.AppendUvarint(b, uint64(p.n))
		b = binary.AppendVarint(b, p.last)
		for k := range p.cells {
			b = p.cells[k].append(b)
		}
		b = binary.AppendUvarint(b, uint64(len(p.script)))
		b = append(b, p.script...)
		if r.layout.kept {
			b = binary.AppendUvarint(b, uint64(p.version)<<1|bit(p.dirty))
		}
	}
	b = binary.AppendUvarint(b, uint64(r.since))
	b = binary.AppendUvarint(b, uint64(len(r.rows)))
	for _, w := range r.rows {
		b = binary.AppendVarint(b, w.at)
		b = binary.AppendUvarint(b, w.present)
		for i := range r.layout.names {
			switch {
			case w.present&(1<<i) == 0:
			case r.layout.funcs[i].Kind == TopK:
				b = binary.AppendUvarint(b, uint64(len(w.texts[i])))
				b = append(b, w.texts[i]...)
			default:
				b = binary.LittleEndian.AppendUint64(b, math.Float64bits(w.values[i]))
			}
		}
	}
	if v == versionPrevious {
		b = binary.AppendUvarint(b, uint64(len(r.previous)))
		b = append(b, r.previous...)
	}
	return b, nil
}

func bit(set bool) uint64 {
	if set {
		return 1
	}
	return 0
}

// textual has a bit for each cell whose values in rows are texts.
func (l *layout) textual() (mask uint64) {
	for i, f := range l.funcs {
		if f.Kind == TopK {
			mask |= 1 << i
		}
	}
	return mask
}

// decode makes a record of what Append wrote, under this or another layout; nil is a new group's.
func (l *layout) decode(b []byte) (state.Value, error) {
	r := &record{layout: l, closed: never}
	if b == nil {
		return r, nil
	}
	d := decoder{b: b}
	v := d.byte()
	switch {
	case d.err != nil:
	case l.kept && v != versionKept:
		d.err = fmt.Errorf("its version is %d, not %d", v, versionKept)
	case !l.kept && v != version && v != versionPlain && v != versionPrevious:
		d.err = fmt.Errorf("its version is %d, not %d", v, version)
	}
	if d.byte() != l.window && d.err == nil {
		return r, nil
	}
	r.closed = d.varint()
	names := make([]uint64, d.length(8))
	for i := range names {
		names[i] = d.fixed()
	}
	if len(names) > maxAggregates && d.err == nil {
		d.err = fmt.Errorf("it has %d aggregates", len(names))
	}
	places := make([]int, len(names)) // of stored cells in this layout; -1: dropped
	for i, n := range names {
		places[i] = slices.Index(l.names, n)
	}
	texts := uint64(0)
	if v >= version {
		texts = d.uvarint()
	}
	for i, at := range places {
		if at >= 0 && (texts&(1<<i) != 0) != (l.funcs[at].Kind == TopK) && d.err == nil {
			d.err = errors.New("numbers stand where texts belong, or texts where numbers do")
		}
	}
	r.open = make([]pane, d.length(5))
	for i := range r.open {
		d.pane(&r.open[i], places, l.funcs)
		if l.kept {
			x := d.uvarint()
			r.open[i].version, r.open[i].dirty = int64(x>>1), x&1 != 0
		}
	}
	r.since = int(d.uvarint())
	r.rows = make([]row, d.length(2))
	for i := range r.rows {
		d.row(&r.rows[i], places, texts, l)
	}
	if v == versionPrevious {
		r.previous = d.bytes()
	}
	if err := d.end(); err != nil {
		return nil, fmt.Errorf("%w: %w", errCorrupt, err)
	}
	return r, nil
}

// decoder reads parts off b until the first error; after it, all parts are zero.
type decoder struct {
	b   []byte
	err error
}

// end returns the first error, which may be that something is left.
func (d *decoder) end() error {
	if d.err == nil && len(d.b) > 0 {
		d.err = fmt.Errorf("%d bytes follow it", len(d.b))
	}
	return d.err
}

func (d *decoder) pane(p *pane, places []int, funcs []Function) {
	p.Start = d.varint()
	p.End = p.Start + d.varint()
	p.n, p.last = int64(d.uvarint()), d.varint()
	p.cells = make([]Cell, len(funcs))
	for _, at := range places {
		var c Cell
		var f *Function
		if at >= 0 {
			f = &funcs[at]
		}
		if d.err == nil {
			d.b, d.err = c.decode(f, d.b)
		}
		if at >= 0 {
			p.cells[at] = c
		}
	}
	if raw := d.bytes(); len(raw) > 0 {
		p.script = raw
	}
}

func (d *decoder) row(w *row, places []int, texts uint64, l *layout) {
	w.at = d.varint()
	present := d.uvarint()
	w.values = make([]float64, len(l.funcs))
	if l.texts {
		w.texts = make([]string, len(l.funcs))
	}
	for i, at := range places {
		if present&(1<<i) == 0 {
			continue
		}
		var x float64
		var text string
		if texts&(1<<i) != 0 {
			text = string(d.bytes())
		} else {
			x = math.Float64frombits(d.fixed())
		}
		if at < 0 {
			continue
		}
		w.present |= 1 << at
		w.values[at] = x
		if l.texts {
			w.texts[at] = text
			if l.funcs[at].Kind == TopK && d.err == nil {
				d.err = checkText(text)
			}
		}
	}
}

// bytes reads a length and as many bytes, which stay the decoder's.
func (d *decoder) bytes() (v []byte) {
	size := d.length(1)
	v, d.b = d.b[:size:size], d.b[size:]
	return v
}

func (d *decoder) byte() (v byte) {
	if d.err == nil && len(d.b) == 0 {
		d.err = errShort
	}
	if d.err == nil {
		v, d.b = d.b[0], d.b[1:]
	}
	return v
}

func (d *decoder) fixed() (v uint64) {
	if d.err == nil && len(d.b) < 8 {
		d.err = errShort
	}
	if d.err == nil {
		v, d.b = binary.LittleEndian.Uint64(d.b), d.b[8:]
	}
	return v
}

func (d *decoder) uvarint() (v uint64) {
	if d.err == nil {
		v, d.b, d.err = uvarint(d.b)
	}
	return v
}

func (d *decoder) varint() (v int64) {
	if d.err == nil {
		v, d.b, d.err = varint(d.b)
	}
	return v
}

// length reads a number of parts of at least size bytes each, and so bounds what is allocated for them.
func (d *decoder) length(size int) int {
	n := d.uvarint()
	if d.err == nil && n > uint64(len(d.b)/size) {
		d.err = errShort
	}
	if d.err != nil {
		return 0
	}
	return int(n)
}
