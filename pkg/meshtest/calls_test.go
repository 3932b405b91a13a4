package meshtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// question is what a call of the office asks, and part is one piece of it.
type question struct {
	Device string `json:"device"`
	Q      int    `json:"q"`
	Parts  int    `json:"parts"`
}

type part1 struct {
	Q int `json:"q"`
	J int `json:"j"`
}

// The office divides a question into parts. Every clerk answers each of them, and the ledger books it; each of them cannot handle some:
//
//	call ─▶ divide ─▶ clerk (all tasks) ─▶ reply
//	            └───▶ ledger (by key)   ─▶ reply
const clerks = 2

func (question) refused(q int) bool          { return q%11 == 7 }
func (p part1) byClerk(task int32) (no bool) { return (p.Q*5+p.J*3+int(task))%7 == 0 }
func (p part1) byLedger() (no bool)          { return (p.Q*3+p.J)%5 == 0 }
func (p part1) garbled(task int32) (is bool) { return (p.Q+p.J+int(task))%13 == 5 }
func (p part1) clerkSays(task int32) string {
	return fmt.Sprintf(`{"q":%d,"j":%d,"clerk":%d}`, p.Q, p.J, task)
}

func (p part1) ledgerSays() string                { return fmt.Sprintf(`{"q":%d,"j":%d,"booked":true}`, p.Q, p.J) }
func (p part1) entry() string                     { return fmt.Sprintf("%d.%d", p.Q, p.J) }
func read[T any](t *tuple.Tuple) (v T, err error) { err = json.Unmarshal(t.Payload, &v); return v, err }

// outcome is what a question must be answered with: the replies' texts, and the nodes that failed, sorted.
func (q question) outcome() (replies, failures []string) {
	if q.refused(q.Q) {
		return nil, []string{"divide"}
	}
	for j := range q.Parts {
		p := part1{q.Q, j}
		for task := range int32(clerks) {
			switch {
			case p.byClerk(task):
				failures = append(failures, "clerk")
			case p.garbled(task):
				failures = append(failures, topology.ReplyNode)
			default:
				replies = append(replies, p.clerkSays(task))
			}
		}
		if p.byLedger() {
			failures = append(failures, "ledger")
		} else {
			replies = append(replies, p.ledgerSays())
		}
	}
	slices.Sort(replies)
	slices.Sort(failures)
	return replies, failures
}

var errRefused = bolt.Reject(errors.New("refused"))

// booking is the ledger.
type booking struct{ noting }

func (booking) Execute(ctx context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	p, err := read[part1](t)
	if err != nil || p.byLedger() {
		return errors.Join(err, errRefused)
	}
	if err := c.EmitJSON(t, topology.ReplyStream, json.RawMessage(p.ledgerSays())); err != nil {
		return err
	}
	c.Emit(bolt.Emission{Key: t.Key, Payload: []byte(p.entry())})
	return nil
}

// office makes a run of calls.
func office(seed uint64) (Options, []question) {
	reply := bolt.Edge{To: topology.ReplyNode, Stream: topology.ReplyStream, Tasks: 1}
	o := Options{
		Seed: seed, Faults: Usual(), Steps: 10_000, Span: 12, Slice: 1, Spec: topology.Spout{Key: "device"}, Changes: int(seed / 4 % 3),
		Edges: []bolt.Edge{{To: "divide", Stream: topology.CallStream, Tasks: 2, Key: byKey, Shared: seed%3 == 0}},
		Nodes: []Node{
			{ID: "divide", Tasks: 2, Shared: seed%3 == 0, Edges: []bolt.Edge{
				{To: "clerk", Stream: tuple.DefaultStream, Tasks: clerks, All: true}, {To: "ledger", Stream: tuple.DefaultStream, Tasks: 2, Key: byKey},
			}, Build: func(Env) bolt.Bolt {
				return bolt.Func(func(_ context.Context, t *tuple.Tuple, c *bolt.Collector) error {
					q, err := read[question](t)
					if err != nil || q.refused(q.Q) {
						return errors.Join(err, errRefused)
					}
					for j := range q.Parts {
						if err := c.EmitJSON(t, "", part1{q.Q, j}); err != nil {
							return err
						}
					}
					return nil
				})
			}},
			{ID: "clerk", Tasks: clerks, Edges: []bolt.Edge{reply}, Build: func(e Env) bolt.Bolt {
				return bolt.Func(func(_ context.Context, t *tuple.Tuple, c *bolt.Collector) error {
					p, err := read[part1](t)
					switch {
					case err != nil || p.byClerk(e.Task):
						return errors.Join(err, errRefused)
					case p.garbled(e.Task):
						c.Emit(bolt.Emission{Stream: topology.ReplyStream, Payload: []byte("{")})
						return nil
					}
					return c.EmitJSON(t, topology.ReplyStream, json.RawMessage(p.clerkSays(e.Task)))
				})
			}},
			{
				ID: "ledger", Tasks: 2, Edges: []bolt.Edge{reply, {To: "out", Stream: tuple.DefaultStream, Shared: true}},
				Build: func(Env) bolt.Bolt { return booking{noting{byKey}} },
			},
			{ID: "out", Shared: true, Build: func(e Env) bolt.Bolt { return out{e, func(t *tuple.Tuple, _ string) string { return t.ID.String() }} }},
		},
	}
	if seed%2 == 0 {
		o.Faults[StreamLoss] = 3000
	}
	var qs []question
	for i := range 24 {
		q := question{fmt.Sprint("d", i%3), i + int(seed%100), 1 + (i+int(seed/5))%3}
		b, err := json.Marshal(q)
		if err != nil {
			panic(err)
		}
		qs = append(qs, q)
		o.Calls = append(o.Calls, spout.Call{ID: fmt.Sprint("call-", i), Payload: b, NoWait: i%8 == 5})
	}
	o.Answered = func(out spout.Outcome) error {
		i := 0
		if _, err := fmt.Sscanf(out.ID, "call-%d", &i); err != nil {
			return err
		}
		if o.Calls[i].NoWait {
			return errors.New("nobody waits for it")
		}
		var replies, failures []string
		for _, r := range out.Replies {
			replies = append(replies, string(r.Payload))
		}
		for _, f := range out.Failures {
			failures = append(failures, f.Node)
			if f.Error != "refused" && f.Error != "no JSON" {
				return fmt.Errorf("node %s failed with %q", f.Node, f.Error)
			}
		}
		slices.Sort(replies)
		slices.Sort(failures)
		wantReplies, wantFailures := qs[i].outcome()
		if !slices.Equal(replies, wantReplies) || !slices.Equal(failures, wantFailures) || out.Failed != len(failures) {
			return fmt.Errorf("replies %v and %d failures of %v, want %v and %v", replies, out.Failed, failures, wantReplies, wantFailures)
		}
		return nil
	}
	return o, qs
}

// booked checks that the ledger has booked each part that it can, once.
func booked(r *Result, qs []question) error {
	want := 0
	for _, q := range qs {
		for j := range q.Parts {
			p := part1{q.Q, j}
			if q.refused(q.Q) || p.byLedger() {
				continue
			}
			if n := r.Bodies["ledger "+q.Device+" "+p.entry()]; n != 1 {
				return fmt.Errorf("%s was booked %d times", p.entry(), n)
			}
			want++
		}
	}
	if len(r.Documents) != want {
		return fmt.Errorf("%d entries were booked, want %d", len(r.Documents), want)
	}
	return nil
}

// TestCalls has callers ask while everything dies now and then: whoever answers a call, be it an owner that was replaced and does not know, answers with every
// reply and every failure, once.
func TestCalls(t *testing.T) {
	var lost atomic.Int64
	check := func(seed uint64, x Window) (*Result, error) {
		o, qs := office(seed)
		o.Window = x
		r, err := Run(o)
		if err == nil {
			lost.Add(int64(r.Lost))
			err = booked(r, qs)
		}
		return r, err
	}
	o, qs := office(1)
	o.Faults, o.Steps = Faults{}, 0
	r, err := Run(o)
	if err == nil {
		err = booked(r, qs)
	}
	if err != nil {
		t.Fatalf("without faults: %v\n%s", err, strings.Join(r.History, "\n"))
	}
	simulate(t, max(*seeds/2, 1), check)
	t.Logf("%d complete answers were lost with whoever had them", lost.Load())
}

// TestCallRules breaks the rules of calls in turn: some seed must fail, and not with the rule in place.
func TestCallRules(t *testing.T) {
	for name, c := range map[string]struct {
		breaks func(*breaks)
	}{
		"it answers without asking whether it was replaced": {func(b *breaks) { b.staleAnswers = true }},
		"it emits with a floor that is not durable":         {func(b *breaks) { b.unwrittenFloors = true }},
		"it emits before it has the input of replies":       {func(b *breaks) { b.lateGather = true }},
		"a letter counts though no owner was told":          {func(b *breaks) { b.toldOnce = true }},
		"a letter is told once":                             {func(b *breaks) { b.newLetters = true }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const within = 1000
			for seed := range uint64(within) {
				o, _ := office(seed)
				c.breaks(&o.broken)
				_, err := Run(o)
				if err == nil || errors.Is(err, errStuck) {
					continue
				}
				o, _ = office(seed)
				if _, wrong := Run(o); wrong != nil {
					t.Fatalf("seed %d fails with the rule in place too: %v", seed, wrong)
				}
				t.Logf("seed %d: %v", seed, err)
				return
			}
			t.Errorf("no violation in %d seeds", within)
		})
	}
}
