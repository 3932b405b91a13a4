package ack

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/boltmesh/boltmesh/pkg/tuple"
)

func frame(n byte) tuple.ID { return tuple.ID{15: n} }

func TestLedger(t *testing.T) {
	at := func(count uint32) tuple.Attempt { return tuple.Attempt{Generation: 7, Count: count} }
	l := New(7, 100, Options{Timeout: 10, Span: 20})
	l.Track(100, 105, at(0), 0xA, 0)
	l.Track(105, 110, at(0), 0xB, 0)
	if l.Room(120) || !l.Room(119) {
		t.Error("the span is counted from the floor")
	}
	if _, done := l.Apply(tuple.Delta{Frame: frame(1), First: 105, Attempt: at(0), XOR: 0xB}, 1); !done {
		t.Error("a zero sum completes the root")
	}
	if l.Floor() != 100 {
		t.Error("the floor stops at the first gap")
	}
	for name, d := range map[string]tuple.Delta{
		"unknown root":       {Frame: frame(2), First: 103, Attempt: at(0), XOR: 0xA},
		"unknown generation": {Frame: frame(2), First: 100, Attempt: tuple.Attempt{Generation: 6}, XOR: 0xA},
		"unknown attempt":    {Frame: frame(2), First: 100, Attempt: at(3), XOR: 0xA},
		"completed root":     {Frame: frame(2), First: 105, Attempt: at(0), XOR: 0xA},
	} {
		if _, done := l.Apply(d, 1); done {
			t.Errorf("%s: applied", name)
		}
	}
	if due := l.Tick(9); len(due) != 0 {
		t.Errorf("overdue before its time: %v", due)
	}
	due := l.Tick(10)
	if len(due) != 1 || due[0].First != 100 || due[0].Attempt != at(1) {
		t.Fatalf("overdue: %v", due)
	}
	l.Track(100, 105, at(1), 0xC, 10)
	l.Apply(tuple.Delta{Frame: frame(3), First: 100, Attempt: at(0), XOR: 0x1}, 11)
	l.Apply(tuple.Delta{Frame: frame(3), First: 100, Attempt: at(0), XOR: 0x1}, 11)
	if _, done := l.Apply(tuple.Delta{Frame: frame(4), First: 100, Attempt: at(0), XOR: 0xB}, 11); !done {
		t.Error("an earlier attempt still completes its root, and a repeated delta changes nothing")
	}
	if l.Floor() != 110 {
		t.Errorf("floor %d, want 110", l.Floor())
	}
	if _, done := l.Track(110, 120, at(0), 0, 12); !done || l.Floor() != 120 {
		t.Error("a root without deliveries completes at once")
	}
}

func TestTimeoutDoublesAndExtends(t *testing.T) {
	l := New(1, 0, Options{Timeout: 10})
	l.Track(0, 1, l.Attempt(), 1, 0)
	l.Track(1, 2, l.Attempt(), 1, 0)
	var at []int64
	for now := int64(1); now < 400; now++ {
		if now < 25 {
			l.Apply(tuple.Delta{First: 1, Attempt: l.Attempt()}, now)
		}
		for _, d := range l.Tick(now) {
			if d.First == 0 {
				at = append(at, now)
			} else if now < 34 {
				t.Errorf("extended root timed out at %d", now)
			}
		}
	}
	want := []int64{10, 30, 70, 150, 310}
	if len(at) != len(want) {
		t.Fatalf("replayed at %v, want %v", at, want)
	}
	for i := range want {
		if at[i] != want[i] {
			t.Fatalf("replayed at %v, want %v", at, want)
		}
	}
}

// TestTimeoutFollowsTheLatency: trees that take longer than the timeout make it longer, soon; quick ones make it shorter again, slowly.
func TestTimeoutFollowsTheLatency(t *testing.T) {
	l := New(1, 0, Options{Timeout: 1000})
	now, first := int64(0), int64(0)
	patience := l.timeout
	take := func(ms int64) {
		l.Track(first, first+1, l.Attempt(), 1, now)
		now += ms
		l.Apply(tuple.Delta{Frame: frame(1), First: first, Attempt: l.Attempt(), XOR: 1}, now)
		first++
	}
	take(400)
	if got := patience(); got != 1000 {
		t.Errorf("after 400 ms: %d ms, want the least", got)
	}
	take(3000)
	if got := patience(); got != 6000 {
		t.Errorf("after 3 s: %d ms, want 6 s", got)
	}
	take(2000)
	if got := patience(); got >= 6000 || got < 5000 {
		t.Errorf("after 2 s: %d ms, want a little less than 6 s", got)
	}
	for range 100 {
		take(10)
	}
	if got := patience(); got != 1000 {
		t.Errorf("after 100 quick ones: %d ms, want the least", got)
	}
	take(1_000_000)
	if got := patience(); got != 8000 {
		t.Errorf("after one of 1,000 s: %d ms, want the most", got)
	}
}

// TestAgainstTwin drives the ledger and a twin that keeps explicit sets of deliveries, with deltas lost, repeated and reordered.
func TestAgainstTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type delivery struct {
			first int64
			count uint32
			id    uint64
		}
		const gen = 3
		l := New(gen, 0, Options{Timeout: 5})
		out := map[int64]map[uint32]map[uint64]bool{} // root -> attempt -> outstanding deliveries
		done := map[int64]bool{}
		next, now, ids, frames := int64(0), int64(0), uint64(1), byte(0)
		var inFlight []delivery
		var sent []tuple.Delta
		emit := func(first int64, count uint32, n int) (xor uint64) {
			for range n {
				ids = ids*6364136223846793005 + 1442695040888963407
				xor ^= ids
				out[first][count][ids] = true
				inFlight = append(inFlight, delivery{first, count, ids})
			}
			return xor
		}
		finish := func(first int64, ok bool) {
			if ok {
				done[first] = true
			}
		}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now++
			switch rapid.IntRange(0, 4).Draw(t, "do") {
			case 0:
				out[next] = map[uint32]map[uint64]bool{0: {}}
				xor := emit(next, 0, rapid.IntRange(0, 3).Draw(t, "fan-out"))
				_, ok := l.Track(next, next+1, l.Attempt(), xor, now)
				finish(next, ok)
				next++
			case 1, 2:
				if len(inFlight) == 0 || frames == 255 {
					continue
				}
				i := rapid.IntRange(0, len(inFlight)-1).Draw(t, "handle")
				d := inFlight[i]
				inFlight = append(inFlight[:i:i], inFlight[i+1:]...)
				frames++
				x := tuple.Delta{Frame: frame(frames), First: d.first, Attempt: tuple.Attempt{Generation: gen, Count: d.count}}
				x.XOR = d.id ^ emit(d.first, d.count, rapid.IntRange(0, 2).Draw(t, "children"))
				if rapid.IntRange(0, 5).Draw(t, "lost") == 0 {
					continue
				}
				delete(out[d.first][d.count], d.id)
				_, ok := l.Apply(x, now)
				finish(d.first, ok)
				sent = append(sent, x)
			case 3:
				if len(sent) > 0 {
					_, ok := l.Apply(sent[rapid.IntRange(0, len(sent)-1).Draw(t, "repeat")], now)
					if ok {
						t.Fatal("a repeated delta completed a root")
					}
				}
			case 4:
				now += 5
				for _, d := range l.Tick(now) {
					out[d.First][d.Attempt.Count] = map[uint64]bool{}
					_, ok := l.Track(d.First, d.Next, d.Attempt, emit(d.First, d.Attempt.Count, 1), now)
					finish(d.First, ok)
				}
			}
			floor := int64(0)
			for first := range next {
				zero := false
				for _, deliveries := range out[first] {
					zero = zero || len(deliveries) == 0
				}
				if zero != done[first] {
					t.Fatalf("root %d: twin says complete=%v, ledger %v\n%s", first, zero, done[first], l.Describe())
				}
				if zero && floor == first {
					floor = first + 1
				}
			}
			if l.Floor() != floor {
				t.Fatalf("floor %d, twin %d\n%s", l.Floor(), floor, l.Describe())
			}
		}
	})
}

func BenchmarkApply(b *testing.B) {
	l := New(1, 0, Options{})
	for i := 0; b.Loop(); i++ {
		l.Track(int64(i), int64(i+1), l.Attempt(), 3, 0)
		l.Apply(tuple.Delta{Frame: frame(1), First: int64(i), Attempt: l.Attempt(), XOR: 1}, 0)
		l.Apply(tuple.Delta{Frame: frame(2), First: int64(i), Attempt: l.Attempt(), XOR: 2}, 0)
	}
}
