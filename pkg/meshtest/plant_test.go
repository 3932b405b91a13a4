package meshtest

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/partition"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// plant is the simulated topology with its readings, of which it knows what must come out:
//
//	spout ─▶ clean ─▶ stat ═▶ alarm        ═▶ gated by n
//	           │        ╚════▶ trend        every node's output goes to out
//	           └────▶ fleet ══▶ trend       fleet groups devices of all partitions
//
// Some readings are poison: for the spout, which cannot decode them, for clean, or for stat. When it changes, revisions from the second on take those of
// clean and stat, and the dead letters are replayed: then these readings count like all others, once. What clean emits names its revision, and
// a reading must have one revision wherever it went.
type plant struct {
	tasks   int32
	lossy   bool // streams lose what they hold
	wide    bool // with fleet and trend
	shuffle bool // workers compete for clean
	options Options
	log     []reading // those that must count
	poison  int
	spoiled int // of them, for the spout

	changes bool // its revision does, and dead letters are replayed
	clean   bool // no poison
	pad     int  // bytes that every reading is longer
	ungated bool
	archive func() int                          // stat groups by what it says of a device, too
	statKey func(t *tuple.Tuple) (string, bool) // of stat's edge instead of the device
	outName func(t *tuple.Tuple, source string) string
	before  map[string][]int64 // group -> event times, ascending
}

// ordered says whether readings of a device must be applied in their order.
func (p *plant) ordered() bool { return !p.lossy && !p.shuffle }

type reading struct {
	Device string `json:"device"`
	Seq    int    `json:"seq"` // per device, from 1; of poison from 1001
	V      int    `json:"v"`   // below 0: poison, a dead letter
	Pad    string `json:"pad,omitempty"`
	Rev    uint32 `json:"rev,omitempty"` // in which clean handled it, in a plant that changes
}

// Poison by who rejects it.
const (
	forClean = -1
	forStat  = -2
)

// poisonSeq is above every Seq of a reading that is no poison.
const poisonSeq = 1000

// mark is how a reading is noted in the order of a group.
func (r reading) mark() string {
	if r.Rev == 0 {
		return fmt.Sprintf("%s:%d", r.Device, r.Seq)
	}
	return fmt.Sprintf("%s:%d@%d", r.Device, r.Seq, r.Rev)
}

// clean passes readings on.
type clean struct {
	plant    *plant
	revision uint32
}

func (b clean) Execute(_ context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	payload := t.Payload
	if b.plant.changes {
		var r reading
		if err := json.Unmarshal(payload, &r); err != nil {
			return bolt.Reject(err)
		}
		r.Rev = b.revision
		payload, _ = json.Marshal(r)
	}
	if b.revision == 1 && strings.Contains(string(payload), `"v":-1`) {
		return bolt.Reject(fmt.Errorf("poison"))
	}
	c.Emit(bolt.Emission{Key: t.Key, Time: t.Time, Payload: payload})
	return nil
}

// sums is the state of a group.
type sums struct {
	N, Sum     int // lifetime
	Open, Part int // of the interval
	Out        int // outputs
	Order      string
}

func (s *sums) Clone() state.Value { d := *s; return &d }
func (s *sums) Append(b []byte) ([]byte, error) {
	return fmt.Appendf(b, "%d %d %d %d %d %s", s.N, s.Sum, s.Open, s.Part, s.Out, s.Order), nil
}

func decodeSums(b []byte) (state.Value, error) {
	s := &sums{}
	if b == nil {
		return s, nil
	}
	f := strings.SplitN(string(b), " ", 6)
	s.Order = f[5]
	_, err := fmt.Sscan(strings.Join(f[:5], " "), &s.N, &s.Sum, &s.Open, &s.Part, &s.Out)
	return s, err
}

func edit(ctx context.Context, c *bolt.Collector) (*sums, error) {
	v, err := c.State().Edit(ctx, c.Group(), decodeSums)
	if err != nil {
		return nil, err
	}
	return v.(*sums), nil
}

// adding adds readings up per group; it emits its interval at every fifth reading and at ticks. stat and fleet are two of it.
type adding struct {
	Env
	plant *plant
	group func(t *tuple.Tuple) (string, bool)
	late  func(group string, tick bolt.Tick, s *sums) // looks at what a tick finds

	poisoned bool // it rejects what is poison for stat, in the first revision
}

func (b adding) Group(t *tuple.Tuple) (string, bool) { return b.group(t) }
func (adding) Keys(g string, add func(string))       { add(g) }
func (adding) Due(bolt.Tick) (int64, bool)           { return math.MaxInt64, true }

func (b adding) Execute(ctx context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	var r reading
	if err := json.Unmarshal(t.Payload, &r); err != nil {
		return bolt.Reject(err)
	}
	if b.poisoned && r.V == forStat && b.Revision == 1 {
		return bolt.Reject(fmt.Errorf("poison"))
	}
	s, err := edit(ctx, c)
	if err != nil {
		return err
	}
	s.Order += r.mark() + " "
	s.N, s.Sum = s.N+1, s.Sum+r.V
	s.Open, s.Part = s.Open+1, s.Part+r.V
	c.Wake(0)
	if s.Open == 5 {
		emitInterval(s, c)
	}
	return nil
}

func (b adding) Tick(ctx context.Context, tick bolt.Tick, group string, c *bolt.Collector) error {
	s, err := edit(ctx, c)
	if err != nil {
		return err
	}
	if b.late != nil {
		b.late(group, tick, s)
	}
	if s.Open > 0 {
		emitInterval(s, c)
	}
	return nil
}

func emitInterval(s *sums, c *bolt.Collector) {
	s.Out++
	c.Emit(bolt.Emission{Key: c.Group(), Payload: fmt.Appendf(nil, `{"out":%d,"n":%d,"sum":%d}`, s.Out, s.Open, s.Part)})
	s.Open, s.Part = 0, 0
}

// noting takes outputs of stateful nodes in and notes their order; it emits an event whenever the sum's parity changes, and its count at the flush.
// alarm and trend are two of it.
type noting struct {
	group func(t *tuple.Tuple) (string, bool)
}

func (b noting) Group(t *tuple.Tuple) (string, bool) { return b.group(t) }
func (noting) Keys(g string, add func(string))       { add(g) }
func (noting) Due(t bolt.Tick) (int64, bool)         { return 0, t.Flush }

func (b noting) Execute(ctx context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	var in struct{ Out, N, Sum int }
	if err := json.Unmarshal(t.Payload, &in); err != nil {
		return bolt.Reject(err)
	}
	s, err := edit(ctx, c)
	if err != nil {
		return err
	}
	s.N++
	s.Order += fmt.Sprintf("%s/%s:%d ", c.Source(), t.Key, in.Out)
	if in.Sum%2 != s.Part {
		s.Part = in.Sum % 2
		s.Out++
		c.Emit(bolt.Emission{Key: c.Group(), Payload: fmt.Appendf(nil, `{"event":%d,"parity":%d}`, s.Out, s.Part)})
	}
	c.Wake(0)
	return nil
}

func (noting) Tick(ctx context.Context, _ bolt.Tick, group string, c *bolt.Collector) error {
	s, err := edit(ctx, c)
	if err != nil {
		return err
	}
	s.Out++
	c.Emit(bolt.Emission{Key: group, Payload: fmt.Appendf(nil, `{"final":%d}`, s.N)})
	return nil
}

// out stores.
type out struct {
	Env
	name func(t *tuple.Tuple, source string) string
}

func (o out) Execute(_ context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	if o.Away() {
		return bolt.Unavailable(errUnknown)
	}
	o.Document(o.name(t, c.Source()), c.Source()+" "+t.Key+" "+string(t.Payload))
	return nil
}

func byKey(t *tuple.Tuple) (string, bool) { return t.Key, true }

// byModel is what fleet groups by: the last digit of the device, which devices of both partitions share.
func byModel(t *tuple.Tuple) (string, bool) { return "g" + t.Key[len(t.Key)-1:], true }

func byNothing(*tuple.Tuple) (string, bool) { return "all", true }

func (p *plant) nodes() []Node {
	to := func(id string, key func(*tuple.Tuple) (string, bool), gated bool) bolt.Edge {
		return bolt.Edge{To: id, Stream: tuple.DefaultStream, Tasks: p.tasks, Key: key, Gated: gated && !p.ungated}
	}
	store := bolt.Edge{To: "out", Stream: tuple.DefaultStream, Shared: true}
	tasks := int(p.tasks)
	statKey := byKey
	switch {
	case p.archive != nil:
		statKey = func(t *tuple.Tuple) (string, bool) { return fmt.Sprint(t.Key, p.archive()), true }
	case p.statKey != nil:
		statKey = p.statKey
	}
	stats := []bolt.Edge{to("stat", statKey, false), store}
	alarms := []bolt.Edge{to("alarm", byKey, true), store}
	if p.wide {
		stats = append(stats, to("fleet", byModel, false))
		alarms = append(alarms, to("trend", byNothing, true))
	}
	nodes := []Node{
		{ID: "clean", Tasks: tasks, Shared: p.shuffle, Edges: stats, Build: func(e Env) bolt.Bolt { return clean{p, e.Revision} }},
		{
			ID: "stat", Tasks: tasks, Ticks: true, Every: 1000, Level: 2, Edges: alarms,
			Build: func(e Env) bolt.Bolt { return adding{Env: e, plant: p, group: byKey, poisoned: true} },
		},
		{ID: "alarm", Tasks: tasks, Ticks: true, Every: 2500, Level: 3, Edges: []bolt.Edge{store}, Build: func(Env) bolt.Bolt { return noting{byKey} }},
		{ID: "out", Shared: true, Build: func(e Env) bolt.Bolt { return out{e, p.outName} }},
	}
	if p.wide {
		nodes = append(nodes,
			Node{
				ID: "fleet", Tasks: tasks, Ticks: true, Level: 2, Edges: []bolt.Edge{to("trend", byNothing, true), store},
				Build: func(e Env) bolt.Bolt { return adding{Env: e, plant: p, group: byModel, late: p.overtaken(e)} },
			},
			Node{ID: "trend", Tasks: tasks, Ticks: true, Level: 3, Edges: []bolt.Edge{store}, Build: func(Env) bolt.Bolt { return noting{byNothing} }},
		)
	}
	return nodes
}

// overtaken says of a tick with a watermark whether every reading below it had been applied.
func (p *plant) overtaken(e Env) func(string, bolt.Tick, *sums) {
	return func(group string, tick bolt.Tick, s *sums) {
		below, _ := slices.BinarySearch(p.before[group], tick.Watermark)
		if s.N < below {
			e.Fail("tick %d with the watermark %d finds %d readings of %s applied, %d lie below", tick.N, tick.Watermark, s.N, group, below)
		}
	}
}

const (
	partitions   = 2
	devices      = 3 // per partition
	perPartition = 40
)

// newPlant makes a run of the usual kind: what differs from seed to seed is taken from the seed's bits.
func newPlant(seed uint64) *plant {
	p := &plant{tasks: 3, lossy: seed%2 == 0, wide: seed/2%4 == 0, shuffle: seed/8%4 == 0, changes: seed%7%2 == 1}
	p.outName = func(t *tuple.Tuple, _ string) string { return t.ID.String() }
	p.options = Options{
		Seed: seed, Faults: Usual(), Steps: 12_000, Span: 12, Slice: []int{0, 1, 2}[seed%3], Spec: topology.Spout{Key: "device"},
	}
	if p.lossy {
		p.options.Faults[StreamLoss] = 3000
	}
	if seed/32%3 == 0 {
		p.options.Full = 5
	}
	return p
}

// run completes the options and runs them.
func (p *plant) run() (*Result, error) {
	p.write()
	o := p.options
	if p.changes {
		o.Changes = 1 + int(o.Seed%2)
		o.Replay = func(l *tuple.Letter) bool { // what the spout cannot decode, once
			return l.Node != spoutName || l.Origin != spout.LogOrigin(topologyName, spout.ReplayLog)
		}
	}
	o.Nodes, o.Completed = p.nodes(), p.completed
	o.Edges = []bolt.Edge{{To: "clean", Stream: tuple.DefaultStream, Tasks: p.tasks, Key: byKey, Shared: p.shuffle}}
	p.options = o
	r, err := Run(o)
	if err == nil {
		err = p.check(r)
	}
	return r, err
}

// write fills the partitions.
func (p *plant) write() {
	p.log, p.before, p.options.Partitions, p.poison, p.spoiled = nil, map[string][]int64{}, nil, 0, 0
	seed := p.options.Seed
	for part := range partitions {
		var log []spout.Record
		seq := map[string]int{}
		for i := range perPartition {
			r := reading{Device: fmt.Sprintf("d%d%d", part, (i*7+int(seed%64))%devices), V: 1 + (i*i+int(seed%64))%9}
			at := int64(i*(90+20*part) + 1)
			spoiled := false // for the spout already
			if every := uint64(37); !p.clean && (uint64(i)+seed)%every == 0 || p.changes && (uint64(i)+seed)%9 == 0 {
				r.V, r.Seq = forClean, poisonSeq+i
				if p.changes && i%4 < 2 {
					r.V = forStat
				}
				if spoiled = i%2 == 0 && (!p.changes || i%8 == 0); spoiled {
					p.spoiled++
				} else if p.changes {
					p.log = append(p.log, r)
				}
				p.poison++
			} else {
				seq[r.Device]++
				r.Seq = seq[r.Device]
				p.log = append(p.log, r)
				g, _ := byModel(&tuple.Tuple{Key: r.Device})
				p.before[g] = append(p.before[g], at)
			}
			r.Pad = strings.Repeat("x", p.pad)
			b, _ := json.Marshal(r)
			if spoiled {
				b = b[1:]
			}
			log = append(log, spout.Record{Offset: int64(i), Value: b, Time: at})
		}
		p.options.Partitions = append(p.options.Partitions, log)
	}
	for _, times := range p.before {
		slices.Sort(times)
	}
}

// completed checks what a completed root says: all under it is stored and applied.
func (p *plant) completed(k Peek, part int, first, next int64) error {
	if part < 0 {
		return nil
	}
	for i := first; i < next; i++ {
		value := string(p.options.Partitions[part][i].Value)
		var r reading
		if json.Unmarshal([]byte(value), &r) != nil || r.V < 0 {
			continue
		}
		if !p.isStored(k, r, value) {
			return fmt.Errorf("reading %+v is not stored", r)
		}
		nodes := []string{"stat"}
		if p.wide {
			nodes = append(nodes, "fleet")
		}
		for _, node := range nodes {
			if !slices.ContainsFunc(p.stored(k, node, p.groupAt(node, r.Device)), func(s *sums) bool { return p.isIn(s.Order, r) }) {
				return fmt.Errorf("reading %+v is not applied at %s", r, node)
			}
		}
	}
	return nil
}

// revisions are those in which clean may have handled a reading: 0 alone where they make no difference.
func (p *plant) revisions() []uint32 {
	if p.changes {
		return []uint32{1, 2, 3}
	}
	return []uint32{0}
}

// isStored and isIn say whether a reading is among the documents, and noted in an order.
func (p *plant) isStored(k Peek, r reading, value string) bool {
	if !p.changes {
		return k.Bodies["clean "+r.Device+" "+value] > 0
	}
	return slices.ContainsFunc(p.revisions(), func(rev uint32) bool {
		r.Rev = rev
		b, _ := json.Marshal(r)
		return k.Bodies["clean "+r.Device+" "+string(b)] > 0
	})
}

func (p *plant) isIn(order string, r reading) bool {
	return slices.ContainsFunc(p.revisions(), func(rev uint32) bool {
		r.Rev = rev
		return strings.Contains(" "+order, " "+r.mark()+" ")
	})
}

func (p *plant) groupAt(node, device string) string {
	switch node {
	case "fleet":
		g, _ := byModel(&tuple.Tuple{Key: device})
		return g
	case "trend":
		return "all"
	}
	return device
}

// stored returns a group's state of every task that has one: there should be at most one.
func (p *plant) stored(k Peek, node, group string) (all []*sums) {
	own := partition.Task(group, int(p.tasks))
	for i := range p.tasks {
		b, err := k.State.Load(context.Background(), Task(node, (own+i)%p.tasks), []string{group})
		if err != nil {
			panic(err)
		}
		if b[0] == nil && i > 0 {
			continue
		}
		v, err := decodeSums(b[0])
		if err != nil {
			panic(err)
		}
		all = append(all, v.(*sums))
	}
	return all
}

// total is the state of a group, added up over tasks.
func (p *plant) total(k Peek, node, group string) (sum sums) {
	for _, s := range p.stored(k, node, group) {
		sum.N, sum.Sum, sum.Out = sum.N+s.N, sum.Sum+s.Sum, sum.Out+s.Out
		sum.Order += s.Order
	}
	return sum
}

// check compares what a run left behind with what the readings alone say.
func (p *plant) check(r *Result) error {
	if !p.changes && len(r.Letters) != p.poison {
		return fmt.Errorf("%d dead letters, want %d", len(r.Letters), p.poison)
	}
	if err := p.checkSpoiled(r); err != nil {
		return err
	}
	if err := p.checkRevisions(r); err != nil {
		return err
	}
	found := p.documents(r)
	if err := p.checkAdding(r, found, "stat", byKey); err != nil {
		return err
	}
	keys := map[string][]string{}
	for g := range p.groups(byKey) {
		keys[g] = []string{"stat/" + g}
	}
	if err := p.checkNoting(r, found, "alarm", keys); err != nil || !p.wide {
		return err
	}
	if err := p.checkAdding(r, found, "fleet", byModel); err != nil {
		return err
	}
	var all []string
	for g := range p.groups(byKey) {
		all = append(all, "stat/"+g)
	}
	for g := range p.groups(byModel) {
		all = append(all, "fleet/"+g)
	}
	return p.checkNoting(r, found, "trend", map[string][]string{"all": all})
}

// checkSpoiled checks that each record that the spout could not decode is a letter, and when letters are replayed another one, of the replay.
func (p *plant) checkSpoiled(r *Result) error {
	of := map[bool]int{}
	for _, l := range r.Letters {
		if l.Node == spoutName {
			of[l.Origin == spout.LogOrigin(topologyName, spout.ReplayLog)]++
		}
	}
	if of[false] != p.spoiled || of[true] != 0 && of[true] != p.spoiled || p.changes && of[true] != p.spoiled {
		return fmt.Errorf("%d letters of records, %d of their replays, want %d of each", of[false], of[true], p.spoiled)
	}
	return nil
}

// checkRevisions checks that each reading was handled in one revision, wherever it went.
func (p *plant) checkRevisions(r *Result) error {
	if !p.changes {
		return nil
	}
	seen := map[string]string{} // reading -> mark
	look := func(where, mark string) error {
		of, _, _ := strings.Cut(mark, "@")
		if other := seen[of]; other != "" && other != mark {
			return fmt.Errorf("%s saw reading %s, another node %s", where, mark, other)
		}
		seen[of] = mark
		return nil
	}
	var bodies []string
	for body := range r.Bodies {
		bodies = append(bodies, body)
	}
	slices.Sort(bodies)
	for _, body := range bodies {
		f := strings.SplitN(body, " ", 3)
		var x reading
		if f[0] == "clean" && json.Unmarshal([]byte(f[2]), &x) == nil {
			if err := look("out", x.mark()); err != nil {
				return err
			}
		}
	}
	for node, by := range map[string]func(*tuple.Tuple) (string, bool){"stat": byKey, "fleet": byModel} {
		for group := range p.groups(by) {
			for _, mark := range strings.Fields(p.total(r.Peek, node, group).Order) {
				if err := look(node, mark); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// inOrderOf returns the marks of a device in an order, without those of poison, which comes when its letter is replayed, and without revisions.
func inOrderOf(order, device string) string {
	var b strings.Builder
	for _, w := range strings.Fields(only(order, device+":")) {
		mark, _, _ := strings.Cut(w, "@")
		if _, seq, _ := strings.Cut(mark, ":"); len(seq) < len(fmt.Sprint(poisonSeq)) {
			b.WriteString(mark + " ")
		}
	}
	return b.String()
}

// stack is what the documents of one node and group add up to.
type stack struct{ documents, n, sum, final int }

func (p *plant) documents(r *Result) map[string]stack {
	found := map[string]stack{}
	for _, body := range r.Documents {
		f := strings.SplitN(body, " ", 3)
		var x struct{ N, Sum, Final int }
		_ = json.Unmarshal([]byte(f[2]), &x)
		s := found[f[0]+" "+f[1]]
		found[f[0]+" "+f[1]] = stack{s.documents + 1, s.n + x.N, s.sum + x.Sum, max(s.final, x.Final)}
	}
	return found
}

func (p *plant) groups(by func(*tuple.Tuple) (string, bool)) map[string][]reading {
	groups := map[string][]reading{}
	for _, x := range p.log {
		g, _ := by(&tuple.Tuple{Key: x.Device})
		groups[g] = append(groups[g], x)
	}
	return groups
}

// checkAdding checks a node that adds readings up: totals, intervals, order, and that each reading was applied once.
func (p *plant) checkAdding(r *Result, found map[string]stack, node string, by func(*tuple.Tuple) (string, bool)) error {
	devices := p.groups(byKey)
	for group, readings := range p.groups(by) {
		var want sums
		order := map[string]string{} // per device
		for _, x := range readings {
			want.N, want.Sum = want.N+1, want.Sum+x.V
			if x.V >= 0 {
				order[x.Device] += x.mark() + " "
			}
			if node == "stat" && found["clean "+x.Device].documents != len(devices[x.Device]) {
				return fmt.Errorf("%s: %d readings stored", x.Device, found["clean "+x.Device].documents)
			}
		}
		s, d := p.total(r.Peek, node, group), found[node+" "+group]
		switch {
		case s.N != want.N || s.Sum != want.Sum:
			return fmt.Errorf("%s of %s: counted %d readings with the sum %d, want %d and %d", node, group, s.N, s.Sum, want.N, want.Sum)
		case d.n != want.N || d.sum != want.Sum:
			return fmt.Errorf("%s of %s: the stored intervals add up to %d and %d, want %d and %d", node, group, d.n, d.sum, want.N, want.Sum)
		case d.documents != s.Out:
			return fmt.Errorf("%s of %s: %d intervals stored, %d emitted", node, group, d.documents, s.Out)
		}
		for device, want := range order {
			if got := inOrderOf(s.Order, device); p.ordered() && got != want {
				return fmt.Errorf("%s applied the readings of %s in the order %s", node, device, got)
			}
		}
	}
	return nil
}

// only returns the words of s that begin with prefix.
func only(s, prefix string) string {
	var b strings.Builder
	for _, w := range strings.Fields(s) {
		if strings.HasPrefix(w, prefix) {
			b.WriteString(w + " ")
		}
	}
	return b.String()
}

// checkNoting checks a node behind gates: it saw every output of each of its sources, once and in order, and stored what it emitted.
func (p *plant) checkNoting(r *Result, found map[string]stack, node string, groups map[string][]string) error {
	for group, keys := range groups {
		s, d := p.total(r.Peek, node, group), found[node+" "+group]
		outputs := 0
		for _, key := range keys {
			from, of, _ := strings.Cut(key, "/")
			var want strings.Builder
			emitted := p.total(r.Peek, from, of).Out
			for i := range emitted {
				fmt.Fprintf(&want, "%s:%d ", key, i+1)
			}
			if got := only(s.Order, key+":"); got != want.String() {
				return fmt.Errorf("%s saw the outputs of %s in the order %s, there are %d", node, key, got, emitted)
			}
			outputs += emitted
		}
		if d.documents != s.Out || d.final != outputs {
			return fmt.Errorf("%s of %s: %d events stored, %d emitted; it counted %d outputs at the end, there are %d", node, group, d.documents, s.Out, d.final, outputs)
		}
	}
	return nil
}
