package rule

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// With after: 100s there is a tick every 10 s.
func TestEscalate(t *testing.T) {
	simple := topology.Bolt{When: expr("x > 80"), Severity: "minor", Escalate: &topology.Escalate{After: 100 * time.Second, To: "critical"}}
	levels := topology.Bolt{Levels: twoLevels(), Escalate: &topology.Escalate{After: 100 * time.Second, To: "critical"}}
	above := topology.Bolt{Levels: twoLevels(), Escalate: &topology.Escalate{After: 100 * time.Second, To: "disaster"}}
	silent := topology.Bolt{When: expr("x > 80"), Severity: "minor", NoData: 200 * time.Second, Escalate: &topology.Escalate{After: 100 * time.Second, To: "critical"}}
	for _, tt := range []struct {
		name  string
		spec  topology.Bolt
		doing map[int64]string // at a second, after its tick: a value of x, or a command
		until int64
		want  string
	}{
		{"nobody acknowledges", simple, map[int64]string{5: "99", 500: "1"}, 600, "raise5:minor escalate1110000:critical<minor clear500:critical"},
		{"acknowledged in time", simple, map[int64]string{5: "99", 100: CommandAck, 500: "1"}, 600, "raise5:minor ack100:minor clear500:minor"},
		{"acknowledged too late", simple, map[int64]string{5: "99", 200: CommandAck, 500: "1"}, 600, "raise5:minor escalate1110000:critical<minor ack200:critical clear500:critical"},
		{"cleared in time", simple, map[int64]string{5: "99", 100: "1"}, 600, "raise5:minor clear100:minor"},
		{"each episode by itself", simple, map[int64]string{5: "99", 100: "1", 101: "99"}, 230, "raise5:minor clear100:minor raise101:minor escalate1210000:critical<minor"},
		{"falls no lower", levels, map[int64]string{5: "85", 200: "96", 210: "85", 220: "1", 221: "85"}, 300, "raise5:warning escalate1110000:critical<warning clear220:critical raise221:warning"},
		{"is there already", levels, map[int64]string{5: "96", 200: "85", 210: "1"}, 300, "raise5:critical clear210:critical"},
		{"above all levels", above, map[int64]string{5: "96", 200: "85", 210: "1"}, 300, "raise5:critical escalate1110000:disaster<critical clear210:disaster"},
		{"raised by silence", silent, map[int64]string{5: "1", 400: "1"}, 450, "raise1210000:minor escalate1320000:critical<minor clear400:critical"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.spec.ID, tt.spec.Kind = "hot", topology.KindAlarm
			b := open(t, tt.spec)
			h := &clockwork{Harness: bolttest.New(t, b)}
			var out []tuple.Tuple
			for s := range tt.until {
				if s%10 == 0 {
					out = append(out, h.tick(1000+s)...)
				}
				switch do := tt.doing[s]; {
				case do == CommandAck:
					out = append(out, h.Feed(commanded("a", s, do))...)
				case do != "":
					out = append(out, h.Feed(reading("a", s, `{"x":`+do+`}`))...)
				}
			}
			if got := said(lives(t, out)); got != tt.want {
				t.Errorf("got %s\nwant %s", got, tt.want)
			}
			if len(h.Letters) > 0 {
				t.Error(h.Letters[0].Error)
			}
		})
	}
}

// Whatever comes when, and however often the owner changes: an episode is escalated once, never before its time, at most two periods after it while the
// owner stays, and never when it was acknowledged.
func TestEscalateEqualsTheTwin(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const after, every = 20_000, 2_000
		spec := topology.Bolt{ID: "hot", Kind: topology.KindAlarm, When: expr("x > 80"), Severity: "minor", Escalate: &topology.Escalate{After: after * time.Millisecond, To: "critical"}}
		if rapid.Bool().Draw(rt, "no_data too") {
			spec.NoData = time.Hour // it shares the agenda
		}
		b := open(t, spec)
		if spec.NoData > 0 && b.clock.every != every {
			rt.Fatalf("ticks every %d ms", b.clock.every)
		}
		h := &clockwork{Harness: bolttest.New(t, b)}
		type alarm struct{ raised, acked, escalated int64 }
		open := map[string]*alarm{}
		now, owner := int64(1_000_000), int64(0)
		h.tick(now / 1000)
		for range rapid.IntRange(1, 80).Draw(rt, "steps") {
			now += 1000
			for _, d := range []string{"a", "b"} {
				switch rapid.IntRange(0, 20).Draw(rt, d) {
				case 0:
					x := 99
					if open[d] != nil {
						x = 1
					}
					if out := lives(rt, h.Feed(reading(d, now, fmt.Sprintf(`{"x":%d}`, x)))); len(out) != 1 {
						rt.Fatalf("%v", out)
					}
					if open[d] == nil {
						open[d] = &alarm{raised: now}
					} else {
						delete(open, d)
					}
				case 1:
					if a := open[d]; a != nil && a.acked == 0 {
						h.Feed(commanded(d, now, CommandAck))
						a.acked = now
					}
				}
			}
			if rapid.IntRange(0, 30).Draw(rt, "takeover") == 0 {
				h.takeover(b)
				owner = now
			}
			if now%every != 0 {
				continue
			}
			for _, l := range lives(rt, h.tick(now/1000)) {
				a := open[l.Group]
				if a == nil || l.Event != "escalate" || a.acked+a.escalated > 0 || now-a.raised < after {
					rt.Fatalf("%s of %s at %d, while it is %+v", l, l.Group, now, a)
				}
				a.escalated = now
			}
			for d, a := range open {
				if a.acked+a.escalated == 0 && now-max(a.raised, owner) > after+2*every {
					rt.Fatalf("%s not escalated at %d: %+v", d, now, *a)
				}
			}
		}
		if len(h.Letters) > 0 {
			rt.Fatal(h.Letters[0].Error)
		}
	})
}

// An alarm whose topology asks for escalation only now escalates what is open, counted from the next reading.
func TestEscalateOfAnOpenEpisode(t *testing.T) {
	h := bolttest.New(t, open(t, topology.Bolt{ID: "hot", When: expr("x > 80")}))
	h.Feed(reading("a", 1, `{"x":99}`))
	spec := topology.Bolt{ID: "hot", Kind: topology.KindAlarm, When: expr("x > 80"), Escalate: &topology.Escalate{After: 100 * time.Second, To: "critical"}}
	now := &clockwork{Harness: bolttest.New(t, open(t, spec))}
	now.Store = h.Store
	now.Restart()
	now.tick(1000)
	r := reading("a", 2, `{"x":99}`)
	r.Offset, r.ID = 100, tuple.RootID(tuple.Position{Origin: bolttest.Origin, Offset: 100})
	now.Feed(r)
	var out []tuple.Tuple
	for s := int64(1010); s < 1200; s += 10 {
		out = append(out, now.tick(s)...)
	}
	if got := said(lives(t, out)); !strings.HasPrefix(got, "escalate1110000:critical") {
		t.Error(got)
	}
}

// flapTwin computes from all raises before, by their event times, what the last is: whether it flaps and is muted.
func flapTwin(f Flapping, raises []int64) (flapping, muted bool) {
	since := 0 // raises that count: from the first after a calm that ended the flapping
	for i := range raises {
		if flapping && raises[i]-raises[i-1] >= f.Calm {
			flapping, since = false, i
		}
		muted = flapping
		if n := i - f.Raises + 1; n >= since && raises[i]-raises[n] <= f.Within {
			flapping = true
		}
	}
	return flapping, muted
}

func TestFlapping(t *testing.T) {
	// Five raises within an hour make it flap; the fifth says so and is notified, those after it are not.
	h := bolttest.New(t, open(t, topology.Bolt{ID: "hot", When: expr("x > 80"), Flapping: &topology.Flapping{Raises: 5, Within: time.Hour, Calm: time.Hour}}))
	var got []string
	for _, minute := range []int64{0, 10, 20, 30, 61, 62, 70, 75, 130, 200, 210} { // a raise at each
		for _, l := range lives(t, h.Feed(reading("a", minute*60_000, `{"x":99}`), reading("a", minute*60_000+1, `{"x":1}`))) {
			if l.Event == "raise" {
				got = append(got, fmt.Sprint(minute, map[bool]string{true: " flapping", false: ""}[l.Flapping], map[bool]string{true: "", false: " muted"}[l.Notify]))
			} else if l.Notify != !strings.HasSuffix(got[len(got)-1], "muted") {
				t.Errorf("%v, and its clear is notified: %v", got, l.Notify)
			}
		}
		h.Restart()
	}
	if s := strings.Join(got, ", "); s != "0, 10, 20, 30, 61, 62 flapping, 70 flapping muted, 75 flapping muted, 130 flapping muted, 200, 210" {
		t.Error(s)
	}
	rapid.Check(t, func(rt *rapid.T) {
		f := Flapping{Raises: rapid.IntRange(2, 5).Draw(rt, "raises"), Within: rapid.Int64Range(1, 20).Draw(rt, "within"), Calm: rapid.Int64Range(1, 20).Draw(rt, "calm")}
		suppress := rapid.SampledFrom([]int64{0, 0, 7}).Draw(rt, "suppress")
		var e Episode
		var raises []int64
		now, notified := int64(0), int64(-100)
		for range rapid.IntRange(0, 40).Draw(rt, "n") {
			now += rapid.Int64Range(0, 8).Draw(rt, "step")
			l := Limits{Flapping: f, Suppress: suppress}
			e.Step(&l, []Answer{For}, now)
			raises = append(raises, now)
			flapping, muted := flapTwin(f, raises)
			want := !muted && (suppress == 0 || now-notified >= suppress)
			if want {
				notified = now
			}
			if e.Flapping != flapping || e.Notify != want || len(e.Recent) > f.Raises {
				rt.Fatalf("raises %v: flapping %v, notified %v, want %v, %v", raises, e.Flapping, e.Notify, flapping, want)
			}
			e.Step(&l, []Answer{For}, now)
		}
	})
}

// What is neither due nor waited for is not visited: an alarm with escalation only looks at groups with an open episode.
func TestEscalateVisitsFew(t *testing.T) {
	spec := topology.Bolt{ID: "hot", Kind: topology.KindAlarm, When: expr("x > 80"), Escalate: &topology.Escalate{After: 100 * time.Second, To: "critical"}}
	counting := &visits{Bolt: open(t, spec)}
	h := &clockwork{Harness: bolttest.New(t, counting)}
	for s := int64(0); s < 1000; s += 10 {
		h.tick(5000 + s)
		for d := range 100 {
			x := 1
			if d == 7 {
				x = 99
			}
			h.Feed(reading(fmt.Sprint("d", d), s, fmt.Sprintf(`{"x":%d}`, x)))
		}
	}
	if counting.n != 1 {
		t.Errorf("%d visits", counting.n)
	}
	if _, ok := open(t, topology.Bolt{ID: "hot", When: expr("x > 80")}).Due(bolt.Tick{Time: 5}); ok {
		t.Error("an alarm that waits for nothing wants ticks")
	}
}
