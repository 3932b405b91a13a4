package control

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// Advice says how busy the nodes of a topology are and what each would need. It rests on the operational laws of Denning and Buzen (The Operational
// Analysis of Queueing Network Models, ACM Computing Surveys 10, 1978), which need no assumptions on how arrivals and services are distributed:
//
//   - Utilisation law: m servers that are busy for S seconds a tuple are busy for U = lambda * S / m of their time, when lambda tuples a second arrive.
//     A loop is a server; S is the time that a node's loops were busy, divided by the tuples that they handled meanwhile. So for a utilisation of at
//     most U, m >= lambda * S / U loops are needed.
//   - Forced flow law: what arrives at a node is in proportion to what arrives at the topology. Where a mesh is too slow, nodes are shown fewer tuples
//     than there are: the spout waits. So lambda is what a node has handled, times the records that came into Kafka to those fully processed.
type Advice struct {
	Topology string       `json:"topology"`
	Seconds  float64      `json:"seconds"`   // measured for so long
	Target   float64      `json:"target"`    // utilisation that replicas and tasks are advised for
	Records  float64      `json:"records"`   // that came into Kafka, a second
	Floors   float64      `json:"processed"` // of them fully processed, a second
	Nodes    []NodeAdvice `json:"nodes"`     // the spout, then the bolts in the order of the plan
	Notes    []string     `json:"notes"`     // on what is no node's
}

// NodeAdvice is that of one node.
type NodeAdvice struct {
	Node     string  `json:"node"`
	Handled  float64 `json:"handled"`     // tuples a second
	Arrival  float64 `json:"arrival"`     // tuples a second: lambda
	Service  float64 `json:"service_us"`  // microseconds of a loop a tuple: S
	Busy     float64 `json:"utilisation"` // of the loops that there are, by what arrives: above 1 they cannot keep up
	Loops    int     `json:"loops"`       // of all replicas together
	Replicas int     `json:"replicas"`
	Tasks    int     `json:"tasks"` // 0 where workers compete

	NeedReplicas int      `json:"need_replicas"`
	NeedTasks    int      `json:"need_tasks"` // 0 where workers compete
	Hottest      *Hot     `json:"hottest,omitempty"`
	Do           []string `json:"do"` // in words; empty when it is well as it is

	Partitions int     `json:"partitions,omitempty"` // of a spout: no more replicas than these have work
	Growth     float64 `json:"lag_growth,omitempty"` // of a spout: records a second by which Kafka grows faster than is processed; below 0 it catches up
}

// Hot is a node's busiest task.
type Hot struct {
	Task     int32    `json:"task"`
	Worker   string   `json:"worker"`
	Share    float64  `json:"share"`               // of the node's tuples
	Busy     float64  `json:"utilisation"`         // of its loop
	By       []string `json:"by,omitempty"`        // the fields that the tuples looked at were divided by
	Key      string   `json:"key,omitempty"`       // the most frequent of their keys
	KeyShare float64  `json:"key_share,omitempty"` // of the tuples looked at
	Looked   int      `json:"looked,omitempty"`    // tuples
}

// uneven says whether the task has much more than its part of the node's tuples.
func (h *Hot) uneven(tasks int) bool { return h.Share*float64(tasks) > 1.5 }

// sight is what was known of a topology at a moment.
type sight struct {
	at     time.Time
	alive  []member.Member
	queued map[string]uint64
}

// adviser computes advice from two sights.
type adviser struct {
	plan          *topology.Plan
	before, after sight
	target        float64
	demand        float64 // records that came, to those processed; 1 where the mesh keeps up
}

// flows sets what came into Kafka and what of it was processed.
func (v *adviser) flows(a *Advice) {
	end, floor := map[string]int64{}, map[string]int64{}
	for i, s := range []sight{v.before, v.after} {
		for _, m := range s.alive {
			for _, k := range m.Marks {
				at := fmt.Sprint(k.Topic, "/", k.Partition)
				if _, known := end[at]; i == 0 {
					end[at], floor[at] = -k.End, -k.Floor
				} else if known && end[at] <= 0 { // two readers for a moment: the first counts
					a.Records += float64(end[at] + k.End)
					a.Floors += float64(floor[at] + k.Floor)
					end[at] = math.MaxInt64
				}
			}
		}
	}
	a.Records, a.Floors = max(0, a.Records)/a.Seconds, max(0, a.Floors)/a.Seconds
	v.demand = 1
	if a.Floors > 0 {
		v.demand = max(1, a.Records/a.Floors)
	}
}

// flow is what a worker has done at a node, or at a task, between two sights.
type flow struct{ in, busy, frames float64 } // a second; busy in seconds

func between(in, busy, frames int64, d float64) flow {
	return flow{max(0, float64(in)/d), max(0, float64(busy)/1e6/d), max(0, float64(frames)/d)}
}

// since returns the lease of the same worker, in the same life, when it was seen first, and the seconds between what the two tell.
func (v *adviser) since(now *member.Member) (then member.Member, seconds float64) {
	window := v.after.at.Sub(v.before.at).Seconds()
	for _, m := range v.before.alive {
		if m.Node == now.Node && m.Worker == now.Worker && m.Since == now.Since {
			if d := float64(now.At-m.At) / 1000; d > 0 { // leases are written once a second, or later when NATS is slow
				window = d
			}
			return m, window
		}
	}
	if d := float64(now.At-now.Since) / 1000; d > 0 {
		window = min(window, d)
	}
	return member.Member{}, window
}

// node judges one bolt.
func (v *adviser) node(n *topology.Node) NodeAdvice {
	a := NodeAdvice{Node: n.ID, Do: []string{}}
	var all flow
	each, procs := n.Tasks, 0
	if n.Shared {
		each = n.Loops()
	} else {
		a.Tasks = n.Tasks
	}
	for i := range v.after.alive {
		m := &v.after.alive[i]
		if m.Node != n.ID || m.Leaving {
			continue
		}
		a.Replicas++
		procs = max(procs, m.Procs)
		then, d := v.since(m)
		f := between(m.In-then.In, m.Busy-then.Busy, m.Frames-then.Frames, d)
		all.in, all.busy, all.frames = all.in+f.in, all.busy+f.busy, all.frames+f.frames
		if !n.Shared {
			v.hottest(&a, m, &then, d)
		}
	}
	a.Handled, a.Arrival = all.in, all.in*v.demand
	if all.frames > 0 {
		grown := float64(int64(v.after.queued[n.ID])-int64(v.before.queued[n.ID])) / v.after.at.Sub(v.before.at).Seconds()
		a.Arrival = max(a.Arrival, all.in+grown*all.in/all.frames)
	}
	a.Loops = each
	if n.Shared {
		a.Loops = each * a.Replicas
	}
	if all.in == 0 || a.Replicas == 0 {
		return a
	}
	a.Service = all.busy / all.in * 1e6
	work := a.Arrival * a.Service / 1e6 // loops that are busy all the time
	a.Busy = work / float64(a.Loops)
	if h := a.Hottest; h != nil {
		h.Share, h.Busy = h.Share/all.in, h.Busy*a.Arrival/all.in
	}
	loops := max(1, int(math.Ceil(work/v.target)))
	a.NeedReplicas = int(math.Ceil(float64(loops) / float64(min(each, max(1, procs)))))
	if !n.Shared {
		a.NeedTasks = loops
		a.NeedReplicas = min(a.NeedReplicas, max(n.Tasks, min(loops, topology.MaxTasks)))
	}
	return a
}

// source judges the spout, once the bolts are judged: its loops only wait, so what it needs follows from what it leaves behind while no bolt holds it back.
func (v *adviser) source(n *topology.Node, a *Advice) NodeAdvice {
	s := NodeAdvice{Node: n.ID, Do: []string{}, Handled: a.Floors, Arrival: a.Records, Growth: a.Records - a.Floors}
	for _, m := range v.after.alive {
		if m.Node == n.ID && !m.Leaving {
			s.Replicas++
			s.Partitions = max(s.Partitions, m.Partitions)
		}
	}
	do := func(format string, args ...any) { s.Do = append(s.Do, fmt.Sprintf(format, args...)) }
	if s.Replicas == 0 {
		do("nobody runs it: start a replica")
		return s
	}
	most := max(s.Partitions, 1)
	s.NeedReplicas = min(s.Replicas, most)
	if s.Growth <= 0.05*a.Records { // a batch more or less at the ends of the window
		return s
	}
	if i := slices.IndexFunc(a.Nodes, func(b NodeAdvice) bool { return b.Busy > v.target || b.Replicas == 0 }); i >= 0 {
		do("its lag grows by %.0f records a second: it waits for %s", s.Growth, a.Nodes[i].Node)
		return s
	}
	needed := int(math.Ceil(float64(s.NeedReplicas) * v.demand))
	if s.NeedReplicas = min(needed, most); s.NeedReplicas > s.Replicas {
		do("its lag grows by %.0f records a second and no bolt is busy: run %d replicas instead of %d", s.Growth, s.NeedReplicas, s.Replicas)
	}
	if needed > most {
		do("its lag grows by %.0f records a second, and %d replicas are as many as its %d partitions allow: give the topics more partitions", s.Growth, most, most)
	}
	return s
}

// hottest keeps the busiest of a worker's tasks and of those seen before.
func (v *adviser) hottest(a *NodeAdvice, m, then *member.Member, d float64) {
	for _, o := range m.Owned {
		var old member.Owned
		if i := slices.IndexFunc(then.Owned, func(x member.Owned) bool { return x.Task == o.Task && x.Epoch == o.Epoch }); i >= 0 {
			old = then.Owned[i]
		}
		f := between(o.In-old.In, o.Busy-old.Busy, 0, d)
		h := Hot{Task: o.Task, Worker: m.Worker, Share: f.in, Busy: f.busy}
		if f.in > 0 && (a.Hottest == nil || cmp.Or(cmp.Compare(h.Busy, a.Hottest.Busy), cmp.Compare(h.Share, a.Hottest.Share)) > 0) {
			a.Hottest = &h
		}
	}
}

// say puts what is to be done into words.
func (a *NodeAdvice) say(target float64) {
	do := func(format string, args ...any) { a.Do = append(a.Do, fmt.Sprintf(format, args...)) }
	if a.Replicas == 0 {
		do("nobody runs it: start a replica")
	}
	if a.Handled == 0 {
		return
	}
	h := a.Hottest
	one := h != nil && h.uneven(a.Tasks) && h.Looked > 0 && h.KeyShare >= 0.5 // key that makes most of the load
	switch {
	case one:
	case a.NeedReplicas > a.Replicas:
		do("run %d replicas instead of %d", a.NeedReplicas, a.Replicas)
	case a.NeedReplicas < a.Replicas:
		do("%d of its %d replicas would do", a.NeedReplicas, a.Replicas)
	}
	if a.Tasks > 0 && a.Replicas > a.Tasks {
		do("%d of its replicas have no task: it has %d", a.Replicas-a.Tasks, a.Tasks)
	}
	if a.NeedTasks > a.Tasks && (h == nil || !h.uneven(a.Tasks)) {
		if do("give it tasks: %d", min(a.NeedTasks, topology.MaxTasks)); a.NeedTasks > topology.MaxTasks {
			do("%d tasks would be needed, more than a node can have: make its work cheaper, or divide it between nodes", a.NeedTasks)
		}
	}
	switch {
	case h == nil || !h.uneven(a.Tasks) && h.Busy <= target:
	case h.Looked > 0 && h.KeyShare >= 0.5:
		do("task %d gets %.0f %% of the tuples, and %.0f %% of those have one key, %q by %s: no task or replica more divides a key; group by a further field, or by partial_key where no state is kept",
			h.Task, 100*h.Share, 100*h.KeyShare, h.Key, strings.Join(h.By, ", "))
	case h.Looked > 0 && h.uneven(a.Tasks):
		do("task %d gets %.0f %% of the tuples; its most frequent key, %q by %s, makes %.0f %% of those: more tasks divide the keys anew",
			h.Task, 100*h.Share, h.Key, strings.Join(h.By, ", "), 100*h.KeyShare)
	case h.uneven(a.Tasks):
		do("task %d gets %.0f %% of the tuples; nothing waited for it that could be looked at", h.Task, 100*h.Share)
	}
}
