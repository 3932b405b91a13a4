package casefile

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// differences lists where got is not what is wanted, by the names of fields. Only what want names is looked at; null wants an absent field.
func differences(want, got *value, tolerance float64) (out []string) {
	differ(&out, "", want, got, tolerance)
	return out
}

func differ(out *[]string, path string, want, got *value, tolerance float64) {
	name := strings.TrimPrefix(path, ".")
	if name == "" {
		name = "it"
	}
	switch {
	case want.kind == null && (got == nil || got.kind == null):
	case got == nil:
		*out = append(*out, fmt.Sprintf("%s is absent, not %s", name, want))
	case want.kind == object && got.kind == object:
		for _, f := range want.fields {
			differ(out, path+"."+f.name, f.value, got.at(f.name), tolerance)
		}
	case want.kind == list && got.kind == list && len(want.items) == len(got.items):
		for i, item := range want.items {
			differ(out, fmt.Sprintf("%s[%d]", path, i), item, got.items[i], tolerance)
		}
	case !equal(want, got, tolerance):
		*out = append(*out, fmt.Sprintf("%s is %s, not %s", name, got, want))
	}
}

// at returns a field, or of a nested one what a.b leads to.
func (v *value) at(name string) *value {
	if f := v.field(name); f != nil {
		return f
	}
	if head, rest, nested := strings.Cut(name, "."); nested {
		if inner := v.field(head); inner != nil {
			return inner.at(rest)
		}
	}
	return nil
}

// equal compares scalars: numbers within a relative tolerance, times as times.
func equal(want, got *value, tolerance float64) bool {
	switch {
	case want.kind == number && got.kind == number:
		return want.number == got.number || math.Abs(want.number-got.number) <= tolerance*max(math.Abs(want.number), math.Abs(got.number))
	case want.kind != got.kind || want.kind == list || want.kind == object:
		return false
	case want.text == got.text:
		return true
	}
	a, errA := time.Parse(time.RFC3339Nano, want.text)
	b, errB := time.Parse(time.RFC3339Nano, got.text)
	return errA == nil && errB == nil && a.Equal(b)
}

// patience bounds how many pairs assign tries before it settles for the best so far.
const patience = 20_000

// assignment finds for each wanted value one that came, each once, so that those of one device come in the order in which they are wanted.
type assignment struct {
	fits  [][]bool
	who   []string // device of each that came
	pairs []int    // of wanted to what came; -1: none
	best  []int
	most  int
	tries int
}

// assign returns for each wanted value the index of what came for it, -1 for none: as many pairs as possible.
func assign(want, got []*value, same compare) []int {
	a := &assignment{fits: make([][]bool, len(want)), pairs: make([]int, len(want)), most: -1}
	for _, g := range got {
		who := ""
		if d := g.field("device"); d != nil {
			who = d.text
		}
		a.who = append(a.who, who)
	}
	for i, w := range want {
		a.fits[i] = make([]bool, len(got))
		for k, g := range got {
			a.fits[i][k] = len(same(w, g)) == 0
		}
	}
	a.search(0, 0)
	return a.best
}

func (a *assignment) search(i, found int) {
	if found+len(a.pairs)-i <= a.most || a.tries > patience {
		return
	}
	if i == len(a.pairs) {
		a.most, a.best = found, append([]int(nil), a.pairs...)
		return
	}
	for k, fits := range a.fits[i] {
		if fits && a.free(i, k) {
			a.tries++
			a.pairs[i] = k
			a.search(i+1, found+1)
		}
	}
	a.pairs[i] = -1
	a.search(i+1, found)
}

// free reports whether k is not taken yet, nor one after it of the same device.
func (a *assignment) free(i, k int) bool {
	for _, taken := range a.pairs[:i] {
		if taken == k || taken > k && a.who[taken] == a.who[k] {
			return false
		}
	}
	return true
}

// nearest returns which of got is most like want, those not taken first; -1 when there is none.
func nearest(want *value, got []*value, taken map[int]bool, same compare) int {
	best, least := -1, math.MaxInt
	for k, g := range got {
		distance := 2 * len(same(want, g))
		if d := want.field("device"); d != nil && g.field("device") != nil && g.field("device").text != d.text {
			distance += 3
		}
		if taken[k] {
			distance += 100
		}
		if distance < least {
			best, least = k, distance
		}
	}
	return best
}
