package window

import (
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

var kinds = []Kind{Count, Sum, Mean, Min, Max, Stddev, First, Last, Delta, Rate}

type reading struct {
	x  float64
	at int64
}

// twin computes an aggregate from all readings at once, in arbitrary precision where that matters.
func twin(k Kind, rs []reading) (float64, bool) {
	if k == Count {
		return float64(len(rs)), true
	}
	if len(rs) == 0 {
		return 0, false
	}
	exact := func(x float64) *big.Float { return new(big.Float).SetPrec(2000).SetFloat64(x) }
	total, n := exact(0), exact(float64(len(rs)))
	first, last, lo, hi := rs[0], rs[0], rs[0].x, rs[0].x
	for _, r := range rs {
		total.Add(total, exact(r.x))
		lo, hi = math.Min(lo, r.x), math.Max(hi, r.x)
		if r.at < first.at {
			first = r
		}
		if r.at >= last.at {
			last = r
		}
	}
	mean := new(big.Float).SetPrec(2000).Quo(total, n)
	var v float64
	switch k {
	case Sum:
		v, _ = total.Float64()
	case Mean:
		v, _ = mean.Float64()
	case Min:
		v = lo
	case Max:
		v = hi
	case Stddev:
		squares := exact(0)
		for _, r := range rs {
			d := exact(r.x)
			d.Sub(d, mean)
			squares.Add(squares, d.Mul(d, d))
		}
		v, _ = squares.Sqrt(squares.Quo(squares, n)).Float64()
	case First:
		v = first.x
	case Last:
		v = last.x
	case Delta:
		v = last.x - first.x
	case Rate:
		if first.at == last.at {
			return 0, false
		}
		v = (last.x - first.x) * 1000 / float64(last.at-first.at)
	}
	return v, true
}

// tolerance is the error that the kind's comment allows, with room for its constants.
func tolerance(k Kind, rs []reading, want float64) float64 {
	const u = 1.0 / (1 << 53)
	n, size, largest := float64(len(rs)), 0.0, 0.0
	for _, r := range rs {
		size += math.Abs(r.x)
		largest = math.Max(largest, math.Abs(r.x))
	}
	switch k {
	case Sum:
		return 2*u*math.Abs(want) + 10*n*u*u*size
	case Mean:
		return 4*u*math.Abs(want) + 10*n*u*u*size/n
	case Stddev:
		return 10*n*u*math.Hypot(want, largest) + 1e-150
	case Rate:
		return 8 * u * math.Abs(want)
	}
	return 0
}

func readings() *rapid.Generator[[]reading] {
	x := rapid.OneOf(
		rapid.Float64Range(-100, 100), rapid.Float64Range(-MaxMagnitude, MaxMagnitude), rapid.SampledFrom([]float64{0, 1, -1, 1e16, -1e16, 0.1, 1e-300}),
	)
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) reading {
		return reading{x.Draw(t, "x"), rapid.Int64Range(-5, 20).Draw(t, "at")}
	}), 0, 40)
}

// Any way of cutting the readings, encoding the parts and merging them gives what the twin gives.
func TestCellsEqualTheTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rs := readings().Draw(t, "readings")
		cut := rapid.IntRange(0, len(rs)).Draw(t, "cut")
		for _, k := range kinds {
			var whole, left, right Cell
			for i, r := range rs {
				whole.Add(Function{Kind: k}, r.x, "", r.at)
				if i < cut {
					left.Add(Function{Kind: k}, r.x, "", r.at)
				} else {
					right.Add(Function{Kind: k}, r.x, "", r.at)
				}
			}
			var back Cell
			rest, err := back.decode(&Function{Kind: k}, append(right.append(nil), 7))
			if err != nil || len(rest) != 1 || back != right {
				t.Fatalf("%s: %+v became %+v, %v, %v", k, right, back, rest, err)
			}
			left.Merge(k, back)
			want, known := twin(k, rs)
			for name, c := range map[string]Cell{"whole": whole, "merged": left} {
				got, ok := c.Value(k)
				if ok != known || math.Abs(got-want) > tolerance(k, rs, want) || math.IsNaN(got) || math.IsInf(got, 0) {
					t.Fatalf("%s, %s: %v %v, want %v %v", k, name, got, ok, want, known)
				}
			}
		}
	})
}

func TestSumKeepsWhatDoublesLose(t *testing.T) {
	var c Cell
	for _, x := range []float64{1, 1e100, 1, -1e100} {
		c.Add(Function{Kind: Sum}, x, "", 0)
	}
	if v, _ := c.Value(Sum); v != 2 {
		t.Error(v)
	}
}

func TestCountable(t *testing.T) {
	for x, want := range map[float64]bool{0: true, -1e140: true, 1e141: false, math.Inf(-1): false} {
		if (countable(x) == nil) != want {
			t.Error(x)
		}
	}
	if countable(math.NaN()) == nil {
		t.Error("NaN")
	}
}
