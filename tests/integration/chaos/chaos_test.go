package main

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPlanComesFromTheSeed(t *testing.T) {
	draw := func(seed uint64) (out []fault) {
		p := newPlanner(seed, time.Second, 3)
		for range 500 {
			out = append(out, p.next())
		}
		return out
	}
	one := draw(1)
	if !slices.Equal(one, draw(1)) || slices.Equal(one, draw(2)) {
		t.Fatal("plans do not follow from their seeds alone")
	}
	if !slices.IsSortedFunc(one, func(a, b fault) int { return int(a.at - b.at) }) {
		t.Error("the faults are not in order")
	}
	seen := map[string]bool{}
	for i, f := range one {
		who, _, _ := strings.Cut(f.target, "-")
		seen[f.what+" "+who] = true
		for _, g := range one[:i] {
			if f.target == g.target && g.at+g.length > f.at {
				t.Errorf("%v begins while %v lasts", f, g)
			}
		}
	}
	for _, must := range []string{kill + " stat", pause + " convert", leave + " spout", kill + " nats", kill + " redis", kill + " mongo", kill + " kafka", pause + " kafka"} {
		if !seen[must] {
			t.Errorf("never: %s", must)
		}
	}
}

// right is what is stored of some readings when nothing goes wrong: two intervals per device.
func right(fed []reading) *stored {
	s := &stored{readings: slices.DeleteFunc(slices.Clone(fed), func(r reading) bool { return !sampled(r.Device) })}
	for i, r := range fed {
		if i%500 == 3 {
			s.late = append(s.late, r)
		}
	}
	s.windows = documents(shares(fed, func(r reading) slot { return slot{r.Device, start(r.TS)} }))
	timely := slices.DeleteFunc(slices.Clone(fed), func(r reading) bool { return r.Seq%500 == 3 })
	s.sites = documents(shares(timely, func(r reading) slot { return slot{site(r.Device), start(r.TS)} }))
	s.siteParts = documents(shares(fed, func(r reading) slot { return slot{site(r.Device), r.TS / 30_000} })) // intervals begin anywhere
	devices := byDevice(fed, func(r reading) string { return r.Device })
	for _, device := range slices.Sorted(maps.Keys(devices)) {
		all := devices[device]
		half := sum(device, all[:len(all)/2])
		s.totals = append(s.totals, half, sum(device, all))
		end := int64(0)
		var points, values []point
		for i, part := range [][]reading{all[:len(all)/2], all[len(all)/2:]} {
			one, t := interval{Device: device, TS: int64(i+1) * 2000}, sum(device, part)
			one.Count, one.Sum, one.Mean = t.Count, t.Sum, t.Sum/float64(t.Count)
			if start := end; i > 0 {
				one.Window.Start = &start
			}
			one.Window.End = one.TS
			end = one.TS
			s.intervals = append(s.intervals, one)
			points = append(points, point{one.TS, one.Mean})
		}
		for _, r := range all {
			values = append(values, point{r.TS, r.Value})
		}
		for _, e := range slices.Concat(high.events(values), busy.events(points)) {
			s.alarms = append(s.alarms, alarm{device, e.Rule, e.Event, e.TS, e.Value})
			last := len(s.episodes) - 1
			switch e.Event {
			case "clear":
				s.episodes[last].Version, s.episodes[last].State, s.episodes[last].ClearedAt = 2, "cleared", &e.TS
			default:
				n := 1
				if last >= 0 && s.episodes[last].Device == device && s.episodes[last].Rule == e.Rule {
					n += s.episodes[last].Number
				}
				s.episodes = append(s.episodes, episode{Device: device, Rule: e.Rule, Number: n, Version: 1, State: "open", RaisedAt: e.TS})
			}
		}
	}
	return s
}

func documents(of map[slot]share) (out []window) {
	for at, s := range of {
		w := window{Group: at.group, Count: s.count, Sum: s.sum, Version: 1}
		w.Window.Start, w.Window.End = at.start, at.start+length
		out = append(out, w)
	}
	slices.SortFunc(out, func(a, b window) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Window.Start, b.Window.Start))
	})
	return out
}

func TestCheckFindsWhatIsWrong(t *testing.T) {
	fed := generate(7, 2000, 10)
	if d := check(fed, right(fed)); len(d) > 0 {
		t.Fatalf("what is right differs: %q", d)
	}
	for _, c := range []struct {
		name  string
		spoil func(s *stored)
		want  string
	}{
		{"lost reading", func(s *stored) { s.readings = s.readings[1:] }, "reading 7 is stored 0 times"},
		{"doubled reading", func(s *stored) { s.readings = append(s.readings, s.readings[5]) }, "reading 57 is stored 2 times"},
		{"a reading that nobody samples", func(s *stored) { s.readings = append(s.readings, fed[0]) }, "reading 0 is stored 1 times, want 0"},
		{"another value", func(s *stored) { s.readings[9].Value++ }, "was never fed"},
		{"total", func(s *stored) { s.totals[1].Sum += 0.25 }, "the total is"},
		{"lost interval", func(s *stored) { s.intervals = s.intervals[1:] }, "one is missing"},
		{"doubled interval", func(s *stored) { s.intervals = append(s.intervals, s.intervals[0]) }, "follows on none"},
		{"interval too small", func(s *stored) { s.intervals[0].Count-- }, "intervals have"},
		{"lost event", func(s *stored) { s.alarms = s.alarms[1:] }, "the events of high"},
		{"doubled event", func(s *stored) { s.alarms = append(s.alarms, s.alarms[0]) }, "the events of high"},
		{"lost episode", func(s *stored) { s.episodes = s.episodes[1:] }, "the episodes of high"},
		{"lost window", func(s *stored) { s.windows = s.windows[1:] }, "the window at"},
		{"doubled window", func(s *stored) { s.windows = append(s.windows, s.windows[0]) }, "two documents of the window"},
		{"a correction that is missing", func(s *stored) { s.windows[3].Count-- }, "the window at"},
		{"window of a site too small", func(s *stored) { s.sites[0].Sum-- }, "the window of a site at"},
		{"lost late reading", func(s *stored) { s.late = s.late[1:] }, "the window of a site at"},
		{"doubled late reading", func(s *stored) { s.late = append(s.late, s.late[0]) }, "is late twice"},
		{"lost interval of a site", func(s *stored) { s.siteParts = s.siteParts[1:] }, "the sum of a site's intervals"},
		{"unknown site", func(s *stored) { s.siteParts = append(s.siteParts, window{Group: "site-x"}) }, "where there was no reading"},
		{"stale episode", func(s *stored) { s.episodes[0].Version, s.episodes[0].State, s.episodes[0].ClearedAt = 1, "open", nil }, "the episodes of high"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := right(fed)
			c.spoil(s)
			if d := strings.Join(check(fed, s), "\n"); !strings.Contains(d, c.want) {
				t.Errorf("found %q, want %q", d, c.want)
			}
		})
	}
}

func TestExplainTellsHowToRunAgain(t *testing.T) {
	var out bytes.Buffer
	r := &report{options: settings{seed: 42, readings: 10, devices: 2, replicas: 3, rate: 5, every: time.Second}, problems: []string{"device-1: odd"}, history: []string{"1 s kill"}}
	r.explain(&out)
	for _, want := range []string{"SEED=42", "-readings 10", "device-1: odd", "1 s kill"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, &out)
		}
	}
}
