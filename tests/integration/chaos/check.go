package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// interval is a document of the interval statistic.
type interval struct {
	Device string
	Count  int
	Sum    float64
	Mean   float64
	TS     int64
	Window struct {
		Start *int64
		End   int64
	}
}

// window is a document of a statistic by event time, or of one per site.
type window struct {
	Group   string
	Count   int
	Sum     float64
	Version int
	Window  struct{ Start, End int64 }
}

// alarm is a stored event.
type alarm struct {
	Device string
	Rule   string `bson:"alarm"`
	Event  string
	TS     int64
	Value  float64
}

// episode is a stored episode.
type episode struct {
	Device    string
	Rule      string `bson:"alarm"`
	Number    int
	Version   int
	State     string
	RaisedAt  int64  `bson:"raised_at"`
	ClearedAt *int64 `bson:"cleared_at"`
}

// stored is everything that the output node has written.
type stored struct {
	readings  []reading
	totals    []total
	intervals []interval
	windows   []window  // per device
	sites     []window  // per site, by event time
	late      []reading // what sites found late
	siteParts []window  // per site, by the clock
	alarms    []alarm
	episodes  []episode
}

// load reads the whole database.
func load(ctx context.Context, url string) (*stored, error) {
	client, err := mongo.Connect(options.Client().ApplyURI(url))
	if err != nil {
		return nil, err
	}
	defer func() { _ = client.Disconnect(context.WithoutCancel(ctx)) }()
	db, s := client.Database("chaos"), &stored{}
	for name, into := range map[string]any{
		"readings": &s.readings, "totals": &s.totals, "intervals": &s.intervals, "windows": &s.windows, "sites": &s.sites, "late": &s.late, "site_intervals": &s.siteParts, "alarms": &s.alarms, "alarms_episodes": &s.episodes,
	} {
		cursor, err := db.Collection(name).Find(ctx, bson.D{})
		if err == nil {
			err = cursor.All(ctx, into)
		}
		if err != nil {
			return nil, fmt.Errorf("read the collection %s: %w", name, err)
		}
	}
	return s, nil
}

// check compares what is stored with what the readings alone say, and returns every difference, each beginning with the device.
func check(fed []reading, s *stored) []string {
	c := &checker{want: byDevice(fed, func(r reading) string { return r.Device }), stored: s}
	c.documents(fed)
	c.lifetimes()
	c.single()
	c.global()
	points := c.chains()
	for device, all := range c.want {
		for _, r := range all {
			points[point2{high.name, device}] = append(points[point2{high.name, device}], point{r.TS, r.Value})
		}
	}
	c.events(points)
	slices.Sort(c.differences)
	return c.differences
}

type checker struct {
	want map[string][]reading
	*stored
	differences []string
}

// point2 names the points that one rule sees of one device.
type point2 struct{ rule, device string }

func (c *checker) differs(device, format string, args ...any) {
	c.differences = append(c.differences, device+": "+fmt.Sprintf(format, args...))
}

// sampled tells of which devices the readings themselves are stored, as the topology's node sample does.
func sampled(device string) bool { return strings.HasSuffix(device, "7") }

// documents wants each reading of the sampled devices once, as it was, and none of the others.
func (c *checker) documents(fed []reading) {
	seen := make([]int, len(fed))
	for _, r := range c.readings {
		if r.Seq < 0 || r.Seq >= len(fed) || r != fed[r.Seq] {
			c.differs(r.Device, "stored %+v, which was never fed", r)
			continue
		}
		seen[r.Seq]++
	}
	for i, n := range seen {
		want := 0
		if sampled(fed[i].Device) {
			want = 1
		}
		if n != want {
			c.differs(fed[i].Device, "reading %d is stored %d times, want %d", i, n, want)
		}
	}
}

// lifetimes wants the greatest total of each device to be that of its readings.
func (c *checker) lifetimes() {
	last := map[string]total{}
	for _, t := range c.totals {
		if old, ok := last[t.Device]; !ok || t.Count > old.Count {
			last[t.Device] = t
		}
	}
	for device, all := range c.want {
		if want := sum(device, all); last[device] != want {
			c.differs(device, "the total is %+v, want %+v", last[device], want)
		}
	}
}

// chains wants the intervals of each device to follow on each other without a gap, and to add up to its total. It returns what the rule busy sees.
func (c *checker) chains() map[point2][]point {
	points := map[point2][]point{}
	got := byDevice(c.intervals, func(i interval) string { return i.Device })
	for device, all := range c.want {
		want, have := sum(device, all), total{}
		chain := got[device]
		slices.SortFunc(chain, func(a, b interval) int { return cmp.Compare(a.Window.End, b.Window.End) })
		for i, one := range chain {
			have.Count += one.Count
			have.Sum += one.Sum
			start := one.Window.Start
			switch {
			case i == 0 && start != nil:
				c.differs(device, "the first interval, to %d, begins at %d: one is missing", one.Window.End, *start)
			case i > 0 && start == nil:
				c.differs(device, "the interval to %d follows on none, but there is one to %d", one.Window.End, chain[i-1].Window.End)
			case i > 0 && *start != chain[i-1].Window.End:
				c.differs(device, "the interval to %d begins at %d, the one before ends at %d", one.Window.End, *start, chain[i-1].Window.End)
			}
			at := point2{busy.name, device}
			points[at] = append(points[at], point{one.TS, one.Mean})
		}
		if have.Count != want.Count || have.Sum != want.Sum {
			c.differs(device, "%d intervals have %d readings and the sum %v, want %d and %v", len(chain), have.Count, have.Sum, want.Count, want.Sum)
		}
	}
	return points
}

// events wants the alarms and the episodes that the rules make of the points.
func (c *checker) events(points map[point2][]point) {
	got := byDevice(c.alarms, func(a alarm) point2 { return point2{a.Rule, a.Device} })
	episodes := byDevice(c.episodes, func(e episode) point2 { return point2{e.Rule, e.Device} })
	for at := range got {
		if points[at] == nil {
			c.differs(at.device, "alarms of %s, which saw nothing", at.rule)
		}
	}
	rules := map[string]rule{high.name: high, busy.name: busy}
	for _, at := range slices.Collect(maps.Keys(points)) {
		want := rules[at.rule].events(points[at])
		var have []event
		for _, a := range got[at] {
			have = append(have, event{a.Rule, a.Event, a.TS, a.Value})
		}
		order := func(a, b event) int { return cmp.Or(cmp.Compare(a.TS, b.TS), cmp.Compare(a.Event, b.Event)) }
		slices.SortFunc(have, order)
		if !slices.Equal(have, slices.SortedFunc(slices.Values(want), order)) {
			c.differs(at.device, "the events of %s are %+v, want %+v", at.rule, have, want)
		}
		c.sameEpisodes(at, episodes[at], want)
	}
}

// sameEpisodes wants one episode per raise, numbered from 1, cleared by the event that follows.
func (c *checker) sameEpisodes(at point2, got []episode, events []event) {
	slices.SortFunc(got, func(a, b episode) int { return cmp.Compare(a.Number, b.Number) })
	have, want := []string{}, []string{}
	for _, e := range got {
		cleared := int64(0)
		if e.ClearedAt != nil {
			cleared = *e.ClearedAt
		}
		have = append(have, fmt.Sprint(e.Number, e.Version, e.State, e.RaisedAt, cleared))
	}
	for i := 0; i < len(events); i += 2 {
		text := fmt.Sprint(i/2+1, 1, "open", events[i].TS, 0)
		if i+1 < len(events) {
			text = fmt.Sprint(i/2+1, 2, "cleared", events[i].TS, events[i+1].TS)
		}
		want = append(want, text)
	}
	if !slices.Equal(have, want) {
		c.differs(at.device, "the episodes of %s are %q, want %q", at.rule, have, want)
	}
}

func byDevice[T any, K comparable](all []T, key func(T) K) map[K][]T {
	out := map[K][]T{}
	for _, one := range all {
		out[key(one)] = append(out[key(one)], one)
	}
	return out
}
