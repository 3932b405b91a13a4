package meshtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/document"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/services/alarm/rule"
	"github.com/boltmesh/boltmesh/services/output/write"
)

const alarming = `
topology: alarming
spout:
  id: in
  kafka: {brokers: nowhere, topics: [in]}
  fields: {x: number}
  key: device
  time: {field: ts, unit: ms}
bolts:
  - {id: clean, kind: convert, from: in, where: x != nil, tasks: 2}
  - id: graded
    kind: alarm
    from: clean
    levels: [{severity: low, when: x > 50, clear: x < 40}, {severity: high, when: x > 80, clear: x < 75}]
    raise_after: 2
    flapping: {raises: 3, within: 100s, calm: 60s}
    save: alarms
    notify: {subject: alarms}
    tasks: 2
  - {id: watched, kind: alarm, from: clean, when: x > 60, severity: minor, escalate: {after: 1s, to: major}, no_data: 3s, save: alarms, notify: {subject: alarms}, tasks: 2}
output: {database: alarming}
`

// alarmsRun makes a run of alarms whose episodes are acknowledged, and with ending also cleared, by hand.
func alarmsRun(t *testing.T, seed uint64, x outside, ending bool) Options {
	t.Helper()
	o := servicesOf(t, seed, 8_000, alarming, x)
	for p := range 2 {
		var log []spout.Record
		for i := range 40 {
			b := fmt.Appendf(nil, `{"device":"m%d%d","ts":%d,"x":%d}`, p, (i/3)%2, 1_000_000+i*5000, (i*i*13+int(seed%16+1)*i*7)%100)
			log = append(log, spout.Record{Offset: int64(i), Value: b, Time: int64(1_000_000 + i*5000)})
		}
		o.Partitions = append(o.Partitions, log)
	}
	for i := range 16 {
		command := rule.CommandAck
		if ending && i%3 == 2 {
			command = rule.CommandClear
		}
		id := fmt.Sprint("q", i)
		o.Commands = append(o.Commands, spout.Command{
			ID: id, Node: []string{"graded", "watched"}[i%2], Group: fmt.Sprintf("m%d%d", i/2%2, i/4%2), Payload: fmt.Appendf(nil, `{"command":%q,"note":%q}`, command, id),
		})
	}
	return o
}

// alarmEvent is an event with the episode that it carries, which is an episode's document too.
type alarmEvent struct {
	ID                                  string `json:"_id"`
	Event, Alarm, Group, Severity, Note string
	Previous                            string `json:"previous_severity"`
	Ts                                  int64
	Notify                              bool
	Episode                             alarmEpisode
}

type alarmEpisode struct {
	ID, Alarm, Group, Severity, State, Reason string
	Number, Version                           int64
	RaisedAt                                  int64 `json:"raised_at"`
	ClearedAt                                 int64 `json:"cleared_at"`
	Escalated                                 bool
	History                                   []struct {
		What, Severity, Note string
		At                   int64
	}
}

func all[T any](docs *document.Memory, collection string) (out []T, err error) {
	err = docs.Each(context.Background(), collection, func(body []byte) error {
		var v T
		err := json.Unmarshal(body, &v)
		out = append(out, v)
		return err
	})
	return out, err
}

// lifeOf checks the events of one episode, in the order of their versions, and its document.
func lifeOf(events []alarmEvent, stored alarmEpisode) error {
	severity, acknowledged, over := "", false, false
	for i, e := range events {
		h := stored.History
		switch {
		case e.Episode.Version != int64(i+1):
			return fmt.Errorf("version %d comes as number %d", e.Episode.Version, i+1)
		case i >= len(h) || h[i].What != e.Event || h[i].At != e.Ts || h[i].Severity != e.Severity || h[i].Note != e.Note:
			return fmt.Errorf("the history of the document has not event %d: %+v", i+1, h)
		case (i == 0) != (e.Event == "raise"):
			return fmt.Errorf("event %d is %s", i+1, e.Event)
		case over:
			return fmt.Errorf("%s after its end", e.Event)
		case (e.Event == "change" || e.Event == "escalate") && (e.Previous != severity || e.Severity == severity):
			return fmt.Errorf("%s from %q to %q, it was %q", e.Event, e.Previous, e.Severity, severity)
		case (e.Event == "ack" || e.Event == "escalate") && acknowledged:
			return fmt.Errorf("%s after it was acknowledged", e.Event)
		}
		severity, acknowledged, over = e.Severity, acknowledged || e.Event == "ack", e.Event == "clear"
	}
	if state := stored.State; len(stored.History) != len(events) || (state == "cleared") != over || !over && (state == "acknowledged") != acknowledged {
		return fmt.Errorf("%d events, but the document is %+v", len(events), stored)
	}
	return nil
}

// lives checks all episodes that were stored, and says of each what readings alone decide.
func lives(x outside, r *Result, commands []spout.Command) (conditions map[string]int, err error) {
	events, err := all[alarmEvent](x.docs, "alarms")
	if err != nil {
		return nil, err
	}
	if err := x.told.heard(events); err != nil {
		return nil, err
	}
	episodes, err := all[alarmEpisode](x.docs, "alarms"+write.Episodes)
	if err != nil {
		return nil, err
	}
	of := map[string][]alarmEvent{}
	answers := map[string]int{}
	for _, e := range events {
		of[fmt.Sprint(e.Alarm, e.Group, e.Episode.Number)] = append(of[fmt.Sprint(e.Alarm, e.Group, e.Episode.Number)], e)
		if e.Note != "" {
			answers[e.Note]++
		}
	}
	conditions, open := map[string]int{}, map[string]int64{}
	slices.SortFunc(episodes, func(a, b alarmEpisode) int { return int(a.Number - b.Number) })
	last := map[string]int64{}
	for _, e := range episodes {
		at := e.Alarm + e.Group
		if last[at]++; e.Number != last[at] {
			return nil, fmt.Errorf("%s: episode %d follows %d", at, e.Number, last[at]-1)
		}
		if open[at] != 0 {
			return nil, fmt.Errorf("%s: episode %d is open, and so was %d", at, e.Number, open[at])
		}
		if e.State != "cleared" {
			open[at] = e.Number
		}
		mine := of[fmt.Sprint(at, e.Number)]
		slices.SortFunc(mine, func(a, b alarmEvent) int { return int(a.Episode.Version - b.Episode.Version) })
		if err := lifeOf(mine, e); err != nil {
			return nil, fmt.Errorf("%s: episode %d: %w", at, e.Number, err)
		}
		delete(of, fmt.Sprint(at, e.Number))
		if e.Reason == "" {
			conditions[fmt.Sprint(at, " ", e.RaisedAt, " to ", e.ClearedAt)]++
		}
	}
	if len(of) > 0 {
		return nil, fmt.Errorf("events of no episode: %v", of)
	}
	for _, l := range r.Letters {
		if !strings.Contains(l.Error, "no open episode") && !strings.Contains(l.Error, "acknowledged already") {
			return nil, fmt.Errorf("dead letter of %s: %s", l.Node, l.Error)
		}
		var q struct{ Note string }
		if err := json.Unmarshal(l.Payload, &q); err != nil {
			return nil, err
		}
		answers[q.Note]++
	}
	for _, q := range commands {
		if answers[q.ID] != 1 {
			return nil, fmt.Errorf("command %s has %d answers", q.ID, answers[q.ID])
		}
	}
	return conditions, nil
}

// TestAlarms runs alarms with levels, commands, escalation and silence while everything dies now and then: of each group at most one episode is open, its
// events are there once and in order, each command is answered once. Whatever is acknowledged or escalated, readings raise and clear what they do without
// faults.
func TestAlarms(t *testing.T) {
	var want [16]map[string]int // the readings depend on seed%16
	for i := range want {
		x := outside{docs: document.NewMemory(), told: newHook()}
		o := alarmsRun(t, uint64(i), x, false)
		o.Faults, o.Steps = Faults{}, 0
		r, err := Run(o)
		if err == nil {
			want[i], err = lives(x, r, o.Commands)
		}
		for id, n := range x.told.told {
			if n != 1 {
				t.Errorf("without faults: told %d times of %s", n, id)
			}
		}
		if err != nil {
			t.Fatalf("without faults: %v\n%s", err, strings.Join(r.History, "\n"))
		}
	}
	var seen [6]atomic.Int64 // what the runs have shown, as kinds says
	kinds := [6]string{"episodes of conditions", "episodes of silence", "acknowledgements", "escalations", "notices", "notices that came again"}
	n := max(*seeds/5, 1)
	simulate(t, n, func(seed uint64, x Window) (*Result, error) {
		side := outside{docs: document.NewMemory(), told: newHook()}
		ending := seed%2 == 0
		o := alarmsRun(t, seed, side, ending)
		o.Window = x
		r, err := Run(o)
		if err != nil {
			return r, err
		}
		got, err := lives(side, r, o.Commands)
		if err == nil && !ending && !maps.Equal(graded(got), graded(want[seed%16])) {
			err = errors.New("episodes differ:\n" + diff(graded(want[seed%16]), graded(got)))
		}
		for _, n := range side.told.told {
			seen[4].Add(1)
			seen[5].Add(int64(n - 1))
		}
		episodes, _ := all[alarmEpisode](side.docs, "alarms"+write.Episodes)
		for _, e := range episodes {
			seen[map[bool]int{true: 0, false: 1}[e.Reason == ""]].Add(1)
			for _, h := range e.History {
				switch h.What {
				case "ack":
					seen[2].Add(1)
				case "escalate":
					seen[3].Add(1)
				}
			}
		}
		return r, err
	})
	for i, kind := range kinds {
		t.Logf("%s: %d", kind, seen[i].Load())
		if seen[i].Load() == 0 && n >= 20 { // one seed alone, as when a failure is repeated, need not show everything
			t.Errorf("no run had %s: the test has nothing to say about them", kind)
		}
	}
}

// TestEarlyLetters breaks rule C27 where many commands meet many owners that were replaced and go on: one of these then refuses what its successor has done.
func TestEarlyLetters(t *testing.T) {
	const from, within = 2800, 500
	run := func(seed uint64, early bool) (*Result, error) {
		x := outside{docs: document.NewMemory(), told: newHook()}
		o := alarmsRun(t, seed, x, false)
		o.Faults[Crash], o.Faults[Zombie] = 0, 150
		for i, q := range slices.Repeat(o.Commands, 7) {
			q.ID = fmt.Sprint(q.ID, "-", i)
			q.Payload = fmt.Appendf(nil, `{"command":%q,"note":%q}`, rule.CommandAck, q.ID)
			o.Commands = append(o.Commands, q)
		}
		o.broken.earlyLetters = early
		r, err := Run(o)
		if err == nil {
			_, err = lives(x, r, o.Commands)
		}
		return r, err
	}
	for seed := uint64(from); seed < from+within; seed++ {
		r, err := run(seed, true)
		if err == nil {
			continue
		}
		if _, wrong := run(seed, false); wrong != nil {
			t.Fatalf("seed %d fails with the rule in place too: %v", seed, wrong)
		}
		t.Logf("C27: a stateful task stores a dead letter before its commit: seed %d, %d faults: %v", seed, r.Hits, err)
		return
	}
	t.Errorf("no violation in %d seeds", within)
}

// graded leaves only the alarm that readings alone raise: silence ends streaks, and whether it falls before a reading is anybody's guess.
func graded(episodes map[string]int) map[string]int {
	out := maps.Clone(episodes)
	maps.DeleteFunc(out, func(k string, _ int) bool { return !strings.HasPrefix(k, "graded") })
	return out
}
