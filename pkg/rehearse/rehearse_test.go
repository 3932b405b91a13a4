package rehearse_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/rehearse"
	"github.com/boltmesh/boltmesh/pkg/service"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
	"github.com/boltmesh/boltmesh/services"
)

const machines = `
topology: machines
spout:
  id: in
  kafka: {brokers: nowhere, topics: [in]}
  fields: {temperature: number}
  key: device
  time: {field: ts, unit: ms, lag: 1m}
bolts:
  - {id: clean, kind: convert, from: in, where: temperature < 500, set: {celsius: (temperature - 32) / 1.8}, save: readings}
  - {id: hourly, kind: stat, from: clean, window: {tumbling: 1h}, aggregates: {n: count, mean: mean(temperature)}, save: hourly}
  - {id: often, kind: stat, from: clean, every: 1m, aggregates: {n: count}}
  - {id: hot, kind: alarm, from: clean, when: temperature > archive.limit, raise_after: 2, no_data: 10m, save: alarms}
  - {id: busy, kind: alarm, from: hourly, when: n > 1}
  - {id: keep, kind: stat, from: clean, window: lifetime, script: "function compute(t, state) { state.n = (state.n || 0) + 1 }\nfunction output(state, window) { return {n: state.n} }\n"}
`

func stage(t *testing.T) *rehearse.Stage {
	t.Helper()
	return play(t, machines)
}

func feed(t *testing.T, s *rehearse.Stage, readings ...string) {
	t.Helper()
	for _, r := range readings {
		if err := s.Feed(t.Context(), spout.Record{Value: []byte(r)}); err != nil {
			t.Fatal(err)
		}
	}
}

// take lists and forgets what a node has emitted.
func take(s *rehearse.Stage, node string) (out []string) {
	for _, e := range s.Emitted {
		if e.Node == node {
			out = append(out, e.Key+" "+e.Stream+" "+string(e.Payload))
		}
	}
	s.Emitted = nil
	return out
}

func want(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s:\ngot  %q\nwant %q", what, got, want)
	}
}

const hour = 3_600_000

func TestReadings(t *testing.T) {
	s := stage(t)
	feed(t, s, `{"device":"m1","ts":0,"temperature":50}`, `{"device":"m1","ts":1,"temperature":501}`, `{"device":"m1"`)
	want(t, "clean", take(s, "clean"), `m1 default {"device":"m1","ts":0,"temperature":50,"celsius":10}`)
	if len(s.Letters) != 1 || s.Letters[0].Node != "in" {
		t.Errorf("letters %v", s.Letters)
	}
	if n, _ := s.Documents.Count(t.Context(), "readings"); n != 1 {
		t.Errorf("%d readings stored", n)
	}
}

func TestWindows(t *testing.T) {
	s := stage(t)
	feed(t, s, `{"device":"m1","ts":0,"temperature":50}`, `{"device":"m1","ts":60000,"temperature":70}`)
	want(t, "an open hour", take(s, "hourly"))
	shown, err := s.State(t.Context(), "hourly", "m1")
	if string(shown) != `{"windows":[{"start":0,"end":3600000,"readings":2,"n":2,"mean":60}]}` || err != nil {
		t.Errorf("state %s (%v)", shown, err)
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	feed(t, s, fmt.Sprintf(`{"device":"m1","ts":%d,"temperature":70}`, hour+60_000))
	want(t, "a closed hour", take(s, "hourly"), `m1 default {"device":"m1","group":"m1","window":{"kind":"tumbling","start":0,"end":3600000},"n":2,"mean":60}`)
	feed(t, s, `{"device":"m1","ts":10,"temperature":1}`)
	want(t, "a late reading", take(s, "hourly"), `m1 late {"device":"m1","ts":10,"temperature":1,"celsius":-17.22222222222222}`)
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := take(s, "hourly"); len(got) != 1 {
		t.Errorf("flushed %q", got)
	}
}

func TestTime(t *testing.T) {
	s := stage(t)
	feed(t, s, `{"device":"m1","ts":0,"temperature":50}`)
	if err := s.Wait(t.Context(), 59*time.Second); err != nil {
		t.Fatal(err)
	}
	want(t, "before the minute", take(s, "often"))
	if err := s.Wait(t.Context(), time.Second); err != nil {
		t.Fatal(err)
	}
	if got := take(s, "often"); len(got) != 1 {
		t.Errorf("at the minute: %q", got)
	}
	if err := s.Wait(t.Context(), 12*time.Minute); err != nil {
		t.Fatal(err)
	}
	if got := take(s, "hot"); len(got) != 1 {
		t.Errorf("silence: %q", got)
	}
	if s.Now() != rehearse.DefaultStart.Add(13*time.Minute) {
		t.Error(s.Now())
	}
	if err := s.Wait(t.Context(), 365*24*time.Hour); err == nil {
		t.Error("a year of minutes is accepted")
	}
}

func TestProfilesAndState(t *testing.T) {
	s := stage(t)
	feed(t, s, `{"device":"m1","ts":0,"temperature":50}`)
	if err := s.Profile(t.Context(), "m1", []byte(`{"limit": 40}`)); err != nil {
		t.Fatal(err)
	}
	feed(t, s, `{"device":"m1","ts":1,"temperature":50}`)
	want(t, "one reading above the limit", take(s, "hot"))
	shown, err := s.State(t.Context(), "hot", "m1")
	var kept struct {
		State  string
		Streak int
	}
	if json.Unmarshal(shown, &kept) != nil || kept.State != "clear" || kept.Streak != 1 || err != nil {
		t.Errorf("state %s (%v)", shown, err)
	}
	feed(t, s, `{"device":"m1","ts":2,"temperature":50}`)
	if got := take(s, "hot"); len(got) != 1 {
		t.Errorf("alarm: %q", got)
	}
	if err := s.Seed(t.Context(), "hot", "m2", []byte(`{"state":"open"}`)); err != nil {
		t.Fatal(err)
	}
	if err := s.Profile(t.Context(), "m2", []byte(`{"limit": 40}`)); err != nil {
		t.Fatal(err)
	}
	feed(t, s, `{"device":"m2","ts":3,"temperature":30}`)
	if got := take(s, "hot"); len(got) != 1 {
		t.Errorf("clear of a given alarm: %q", got)
	}
	if err := s.Seed(t.Context(), "keep", "m3", []byte(`{"state":{"n":41}}`)); err != nil {
		t.Fatal(err)
	}
	feed(t, s, `{"device":"m3","ts":4,"temperature":30}`)
	if shown, err = s.State(t.Context(), "keep", "m3"); string(shown) != `{"readings":2,"state":{"n":42}}` || err != nil {
		t.Errorf("state %s (%v)", shown, err)
	}
	if err := s.Seed(t.Context(), "hourly", "m3", []byte(`{}`)); err == nil {
		t.Error("aggregates were seeded")
	}
	if shown, err = s.State(t.Context(), "keep", "nobody"); shown != nil || err != nil {
		t.Errorf("state of nobody: %s (%v)", shown, err)
	}
}

func TestPlay(t *testing.T) {
	s := stage(t)
	err := s.Play(t.Context(), "hourly", tuple.Tuple{Key: "m1", Group: "m1", Payload: []byte(`{"device":"m1","n":5}`)})
	if err != nil {
		t.Fatal(err)
	}
	if got := take(s, "busy"); len(got) != 1 {
		t.Errorf("busy: %q", got)
	}
	if err := s.Play(t.Context(), "nobody"); err == nil {
		t.Error("an unknown node plays")
	}
}

func BenchmarkReading(b *testing.B) {
	top, _ := topology.Parse("machines.yaml", []byte(machines), topology.Options{})
	plan, err := top.Plan()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s, err := rehearse.New(b.Context(), rehearse.Options{Plan: plan, Builds: map[string]service.Build{"convert": services.Convert, "stat": services.Stat, "alarm": services.Alarm, "output": services.Output}})
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Feed(b.Context(), spout.Record{Value: []byte(`{"device":"m1","ts":0,"temperature":50}`)}); err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}
