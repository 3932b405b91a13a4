package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// interval is a document of a statistic by the clock; of one per site, its device is the site.
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

// window is a document of a statistic by event time.
type window struct {
	Group   string
	Count   int
	Sum     float64
	Version int
	Window  struct{ Start, End int64 }
}

// alarm is a stored event.
type alarm struct {
	Device   string
	Rule     string `bson:"alarm"`
	Event    string
	Severity string
	TS       int64
	Value    float64
}

// episode is a stored episode.
type episode struct {
	Device    string
	Rule      string `bson:"alarm"`
	Number    int
	Version   int
	State     string
	Severity  string
	RaisedAt  int64  `bson:"raised_at"`
	ClearedAt *int64 `bson:"cleared_at"`
}

// stored is everything that the output node has written.
type stored struct {
	readings  []reading
	handled   map[string]int // of a sampled device: the revisions in which its stored readings were handled, added up
	totals    []total
	intervals []interval
	windows   []window   // per device
	sites     []window   // per site, by event time
	late      []reading  // what sites found late
	siteParts []interval // per site, by the clock
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
	db, s := client.Database("chaos"), &stored{handled: map[string]int{}}
	var readings []struct {
		Fed      reading `bson:",inline"`
		Revision int
	}
	for name, into := range map[string]any{
		"readings": &readings, "totals": &s.totals, "intervals": &s.intervals, "windows": &s.windows, "sites": &s.sites, "late": &s.late, "site_intervals": &s.siteParts, "alarms": &s.alarms, "alarms_episodes": &s.episodes,
	} {
		cursor, err := db.Collection(name).Find(ctx, bson.D{})
		if err == nil {
			err = cursor.All(ctx, into)
		}
		if err != nil {
			return nil, fmt.Errorf("read the collection %s: %w", name, err)
		}
	}
	for _, r := range readings {
		s.readings = append(s.readings, r.Fed)
		s.handled[r.Fed.Device] += r.Revision
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
	c.events(c.observed())
	slices.Sort(c.differences)
	return c.differences
}

type checker struct {
	want map[string][]reading
	*stored
	differences []string
}

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

// lifetimes wants the greatest total of each device to be that of its readings, all counted in the revision in which they were stored.
func (c *checker) lifetimes() {
	last := map[string]total{}
	for _, t := range c.totals {
		if old, ok := last[t.Device]; !ok || t.Count > old.Count {
			last[t.Device] = t
		}
	}
	for device, all := range c.want {
		got := last[device]
		if sampled(device) && got.Revisions != c.handled[device] {
			c.differs(device, "its readings were stored in revisions that add up to %d, and counted in ones that add up to %d", c.handled[device], got.Revisions)
		}
		got.Revisions = 0
		if want := sum(device, all); got != want {
			c.differs(device, "the total is %+v, want %+v", got, want)
		}
	}
}

// chains wants the intervals of each device, and of each site, to follow on each other without a gap, and those of a device to add up to its total. It adds what
// the rules busy and crowded see to points.
func (c *checker) chains(points map[seen][]point) {
	got := byDevice(c.intervals, func(i interval) string { return i.Device })
	for device, all := range c.want {
		want, have := sum(device, all), total{}
		for _, one := range c.chain(device, got[device]) {
			have.Count += one.Count
			have.Sum += one.Sum
			points[seen{busy.name, device}] = append(points[seen{busy.name, device}], point{one.TS, one.Mean})
		}
		if have.Count != want.Count || have.Sum != want.Sum {
			c.differs(device, "the intervals have %d readings and the sum %v, want %d and %v", have.Count, have.Sum, want.Count, want.Sum)
		}
	}
	for site, all := range byDevice(c.siteParts, func(i interval) string { return i.Device }) {
		for _, one := range c.chain(site, all) {
			if one.Count > 0 { // a silent site has no mean, and an alarm passes over it
				points[seen{crowded.name, site}] = append(points[seen{crowded.name, site}], point{one.TS, one.Mean})
			}
		}
	}
}

// chain returns the intervals of a group in order, up to the last in which it was not silent, since more come all the time.
func (c *checker) chain(group string, all []interval) []interval {
	chain := slices.SortedFunc(slices.Values(all), func(a, b interval) int { return cmp.Compare(a.Window.End, b.Window.End) })
	for len(chain) > 0 && chain[len(chain)-1].Count == 0 {
		chain = chain[:len(chain)-1]
	}
	for i, one := range chain {
		start := one.Window.Start
		switch {
		case i == 0 && start != nil:
			c.differs(group, "the first interval, to %d, begins at %d: one is missing", one.Window.End, *start)
		case i > 0 && start == nil:
			c.differs(group, "the interval to %d follows on none, but there is one to %d", one.Window.End, chain[i-1].Window.End)
		case i > 0 && *start != chain[i-1].Window.End:
			c.differs(group, "the interval to %d begins at %d, the one before ends at %d", one.Window.End, *start, chain[i-1].Window.End)
		}
	}
	return chain
}

func byDevice[T any, K comparable](all []T, key func(T) K) map[K][]T {
	out := map[K][]T{}
	for _, one := range all {
		out[key(one)] = append(out[key(one)], one)
	}
	return out
}
