package main

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRevised(t *testing.T) {
	if revised(1) == revised(2) || revised(1) != string(source) {
		t.Error("the topology does not name its revision")
	}
	one, same := newChanges(1), newChanges(1)
	for range 100 {
		document, err := one.next()
		if err != nil {
			t.Fatal(err)
		}
		if again, _ := same.next(); again != document {
			t.Fatal("revisions do not follow from their seeds alone")
		}
		if !strings.Contains(document, fmt.Sprintf("set: {revision: %d}", one.n)) {
			t.Fatalf("it does not name its revision:\n%s", document)
		}
	}
	if len(one.tasks) != len(divided) {
		t.Errorf("other numbers of tasks have %v", one.tasks)
	}
}

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
	s := &stored{handled: map[string]int{}, readings: slices.DeleteFunc(slices.Clone(fed), func(r reading) bool { return !sampled(r.Device) })}
	for i, r := range fed {
		if i%500 == 3 {
			s.late = append(s.late, r)
		}
	}
	s.windows = documents(shares(fed, func(r reading) slot { return slot{r.Device, start(r.TS)} }))
	timely := slices.DeleteFunc(slices.Clone(fed), func(r reading) bool { return r.Seq%500 == 3 })
	s.sites = documents(shares(timely, func(r reading) slot { return slot{site(r.Device), start(r.TS)} }))
	for device, all := range byDevice(fed, func(r reading) string { return r.Device }) {
		s.totals = append(s.totals, sum(device, all[:len(all)/2]), sum(device, all))
		parts := inParts(device, all, 2)
		s.intervals = append(s.intervals, parts...)
		s.watched(busy, device, means(parts))
		var values []point
		for _, r := range all {
			values = append(values, point{r.TS, r.Value})
		}
		s.watched(high, device, values)
		if sampled(device) {
			s.watched(grades, device, values)
		}
	}
	sites := byDevice(fed, func(r reading) string {
		if moves(r.Device) && r.Seq > len(fed)/2 {
			return elsewhere
		}
		return site(r.Device)
	})
	for at, all := range sites {
		parts := inParts(at, all, 9)
		s.siteParts = append(s.siteParts, parts...)
		s.watched(crowded, at, means(parts))
	}
	slices.SortFunc(s.totals, func(a, b total) int { return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.Count, b.Count)) })
	slices.SortStableFunc(s.intervals, func(a, b interval) int { return cmp.Compare(a.Device, b.Device) })
	slices.SortStableFunc(s.siteParts, func(a, b interval) int { return cmp.Compare(a.Device, b.Device) })
	slices.SortStableFunc(s.alarms, func(a, b alarm) int { return cmp.Or(cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Device, b.Device)) })
	slices.SortStableFunc(s.episodes, func(a, b episode) int { return cmp.Or(cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Device, b.Device)) })
	return s
}

// inParts are n intervals that follow on each other, and then one of silence.
func inParts(group string, all []reading, n int) (out []interval) {
	for i := range n + 1 {
		one := interval{Device: group, TS: int64(i+1) * 2000}
		if part := all[min(i, n)*len(all)/n : min(i+1, n)*len(all)/n]; len(part) > 0 {
			t := sum(group, part)
			one.Count, one.Sum, one.Mean = t.Count, t.Sum, t.Sum/float64(t.Count)
		}
		if i > 0 {
			one.Window.Start = &out[i-1].TS
		}
		one.Window.End = one.TS
		out = append(out, one)
	}
	return out
}

func means(all []interval) (out []point) {
	for _, one := range all {
		if one.Count > 0 {
			out = append(out, point{one.TS, one.Mean})
		}
	}
	return out
}

func (s *stored) watched(by rule, group string, points []point) {
	events := by.events(group, points)
	for _, e := range events {
		s.alarms = append(s.alarms, alarm{group, e.Rule, e.Event, e.Severity, e.TS, e.Value})
	}
	s.episodes = append(s.episodes, episodesOf(seen{by.name, group}, events)...)
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

func TestRules(t *testing.T) {
	for _, c := range []struct {
		name   string
		rule   rule
		values []float64
		want   string
	}{
		{"three in a row, two below", high, []float64{71, 71, 70, 71, 71, 71, 70, 71, 70, 69}, "raise 71@5 clear 69@9"},
		{"one level after the other", grades, []float64{61, 61, 90, 90, 70, 70, 49, 50}, "raise warning 61@1 change critical 90@3 change warning 70@5 clear warning 50@7"},
		{"both levels at once", grades, []float64{90, 90, 49, 49}, "raise critical 90@1 clear critical 49@3"},
		{"up, down, and over", grades, []float64{61, 61, 90, 86, 80, 70, 60, 50, 49, 61}, "raise warning 61@1 change critical 86@3 change warning 70@5 clear warning 49@8"},
	} {
		var points []point
		for i, v := range c.values {
			points = append(points, point{int64(i), v})
		}
		var got []string
		for _, e := range c.rule.events("device-0", points) {
			got = append(got, strings.Join(strings.Fields(fmt.Sprint(e.Event, " ", e.Severity, " ", e.Value)), " ")+fmt.Sprint("@", e.TS))
		}
		if d := strings.Join(got, " "); d != c.want {
			t.Errorf("%s: %s, want %s", c.name, d, c.want)
		}
	}
}

// first is the place of the first event of a rule.
func (s *stored) first(rule string) int {
	return slices.IndexFunc(s.alarms, func(a alarm) bool { return a.Rule == rule })
}

// moved is the place of an episode that went from one level to another.
func (s *stored) moved() int {
	return slices.IndexFunc(s.episodes, func(e episode) bool { return e.Rule == grades.name && e.Version > 2 })
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
		{"a reading that was stored in one revision and counted in another", func(s *stored) { s.handled["device-0007"]++ }, "and counted in ones"},
		{"total", func(s *stored) { s.totals[1].Sum += 0.25 }, "the total is"},
		{"lost interval", func(s *stored) { s.intervals = s.intervals[1:] }, "one is missing"},
		{"doubled interval", func(s *stored) { s.intervals = append(s.intervals, s.intervals[0]) }, "follows on none"},
		{"interval too small", func(s *stored) { s.intervals[0].Count-- }, "intervals have"},
		{"lost event", func(s *stored) { s.alarms = slices.Delete(s.alarms, s.first("high"), s.first("high")+1) }, "the events of high"},
		{"doubled event", func(s *stored) { s.alarms = append(s.alarms, s.alarms[s.first("high")]) }, "the events of high"},
		{"lost event of a site", func(s *stored) { s.alarms = slices.Delete(s.alarms, s.first("crowded"), s.first("crowded")+1) }, "the events of crowded"},
		{"another severity", func(s *stored) { s.alarms[s.first("grades")].Severity = "dire" }, "the events of grades"},
		{"a change that was not stored", func(s *stored) { s.episodes[s.moved()].Version-- }, "the episodes of grades"},
		{"lost episode", func(s *stored) { s.episodes = s.episodes[1:] }, "the episodes of busy"},
		{"lost window", func(s *stored) { s.windows = s.windows[1:] }, "the window at"},
		{"doubled window", func(s *stored) { s.windows = append(s.windows, s.windows[0]) }, "two documents of the window"},
		{"a correction that is missing", func(s *stored) { s.windows[3].Count-- }, "the window at"},
		{"window of a site too small", func(s *stored) { s.sites[0].Sum-- }, "the window of a site at"},
		{"lost late reading", func(s *stored) { s.late = s.late[1:] }, "the window of a site at"},
		{"doubled late reading", func(s *stored) { s.late = append(s.late, s.late[0]) }, "is late twice"},
		{"lost interval of a site", func(s *stored) { s.siteParts = s.siteParts[1:] }, "the sum of a site's intervals"},
		{"gap between the intervals of a site", func(s *stored) { s.siteParts = s.siteParts[1:] }, "one is missing"},
		{"a reading of a device that moved counts twice", func(s *stored) { s.siteParts[len(s.siteParts)-2].Count++ }, "site-3: the sum of a site's intervals"},
		{"unknown site", func(s *stored) { s.siteParts = append(s.siteParts, interval{Device: "site-x"}) }, "where there was no reading"},
		{"stale episode", func(s *stored) { s.episodes[0].Version, s.episodes[0].State, s.episodes[0].ClearedAt = 7, "open", nil }, "the episodes of busy"},
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
