package meshtest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

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
