package rule

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// lived is an event as these tests look at it.
type lived struct {
	Event    string
	Group    string
	Severity string
	Previous string `json:"previous_severity"`
	Ts       int64
	Notify   bool
	Flapping bool
	By, Note string
	Episode  struct {
		Number, Version, Omitted int64
		State                    string
		AcknowledgedAt           int64  `json:"acknowledged_at"`
		AcknowledgedBy           string `json:"acknowledged_by"`
		Escalated                bool
		History                  []entry
	}
}

func (l lived) String() string {
	s := fmt.Sprint(l.Event, l.Ts, ":", l.Severity)
	if l.Previous != "" {
		s += "<" + l.Previous
	}
	return s
}

// lives decodes events and checks what holds for each: that the last entry of its history is the event, and that the version counts them.
func lives(t interface{ Fatalf(string, ...any) }, out []tuple.Tuple) (all []lived) {
	for _, o := range out {
		var l lived
		if err := json.Unmarshal(o.Payload, &l); err != nil {
			t.Fatalf("%s: %v", o.Payload, err)
		}
		n := len(l.Episode.History)
		if n == 0 || n > MaxHistory || l.Episode.Version != l.Episode.Omitted+int64(n) {
			t.Fatalf("version %d with %d omitted and %d in the history", l.Episode.Version, l.Episode.Omitted, n)
		}
		if last := l.Episode.History[n-1]; last != (entry{l.Event, l.Ts, l.Severity, l.By, l.Note}) {
			t.Fatalf("the history of %s ends with %+v", o.Payload, last)
		}
		if (l.Event == "change" || l.Event == "escalate") && n > 1 && l.Episode.History[n-2].Severity != l.Previous {
			t.Fatalf("%s: the severity before is not the history's", o.Payload)
		}
		all = append(all, l)
	}
	return all
}

func said(all []lived) string {
	var s []string
	for _, l := range all {
		s = append(s, l.String())
	}
	return strings.Join(s, " ")
}

func twoLevels() []topology.Level {
	return []topology.Level{
		{Severity: "warning", When: expr("x > 80"), Clear: expr("x < 75")},
		{Severity: "critical", When: expr("x > 95"), Clear: expr("x < 90")},
	}
}

func TestLevels(t *testing.T) {
	for _, tt := range []struct {
		name string
		spec topology.Bolt
		xs   string // readings at ts 0, 1, 2, ...; "-" has no x
		want string
	}{
		{"up and down", topology.Bolt{Levels: twoLevels()}, "70 81 96 89 70", "raise1:warning change2:critical<warning change3:warning<critical clear4:warning"},
		{"at once", topology.Bolt{Levels: twoLevels()}, "96 70 99", "raise0:critical clear1:critical raise2:critical"},
		{"hysteresis at each level", topology.Bolt{Levels: twoLevels()}, "96 91 94 89 91 76 74", "raise0:critical change3:warning<critical clear6:warning"},
		{"absent", topology.Bolt{Levels: twoLevels()}, "81 - 96 - 70", "raise0:warning change2:critical<warning clear4:critical"},
		{
			"a streak for each level",
			topology.Bolt{Levels: twoLevels(), RaiseAfter: 3, ClearAfter: 2},
			"81 96 96 96 70 91 74 74",
			"raise2:warning change3:critical<warning clear7:critical",
		},
		{
			"a duration for each level",
			topology.Bolt{Levels: twoLevels(), RaiseFor: 2 * time.Millisecond},
			"81 96 96 96 70",
			"raise2:warning change3:critical<warning clear4:critical",
		},
		{
			"without clear",
			topology.Bolt{Levels: []topology.Level{{Severity: "a", When: expr("x > 1")}, {Severity: "b", When: expr("x > 2")}, {Severity: "c", When: expr("x > 3")}}},
			"2 4 3 1", "raise0:a change1:c<a change2:b<c clear3:b",
		},
		{
			"the upper outlasts the lower",
			topology.Bolt{Levels: []topology.Level{{Severity: "a", When: expr("x > 1")}, {Severity: "b", When: expr("x > 2"), Clear: expr("x < 0")}}},
			"3 1 -1", "raise0:b clear2:b",
		},
		{"levels that share no field", topology.Bolt{Levels: []topology.Level{{Severity: "a", When: expr("x > 1")}, {Severity: "b", When: expr("y > 2")}}}, "3 3 1", "raise0:a clear2:a"},
		{"filtered", topology.Bolt{Levels: twoLevels(), Where: expr("x != 70")}, "81 70 74", "raise0:warning clear2:warning"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.spec.ID = "hot"
			h := bolttest.New(t, open(t, tt.spec))
			var out []tuple.Tuple
			for i, x := range strings.Fields(tt.xs) {
				payload := `{"x":` + x + `}`
				if x == "-" {
					payload = `{}`
				}
				out = append(out, h.Feed(reading("a", int64(i), payload))...)
				h.Restart()
			}
			if got := said(lives(t, out)); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if len(h.Letters) > 0 {
				t.Errorf("dead letter: %s", h.Letters[0].Error)
			}
		})
	}
}

// What silence raises has the severity beside the levels.
func TestLevelsAndSilence(t *testing.T) {
	b := open(t, topology.Bolt{ID: "hot", Kind: topology.KindAlarm, Levels: twoLevels(), NoData: 10 * time.Second, Severity: "info"})
	h := &clockwork{Harness: bolttest.New(t, b)}
	h.tick(1000)
	out := h.Feed(reading("a", 1, `{"x":70}`))
	for s := int64(1001); s < 1020; s++ {
		out = append(out, h.tick(s)...)
	}
	out = append(out, h.Feed(reading("a", 2, `{"x":99}`))...)
	if got := said(lives(t, out)); got != "raise1011000:info clear2:info raise2:critical" {
		t.Error(got)
	}
}

// An episode goes on when the topology gets other levels: the next reading finds out what it is worth now.
func TestLevelsChangeUnderAnEpisode(t *testing.T) {
	h := bolttest.New(t, open(t, topology.Bolt{ID: "hot", When: expr("x > 80"), Severity: "major"}))
	out := h.Feed(reading("a", 1, `{"x":99}`))
	store := h.Store
	for i, spec := range []topology.Bolt{
		{Levels: twoLevels()},
		{When: expr("x > 80"), Severity: "minor"},
	} {
		spec.ID = "hot"
		h = bolttest.New(t, open(t, spec))
		h.Store = store
		h.Restart()
		// positions that were applied must not come again
		r := reading("a", int64(2+i), `{"x":99}`)
		r.Offset = int64(100 + i)
		r.ID = tuple.RootID(tuple.Position{Origin: bolttest.Origin, Offset: r.Offset})
		out = append(out, h.Feed(r)...)
	}
	if got := said(lives(t, out)); got != "raise1:major change2:critical<major change3:minor<critical" {
		t.Error(got)
	}
}

// held says whether a level holds after all these readings, by looking for the first run that is long enough, again and again. Readings that say nothing
// are left out by the caller.
func held(l Limits, raising, clearing []bool, times []int64) bool {
	raised := false
	for from := 0; ; {
		after, lasting, speaks := max(l.RaiseAfter, 1), l.RaiseFor, raising
		if raised {
			after, lasting, speaks = max(l.ClearAfter, 1), l.ClearFor, clearing
		}
		found := -1
		for end := from; end < len(speaks) && found < 0; end++ {
			start := end + 1
			for start > from && speaks[start-1] {
				start--
			}
			if run := end - start + 1; run >= after && times[end]-times[start] >= lasting {
				found = end
			}
		}
		if found < 0 {
			return raised
		}
		raised, from = !raised, found+1
	}
}

// Whatever readings come, commands included, the events are the differences of what holds after each of them, computed each time from the beginning.
func TestLevelsEqualTheTwin(t *testing.T) {
	names := []string{"low", "mid", "top"}
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 3).Draw(rt, "levels")
		spec := topology.Bolt{
			ID: "hot", RaiseAfter: rapid.IntRange(0, 3).Draw(rt, "raise after"), ClearAfter: rapid.IntRange(0, 3).Draw(rt, "clear after"),
			RaiseFor: rapid.SampledFrom([]time.Duration{0, 0, 3e6}).Draw(rt, "raise for"), ClearFor: rapid.SampledFrom([]time.Duration{0, 0, 3e6}).Draw(rt, "clear for"),
		}
		for i := range n {
			spec.Levels = append(spec.Levels, topology.Level{Severity: names[i], When: expr(fmt.Sprint("w", i)), Clear: expr(fmt.Sprint("c", i))})
		}
		b := open(t, spec)
		h := bolttest.New(t, b)
		type past struct {
			when, clear []bool
			times       []int64
		}
		pasts := make([]past, n)
		severity, number, now, acked := "", int64(0), int64(0), false
		for range rapid.IntRange(0, 60).Draw(rt, "steps") {
			now += rapid.Int64Range(0, 2).Draw(rt, "step")
			want := ""
			var out []tuple.Tuple
			switch rapid.SampledFrom([]string{"", "", "", "", "", "", "", "", "ack", "clear"}).Draw(rt, "what") {
			case "ack":
				out = h.Feed(commanded("a", now, CommandAck))
				if severity != "" && !acked {
					want, acked = fmt.Sprint("ack", now, ":", severity), true
				}
			case "clear":
				out = h.Feed(commanded("a", now, CommandClear))
				if severity != "" {
					want, severity, pasts = fmt.Sprint("clear", now, ":", severity), "", make([]past, n)
				}
			default:
				payload := map[string]bool{}
				for i := range n {
					w, c := rapid.Bool().Draw(rt, "when"), rapid.Bool().Draw(rt, "clear")
					if rapid.IntRange(0, 9).Draw(rt, "absent") == 0 {
						continue
					}
					payload[fmt.Sprint("w", i)], payload[fmt.Sprint("c", i)] = w, c
					p := &pasts[i]
					p.when, p.clear, p.times = append(p.when, w), append(p.clear, c), append(p.times, now)
				}
				raw, _ := json.Marshal(payload)
				out = h.Feed(reading("a", now, string(raw)))
				is := ""
				for i, p := range pasts {
					if held(b.limits, p.when, p.clear, p.times) {
						is = names[i]
					}
				}
				switch {
				case severity == is:
				case severity == "":
					number, acked = number+1, false
					want = fmt.Sprint("raise", now, ":", is)
				case is == "":
					want = fmt.Sprint("clear", now, ":", severity)
				default:
					want = fmt.Sprint("change", now, ":", is, "<", severity)
				}
				severity = is
			}
			all := lives(rt, out)
			if got := said(all); got != want {
				rt.Fatalf("got %q, want %q", got, want)
			}
			for _, l := range all {
				if state := map[bool]string{true: "acknowledged", false: "open"}[acked]; l.Episode.Number != number || l.Event != "clear" && l.Episode.State != state {
					rt.Fatalf("%s in %+v, want number %d, %s", l, l.Episode, number, state)
				}
			}
			if rapid.IntRange(0, 5).Draw(rt, "takeover") == 0 {
				h.Restart()
			}
		}
	})
}

func TestHistoryIsBounded(t *testing.T) {
	h := bolttest.New(t, open(t, topology.Bolt{ID: "hot", Levels: twoLevels()}))
	var all []lived
	for i := range 50 {
		all = append(all, lives(t, h.Feed(reading("a", int64(i), fmt.Sprintf(`{"x":%d}`, 85+i%2*14))))...)
		h.Restart()
	}
	last := all[len(all)-1].Episode
	if len(all) != 50 || last.Version != 50 || last.Omitted != 50-MaxHistory || last.History[0].At != 50-MaxHistory {
		t.Errorf("%d events, the last %+v", len(all), last)
	}
	all = lives(t, h.Feed(reading("a", 50, `{"x":1}`), reading("a", 51, `{"x":99}`)))
	if len(all) != 2 || all[0].Episode.Version != 51 || all[1].Episode.Version != 1 || all[1].Episode.Omitted != 0 {
		t.Errorf("%+v", all)
	}
}

// commanded is a command as it comes out of the log of commands.
func commanded(group string, at int64, what string) tuple.Tuple {
	return tuple.Tuple{Stream: tuple.CommandStream, Key: group, Group: group, Time: at, Payload: fmt.Appendf(nil, `{"command":%q}`, what)}
}

func TestCommands(t *testing.T) {
	h := bolttest.New(t, open(t, topology.Bolt{ID: "hot", Levels: twoLevels()}))
	var all []lived
	feed := func(in tuple.Tuple, refused string) {
		t.Helper()
		h.Letters = nil
		all = append(all, lives(t, h.Feed(in))...)
		h.Restart()
		switch {
		case refused == "" && len(h.Letters) > 0:
			t.Errorf("refused: %s", h.Letters[0].Error)
		case refused != "" && (len(h.Letters) != 1 || h.Letters[0].Tries != 1 || !strings.Contains(h.Letters[0].Error, refused)):
			t.Errorf("letters %+v, want %q", h.Letters, refused)
		}
	}
	with := func(in tuple.Tuple, by, note string) tuple.Tuple {
		in.Payload = fmt.Appendf(nil, `{"by":%q,"note":%q,%s`, by, note, in.Payload[1:])
		return in
	}
	feed(commanded("a", 1, CommandAck), "hot of a: no open episode")
	feed(commanded("a", 1, CommandClear), "no open episode")
	feed(reading("a", 2, `{"x":85}`), "")
	feed(commanded("b", 3, CommandAck), "hot of b: no open episode")
	feed(with(commanded("a", 3, CommandAck), "ann", "on my way"), "")
	feed(with(commanded("a", 4, CommandAck), "bob", ""), "episode 1 has been acknowledged already by ann")
	feed(reading("a", 5, `{"x":99}`), "")
	feed(with(commanded("a", 6, CommandClear), "ann", "sensor replaced"), "")
	feed(commanded("a", 7, CommandAck), "no open episode")
	feed(reading("a", 8, `{"x":85}`), "") // it still holds: the next episode
	feed(commanded("a", 9, "sing"), `a command "sing" is not known`)
	feed(reading("a", 10, `{"x":1}`), "")
	if got := said(all); got != "raise2:warning ack3:warning change5:critical<warning clear6:critical raise8:warning clear10:warning" {
		t.Error(got)
	}
	ack, end, next := all[1], all[3], all[4]
	if ack.By != "ann" || ack.Note != "on my way" || ack.Episode.State != "acknowledged" || ack.Episode.AcknowledgedAt != 3 || ack.Episode.AcknowledgedBy != "ann" {
		t.Errorf("%+v", ack)
	}
	if end.Note != "sensor replaced" || end.Episode.State != "cleared" || end.Episode.AcknowledgedAt != 3 || len(end.Episode.History) != 4 {
		t.Errorf("%+v", end)
	}
	if next.Episode.Number != 2 || next.Episode.AcknowledgedAt != 0 || next.Episode.State != "open" {
		t.Errorf("%+v", next)
	}
}

// A command that comes again, by whatever attempt, does nothing again and says what it said.
func TestCommandOnce(t *testing.T) {
	h := bolttest.New(t, open(t, topology.Bolt{ID: "hot", When: expr("x > 80")}))
	h.Feed(reading("a", 1, `{"x":85}`))
	ack := commanded("a", 2, CommandAck)
	ack.Offset = 50
	ack.ID = tuple.RootID(tuple.Position{Origin: bolttest.Origin, Offset: 50})
	var got []string
	for range 3 {
		got = append(got, payloads(h.Feed(ack))...)
		h.Count++
		h.Restart()
	}
	if len(got) != 3 || got[0] != got[1] || got[1] != got[2] || len(h.Letters) > 0 {
		t.Errorf("%s", got)
	}
}

func TestSeededAlarms(t *testing.T) {
	b := open(t, topology.Bolt{ID: "hot", Levels: twoLevels(), RaiseAfter: 2})
	for _, shown := range []string{
		`{"state":"open","number":3,"severity":"warning","raised_at":5,"readings":2,"levels":[{"held":true},{"held":false,"streak":1,"since":9}]}`,
		`{"state":"clear","number":0,"levels":[{"held":false,"streak":1,"since":9},{"held":false}]}`,
	} {
		values, _, err := b.Seed("a", []byte(shown))
		if err != nil {
			t.Fatal(err)
		}
		again, err := b.Show("a", func(key string) []byte { return values[key] })
		if want := strings.Replace(shown, `"severity":"warning",`, "", 1); err != nil || string(again) != want {
			t.Errorf("%v\n%s, want\n%s", err, again, want)
		}
		h := bolttest.New(t, b)
		seed(t, h.Store, "a", slices.Collect(func(yield func([]byte) bool) {
			for _, v := range values {
				yield(v)
			}
		})[0])
		h.Restart()
		if out := lives(t, h.Feed(reading("a", 20, `{"x":99}`))); len(out) != 1 {
			t.Errorf("%s: %v", shown, out)
		}
	}
}
