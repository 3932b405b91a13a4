package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// event is what an alarm says of a group.
type event struct {
	Rule     string
	Event    string // raise, change or clear
	Severity string
	TS       int64
	Value    float64
}

// rule is what an alarm node does, looked at from each value backwards: nothing is counted along as a bolt would.
type rule struct {
	name         string
	levels       func(device string) []level // in rising order
	raise, clear int
}

// level comes to hold above one value, and ceases to at another and below.
type level struct {
	severity     string
	above, until float64
}

func always(levels ...level) func(string) []level {
	return func(string) []level { return levels }
}

var (
	high    = rule{"high", func(device string) []level { return []level{{"", limit(device), limit(device)}} }, 3, 2}
	busy    = rule{"busy", always(level{"", 50, 50}), 2, 2}
	crowded = rule{"crowded", always(level{"", 50, 50}), 1, 1}
	grades  = rule{"grades", always(level{"warning", 60, 50}, level{"critical", 85, 80}), 2, 2}
)

// point is a value at a time.
type point struct {
	at    int64
	value float64
}

// events runs the rule over the points of one group in order.
func (r rule) events(group string, all []point) (out []event) {
	levels := r.levels(group)
	held, now := make([]bool, len(levels)), -1 // now is the highest that holds
	row := func(i, n int, says func(float64) bool) bool {
		return i+1 >= n && !slices.ContainsFunc(all[i+1-n:i+1], func(p point) bool { return !says(p.value) })
	}
	for i, p := range all {
		was := now
		now = -1
		for k, l := range levels {
			if held[k] {
				held[k] = !row(i, r.clear, func(v float64) bool { return v <= l.until })
			} else {
				held[k] = row(i, r.raise, func(v float64) bool { return v > l.above })
			}
			if held[k] {
				now = k
			}
		}
		switch {
		case was == now:
		case was < 0:
			out = append(out, event{r.name, "raise", levels[now].severity, p.at, p.value})
		case now < 0:
			out = append(out, event{r.name, "clear", levels[was].severity, p.at, p.value})
		default:
			out = append(out, event{r.name, "change", levels[now].severity, p.at, p.value})
		}
	}
	return out
}

// seen names the points that one rule sees of one device or site.
type seen struct{ rule, device string }

// observed is what every rule sees, in order: readings, and what the statistics emitted.
func (c *checker) observed() map[seen][]point {
	points := map[seen][]point{}
	c.chains(points)
	for device, all := range c.want {
		for _, r := range all {
			p := point{r.TS, r.Value}
			points[seen{high.name, device}] = append(points[seen{high.name, device}], p)
			if sampled(device) {
				points[seen{grades.name, device}] = append(points[seen{grades.name, device}], p)
			}
		}
	}
	return points
}

// events wants the alarms and the episodes that the rules make of the points.
func (c *checker) events(points map[seen][]point) {
	got := byDevice(c.alarms, func(a alarm) seen { return seen{a.Rule, a.Device} })
	episodes := byDevice(c.episodes, func(e episode) seen { return seen{e.Rule, e.Device} })
	for at := range got {
		if points[at] == nil {
			c.differs(at.device, "alarms of %s, which saw nothing", at.rule)
		}
	}
	rules := map[string]rule{high.name: high, busy.name: busy, crowded.name: crowded, grades.name: grades}
	for _, at := range slices.Collect(maps.Keys(points)) {
		want := rules[at.rule].events(at.device, points[at])
		var have []event
		for _, a := range got[at] {
			have = append(have, event{a.Rule, a.Event, a.Severity, a.TS, a.Value})
		}
		order := func(a, b event) int { return cmp.Or(cmp.Compare(a.TS, b.TS), cmp.Compare(a.Event, b.Event)) }
		slices.SortFunc(have, order)
		if !slices.Equal(have, slices.SortedFunc(slices.Values(want), order)) {
			c.differs(at.device, "the events of %s are %+v, want %+v", at.rule, have, want)
		}
		c.sameEpisodes(at, episodes[at], episodesOf(at, want))
	}
}

// episodesOf is what events make: one episode per raise, numbered from 1, whose version counts its events.
func episodesOf(at seen, events []event) (out []episode) {
	for _, e := range events {
		if e.Event == "raise" {
			out = append(out, episode{Device: at.device, Rule: at.rule, Number: len(out) + 1, State: "open", RaisedAt: e.TS})
		}
		last := &out[len(out)-1]
		last.Version++
		last.Severity = e.Severity
		if e.Event == "clear" {
			last.State, last.ClearedAt = "cleared", &e.TS
		}
	}
	return out
}

func (c *checker) sameEpisodes(at seen, got, want []episode) {
	text := func(all []episode) (out []string) {
		for _, e := range slices.SortedFunc(slices.Values(all), func(a, b episode) int { return cmp.Compare(a.Number, b.Number) }) {
			cleared := int64(0)
			if e.ClearedAt != nil {
				cleared = *e.ClearedAt
			}
			out = append(out, fmt.Sprint(e.Number, e.Version, e.State, e.Severity, e.RaisedAt, cleared))
		}
		return out
	}
	if have, want := text(got), text(want); !slices.Equal(have, want) {
		c.differs(at.device, "the episodes of %s are %q, want %q", at.rule, have, want)
	}
}
