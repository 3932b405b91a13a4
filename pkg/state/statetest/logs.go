package statetest

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/state"
)

// logTest is a topology whose logs are under test, with the calls that must succeed.
type logTest struct {
	*testing.T
	logs     state.Logs
	topology string
}

func (t *logTest) raise(log string) uint32 {
	t.Helper()
	g, err := t.logs.Raise(background, t.topology, log)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func (t *logTest) append(log string, generation uint32, at int64, entry string) {
	t.Helper()
	if err := t.logs.Append(background, t.topology, log, generation, at, []byte(entry)); err != nil {
		t.Fatal(err)
	}
}

func (t *logTest) refused(reason error, log string, generation uint32, at int64) {
	t.Helper()
	if err := t.logs.Append(background, t.topology, log, generation, at, []byte("refused")); !errors.Is(err, reason) {
		t.Errorf("append at %d in generation %d: %v, want %v", at, generation, err, reason)
	}
}

func (t *logTest) once(log, once, entry string, at int64, added bool) {
	t.Helper()
	gotAt, gotAdded, err := t.logs.AppendOnce(background, t.topology, log, once, []byte(entry))
	if err != nil {
		t.Fatal(err)
	}
	if gotAt != at || gotAdded != added {
		t.Errorf("append %q once: at %d, added %t, want %d, %t", once, gotAt, gotAdded, at, added)
	}
}

// holds checks everything that Read says from one index.
func (t *logTest) holds(log string, from int64, limit int, length, floor int64, entries ...string) {
	t.Helper()
	got, gotLength, gotFloor, err := t.logs.Read(background, t.topology, log, from, limit)
	if err != nil {
		t.Fatal(err)
	}
	var expect [][]byte
	for _, e := range entries {
		expect = append(expect, []byte(e))
	}
	want(t, fmt.Sprintf("entries from %d", from), expect, got)
	if gotLength != length || gotFloor != floor {
		t.Errorf("length %d, floor %d, want %d, %d", gotLength, gotFloor, length, floor)
	}
}

func (t *logTest) floor(log string, generation uint32, floor int64) {
	t.Helper()
	if err := t.logs.SetFloor(background, t.topology, log, generation, floor); err != nil {
		t.Fatal(err)
	}
}

func testAppend(t *logTest) {
	const tick = "tick/with {odd} *characters"
	t.holds(tick, 0, 10, 0, 0)
	t.refused(state.ErrFenced, tick, 0, 0)
	t.refused(state.ErrFenced, tick, 1, 0)
	want(t, "first generation", uint32(1), t.raise(tick))
	t.append(tick, 1, 0, "zero")
	t.append(tick, 1, 1, "")
	t.refused(state.ErrConflict, tick, 1, 1)
	t.refused(state.ErrConflict, tick, 1, 3)
	t.refused(state.ErrConflict, tick, 1, -1)
	want(t, "second generation", uint32(2), t.raise(tick))
	t.refused(state.ErrFenced, tick, 1, 2)
	t.refused(state.ErrFenced, tick, 1, 0) // the fence is told before the conflict
	t.append(tick, 2, 2, "two\x00\xff")
	big := string(bytes.Repeat([]byte("x"), 1<<20))
	t.append(tick, 2, 3, big)
	t.holds(tick, 0, 10, 4, 0, "zero", "", "two\x00\xff", big)
	t.holds(tick, 1, 2, 4, 0, "", "two\x00\xff")
	t.holds(tick, 4, 2, 4, 0)
	t.holds(tick, 9, 2, 4, 0)
	t.holds(tick, 0, 0, 4, 0)
	t.holds("another", 0, 10, 0, 0)
	want(t, "generation of another log", uint32(1), t.raise("another"))
}

func testAppendOnce(t *logTest) {
	t.once("calls", "a", "first", 0, true)
	t.once("calls", "a", "again", 0, false)
	t.once("calls", "b\x00", "second", 1, true)
	t.once("other", "a", "first", 0, true)
	g := t.raise("calls")
	t.append("calls", g, 2, "by length")
	t.once("calls", "", "no name is a name", 3, true)
	t.holds("calls", 0, 10, 4, 0, "first", "second", "by length", "no name is a name")
	t.floor("calls", g, 4)
	t.once("calls", "a", "after trimming", 0, false)
	t.once("calls", "c", "fifth", 4, true)
	t.holds("calls", 0, 10, 5, 4, "fifth")
}

func testConcurrentAppendOnce(t *logTest) {
	const names, callers = 20, 4
	var wg sync.WaitGroup
	at := make([][names]int64, callers)
	added := make([]int, callers)
	for c := range callers {
		wg.Go(func() {
			for n := range names {
				i, isNew, err := t.logs.AppendOnce(background, t.topology, "letters", fmt.Sprint(n), fmt.Append(nil, n))
				if err != nil {
					t.Error(err)
				}
				if isNew {
					added[c]++
				}
				at[c][n] = i
			}
		})
	}
	wg.Wait()
	total := 0
	for c := range callers {
		total += added[c]
		want(t, "indexes of all callers", at[0], at[c])
	}
	want(t, "entries added", names, total)
	entries, length, _, err := t.logs.Read(background, t.topology, "letters", 0, 100)
	if err != nil || length != names {
		t.Fatalf("length %d (%v), want %d", length, err, names)
	}
	for n, i := range at[0] {
		want(t, "entry", fmt.Sprint(n), string(entries[i]))
	}
}

// testForget: names are forgotten by the index of their entries, and no others.
func testForget(t *logTest) {
	forget := func(log string, below int64) {
		t.Helper()
		if err := t.logs.Forget(background, t.topology, log, below); err != nil {
			t.Fatal(err)
		}
	}
	forget("calls", 3) // there is no such log
	const n = 2500
	for i := range int64(n) {
		t.once("calls", fmt.Sprint(i), fmt.Sprint(i), i, true)
	}
	t.once("other", "0", "0", 0, true)
	t.floor("calls", t.raise("calls"), n-1)
	forget("calls", n-2)
	t.holds("calls", 0, 10, n, n-1, fmt.Sprint(n-1))
	t.once("calls", fmt.Sprint(n-2), "again", n-2, false)
	t.once("calls", fmt.Sprint(n-1), "again", n-1, false)
	t.once("other", "0", "again", 0, false)
	t.once("calls", "0", "anew", n, true)
	t.once("calls", "0", "again", n, false)
	forget("calls", 5) // lower than before
	t.once("calls", "0", "again", n, false)
	t.once("calls", fmt.Sprint(n-3), "anew", n+1, true)
	forget("calls", n+1)
	t.once("calls", "0", "anew once more", n+2, true)
	t.once("calls", fmt.Sprint(n-3), "again", n+1, false)
}

func testLogFloor(t *logTest) {
	g := t.raise("tick")
	for i := range 5 {
		t.append("tick", g, int64(i), fmt.Sprint(i))
	}
	t.floor("tick", g, 2)
	t.holds("tick", 0, 10, 5, 2, "2", "3", "4")
	t.holds("tick", 0, 1, 5, 2, "2")
	t.holds("tick", 3, 10, 5, 2, "3", "4")
	t.floor("tick", g, 1) // lower: changes nothing
	t.holds("tick", 0, 10, 5, 2, "2", "3", "4")
	if err := t.logs.SetFloor(background, t.topology, "tick", g, 6); !errors.Is(err, state.ErrConflict) {
		t.Errorf("floor beyond the length: %v, want ErrConflict", err)
	}
	next := t.raise("tick")
	for _, stale := range []uint32{0, g, next + 1} {
		if err := t.logs.SetFloor(background, t.topology, "tick", stale, 4); !errors.Is(err, state.ErrFenced) {
			t.Errorf("floor in generation %d: %v, want ErrFenced", stale, err)
		}
	}
	t.floor("tick", next, 5)
	t.holds("tick", 0, 10, 5, 5)
	t.refused(state.ErrConflict, "tick", next, 0) // indexes are not used again
	t.append("tick", next, 5, "5")
	t.holds("tick", 0, 10, 6, 5, "5")
}

// testAdvance: the floor of a log whose entries are elsewhere.
func testAdvance(t *logTest) {
	const log = "kafka/readings/0/"
	advance := func(generation uint32, floor int64, reason error) {
		t.Helper()
		if err := t.logs.Advance(background, t.topology, log, generation, floor); !errors.Is(err, reason) {
			t.Errorf("advance to %d in generation %d: %v, want %v", floor, generation, err, reason)
		}
	}
	advance(0, 5, state.ErrFenced)
	advance(1, 5, state.ErrFenced)
	g := t.raise(log)
	advance(g, 1<<40, nil)
	t.holds(log, 0, 10, 1<<40, 1<<40)
	advance(g, 7, nil) // lower: changes nothing
	t.holds(log, 0, 10, 1<<40, 1<<40)
	t.append(log, g, 1<<40, "an entry")
	t.holds(log, 0, 10, 1<<40+1, 1<<40, "an entry")
	next := t.raise(log)
	advance(g, 1<<41, state.ErrFenced)
	t.holds(log, 0, 10, 1<<40+1, 1<<40, "an entry")
	advance(next, 1<<41, nil)
	t.holds(log, 0, 10, 1<<41, 1<<41)
}

func testDropLogs(t *logTest) {
	other := &logTest{t.T, t.logs, t.topology + "x"}
	for _, l := range []*logTest{t, other} {
		g := l.raise("tick")
		l.append("tick", g, 0, "zero")
		l.once("calls", "a", "first", 0, true)
	}
	if err := t.logs.DropLogs(background, t.topology); err != nil {
		t.Fatal(err)
	}
	t.holds("tick", 0, 10, 0, 0)
	t.holds("calls", 0, 10, 0, 0)
	t.refused(state.ErrFenced, "tick", 1, 0)
	if g := t.raise("tick"); g <= 1 {
		t.Errorf("generation %d after the drop: an owner from before passes for one after", g)
	}
	t.once("calls", "a", "anew", 0, true)
	other.holds("tick", 0, 10, 1, 0, "zero")
	other.holds("calls", 0, 10, 1, 0, "first")
	if err := t.logs.DropLogs(background, t.topology+"-unknown"); err != nil {
		t.Error(err)
	}
}
