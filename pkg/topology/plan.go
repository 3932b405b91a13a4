package topology

import (
	"fmt"
	"slices"
	"time"
)

// graph is who receives from whom.
type graph struct {
	t     *Topology
	bolts map[string]*Bolt
	below map[string][]string // node -> those that receive from it, each once, in document order
	deep  map[string]bool     // answers of statefulBelow
}

func newGraph(t *Topology) *graph {
	g := &graph{t: t, bolts: map[string]*Bolt{}, below: map[string][]string{}, deep: map[string]bool{}}
	for i := range t.Bolts {
		b := &t.Bolts[i]
		g.bolts[b.ID] = b
		for _, f := range b.From {
			if !slices.Contains(g.below[f.Node], b.ID) {
				g.below[f.Node] = append(g.below[f.Node], b.ID)
			}
		}
	}
	return g
}

// stateful says whether the bolt keeps state: stat and alarm do, and custom ones that declare a group.
func (b *Bolt) stateful() bool {
	return b.Kind == KindStat || b.Kind == KindAlarm || b.Kind == KindCustom && len(b.Group) > 0
}

// groupFields is what tuples are divided by: Group with its default.
func (b *Bolt) groupFields() []string {
	if len(b.Group) == 0 || b.staged() { // a first stage is divided by device, whatever its groups
		return []string{"device"}
	}
	return b.Group
}

// order returns the nodes so that each stands after all it receives from, the spout first, and the cycles that it found; nodes on or below a cycle
// are left out.
func (g *graph) order() (ids []string, cycles [][]string) {
	open := map[string]int{}
	for _, b := range g.t.Bolts {
		for _, f := range b.From {
			if g.bolts[f.Node] != nil && slices.Contains(g.below[f.Node], b.ID) {
				open[b.ID]++
			}
		}
	}
	ids = append(ids, g.t.Spout.ID)
	for _, b := range g.t.Bolts {
		if open[b.ID] == 0 {
			ids = append(ids, b.ID)
		}
	}
	for i := 1; i < len(ids); i++ {
		for _, id := range g.below[ids[i]] {
			for _, f := range g.bolts[id].From {
				if f.Node == ids[i] {
					open[id]--
				}
			}
			if open[id] == 0 {
				ids = append(ids, id)
			}
		}
	}
	done := map[string]bool{}
	for _, b := range g.t.Bolts {
		if open[b.ID] > 0 {
			if cycle := g.cycle(b.ID, open, done); cycle != nil {
				cycles = append(cycles, cycle)
			}
		}
	}
	return ids, cycles
}

// cycle follows unfinished edges upwards from id until a node comes again, or one that is in a cycle reported before.
func (g *graph) cycle(id string, open map[string]int, done map[string]bool) []string {
	var path []string
	for !done[id] {
		if i := slices.Index(path, id); i >= 0 {
			path = path[i:]
			slices.Reverse(path) // from sender to receiver
			first := slices.IndexFunc(g.t.Bolts, func(b Bolt) bool { return slices.Contains(path, b.ID) })
			at := slices.Index(path, g.t.Bolts[first].ID)
			for _, p := range path {
				done[p] = true
			}
			return append(slices.Clone(path[at:]), path[:at]...)
		}
		path = append(path, id)
		next := slices.IndexFunc(g.bolts[id].From, func(f From) bool { return open[f.Node] > 0 })
		if next < 0 {
			break
		}
		id = g.bolts[id].From[next].Node
	}
	for _, p := range path {
		done[p] = true
	}
	return nil
}

// statefulBelow reports whether a stateful node receives from id, directly or not.
func (g *graph) statefulBelow(id string) bool {
	if known, ok := g.deep[id]; ok {
		return known
	}
	g.deep[id] = false // for cycles
	for _, below := range g.below[id] {
		if g.bolts[below].stateful() || g.statefulBelow(below) {
			g.deep[id] = true
			return true
		}
	}
	return false
}

// divide returns the grouping of an edge, with what follows from the receiving node where nothing is declared.
func (g *graph) divide(to *Bolt, f From) (grouping string, by []string) {
	grouping, by = f.Grouping, f.By
	if grouping == "" && len(by) > 0 {
		grouping = Fields
	}
	switch {
	case to.stateful() && (grouping == "" || grouping == Fields || grouping == Custom):
		if slices.Equal(to.Group, []string{"none"}) {
			return Global, nil
		}
		if len(by) == 0 {
			by = to.groupFields()
		}
		if grouping != Custom {
			grouping = Fields
		}
		return grouping, by
	case grouping == "" && g.statefulBelow(to.ID):
		return Fields, []string{"device"}
	case grouping == "":
		return Shuffle, nil
	case (grouping == Fields || grouping == Custom) && len(by) == 0:
		return grouping, []string{"device"}
	}
	return grouping, by
}

// scatters says whether a grouping sends tuples to any worker.
func scatters(grouping string) bool {
	return grouping == Shuffle || grouping == LocalOrShuffle || grouping == None
}

// Plan turns the topology into nodes and edges that the engine can run. It fails only for a topology that Parse would have refused.
func (t *Topology) Plan() (*Plan, error) {
	declared := t
	t = t.stages().notices()
	g := newGraph(t)
	for _, b := range t.Bolts {
		for _, f := range b.From {
			if f.Node != t.Spout.ID && g.bolts[f.Node] == nil {
				return nil, fmt.Errorf("the bolt %s receives from %q, which is no node", b.ID, f.Node)
			}
		}
	}
	ids, cycles := g.order()
	if len(cycles) > 0 {
		return nil, fmt.Errorf("the nodes %v form a cycle", cycles[0])
	}
	p := &planner{graph: g, level: map[string]int{}, in: map[string][]Edge{}, out: map[string][]Edge{}}
	for _, id := range ids[1:] {
		p.connect(g.bolts[id])
	}
	plan := &Plan{Topology: declared}
	for _, id := range ids {
		plan.Nodes = append(plan.Nodes, p.node(id))
	}
	slices.SortStableFunc(plan.Nodes, func(a, b Node) int { return a.Level - b.Level })
	plan.localize()
	if len(p.in[OutputNode]) > 0 {
		plan.Nodes = append(plan.Nodes, Node{
			ID: OutputNode, Kind: KindOutput, Service: KindOutput, Level: p.level[OutputNode], Tasks: tasksOf(t.Output.Tasks), Shared: true, In: p.in[OutputNode],
		})
	}
	return plan, nil
}

// localize marks the edges that a worker with both ends can keep to itself. What a stateful node emits always travels: the next node must not see it
// before it is committed.
func (p *Plan) localize() {
	at := map[string]*Node{}
	for i := range p.Nodes {
		at[p.Nodes[i].ID] = &p.Nodes[i]
	}
	for _, n := range at {
		for _, edges := range [][]Edge{n.In, n.Out} {
			for i := range edges {
				e := &edges[i]
				from, to := at[e.From], at[e.To]
				e.Local = e.Grouping == LocalOrShuffle && to.Shared && !from.Stateful && from.Service == to.Service
			}
		}
	}
}

type planner struct {
	*graph
	level   map[string]int
	in, out map[string][]Edge
}

// connect adds a bolt's edges; all it receives from have been connected.
func (p *planner) connect(b *Bolt) {
	for _, f := range b.From {
		e := Edge{From: f.Node, To: b.ID, Stream: nameOf(f.Stream), Custom: f.Custom}
		e.Grouping, e.By = p.divide(b, f)
		if up := p.bolts[f.Node]; up != nil {
			e.Gated = up.stateful() && b.stateful()
		}
		p.add(e)
	}
	if b.Save == nil {
		return
	}
	streams := []string{"default"}
	if b.Kind == KindConvert || b.Kind == KindCustom { // what they emit is theirs on every stream; a stat's late readings are no statistics
		streams = b.streamNames()
	}
	if b.corrects() {
		streams = append(streams, CorrectionStream)
	}
	for _, s := range streams {
		p.add(Edge{From: b.ID, To: OutputNode, Stream: s, Grouping: Shuffle, Save: b.Save, Revised: b.corrects()})
	}
}

func (p *planner) add(e Edge) {
	p.in[e.To] = append(p.in[e.To], e)
	p.out[e.From] = append(p.out[e.From], e)
	p.level[e.To] = max(p.level[e.To], p.level[e.From]+1)
}

func (p *planner) node(id string) Node {
	n := Node{ID: id, Level: p.level[id], In: p.in[id], Out: p.out[id]}
	b := p.bolts[id]
	if b == nil { // the spout; its tasks are Kafka's partitions
		n.Kind, n.Service = KindSpout, KindSpout
		return n
	}
	n.Kind, n.Service, n.Bolt, n.Stateful = b.Kind, b.Kind, b, b.stateful()
	n.Build = b.Build
	switch b.Kind {
	case KindCustom:
		n.Service = b.Service
	case KindNotify:
		n.Service = KindOutput
	}
	n.Shared = !n.Stateful && !slices.ContainsFunc(n.In, func(e Edge) bool { return !scatters(e.Grouping) })
	n.Gated = slices.ContainsFunc(n.In, func(e Edge) bool { return e.Gated })
	n.Tasks = tasksOf(b.Tasks)
	if len(n.In) > 0 && !slices.ContainsFunc(n.In, func(e Edge) bool { return e.Grouping != Global }) {
		n.Tasks = 1
	}
	n.Ticks, n.Every = b.Ticks()
	if b.Stage == StageSecond && !b.Forwards() {
		n.After = b.From[0].Node
	}
	return n
}

// RunBy reports whether a worker of a kind of service, of a version, is one that runs the node.
func (n *Node) RunBy(service, version string) bool {
	return n.Service == service && (n.Build == "" || n.Build == version)
}

// Loops is how many loops one worker runs at most for a node that workers compete for.
func (n *Node) Loops() int { return min(n.Tasks, maxLoops) }

// maxLoops bounds how many frames of a shared input one worker handles at the same time.
const maxLoops = 4

func tasksOf(declared int) int {
	if declared == 0 {
		return DefaultTasks
	}
	return declared
}

// Ticks says whether the bolt wants ticks, and how often in processing time; 0 is whenever others are due or the watermark has moved.
func (b *Bolt) Ticks() (wanted bool, every time.Duration) {
	switch b.Kind {
	case KindStat:
		if b.Stage == StageFirst && b.Forwards() {
			return false, 0
		}
		if b.Every == 0 && b.Window.Time == "processing" {
			return true, max(b.Window.Slide, 100*time.Millisecond)
		}
		return true, b.Every
	case KindAlarm:
		every := often(b.NoData)
		if b.Escalate != nil && (every == 0 || often(b.Escalate.After) < every) {
			every = often(b.Escalate.After)
		}
		return every > 0, every
	}
	return b.stateful(), b.Every
}

// Patience says how long what comes to the bolt may be kept waiting for more of it, up to most, because nobody waits for what the bolt makes of it: results of a
// statistic come with ticks. It is an eighth of their rhythm at most, and nothing where a reading by itself can bring out a result, or is sent on, or where what
// comes has been gathered before.
func (b *Bolt) Patience(most time.Duration) time.Duration {
	gathered := b.Stage == StageSecond && !b.Forwards()
	sentOn := b.Stage == StageFirst && b.Forwards()
	if b.Kind != KindStat || b.Window.Kind == WindowCount || gathered || sentOn {
		return 0
	}
	if _, every := b.Ticks(); every > 0 {
		return min(most, every/8)
	}
	return most
}

// often is how often to look whether a duration has passed: a tenth of it, between a second and a minute.
func often(d time.Duration) time.Duration {
	if d == 0 {
		return 0
	}
	return min(max(d/10, time.Second), time.Minute).Truncate(time.Second)
}
