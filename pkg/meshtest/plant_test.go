package meshtest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/partition"
	"github.com/boltmesh/boltmesh/pkg/spout"
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
	lingers bool // what clean emits may wait for more of it
	options Options
	log     []reading // those that must count
	poison  int
	spoiled int // of them, for the spout

	changes bool // its revision does, and dead letters are replayed
	divides bool // and nodes get other numbers of tasks
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
	if p.lingers {
		for i := range stats {
			stats[i].Linger = time.Duration(5*(i+1)) * time.Millisecond
		}
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
	p := &plant{tasks: 3, lossy: seed%2 == 0, wide: seed/2%4 == 0, shuffle: seed/8%4 == 0, changes: seed%7%2 == 1, lingers: seed%5 > 2}
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
	p.options.Convoys = seed%11%2 == 1
	p.divides = seed%17 < 8
	return p
}

// run completes the options and runs them.
func (p *plant) run() (*Result, error) {
	p.write()
	o := p.options
	if p.changes {
		o.Changes = max(o.Changes, 1+int(o.Seed%2))
		if p.divides {
			o.Divide = func(node string, revision uint32) int {
				return 1 + int(partition.Task(fmt.Sprint(o.Seed, node, revision), most))
			}
		}
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
func (p *plant) revisions() (all []uint32) {
	if !p.changes {
		return []uint32{0}
	}
	for i := range p.options.Changes + 1 {
		all = append(all, uint32(i+1))
	}
	return all
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
	tasks := k.Tasks(node)
	own := 0
	if len(tasks) > 0 {
		own = int(partition.Task(group, len(tasks)))
	}
	for i := range tasks {
		b, err := k.State.Load(context.Background(), tasks[(own+i)%len(tasks)], []string{group})
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
