package casefile

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func FuzzParse(f *testing.F) {
	f.Add([]byte("cases:\n  - name: a\n    given: [{device: m1}, text]\n    wait: 1m\n    expect: {emitted: {a: [{n: 1}]}, errors: []}\n"))
	f.Add([]byte("start: 2024-01-01T00:00:00Z\ncases: [{name: a, steps: [{flush: true}]}]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 10_000 {
			return
		}
		var placed *Error
		if _, err := Parse("t", b); err != nil && !errors.As(err, &placed) {
			t.Errorf("an error without a place: %v", err)
		}
	})
}

// TestWritten reads back what String writes.
func TestWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawn(3).Draw(t, "value")
		if v.kind != object && v.kind != list {
			v = &value{kind: list, items: []*value{v}}
		}
		got, err := parseYAML([]byte("- " + v.String()))
		if err != nil {
			t.Fatalf("%s: %v", v, err)
		}
		if diff := differences(v, got.items[0], 0); len(diff) > 0 {
			t.Fatalf("%s was read as %s: %v", v, got, diff)
		}
		if again, err := parseJSON(v.json()); err != nil || len(differences(v, again, 0)) > 0 {
			t.Fatalf("%s: %v", v.json(), err)
		}
	})
}

func drawn(depth int) *rapid.Generator[*value] {
	return rapid.Custom(func(t *rapid.T) *value {
		kinds := 4
		if depth > 0 {
			kinds = 6
		}
		switch kind(rapid.IntRange(0, kinds-1).Draw(t, "kind")) {
		case boolean:
			return &value{kind: boolean, text: fmt.Sprint(rapid.Bool().Draw(t, "bool"))}
		case number:
			n := rapid.Int32().Draw(t, "number")
			return &value{kind: number, text: fmt.Sprint(n), number: float64(n)}
		case text:
			return texts(rapid.OneOf(rapid.SampledFrom([]string{"", "true", "a: b", "- x", "1e3", "#", "2024-01-01T00:00:00Z", "a b", "é", "x:", "~", "0x1f"}), rapid.StringMatching(`[ -~]{0,12}`)).Draw(t, "text"))
		case list:
			return &value{kind: list, items: rapid.SliceOfN(drawn(depth-1), 0, 3).Draw(t, "items")}
		case object:
			v := &value{kind: object}
			for _, name := range rapid.SliceOfN(rapid.StringMatching(`[a-z]{1,4}`), 0, 3).Draw(t, "names") {
				v.set(name, drawn(depth-1).Draw(t, name))
			}
			return v
		}
		return &value{}
	})
}

// TestAssign compares with trying every order.
func TestAssign(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		one := rapid.Custom(func(t *rapid.T) *value {
			v := &value{kind: object}
			v.set("device", texts(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "device")))
			v.set("n", whole(rapid.Int64Range(0, 2).Draw(t, "n")))
			return v
		})
		got := rapid.SliceOfN(one, 0, 5).Draw(t, "got")
		want := rapid.SliceOfN(one, 0, 4).Draw(t, "want")
		for _, w := range want {
			if rapid.Bool().Draw(t, "anybody") {
				w.fields = w.fields[1:]
			}
		}
		same := func(w, g *value) []string { return differences(w, g, 0) }
		found := 0
		for _, k := range assign(want, got, same) {
			if k >= 0 {
				found++
			}
		}
		if most := slow(want, got, nil, same); found != most {
			t.Fatalf("%d pairs, %d are possible: want %v, got %v", found, most, want, got)
		}
	})
}

func slow(want, got []*value, taken []int, same compare) int {
	if len(want) == 0 {
		return 0
	}
	most := slow(want[1:], got, taken, same)
	for k, g := range got {
		behind := slices.ContainsFunc(taken, func(x int) bool { return x >= k && (x == k || got[x].field("device").text == g.field("device").text) })
		if !behind && len(same(want[0], g)) == 0 {
			most = max(most, 1+slow(want[1:], got, append(slices.Clone(taken), k), same))
		}
	}
	return most
}
