package meshtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/boltmesh/boltmesh/pkg/archive"
	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/document"
	"github.com/boltmesh/boltmesh/pkg/partition"
	"github.com/boltmesh/boltmesh/pkg/script"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
	"github.com/boltmesh/boltmesh/services/alarm/rule"
	"github.com/boltmesh/boltmesh/services/convert/normalize"
	"github.com/boltmesh/boltmesh/services/output/notify"
	"github.com/boltmesh/boltmesh/services/output/write"
	"github.com/boltmesh/boltmesh/services/stat/window"
)

const machines = `
topology: machines
spout:
  id: in
  kafka: {brokers: nowhere, topics: [in]}
  fields: {temperature: number, line: number}
  key: device
  time: {field: ts, unit: ms, lag: 2s}
bolts:
  - {id: clean, kind: convert, from: in, where: temperature != nil, set: {celsius: (temperature - 32) / 1.8}, save: readings, tasks: 2}
  - {id: minutely, kind: stat, from: clean, window: {tumbling: 1m, time: event}, aggregates: {n: count, sum: sum(temperature)}, save: minutely, tasks: 2}
  - {id: fives, kind: stat, from: clean, window: {count: 5, slide: 2}, aggregates: {n: count, high: max(temperature)}, save: fives, tasks: 2}
  - {id: often, kind: stat, from: clean, every: 1s, aggregates: {n: count, sum: sum(temperature)}, save: often, tasks: 2}
  - {id: total, kind: stat, from: clean, group: none, window: lifetime, aggregates: {n: count, sum: sum(temperature)}, save: total, tasks: 1}
  - {id: sites, kind: stat, from: clean, group: archive.site, every: 1s, aggregates: {n: count, sum: sum(temperature), high: max(temperature)}, save: sites, tasks: 2}
  - {id: lines, kind: stat, from: clean, group: [archive.site, line], window: {tumbling: 1m, time: event}, aggregates: {n: count, sum: sum(temperature)}, save: lines, tasks: 3}
  - {id: visits, kind: stat, from: clean, group: archive.site, window: {session: 20s}, aggregates: {n: count, sum: sum(temperature)}, save: visits, tasks: 2}
  - {id: smooth, kind: stat, from: clean, group: script, window: lifetime, aggregates: {n: count, sum: sum(temperature), soft: "ewma(temperature, 0.5)"}, save: smooth, tasks: 2, script: "function group(t, ctx) {\n return ctx.archive.site + t.line }"}
  - {id: minutes, kind: stat, from: minutely, group: archive.site, every: 1s, aggregates: {n: count, sum: sum(n)}, save: minutes, tasks: 3}
  - {id: crowded, kind: alarm, from: lines, when: n > 3, save: crowded, tasks: 2}
  - {id: hot, kind: alarm, from: clean, when: temperature > 100, raise_after: 3, clear_after: 2, severity: major, save: alarms, tasks: 2}
  - {id: busy, kind: alarm, from: minutely, when: n > 3, save: busy, tasks: 2}
output: {database: machines}
`

// moody is an archive whose profiles change all the time: at every third look a device's site is another one.
type moody struct{ looks int }

func (m *moody) Read(_ context.Context, _ string, devices []string) ([]*archive.Profile, error) {
	out := make([]*archive.Profile, len(devices))
	for i, d := range devices {
		m.looks++
		p, err := archive.New(d, fmt.Appendf(nil, `{"site":"s%d"}`, m.looks/3%3))
		if err != nil {
			return nil, err
		}
		out[i] = &p
	}
	return out, nil
}

// forgetful is a statistic that reads profiles anew with each batch.
type forgetful struct {
	window.Statistic
	cache *archive.Cache
}

func (f forgetful) Prepare(ctx context.Context, batch iter.Seq[*tuple.Tuple]) error {
	for t := range batch {
		f.cache.Changed("devices", []string{t.Key})
	}
	return f.Statistic.Prepare(ctx, batch)
}

// GroupOf implements bolt.Divisible.
func (f forgetful) GroupOf(key string) (string, bool) {
	return f.Statistic.(bolt.Divisible).GroupOf(key)
}

func statistic(plan *topology.Plan, n topology.Node, profiles *archive.Cache) (bolt.Bolt, error) {
	b, err := window.Make(*n.Bolt, groupOf(n), plan.Topology.Params)
	if err != nil || !b.UsesArchive() {
		return b, err
	}
	b.SetArchive(&archive.Reader{Cache: profiles, Archive: "devices"})
	return forgetful{b, profiles}, nil
}

// groupOf is what a worker makes of the groups that this topology has.
func groupOf(n topology.Node) func(*tuple.Tuple) (string, bool) {
	switch {
	case n.Bolt == nil:
	case n.Bolt.Stage == topology.StageFirst:
		return func(t *tuple.Tuple) (string, bool) { return fmt.Sprint(partition.Task(t.Key, n.Bolt.Tasks)), true }
	case n.Bolt.Stage == topology.StageSecond:
		return byGroup
	case slices.Equal(n.Bolt.Group, []string{"none"}):
		return byNothing
	}
	return byKey
}

func byGroup(t *tuple.Tuple) (string, bool) {
	group := gjson.GetBytes(t.Payload, "group").Str
	return group, group != ""
}

// store1 is a document store that is away for now and then.
type store1 struct {
	*document.Memory
	away func() bool
}

func (s store1) Write(ctx context.Context, docs []document.Document) ([]document.Refusal, error) {
	if s.away() {
		return nil, errors.New("no answer from the document store")
	}
	refused, err := s.Memory.Write(ctx, docs)
	if err == nil && s.away() {
		return nil, errors.New("no answer, though it is stored")
	}
	return refused, err
}

// outside is what the services of a run share beside the mesh: what they store, look up, and tell.
type outside struct {
	docs     *document.Memory
	profiles *archive.Cache
	told     *hook
}

// servicesOf makes a run of the real services of a topology.
func servicesOf(t *testing.T, seed uint64, steps int, source string, x outside) Options {
	t.Helper()
	plans := []*topology.Plan{planOf(t, source, func(_ string, tasks int) int { return tasks })}
	plan := plans[0]
	o := Options{Seed: seed, Spec: plan.Topology.Spout, Span: 20, Steps: steps, Slice: 2, Faults: Usual(), Changes: int(seed % 4 / 2 * (1 + seed/4%2))}
	for revision := range o.Changes {
		plans = append(plans, planOf(t, source, func(id string, _ int) int { return 1 + int(partition.Task(fmt.Sprint(seed, id, revision), most)) }))
	}
	o.Divide = func(node string, revision uint32) int { return nodeOf(plans[revision-1], node).Tasks }
	for i := range plan.Nodes {
		n := plan.Nodes[i]
		edges := engineEdges(plan, n)
		if n.Kind == topology.KindSpout {
			o.Edges = edges
			continue
		}
		o.Nodes = append(o.Nodes, Node{
			ID: n.ID, Tasks: n.Tasks, Shared: n.Shared, Ticks: n.Ticks, Every: n.Every.Milliseconds(), Level: n.Level, After: n.After, Edges: edges,
			Divided: func(revision uint32) []bolt.Edge {
				return engineEdges(plans[revision-1], nodeOf(plans[revision-1], n.ID))
			},
			Place: placeAt(n),
			Build: func(e Env) bolt.Bolt {
				plan := plans[e.Revision-1]
				b, err := service(plan, nodeOf(plan, n.ID), e, x)
				if err != nil {
					t.Fatal(err)
				}
				return b
			},
		})
	}
	return o
}

// planOf plans a topology whose bolts have as many tasks as is said.
func planOf(t *testing.T, source string, tasks func(id string, declared int) int) *topology.Plan {
	t.Helper()
	top, problems := topology.Parse("services.yaml", []byte(source), topology.Options{Checker: script.Check{}})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for i := range top.Bolts {
		top.Bolts[i].Tasks = tasks(top.Bolts[i].ID, top.Bolts[i].Tasks)
	}
	plan, err := top.Plan()
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func nodeOf(plan *topology.Plan, id string) topology.Node {
	return plan.Nodes[slices.IndexFunc(plan.Nodes, func(n topology.Node) bool { return n.ID == id })]
}

// placeAt is what pkg/service makes of the groups that these topologies have.
func placeAt(n topology.Node) func(group string, tasks int) (int, error) {
	if n.Bolt == nil || n.Bolt.Stage != topology.StageFirst {
		return nil
	}
	return func(group string, tasks int) (int, error) {
		number, _, _ := strings.Cut(group, "\x1f")
		task, err := strconv.Atoi(number)
		return task % tasks, err
	}
}

// machinesRun makes a run of the real services; what they store goes to docs.
func machinesRun(t *testing.T, seed uint64, docs *document.Memory) Options {
	t.Helper()
	o := servicesOf(t, seed, 12_000, machines, outside{docs: docs, profiles: archive.NewCache(&moody{}, archive.CacheOptions{})})
	for p := range 2 {
		var log []spout.Record
		for i := range 50 {
			v := map[string]any{"device": fmt.Sprintf("m%d%d", p, (i/2)%2), "ts": 1_000_000 + i*9000, "line": i % 2, "temperature": 80 + (i*i*7+int(seed%32)*i)%45}
			if i%11 == 3 {
				delete(v, "temperature")
			}
			b, _ := json.Marshal(v)
			log = append(log, spout.Record{Offset: int64(i), Value: b, Time: int64(1_000_000 + i*9000)})
		}
		o.Partitions = append(o.Partitions, log)
	}
	return o
}

func service(plan *topology.Plan, n topology.Node, e Env, x outside) (bolt.Bolt, error) {
	switch n.Kind {
	case topology.KindConvert:
		return normalize.New(*n.Bolt, plan.Topology.Params)
	case topology.KindStat:
		return statistic(plan, n, x.profiles)
	case topology.KindAlarm:
		return rule.New(*n.Bolt, groupOf(n), plan.Topology.Params)
	case topology.KindNotify:
		side := teller{x.told, e}
		return notify.New(side, notify.To{Name: "hook", Target: side})
	}
	return write.New(write.Options{Topology: plan.Topology.Name, Output: plan.Topology.Output, Edges: n.In, Store: store1{x.docs, e.Away}})
}

// engineEdges are the planned edges of a node; this topology groups by device or not at all.
func engineEdges(plan *topology.Plan, n topology.Node) (out []bolt.Edge) {
	for _, e := range n.Out {
		i := slices.IndexFunc(plan.Nodes, func(n topology.Node) bool { return n.ID == e.To })
		to := plan.Nodes[i]
		b := bolt.Edge{To: e.To, Stream: e.Stream, Shared: to.Shared, Tasks: int32(to.Tasks), Gated: e.Gated}
		if to.Kind == topology.KindStat || to.Kind == topology.KindOutput {
			b.Linger = 20 * time.Millisecond
		}
		if e.Gated {
			b.Group = groupOf(to)
		}
		if b.Stream == "" {
			b.Stream = tuple.DefaultStream
		}
		switch e.Grouping {
		case topology.Fields:
			if b.Key = byKey; slices.Equal(e.By, []string{"group"}) {
				b.Key = byGroup
			}
		case topology.Global:
			b.Key = byNothing
		}
		out = append(out, b)
	}
	return out
}

// account is what a run's documents say, without what may differ from run to run: ids everywhere; for `every` and lifetimes, when they were output.
func account(docs *document.Memory) (map[string]int, error) {
	ctx := context.Background()
	all, seen := map[string]int{}, map[string]bool{}
	names, err := docs.Collections(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		err := docs.Each(ctx, name, func(body []byte) error {
			var d map[string]any
			if err := json.Unmarshal(body, &d); err != nil {
				return err
			}
			switch name {
			case "often": // intervals move under faults, their sums do not
				all[fmt.Sprintf("often %v n", d["device"])] += int(d["n"].(float64))
				all[fmt.Sprintf("often %v sum", d["device"])] += int(d["sum"].(float64))
				return nil
			case "total": // each output has all so far: the last one counts
				all["total n"] = max(all["total n"], int(d["n"].(float64)))
				all["total sum"] = max(all["total sum"], int(d["sum"].(float64)))
				return nil
			}
			if name == "sites" || name == "lines" || name == "visits" || name == "minutes" || name == "smooth" || strings.HasPrefix(name, "crowded") {
				return tally(all, seen, name, d)
			}
			if !strings.HasSuffix(name, write.Episodes) {
				delete(d, "_id")
			}
			b, err := json.Marshal(d) // keys sorted
			all[name+" "+string(b)]++
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// tally counts what is kept per site. Which site a reading counts in is anybody's guess; that it counts once, in the window of its time, is not. No
// reading is late, so each window is output once.
func tally(all map[string]int, seen map[string]bool, name string, d map[string]any) error {
	if strings.HasPrefix(name, "crowded") {
		return nil
	}
	n, sum := int(d["n"].(float64)), 0
	if v, ok := d["sum"].(float64); ok {
		sum = int(v)
	}
	where := name
	if w := d["window"].(map[string]any); name == "lines" {
		where = fmt.Sprint(name, w["start"])
		once := fmt.Sprint("lines of ", d["group"], w["start"])
		if seen[once] {
			return fmt.Errorf("%s: output twice: the window was closed before all was in it", once)
		}
		seen[once] = true
	}
	all[where+" n"] += n
	all[where+" sum"] += sum
	return nil
}

// TestServices runs the real bolts with faults, and compares what they store with what the same readings give without.
func TestServices(t *testing.T) {
	var want [32]map[string]int // the readings depend on seed%32
	for i := range want {
		docs := document.NewMemory()
		o := machinesRun(t, uint64(i), docs)
		o.Faults, o.Steps = Faults{}, 0
		r, err := Run(o)
		if err != nil {
			t.Fatalf("without faults: %v\n%s", err, strings.Join(r.History, "\n"))
		}
		if want[i], err = account(docs); err != nil {
			t.Fatal(err)
		}
	}
	simulate(t, max(*seeds/10, 1), func(seed uint64, x Window) (*Result, error) {
		docs := document.NewMemory()
		o := machinesRun(t, seed, docs)
		o.Begins = seed/64%2 == 1
		o.Window = x
		r, err := Run(o)
		if err != nil {
			return r, err
		}
		got, err := account(docs)
		if err == nil && len(r.Letters) > 0 {
			err = fmt.Errorf("%d dead letters: %s", len(r.Letters), r.Letters[0].Error)
		}
		if err == nil && !maps.Equal(got, want[seed%32]) {
			err = fmt.Errorf("documents differ:\n%s", diff(want[seed%32], got))
		}
		return r, err
	})
}

// diff lists what two accounts do not have in common.
func diff(want, got map[string]int) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if got[k] != want[k] {
			fmt.Fprintf(&b, "  %d, not %d: %s\n", got[k], want[k], k)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(got)) {
		if _, there := want[k]; !there {
			fmt.Fprintf(&b, "  %d, not 0: %s\n", got[k], k)
		}
	}
	return b.String()
}
