package script

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestWideObjects compares objects of few and of many fields with a map and a list of its names, while fields are set, deleted and set again. The memory of
// one document serves the next.
func TestWideObjects(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := &Doc{}
		for range rapid.IntRange(1, 3).Draw(t, "documents") {
			var order []string
			values := map[string]float64{}
			put := func(name string, v float64) {
				if _, there := values[name]; !there {
					order = append(order, name)
				}
				values[name] = v
			}
			name := rapid.Custom(func(t *rapid.T) string { return fmt.Sprintf("field-%03d", rapid.IntRange(0, 150).Draw(t, "n")) })
			var raw strings.Builder
			for i := range rapid.IntRange(0, 160).Draw(t, "fields") {
				n := name.Draw(t, "name")
				put(n, float64(i))
				if i > 0 {
					raw.WriteByte(',')
				}
				if rapid.Bool().Draw(t, "escaped") {
					n = `\u0066` + n[1:]
				}
				fmt.Fprintf(&raw, `"%s":%d`, n, i)
			}
			d.Reset([]byte("{" + raw.String() + "}"))
			for i := range rapid.IntRange(0, 60).Draw(t, "changes") {
				n := name.Draw(t, "changed")
				if rapid.Bool().Draw(t, "delete") {
					d.Delete(n)
					delete(values, n)
					order = slices.DeleteFunc(order, func(o string) bool { return o == n })
				} else {
					d.Set(n, float64(1000+i))
					put(n, float64(1000+i))
				}
			}
			if got := d.Keys(); !slices.Equal(got, order) {
				t.Fatalf("names %v, want %v", got, order)
			}
			for i := range 151 {
				n := fmt.Sprintf("field-%03d", i)
				got, ok := d.Number(n)
				if want, there := values[n]; ok != there || got != want {
					t.Fatalf("%s is %v, %t, want %v, %t", n, got, ok, want, there)
				}
			}
			b, err := d.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]float64{}
			if err := json.Unmarshal(b, &got); err != nil || !maps.Equal(got, values) {
				t.Fatalf("%s (%v), want %v", b, err, values)
			}
		}
	})
}
