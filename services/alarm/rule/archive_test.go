package rule

import (
	"fmt"
	"strings"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/archive"
	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// TestThresholdOfTheArchive: each device is judged by its own limit, as it is when the reading is applied; one without a limit is never judged.
func TestThresholdOfTheArchive(t *testing.T) {
	for name, spec := range map[string]topology.Bolt{
		"expressions": {When: expr("x > archive.limit"), Clear: expr("x < archive.limit - 5")},
		"script":      {Script: &topology.Script{File: "when.js", Text: "function when(t, ctx) { if (ctx.archive) return t.x > ctx.archive.limit }"}},
	} {
		t.Run(name, func(t *testing.T) {
			store := &archive.Memory{}
			put := func(device, fields string) {
				t.Helper()
				p, err := archive.New(device, []byte(fields))
				if err != nil {
					t.Fatal(err)
				}
				if err := store.Write(t.Context(), "machines", []archive.Profile{p}); err != nil {
					t.Fatal(err)
				}
			}
			put("a", `{"limit":100}`)
			put("b", `{"limit":10}`)
			b := open(t, spec)
			if !b.UsesArchive() {
				t.Fatal("it does not say that it uses the archive")
			}
			b.Archive = &archive.Reader{Cache: archive.NewCache(store, archive.CacheOptions{}), Archive: "machines"}
			t.Cleanup(b.Archive.Cache.Close)
			h := bolttest.New(t, b)
			feed := func(device string, ts int64, x float64) string {
				return happened(t, h.Feed(reading(device, ts, fmt.Sprintf(`{"x":%v}`, x))))
			}
			got := []string{feed("a", 0, 50), feed("b", 1, 50), feed("c", 2, 50)}
			put("a", `{"limit":40}`)
			b.Archive.Cache.Changed("machines", []string{"a"})
			got = append(got, feed("a", 3, 50), feed("a", 4, 30), feed("b", 5, 1))
			if s := strings.Join(got, ","); s != ",R1,,R3,C4,C5" {
				t.Errorf("events %s", s)
			}
		})
	}
}

// TestAppliedReadingKeepsItsJudgement: a reading that comes again after its device's limit was changed emits what it emitted.
func TestAppliedReadingKeepsItsJudgement(t *testing.T) {
	store := &archive.Memory{}
	if err := store.Write(t.Context(), "machines", []archive.Profile{{Device: "a", Fields: []byte(`{"limit":10}`)}}); err != nil {
		t.Fatal(err)
	}
	b := open(t, topology.Bolt{When: expr("x > archive.limit")})
	b.Archive = &archive.Reader{Cache: archive.NewCache(store, archive.CacheOptions{}), Archive: "machines"}
	t.Cleanup(b.Archive.Cache.Close)
	h := bolttest.New(t, b)
	r := reading("a", 0, `{"x":50}`)
	r.ID, r.Offset = tuple.RootID(tuple.Position{Origin: bolttest.Origin, Offset: 7}), 7
	first := happened(t, h.Feed(r))
	if err := store.Write(t.Context(), "machines", []archive.Profile{{Device: "a", Fields: []byte(`{"limit":100}`)}}); err != nil {
		t.Fatal(err)
	}
	b.Archive.Cache.Changed("", nil)
	h.Count++ // another attempt
	if second := happened(t, h.Feed(r)); first != "R0" || second != first {
		t.Errorf("first %q, then %q", first, second)
	}
}
