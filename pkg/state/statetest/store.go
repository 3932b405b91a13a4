package statetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

func testUnknownTask(t *storeTest) {
	want(t, "values", [][]byte{nil, nil}, t.load("a", "b"))
	want(t, "no values", [][]byte{}, t.load())
	want(t, "head", state.Head{}, t.head())
	want(t, "outputs", [][]byte(nil), t.outputs(id(1)))
	want(t, "agenda", []state.Due(nil), t.due(1<<50, "", 10))
	t.fenced(0, state.Batch{Set: set("a", "1")})
	t.fenced(1, state.Batch{Set: set("a", "1")})
	want(t, "first epoch", uint64(1), t.claim())
	want(t, "values", [][]byte{nil}, t.load("a"))
}

func testValues(t *storeTest) {
	epoch := t.claim()
	big := bytes.Repeat([]byte("0123456789abcdef\x00\xff"), 64<<10) // more than a megabyte
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	keys := []string{"plain", "", "with space", "nul\x00byte", "nul\x00", "nul", "\xff\xfe not utf-8", "ключ", "{braces}", "*?[x]", string(all), strings.Repeat("k", 1024)}
	values := [][]byte{[]byte("v"), {}, {0}, []byte("nul\x00byte"), []byte("1"), []byte("2"), all, []byte("знач"), []byte("3"), []byte("4"), []byte("5"), big}
	var b state.Batch
	for i := range keys {
		b.Set = append(b.Set, state.Entry{Key: keys[i], Value: values[i]})
	}
	b.Set = append(b.Set, state.Entry{Key: "nil", Value: nil})
	t.commit(epoch, b)
	want(t, "values", append(slices.Clone(values), []byte{}, nil), t.load(append(slices.Clone(keys), "nil", "absent")...))
	want(t, "a key asked for twice", [][]byte{[]byte("v"), nil, []byte("v")}, t.load("plain", "absent", "plain"))
	t.commit(epoch, state.Batch{Set: set("plain", "new"), Delete: []string{"nul\x00", "absent"}})
	want(t, "changed values", [][]byte{[]byte("new"), nil, []byte("2")}, t.load("plain", "nul\x00", "nul"))
	t.commit(epoch, state.Batch{})
	many := make([]string, 3000)
	for i := range many {
		many[i] = fmt.Sprint("none", i)
	}
	want(t, "absent values", make([][]byte, len(many)), t.load(many...))
}

func testOrderOfParts(t *storeTest) {
	epoch := t.claim()
	t.commit(epoch, state.Batch{
		Set: set("a", "1", "a", "2", "b", "1"), Delete: []string{"b"},
		Agenda: []state.Due{{Key: "a", At: 1}, {Key: "a", At: 2}, {Key: "b", At: 1}}, Strike: []string{"b"},
	})
	want(t, "values", [][]byte{[]byte("2"), nil}, t.load("a", "b"))
	want(t, "head", state.Head{}, t.head())
	want(t, "agenda", []state.Due{{Key: "a", At: 2}}, t.due(10, "", 10))
}

func testFence(t *storeTest) {
	old := t.claim()
	t.commit(old, state.Batch{Set: set("a", "old"), Floors: map[tuple.Origin]int64{1: 5}, Agenda: []state.Due{{Key: "k", At: 1}}})
	current := t.claim()
	if current <= old {
		t.Fatalf("epoch %d after %d", current, old)
	}
	before := t.head()
	everything := state.Batch{
		Set: set("a", "zombie", "b", "zombie"), Delete: []string{"a"}, Floors: map[tuple.Origin]int64{1: 9, 2: 9},
		Apply:  []state.Record{{ID: id(1), Applied: state.Applied{Slices: 1}, Outputs: []byte("x")}, {ID: id(2)}},
		Agenda: []state.Due{{Key: "k", At: 2}}, Strike: []string{"k"},
	}
	for _, epoch := range []uint64{0, old, current + 1} {
		t.fenced(epoch, everything)
	}
	t.fenced(old, state.Batch{}) // even when there is nothing to write
	want(t, "values", [][]byte{[]byte("old"), nil}, t.load("a", "b"))
	want(t, "head", before, t.head())
	want(t, "agenda", []state.Due{{Key: "k", At: 1}}, t.due(10, "", 10))
	t.commit(current, everything)
}

func testConcurrentClaims(t *storeTest) {
	const owners, claims = 8, 10
	epochs := make(chan uint64, owners*claims)
	var wg sync.WaitGroup
	for range owners {
		wg.Go(func() {
			for range claims {
				e, err := t.store.Claim(background, t.task)
				if err != nil {
					t.Error(err)
				}
				epochs <- e
			}
		})
	}
	wg.Wait()
	close(epochs)
	seen := map[uint64]bool{}
	for e := range epochs {
		if seen[e] || e < 1 || e > owners*claims {
			t.Errorf("epoch %d twice or out of range", e)
		}
		seen[e] = true
	}
}

// testLostUpdate has owners that drive each other out while all of them count in one value.
func testLostUpdate(t *storeTest) {
	const owners, increments = 4, 10
	var wg sync.WaitGroup
	for range owners {
		wg.Go(func() {
			for done := 0; done < increments; {
				if err := increment(t.store, t.task); err == nil {
					done++
				} else if !errors.Is(err, state.ErrFenced) {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got := len(t.load("n")[0]); got != owners*increments {
		t.Errorf("%d increments stored of %d", got, owners*increments)
	}
}

func increment(s state.Store, task state.Task) error {
	epoch, err := s.Claim(background, task)
	if err != nil {
		return err
	}
	values, err := s.Load(background, task, []string{"n"})
	if err != nil {
		return err
	}
	return s.Commit(background, task, epoch, &state.Batch{Set: []state.Entry{{Key: "n", Value: append(values[0], '.')}}})
}

func testManyTasks(t *storeTest) {
	const tasks, commits = 8, 20
	var wg sync.WaitGroup
	for i := range int32(tasks) {
		wg.Go(func() {
			task := t.task
			task.Index = i
			epoch, err := t.store.Claim(background, task)
			if err != nil {
				t.Error(err)
				return
			}
			for n := range commits {
				b := state.Batch{Set: set("n", fmt.Sprint(n)), Apply: []state.Record{{ID: id(n)}}}
				if err := t.store.Commit(background, task, epoch, &b); err != nil {
					t.Error(err)
				}
				// A zombie's commit may share a transaction with the others: it must fail alone.
				if err := t.store.Commit(background, task, epoch-1, &b); !errors.Is(err, state.ErrFenced) {
					t.Errorf("stale commit: %v, want ErrFenced", err)
				}
			}
		})
	}
	wg.Wait()
	for i := range int32(tasks) {
		t.task.Index = i
		want(t, "value", [][]byte{[]byte(fmt.Sprint(commits - 1))}, t.load("n"))
		want(t, "applied", commits, len(t.head().Applied))
	}
}

func testFloors(t *storeTest) {
	epoch := t.claim()
	const far = tuple.Origin(1<<64 - 1)
	t.commit(epoch, state.Batch{Floors: map[tuple.Origin]int64{1: 10, far: 0}})
	t.commit(epoch, state.Batch{Floors: map[tuple.Origin]int64{1: 9, far: 1 << 40}})
	want(t, "floors", map[tuple.Origin]int64{1: 10, far: 1 << 40}, t.head().Floors)
	t.commit(epoch, state.Batch{Floors: map[tuple.Origin]int64{1: 11, 2: -1}})
	want(t, "floors", map[tuple.Origin]int64{1: 11, 2: -1, far: 1 << 40}, t.head().Floors)
}

func testApplied(t *storeTest) {
	epoch := t.claim()
	a := state.Applied{Position: tuple.Position{Origin: 1<<64 - 1, Offset: 1 << 45}}
	tick := state.Applied{Position: tuple.Position{Origin: 2, Offset: 3}, Slices: 1, Unfinished: true, Cursor: "device\x00\xff"}
	t.commit(epoch, state.Batch{Apply: []state.Record{
		{ID: id(1), Applied: a},
		{ID: id(2), Applied: tick, Outputs: []byte("slice 0")},
	}})
	want(t, "applied", map[tuple.ID]state.Applied{id(1): a, id(2): tick}, t.head().Applied)
	want(t, "outputs of one that emitted nothing", [][]byte(nil), t.outputs(id(1)))
	want(t, "outputs", [][]byte{[]byte("slice 0")}, t.outputs(id(2)))

	tick.Cursor = "later" // a slice that emitted nothing
	t.commit(epoch, state.Batch{Apply: []state.Record{{ID: id(2), Applied: tick}}})
	want(t, "outputs", [][]byte{[]byte("slice 0")}, t.outputs(id(2)))
	outputs := [][]byte{[]byte("slice 0")}
	for n := 1; n < 12; n++ { // enough for an order by text to be wrong
		tick.Slices = n + 1
		o := fmt.Appendf(nil, "slice %d", n)
		outputs = append(outputs, o)
		t.commit(epoch, state.Batch{Apply: []state.Record{{ID: id(2), Applied: tick, Outputs: o}}})
	}
	tick.Unfinished, tick.Cursor = false, ""
	t.commit(epoch, state.Batch{Apply: []state.Record{{ID: id(2), Applied: tick}}})
	want(t, "outputs", outputs, t.outputs(id(2)))
	want(t, "applied", tick, t.head().Applied[id(2)])
}

// applied is a record of origin o: nothing but its position, or the last of some slices.
func applied(o tuple.Origin, offset int64, slices int) state.Record {
	p := tuple.Position{Origin: o, Offset: offset}
	r := state.Record{ID: tuple.RootID(p), Applied: state.Applied{Position: p, Slices: slices}}
	if slices > 0 {
		r.Outputs = fmt.Append(nil, offset, " ", slices)
	}
	return r
}

// expect checks that the head shows exactly these records.
func (t *storeTest) expect(records ...state.Record) {
	t.Helper()
	all := map[tuple.ID]state.Applied{}
	for _, r := range records {
		all[r.ID] = r.Applied
	}
	want(t, "applied", all, t.head().Applied)
}

// testForgotten raises floors to before, amid and behind what single commits have applied.
func testForgotten(t *storeTest) {
	epoch := t.claim()
	floor := func(o tuple.Origin, f int64) { t.commit(epoch, state.Batch{Floors: map[tuple.Origin]int64{o: f}}) }
	const far = tuple.Origin(1<<64 - 1)
	first := []state.Record{applied(1, 0, 0), applied(far, 1, 0), applied(1, 7, 0), applied(1, 3, 1), applied(far, 1<<45, 0), applied(1, 5, 0), applied(1, 8, 1)}
	t.commit(epoch, state.Batch{Apply: first, Floors: map[tuple.Origin]int64{1: 0}})
	t.commit(epoch, state.Batch{Apply: []state.Record{applied(1, 3, 2)}})
	first[3] = applied(1, 3, 2)
	t.expect(first...)
	floor(1, 3)
	t.expect(first[1:]...)
	want(t, "outputs", [][]byte{[]byte("3 1"), []byte("3 2")}, t.outputs(first[3].ID))

	floor(1, 6) // amid the ids of the first commit
	left := []state.Record{first[1], first[2], first[4], first[6]}
	t.expect(left...)
	floor(1, 2) // lower: nothing comes back
	t.expect(left...)
	want(t, "outputs of one that is forgotten", [][]byte(nil), t.outputs(first[3].ID))
	want(t, "outputs of one that stays", [][]byte{[]byte("8 1")}, t.outputs(first[6].ID))

	// A second commit whose greatest position is that of the first, and ids of one position.
	second := applied(1, 7, 0)
	second.ID = id(7)
	t.commit(epoch, state.Batch{Apply: []state.Record{second}})
	left = append(left, second)
	t.expect(left...)
	t.commit(epoch, state.Batch{Apply: []state.Record{second}}) // once more, as after an unknown outcome
	t.expect(left...)

	floor(1, 9)
	floor(2, 1<<50) // of which nothing was applied
	t.expect(first[1], first[4])
	floor(far, 1<<45)
	t.expect(first[4])
	t.claim()
	t.expect(first[4])
	want(t, "outputs of one that is forgotten", [][]byte(nil), t.outputs(first[6].ID))
}

// testFloorOfARefusedCommit has a floor that must not rise, since its commit is fenced, and one that rises in a commit that applies.
func testFloorOfARefusedCommit(t *storeTest) {
	epoch := t.claim()
	records := []state.Record{applied(1, 1, 0), applied(1, 2, 1), applied(1, 3, 0)}
	t.commit(epoch, state.Batch{Apply: records})
	current := t.claim()
	t.fenced(epoch, state.Batch{Floors: map[tuple.Origin]int64{1: 10}, Apply: []state.Record{applied(1, 11, 0)}})
	t.expect(records...)
	want(t, "outputs", [][]byte{[]byte("2 1")}, t.outputs(records[1].ID))
	t.commit(current, state.Batch{Floors: map[tuple.Origin]int64{1: 3}, Apply: []state.Record{applied(1, 4, 1), applied(1, 5, 0)}})
	t.expect(records[2], applied(1, 4, 1), applied(1, 5, 0))
}

// testSaysMore has an id recorded with its position alone, then with more.
func testSaysMore(t *storeTest) {
	epoch := t.claim()
	r := applied(1, 4, 0)
	t.commit(epoch, state.Batch{Apply: []state.Record{r, applied(1, 9, 0)}})
	r.Unfinished, r.Cursor = true, "a"
	t.commit(epoch, state.Batch{Apply: []state.Record{r}})
	t.expect(r, applied(1, 9, 0))
	r.Unfinished, r.Slices, r.Outputs = false, 1, []byte("o")
	t.commit(epoch, state.Batch{Apply: []state.Record{r}})
	t.expect(r, applied(1, 9, 0))
	t.commit(epoch, state.Batch{Floors: map[tuple.Origin]int64{1: 5}})
	t.expect(applied(1, 9, 0))
	want(t, "outputs", [][]byte(nil), t.outputs(r.ID))
}

func testAgenda(t *storeTest) {
	epoch := t.claim()
	agenda := []state.Due{{Key: "a", At: 30}, {Key: "b", At: 10}, {Key: "b\x00", At: 20}, {Key: "c", At: 5}, {Key: "\xff", At: -7}, {Key: "d", At: 1 << 52}}
	t.commit(epoch, state.Batch{Agenda: agenda})
	due := func(keys ...string) (out []state.Due) {
		for _, k := range keys {
			out = append(out, agenda[slices.IndexFunc(agenda, func(d state.Due) bool { return d.Key == k })])
		}
		return out
	}
	want(t, "until 20", due("b", "b\x00", "c", "\xff"), t.due(20, "", 10))
	want(t, "until 19", due("b", "c", "\xff"), t.due(19, "", 10))
	want(t, "first two", due("b", "b\x00"), t.due(20, "", 2))
	want(t, "after those", due("c", "\xff"), t.due(20, "b\x00", 2))
	want(t, "after a key that is not there", due("c", "\xff"), t.due(20, "bz", 2))
	want(t, "after the last", due(), t.due(20, "\xff", 2))
	want(t, "all", due("a", "b", "b\x00", "c", "d", "\xff"), t.due(1<<63-1, "", 10))
	want(t, "none", due(), t.due(-1<<63, "", 10))
	want(t, "limit 0", due(), t.due(20, "", 0))
	t.commit(epoch, state.Batch{Agenda: []state.Due{{Key: "b", At: 40}, {Key: "", At: 1}}, Strike: []string{"c", "absent"}})
	want(t, "after moves", []state.Due{{Key: "b\x00", At: 20}, {Key: "\xff", At: -7}}, t.due(20, "", 10)) // no key lies after "" and is ""
}

// testLargeAgenda pages through agendas of which few, some and nearly all are due.
func testLargeAgenda(t *storeTest) {
	epoch := t.claim()
	const n = 5000
	var b state.Batch
	for i := range n {
		b.Agenda = append(b.Agenda, state.Due{Key: fmt.Sprintf("device-%05d", i), At: int64(i * 7919 % n)})
	}
	t.commit(epoch, b)
	for _, until := range []int64{9, 700, n - 10} {
		var expect, got []state.Due
		for _, d := range b.Agenda {
			if d.At <= until {
				expect = append(expect, d)
			}
		}
		for after := ""; ; after = got[len(got)-1].Key {
			page := t.due(until, after, 333)
			if got = append(got, page...); len(page) < 333 {
				break
			}
		}
		want(t, fmt.Sprintf("pages until %d", until), expect, got)
	}
}

func testLargeBatch(t *storeTest) {
	epoch := t.claim()
	const n = 10_000
	var b state.Batch
	keys := make([]string, n)
	for i := range n {
		keys[i] = fmt.Sprintf("cache-hourly-device-%05d", i)
		b.Set = append(b.Set, state.Entry{Key: keys[i], Value: []byte(keys[i])})
		b.Apply = append(b.Apply, applied(1, int64(i), i%2)) // one half packed, one with outputs
	}
	t.commit(epoch, b)
	for i, v := range t.load(keys...) {
		if string(v) != keys[i] {
			t.Fatalf("value of %s is %q", keys[i], v)
		}
	}
	want(t, "applied", n, len(t.head().Applied))
	t.commit(epoch, state.Batch{Delete: keys, Floors: map[tuple.Origin]int64{1: n - 3}})
	t.expect(b.Apply[n-3:]...)
	t.commit(epoch, state.Batch{Floors: map[tuple.Origin]int64{1: n}})
	want(t, "applied", 0, len(t.head().Applied))
	want(t, "values", make([][]byte, 2), t.load(keys[0], keys[n-1]))
}

func testApart(t *storeTest) {
	tasks := []state.Task{t.task, t.task, t.task, t.task, t.task}
	tasks[1].Index, tasks[2].Index, tasks[3].Topology, tasks[4].Node = 4, 33, t.task.Topology+"x", "log"
	for i, task := range tasks {
		t.task = task
		t.commit(t.claim(), state.Batch{
			Set: set("k", fmt.Sprint(i)), Floors: map[tuple.Origin]int64{1: int64(i)}, Agenda: []state.Due{{Key: "k", At: int64(i)}},
			Apply: []state.Record{{ID: id(1), Applied: state.Applied{Slices: 1}, Outputs: []byte{byte(i)}}},
		})
	}
	for i, task := range tasks {
		t.task = task
		want(t, "value", [][]byte{[]byte(fmt.Sprint(i))}, t.load("k"))
		want(t, "floors", map[tuple.Origin]int64{1: int64(i)}, t.head().Floors)
		want(t, "outputs", [][]byte{{byte(i)}}, t.outputs(id(1)))
		want(t, "agenda", []state.Due{{Key: "k", At: int64(i)}}, t.due(100, "", 5))
	}
}

func testDrop(t *storeTest) {
	other := t.task
	other.Index = 31 // its name begins with the other's
	for _, task := range []state.Task{other, t.task} {
		t.task.Index = task.Index
		t.commit(t.claim(), state.Batch{
			Set: set("a", "1", "*", "2"), Floors: map[tuple.Origin]int64{1: 5}, Agenda: []state.Due{{Key: "k", At: 1}},
			Apply: []state.Record{{ID: id(1), Applied: state.Applied{Slices: 1}, Outputs: []byte("x")}, applied(1, 6, 0)},
		})
	}
	epoch := t.claim()
	if err := t.store.Drop(background, []state.Claimed{{Task: t.task, Epoch: 1}}); !errors.Is(err, state.ErrFenced) {
		t.Errorf("dropped by an owner from before: %v", err)
	}
	want(t, "values", [][]byte{[]byte("1"), []byte("2")}, t.load("a", "*"))
	unknown := state.Claimed{Task: state.Task{Topology: t.task.Topology, Node: "unknown"}, Epoch: 1}
	if err := t.store.Drop(background, []state.Claimed{unknown}); !errors.Is(err, state.ErrFenced) {
		t.Errorf("dropped without a claim: %v", err)
	}
	if err := t.store.Drop(background, []state.Claimed{{Task: t.task, Epoch: epoch}}); err != nil {
		t.Fatal(err)
	}
	want(t, "values", [][]byte{nil, nil}, t.load("a", "*"))
	want(t, "head", state.Head{}, t.head())
	want(t, "outputs", [][]byte(nil), t.outputs(id(1)))
	want(t, "agenda", []state.Due(nil), t.due(10, "", 10))
	t.fenced(1, state.Batch{Set: set("a", "zombie")})
	if after := t.claim(); after <= epoch {
		t.Errorf("epoch %d after the drop: an owner from before passes for one after", after)
	}
	t.task = other
	want(t, "values of another task", [][]byte{[]byte("1"), []byte("2")}, t.load("a", "*"))
	want(t, "applied of another task", 2, len(t.head().Applied))
}

func testEndedContext(t *storeTest) {
	epoch := t.claim()
	ctx, cancel := context.WithCancel(background)
	cancel()
	// Whether it takes part or not, the task must go on working, and the batch be the caller's again.
	b := state.Batch{Set: set("a", "1")}
	if err := t.store.Commit(ctx, t.task, epoch, &b); errors.Is(err, state.ErrFenced) {
		t.Errorf("ended context: %v", err)
	}
	b.Set[0].Value[0] = 'x'
	t.commit(epoch, state.Batch{Set: set("a", "2")})
	want(t, "value", [][]byte{[]byte("2")}, t.load("a"))
}
