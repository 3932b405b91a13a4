package service

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/services/alarm/rule"
)

const alarmYAML = `
topology: plant
spout: {id: in, kafka: {topics: [readings]}, timeout: 2s}
bolts:
  - {id: hot, kind: alarm, from: in, when: x > 80, severity: major, tasks: 3}
  - {id: lines, kind: alarm, from: in, group: [site, line], when: x > 80, tasks: 3}
  - {id: any, kind: alarm, from: in, group: none, when: x > 80, clear: x < 0}
`

// alarms builds real ones.
func alarms(_ context.Context, n Node) (bolt.Bolt, error) {
	return rule.New(*n.Bolt, n.Group, n.Plan.Topology.Params)
}

// shown is what the state keeps for a group, wherever its task is.
func (m *mesh) shown(plan *topology.Plan, node, group string) string {
	m.t.Helper()
	n := nodeOf(plan, node)
	b, err := rule.New(*n.Bolt, nil, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	h := host{plan: plan, node: *n}
	for _, task := range h.tasksIn(n.Tasks) {
		values := map[string][]byte{}
		for _, e := range m.store.Values(task) {
			values[e.Key] = e.Value
		}
		raw, err := b.Show(group, func(key string) []byte { return values[key] })
		if err != nil {
			m.t.Fatal(err)
		}
		var k struct{ State string }
		if raw != nil && json.Unmarshal(raw, &k) == nil {
			return k.State
		}
	}
	return ""
}

// TestCommands: what an operator asks for reaches the task of its group, once however often it is asked for, in order with the readings, while spouts and
// alarms come and go; what cannot be done is answered with the reason.
func TestCommands(t *testing.T) {
	m := newMesh(t)
	stop := m.worker(topology.KindSpout, "s1", nil)
	leave := m.worker(topology.KindAlarm, "a1", alarms)
	m.worker(topology.KindAlarm, "a2", alarms)
	m.apply(alarmYAML)
	top, problems := topology.Parse("t.yaml", []byte(alarmYAML), topology.Options{})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	plan, err := top.Plan()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := jetstream.Connect(t.Context(), m.nats())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c, err := control.New(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(q control.CommandRequest, refused string) control.CommandOutcome {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		out, err := c.Command(ctx, "plant", q)
		if err != nil || (refused == "") != (out.Refused == "") || !strings.Contains(out.Refused, refused) {
			t.Errorf("%+v: %+v, %v; want %q", q, out, err, refused)
		}
		return out
	}
	feed := func(x int) {
		t.Helper()
		for d := range 6 {
			m.source.add(d, fmt.Sprintf(`{"x":%d,"site":"north","line":%d}`, x, d))
		}
		m.until("the readings are processed", m.source.done)
	}
	ack := func(node, group, id string) control.CommandRequest {
		return control.CommandRequest{Node: node, Group: group, ID: id, Command: control.CommandAck, By: "ann", Note: "seen"}
	}
	ask(ack("hot", "d1", ""), "no open episode")
	feed(99)
	for d := range 6 {
		ask(ack("hot", fmt.Sprint("d", d), ""), "")
	}
	first := ask(ack("lines", "north\x1f3", "q1"), "")
	again := ask(ack("lines", "north\x1f3", "q1"), "")
	if !first.New || again.New || first.Position != again.Position {
		t.Errorf("%+v, then %+v", first, again)
	}
	ask(ack("lines", "north\x1f3", "q3"), "acknowledged already by ann")
	ask(ack("lines", "north\x1f3", "q3"), "it was refused before")
	if letters, err := c.Letters(t.Context(), "plant", control.LetterFilter{}); err != nil || len(letters) > 0 {
		t.Errorf("%v, %v: refusals that were told are no letters any more", letters, err)
	}
	ask(ack("any", "all", ""), "")
	for q, want := range map[control.CommandRequest]string{
		ack("hott", "d1", ""):                        "plant has no alarm hott: its alarms are hot, lines, any",
		ack("lines", "north", ""):                    "grouped by site, line: give 2 values, not 1",
		ack("any", "d1", ""):                         "one group, which is called all",
		{Node: "hot", Group: "d1", Command: "sing"}:  "not known",
		{Node: "hot", Command: control.CommandClear}: "a group has",
		{Node: "hot", Group: "d1", Command: control.CommandAck, Note: strings.Repeat("x", 2000)}: "2000 bytes",
	} {
		if _, err := c.Command(t.Context(), "plant", q); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if _, err := c.Command(t.Context(), "plan", ack("hot", "d1", "")); err == nil {
		t.Error("a topology that is not there")
	}

	// Taken while nothing is emitted, by a spout that then leaves; done under the next, by whoever owns the tasks.
	if _, err := c.Pause(t.Context(), "plant"); err != nil {
		t.Fatal(err)
	}
	m.until("the command log rests", func() bool {
		members, err := c.Members(t.Context(), "plant")
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range members {
			for _, l := range x.Logs {
				if l.Name == "command" && l.Pause > 0 {
					return true
				}
			}
		}
		return false
	})
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	end := control.CommandRequest{Node: "hot", Group: "d2", ID: "q2", Command: control.CommandClear, Note: "repaired"}
	if _, err := c.Command(short, "plant", end); err == nil || !strings.Contains(err.Error(), "--request q2") {
		t.Errorf("%v", err)
	}
	if got := m.shown(plan, "hot", "d2"); got != "acknowledged" {
		t.Errorf("%q while the topology is paused", got)
	}
	stop()
	leave()
	m.worker(topology.KindSpout, "s2", nil)
	if _, err := c.Resume(t.Context(), "plant"); err != nil {
		t.Fatal(err)
	}
	if out := ask(end, ""); out.New {
		t.Errorf("%+v is new", out)
	}
	for group, want := range map[string]string{"d1": "acknowledged", "d2": "clear", "d3": "acknowledged"} {
		if got := m.shown(plan, "hot", group); got != want {
			t.Errorf("%s: %q, want %q", group, got, want)
		}
	}
	feed(1)
	if got := m.shown(plan, "hot", "d1"); got != "clear" {
		t.Errorf("%q after it is no longer hot", got)
	}
	if _, err := c.Apply(t.Context(), changed(t, "tasks: 3", "tasks: 5"), control.ApplyOptions{Timeout: 20 * time.Second}); err != nil {
		t.Fatal(err)
	}
	feed(99)
	for d := range 6 {
		ask(ack("hot", fmt.Sprint("d", d), ""), "")
	}
}

// changed is the topology with other text in it.
func changed(t *testing.T, old, by string) topology.Document {
	t.Helper()
	top, problems := topology.Parse("t.yaml", []byte(strings.ReplaceAll(alarmYAML, old, by)), topology.Options{})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	return top.Document
}
