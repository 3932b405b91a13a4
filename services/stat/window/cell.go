package window

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// MaxMagnitude bounds the values that are counted: below it no sum, square or difference that a cell keeps can overflow.
const MaxMagnitude = 1e140

// Kind is an aggregate's function.
type Kind string

// The aggregates, each with the error of its result against exact arithmetic on the same doubles; u is 2^-53.
const (
	Count  Kind = "count"  // readings of the group, or with an argument those that have it; exact
	Sum    Kind = "sum"    // |error| <= u|sum| + O(n u^2) sum|x| (Neumaier 1974: an improved Kahan-Babuska summation)
	Mean   Kind = "mean"   // sum's error and one rounding more
	Min    Kind = "min"    // exact
	Max    Kind = "max"    // exact
	Stddev Kind = "stddev" // of the population; relative error about n u k, k = sqrt(1 + (mean/stddev)^2) (Chan, Golub, LeVeque 1983, for Welford's update); below 1e-150 squares vanish
	First  Kind = "first"  // value at the least event time, the first to arrive of several; exact
	Last   Kind = "last"   // value at the greatest event time, the last to arrive of several; exact
	Delta  Kind = "delta"  // last - first; one rounding
	Rate   Kind = "rate"   // delta per second of event time, absent while all times are equal; three roundings
	EWMA   Kind = "ewma"   // exponentially weighted mean in the order of arrival; |error| <= (4 + 1/weight) u max|x|; cannot be merged

	Distinct Kind = "distinct" // different values; see distinct
	Quantile Kind = "quantile" // see quantile
	TopK     Kind = "topk"     // most frequent values; see topk
)

// Function is an aggregate's kind with its parameter: the weight of an ewma's newest value, the number of values of a topk. A quantile has none, since
// one cell answers for all quantiles of an argument.
type Function struct {
	Kind  Kind
	Param float64
}

// Known reports whether k is an aggregate.
func (k Kind) Known() bool {
	switch k {
	case Count, Sum, Mean, Min, Max, Stddev, First, Last, Delta, Rate, EWMA:
		return true
	}
	return k.sketched()
}

// sketched reports whether cells of this kind have a sketch.
func (k Kind) sketched() bool { return k == Distinct || k == Quantile || k == TopK }

// mergeable reports whether two cells can become one, as the sessions that a reading joins must.
func (k Kind) mergeable() bool { return k != EWMA }

// Cell is the running value of one aggregate. Its zero value has seen nothing. What A, B, T and U mean is the kind's business.
type Cell struct {
	N    int64   // values seen
	A, B float64 // sum and compensation; extreme; mean and sum of squared deviations; first and last value
	T, U int64   // event times of the first and the last value, ms

	Sketch sketch // of a kind that has one, once there is a value
}

// Add takes in the value of a reading with event time at: the number x, the hash that distinctBits made of it, or for a topk the JSON text.
func (c *Cell) Add(f Function, x float64, text string, at int64) {
	c.N++
	switch f.Kind {
	case Distinct, Quantile, TopK:
		if c.Sketch == nil {
			c.Sketch = newSketch(f)
		}
		c.Sketch.add(x, text)
	case EWMA:
		if c.N == 1 {
			c.A = x
		}
		c.A += f.Param * (x - c.A)
	case Sum, Mean:
		c.A, c.B = neumaier(c.A, c.B, x)
	case Min:
		if c.N == 1 || x < c.A {
			c.A = x
		}
	case Max:
		if c.N == 1 || x > c.A {
			c.A = x
		}
	case Stddev:
		d := x - c.A
		c.A += d / float64(c.N)
		c.B += d * (x - c.A)
	case First, Last, Delta, Rate:
		if c.N == 1 || at < c.T {
			c.A, c.T = x, at
		}
		if c.N == 1 || at >= c.U {
			c.B, c.U = x, at
		}
	}
}

// neumaier adds x to a sum with its compensation.
func neumaier(sum, compensation, x float64) (float64, float64) {
	t := sum + x
	if math.Abs(sum) >= math.Abs(x) {
		return t, compensation + ((sum - t) + x)
	}
	return t, compensation + ((x - t) + sum)
}

// Merge takes in what o has seen, all of which arrived after what c has seen. k must be mergeable.
func (c *Cell) Merge(k Kind, o Cell) {
	if o.N == 0 {
		return
	}
	if c.N == 0 {
		*c = o
		if o.Sketch != nil {
			c.Sketch = o.Sketch.clone()
		}
		return
	}
	n := c.N + o.N
	switch k {
	case Distinct, Quantile, TopK:
		c.Sketch.merge(o.Sketch)
	case Sum, Mean:
		c.A, c.B = neumaier(c.A, c.B+o.B, o.A)
	case Min:
		c.A = min(c.A, o.A)
	case Max:
		c.A = max(c.A, o.A)
	case Stddev:
		d, share := o.A-c.A, float64(o.N)/float64(n)
		c.B += o.B + d*d*float64(c.N)*share
		c.A += d * share
	case First, Last, Delta, Rate:
		if o.T < c.T {
			c.A, c.T = o.A, o.T
		}
		if o.U >= c.U {
			c.B, c.U = o.B, o.U
		}
	}
	c.N = n
}

// Value returns the result of a kind without a sketch; ok is false while there is none. A count always has one.
func (c *Cell) Value(k Kind) (v float64, ok bool) {
	if k == Count {
		return float64(c.N), true
	}
	if c.N == 0 {
		return 0, false
	}
	switch k {
	case Sum:
		v = c.A + c.B
	case Mean:
		v = (c.A + c.B) / float64(c.N)
	case Stddev:
		v = math.Sqrt(c.B / float64(c.N))
	case Last:
		v = c.B
	case Delta:
		v = c.B - c.A
	case Rate:
		if c.T == c.U {
			return 0, false
		}
		v = (c.B - c.A) / float64(c.U-c.T) * 1000
	default:
		v = c.A
	}
	return v, true
}

// countable refuses what would spoil every later result.
func countable(x float64) error {
	if math.IsNaN(x) || math.Abs(x) > MaxMagnitude {
		return fmt.Errorf("%v cannot be counted: not a finite number of a magnitude up to %g", x, MaxMagnitude)
	}
	return nil
}

var errShort = errors.New("the value ends early")

// hasSketch is the flag of a cell whose parts end with a sketch, after its length.
const hasSketch = 1 << 4

// append encodes c: a byte that says which parts are not zero, the count, those parts.
func (c *Cell) append(b []byte) []byte {
	at := len(b)
	b = append(b, 0)
	b = binary.AppendUvarint(b, uint64(c.N))
	for i, f := range [...]float64{c.A, c.B} {
		if bits := math.Float64bits(f); bits != 0 {
			b[at] |= 1 << i
			b = binary.LittleEndian.AppendUint64(b, bits)
		}
	}
	for i, t := range [...]int64{c.T, c.U} {
		if t != 0 {
			b[at] |= 4 << i
			b = binary.AppendVarint(b, t)
		}
	}
	if c.Sketch != nil {
		b[at] |= hasSketch
		raw := c.Sketch.append(nil)
		b = binary.AppendUvarint(b, uint64(len(raw)))
		b = append(b, raw...)
	}
	return b
}

// decode reads what append wrote and returns what follows. Without a function the cell is of an aggregate that is gone, and its sketch is passed over.
func (c *Cell) decode(f *Function, b []byte) ([]byte, error) {
	if len(b) == 0 {
		return nil, errShort
	}
	parts := b[0]
	if parts >= hasSketch<<1 {
		return nil, fmt.Errorf("a cell begins with %#x", parts)
	}
	n, b, err := uvarint(b[1:])
	if err != nil {
		return nil, err
	}
	*c = Cell{N: int64(n)}
	for i, f := range [...]*float64{&c.A, &c.B} {
		if parts&(1<<i) == 0 {
			continue
		}
		if len(b) < 8 {
			return nil, errShort
		}
		*f = math.Float64frombits(binary.LittleEndian.Uint64(b))
		b = b[8:]
	}
	for i, t := range [...]*int64{&c.T, &c.U} {
		if parts&(4<<i) == 0 {
			continue
		}
		if *t, b, err = varint(b); err != nil {
			return nil, err
		}
	}
	var raw []byte
	if parts&hasSketch != 0 {
		size, rest, err := uvarint(b)
		if err != nil || size > uint64(len(rest)) {
			return nil, errShort
		}
		raw, b = rest[:size], rest[size:]
	}
	if f == nil || !f.Kind.sketched() && raw == nil {
		return b, nil
	}
	if !f.Kind.sketched() || (c.N > 0) != (raw != nil) {
		return nil, fmt.Errorf("a cell of %d values of a %s with %d bytes of a sketch", c.N, f.Kind, len(raw))
	}
	if raw == nil {
		return b, nil
	}
	if c.Sketch, err = decodeSketch(*f, raw); err != nil {
		return nil, fmt.Errorf("the sketch of a %s: %w", f.Kind, err)
	}
	return b, nil
}

func uvarint(b []byte) (uint64, []byte, error) {
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, errShort
	}
	return v, b[n:], nil
}

func varint(b []byte) (int64, []byte, error) {
	v, n := binary.Varint(b)
	if n <= 0 {
		return 0, nil, errShort
	}
	return v, b[n:], nil
}
