package rehearse_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/boltmesh/boltmesh/pkg/rehearse"
)

// TestSilentGroups: a global statistic in one stage outputs all its groups at each tick, also those of which nothing came, under a new owner of its tasks too. One per
// device says nothing about a device that is silent.
func TestSilentGroups(t *testing.T) {
	windows := map[string]string{
		"every: 1m":                                    "0", // what it counts anew
		"window: lifetime, every: 1m":                  "1",
		"window: {tumbling: 1m, time: processing}":     "0",
		"window: {tumbling: 1m, time: event}":          "",
		"every: 1m, where: x > 1":                      "0",
		"window: lifetime, every: 1m, where: x > 1":    "1",
		"every: 1m, aggregates: {n: count, m: max(x)}": "0",
	}
	for _, g := range []struct {
		group string
		all   []string
	}{
		{"line", []string{"1", "2"}},
		{"[line, shift]", []string{"1|day", "1|night", "2|day"}},
		{"[device, line]", []string{"a|1", "b|1", "c|2"}},
		{"none", []string{"all"}},
		{"device", nil},
	} {
		for window, n := range windows {
			t.Run(g.group+" "+window, func(t *testing.T) {
				if !strings.Contains(window, "aggregates") {
					window += ", aggregates: {n: count(x)}"
				}
				s := play(t, fmt.Sprintf(`
topology: silent
spout: {id: in, kafka: {brokers: nowhere, topics: [in]}, key: device, time: {field: ts, unit: ms}}
bolts:
  - {id: s, kind: stat, from: in, group: %s, %s, save: s}
`, g.group, window))
				minute(t, s) // there was a tick before
				feed(t, s, `{"device":"a","ts":1,"line":1,"shift":"day","x":5}`, `{"device":"b","ts":2,"line":1,"shift":"night","x":6}`, `{"device":"c","ts":3,"line":2,"shift":"day","x":7}`)
				minute(t, s)
				s.Emitted = nil
				var want []string
				if n != "" {
					want = g.all
				}
				if err := s.Restart(t.Context()); err != nil {
					t.Fatal(err)
				}
				for range 2 {
					if got := groupsOf(t, s, n, g.group); !slices.Equal(got, want) {
						t.Errorf("silent for a minute: %q, want %q", got, want)
					}
				}
			})
		}
	}
}

func minute(t *testing.T, s *rehearse.Stage) {
	t.Helper()
	if err := s.Wait(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
}

// groupsOf waits a minute and returns the groups that were output, each of which must say n readings, or of a lifetime at least n.
func groupsOf(t *testing.T, s *rehearse.Stage, n, group string) (out []string) {
	t.Helper()
	s.Emitted = nil
	minute(t, s)
	for _, e := range s.Emitted {
		if e.Node != "s" {
			continue
		}
		out = append(out, strings.ReplaceAll(gjson.GetBytes(e.Payload, "group").Str, "\x1f", "|"))
		if got := gjson.GetBytes(e.Payload, "n").Int(); n == "0" && got != 0 || n == "1" && got == 0 {
			t.Errorf("%s by %s: %s", e.Key, group, e.Payload)
		}
	}
	slices.Sort(out)
	return out
}
