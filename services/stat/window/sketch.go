package window

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/DataDog/sketches-go/ddsketch"
	"github.com/DataDog/sketches-go/ddsketch/mapping"
	"github.com/DataDog/sketches-go/ddsketch/store"
	"github.com/axiomhq/hyperloglog"
	"github.com/tidwall/gjson"
)

// sketch is a summary of bounded size of the values that a cell has seen. Its encoding depends on the values only, not on how they were cut into parts
// that were merged; that of a topk does, once it has had to forget.
type sketch interface {
	add(x float64, text string)
	merge(sketch) // of the same function
	clone() sketch
	append([]byte) []byte
}

func newSketch(f Function) sketch {
	switch f.Kind {
	case Distinct:
		return newDistinct()
	case Quantile:
		return newQuantile()
	}
	return &topk{most: counters(f.Param)}
}

func decodeSketch(f Function, b []byte) (sketch, error) {
	switch f.Kind {
	case Distinct:
		return decodeDistinct(b)
	case Quantile:
		return decodeQuantile(b)
	}
	return decodeTopK(b, counters(f.Param))
}

// distinctPrecision gives 4,096 registers, a standard error of 1.04/sqrt(4096) = 1.6 %. Until 4 KiB are full, which takes about 1,400 values, hashes of
// 25 bits are kept instead, and the number is exact but for pairs that are equal, of which 0.03 are expected.
const distinctPrecision = 12

// distinct estimates how many different values there were (Heule, Nunkesser, Hall 2013: HyperLogLog in practice). It has at most 4,120 bytes.
type distinct struct{ *hyperloglog.Sketch }

func newDistinct() *distinct {
	s, err := hyperloglog.NewSketch(distinctPrecision, true)
	if err != nil {
		panic(err) // of a precision that is out of range
	}
	return &distinct{s}
}

func (d *distinct) add(x float64, _ string) { d.InsertHash(math.Float64bits(x)) }

func (d *distinct) merge(o sketch) {
	if err := d.Merge(o.(*distinct).Sketch); err != nil {
		panic(err) // of unequal precisions, which neither newDistinct nor decodeDistinct makes
	}
}

func (d *distinct) clone() sketch { return &distinct{d.Clone()} }

func (d *distinct) append(b []byte) []byte {
	d.Estimate() // which brings its parts into the one form that depends on the values only
	out, err := d.AppendBinary(b)
	if err != nil {
		panic(err) // of a sketch that was not made by newDistinct
	}
	return out
}

func decodeDistinct(b []byte) (*distinct, error) {
	if len(b) > 1 && b[1] != distinctPrecision {
		return nil, fmt.Errorf("its precision is %d, not %d", b[1], distinctPrecision)
	}
	d := newDistinct()
	if err := d.UnmarshalBinary(b); err != nil {
		return nil, err
	}
	return d, nil
}

// distinctBits is what a value of a distinct is kept as: a hash of its JSON text, in the bits of a number that is never computed with. FNV-1a leaves
// the upper bits of short texts alike, so that they are mixed once more (MurmurHash3's finalizer).
func distinctBits(text []byte) float64 {
	h := uint64(14695981039346656037)
	for _, c := range text {
		h = (h ^ uint64(c)) * 1099511628211
	}
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return math.Float64frombits(h ^ h>>33)
}

// Limits of a quantile.
const (
	quantileError = 0.01
	quantileBins  = 1024    // for each sign: magnitudes up to a factor of e^(1023 * 0.02) = 7e8 apart
	quantileIndex = 1 << 17 // of bins: no number has one beyond it
	mostValues    = 1 << 40 // in a bin
)

// quantile finds quantiles: at q the value of rank floor(q * (n-1)), counted from 0, within 1 % of it (Masson, Rim, Lee 2019: DDSketch). Where values of
// one sign are more than 7e8 times apart, those closest to zero are taken for larger ones. It has a bin for each 2 % of magnitude that occurred: at most
// 8 KiB up to 30 million values, 19 KiB ever.
type quantile struct{ *ddsketch.DDSketch }

func newQuantile() *quantile {
	m, err := mapping.NewLogarithmicMapping(quantileError)
	if err != nil {
		panic(err) // of an error out of range
	}
	return &quantile{ddsketch.NewDDSketch(m, store.NewCollapsingLowestDenseStore(quantileBins), store.NewCollapsingLowestDenseStore(quantileBins))}
}

func (s *quantile) add(x float64, _ string) {
	if err := s.Add(x); err != nil {
		panic(err) // of a number that countable would have refused
	}
}

func (s *quantile) merge(o sketch) {
	if err := s.MergeWith(o.(*quantile).DDSketch); err != nil {
		panic(err) // of another mapping than newQuantile's
	}
}

func (s *quantile) clone() sketch { return &quantile{s.Copy()} }

// value returns the quantile q of at least one value.
func (s *quantile) value(q float64) float64 {
	below, zeros := s.GetNegativeValueStore().TotalCount(), s.GetZeroCount()
	rank := math.Floor(q * (s.GetCount() - 1))
	switch {
	case rank < below:
		return -s.Value(s.GetNegativeValueStore().KeyAtRank(below - 1 - rank))
	case rank < below+zeros:
		return 0
	}
	return s.Value(s.GetPositiveValueStore().KeyAtRank(rank - below - zeros))
}

// append encodes the number of zeros, then for each sign the number of bins, and of each its distance from the one before and what it holds.
func (s *quantile) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(s.GetZeroCount()))
	for _, side := range [...]store.Store{s.GetPositiveValueStore(), s.GetNegativeValueStore()} {
		n := uint64(0)
		side.ForEach(func(int, float64) bool { n++; return false })
		b = binary.AppendUvarint(b, n)
		before := 0
		side.ForEach(func(i int, count float64) bool { // from the lowest index up
			b = binary.AppendVarint(b, int64(i-before))
			b = binary.AppendUvarint(b, uint64(count))
			before = i
			return false
		})
	}
	return b
}

func decodeQuantile(b []byte) (*quantile, error) {
	s := newQuantile()
	d := decoder{b: b}
	if zeros := d.uvarint(); zeros > mostValues {
		return nil, fmt.Errorf("%d zeros", zeros)
	} else if err := s.AddWithCount(0, float64(zeros)); err != nil {
		return nil, err
	}
	for _, side := range [...]store.Store{s.GetPositiveValueStore(), s.GetNegativeValueStore()} {
		at := int64(0)
		for n := d.length(2); n > 0 && d.err == nil; n-- {
			at += d.varint()
			count := d.uvarint()
			if at < -quantileIndex || at > quantileIndex || count == 0 || count > mostValues {
				d.err = cmp.Or(d.err, fmt.Errorf("%d values in bin %d", count, at))
				break
			}
			side.AddWithCount(int(at), float64(count))
		}
	}
	return s, d.end()
}

// maxText bounds the JSON text of a value that a topk counts, in bytes.
const maxText = 128

// checkText refuses what a topk must not hold.
func checkText(text string) error {
	switch {
	case len(text) > maxText:
		return fmt.Errorf("a value of %d bytes as JSON cannot be counted by a topk, which takes up to %d", len(text), maxText)
	case !gjson.Valid(text):
		return fmt.Errorf("%q is not JSON", text)
	}
	return nil
}
