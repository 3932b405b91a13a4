package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/rehearse"
	"github.com/boltmesh/boltmesh/pkg/script"
	"github.com/boltmesh/boltmesh/pkg/service"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/services"
)

const plant = `
topology: plant
spout:
  id: in
  kafka: {topics: [in]}
  fields: {x: number, line: string, lot: number}
  key: device
  time: {field: ts, unit: ms}
bolts:
  - {id: clean, kind: convert, from: in, set: {y: x * 2}}
  - {id: single, kind: stat, from: clean, window: {tumbling: 1h}, aggregates: {n: count, high: max(y)}}
  - {id: by-line, kind: stat, from: clean, group: line, window: {tumbling: 1h}, aggregates: {n: count, high: max(y)}}
  - {id: by-site, kind: stat, from: clean, group: archive.site, window: {tumbling: 1h}, aggregates: {n: count, high: max(y)}}
  - {id: by-both, kind: stat, from: clean, group: [archive.site, line], window: {tumbling: 1h}, aggregates: {n: count, high: max(y)}}
  - {id: by-code, kind: stat, from: clean, group: script, window: {tumbling: 1h}, aggregates: {n: count, high: max(y)}, script: "function group(t, ctx) {\n return t.lot % 2 }"}
  - {id: whole, kind: stat, from: clean, group: none, window: {tumbling: 1h}, aggregates: {n: count, high: max(y)}}
  - {id: of-spout, kind: alarm, from: in, when: x > 10}
  - {id: of-convert, kind: alarm, from: clean, when: y > 20}
  - {id: of-single, kind: alarm, from: single, when: high > 20}
  - {id: of-line, kind: alarm, from: by-line, when: high > 20}
  - {id: of-site, kind: alarm, from: by-site, when: high > 20}
  - {id: of-both, kind: alarm, from: by-both, when: high > 20}
  - {id: of-code, kind: alarm, from: by-code, when: high > 20}
  - {id: of-whole, kind: alarm, from: whole, when: high > 20}
  - {id: named, kind: alarm, from: by-line, group: group, when: high > 20}
  - {id: levels, kind: alarm, from: by-line, levels: [{severity: low, when: high > 20}, {severity: top, when: high > 40}]}
`

// TestInputs: an alarm takes readings of the spout and of a convert node, and outputs of statistics for single devices and for more. Its group is, unless it
// says otherwise, the device, or where there is none the group of the statistic.
func TestInputs(t *testing.T) {
	top, problems := topology.Parse("plant.yaml", []byte(plant), topology.Options{Checker: script.Check{}})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	plan, err := top.Plan()
	if err != nil {
		t.Fatal(err)
	}
	s, err := rehearse.New(t.Context(), rehearse.Options{Plan: plan, Builds: map[string]service.Build{
		"convert": services.Convert, "stat": services.Stat, "alarm": services.Alarm, "output": services.Output,
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	for d := range 4 {
		if err := s.Profile(t.Context(), fmt.Sprint("m", d), fmt.Appendf(nil, `{"site":%q}`, []string{"north", "south"}[d/2])); err != nil {
			t.Fatal(err)
		}
	}
	// Hour by hour: m1 is hot in the first and in the second, m3 in the third; nobody is in the last.
	for hour, hot := range []string{"m1", "m1", "m3", ""} {
		for d := range 4 {
			x, device := 1, fmt.Sprint("m", d)
			if device == hot {
				x = 11 + 10*hour
			}
			r := fmt.Sprintf(`{"device":%q,"ts":%d,"x":%d,"line":"l%d","lot":%d}`, device, hour*3_600_000+d, x, d%2, d)
			if err := s.Feed(t.Context(), spout.Record{Value: []byte(r)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	for _, e := range s.Emitted {
		var a struct{ Event, Alarm, Device, Group, Severity string }
		if err := json.Unmarshal(e.Payload, &a); err != nil || a.Alarm == "" {
			continue
		}
		if a.Device != e.Key {
			t.Errorf("%s of device %s has the key %s", e.Payload, a.Device, e.Key)
		}
		got[a.Alarm] = append(got[a.Alarm], fmt.Sprint(a.Event, " ", strings.ReplaceAll(a.Group, "\x1f", "+"), a.Severity))
	}
	devices := []string{"raise m1", "clear m1", "raise m3", "clear m3"}
	for alarm, want := range map[string][]string{
		"of-spout": devices, "of-convert": devices, "of-single": devices,
		"of-line": {"raise l1", "clear l1"}, "named": {"raise l1", "clear l1"},
		"of-site": {"raise north", "clear north", "raise south", "clear south"},
		"of-both": {"raise north+l1", "clear north+l1", "raise south+l1", "clear south+l1"},
		"of-code": {"raise 1", "clear 1"}, "of-whole": {"raise all", "clear all"},
		"levels": {"raise l1low", "change l1top", "clear l1top"},
	} {
		slices.Sort(want)
		slices.Sort(got[alarm]) // groups in any order
		if !slices.Equal(got[alarm], want) {
			t.Errorf("%s: got %q, want %q", alarm, got[alarm], want)
		}
	}
	if len(s.Letters) > 0 {
		t.Errorf("dead letters: %s", s.Letters[0].Error)
	}
}
