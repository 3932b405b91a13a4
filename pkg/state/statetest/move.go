package statetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/boltmesh/boltmesh/pkg/partition"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// walked returns what a walk in pages of limit finds, each key once, in order.
func walked(s state.Store, limit int, tasks ...state.Task) ([]state.Entry, error) {
	found := map[string][]byte{}
	for cursor, first := "", true; first || cursor != ""; first = false {
		page, next, err := s.Walk(background, tasks, cursor, limit)
		if err != nil {
			return nil, err
		}
		for _, e := range page {
			found[e.Key] = e.Value
		}
		cursor = next
	}
	var out []state.Entry
	for key, value := range found {
		out = append(out, state.Entry{Key: key, Value: value})
	}
	slices.SortFunc(out, func(a, b state.Entry) int { return strings.Compare(a.Key, b.Key) })
	return out, nil
}

func testWalk(t *storeTest) {
	page, next, err := t.store.Walk(background, []state.Task{t.task}, "", 10)
	for err == nil && next != "" && len(page) == 0 {
		page, next, err = t.store.Walk(background, []state.Task{t.task}, next, 10)
	}
	if err != nil || len(page) > 0 {
		t.Fatalf("of an unknown task: %v, %v", page, err)
	}
	t.task.Index = 31
	t.commit(t.claim(), state.Batch{Set: set("other", "x")}) // its name begins with that of task 3
	t.task.Index = 3
	var wanted []state.Entry
	for i := range 2500 {
		wanted = append(wanted, state.Entry{Key: fmt.Sprintf("k%04d", i), Value: fmt.Append(nil, i)})
	}
	wanted = append(wanted, set("", "of the empty key", "*", "star", "\x00\xff[a]?", "not text")...)
	epoch := t.claim()
	t.commit(epoch, state.Batch{Set: wanted, Floors: map[tuple.Origin]int64{1: 5}, Agenda: []state.Due{{Key: "k", At: 1}}})
	slices.SortFunc(wanted, func(a, b state.Entry) int { return strings.Compare(a.Key, b.Key) })
	for _, limit := range []int{0, 100, 5000} {
		found, err := walked(t.store, limit, t.task)
		if err != nil {
			t.Fatal(err)
		}
		want(t, fmt.Sprintf("walk in pages of %d", limit), wanted, found)
		other := t.task
		other.Index = 31
		if found, err = walked(t.store, limit, t.task, state.Task{Topology: t.task.Topology, Node: "unknown"}, other); err != nil {
			t.Fatal(err)
		}
		want(t, fmt.Sprintf("walk over three tasks in pages of %d", limit), len(wanted)+1, len(found))
	}
}

// whole is what a division of a node into tasks keeps: values and agenda by key, whatever task they are in.
type whole struct {
	Values map[string]string
	Agenda map[string]int64
	Floors []map[tuple.Origin]int64 // by task
}

func (t *storeTest) whole(tasks []state.Task) whole {
	t.Helper()
	w := whole{Values: map[string]string{}, Agenda: map[string]int64{}}
	for i, task := range tasks {
		values, err := walked(t.store, 100, task)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range values {
			if at := int(partition.Task(e.Key, len(tasks))); at != i {
				t.Errorf("key %q is in task %d of %d, not %d", e.Key, i, len(tasks), at)
			}
			w.Values[e.Key] = string(e.Value)
		}
		due, err := t.store.Due(background, task, 1<<53, "", 10_000)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range due {
			if at := int(partition.Task(d.Key, len(tasks))); at != i {
				t.Errorf("group %q is on the agenda of task %d of %d, not %d", d.Key, i, len(tasks), at)
			}
			w.Agenda[d.Key] = d.At
		}
		head, err := t.store.Head(background, task)
		if err != nil {
			t.Fatal(err)
		}
		if len(head.Applied) > 0 {
			t.Errorf("%s knows %d applied ids", task, len(head.Applied))
		}
		w.Floors = append(w.Floors, head.Floors)
	}
	return w
}

func (t *storeTest) division(tasks int) (out []state.Task) {
	for i := range int32(tasks) {
		out = append(out, state.TaskOf(t.task.Topology, "stat", tasks, i))
	}
	return out
}

func move(from, to []state.Task) state.Move {
	place := func(key string) (int, error) { return int(partition.Task(key, len(to))), nil }
	return state.Move{From: from, To: to, Key: place, Group: place, Floors: map[tuple.Origin]int64{1: 50, 9: 9}, Page: 7}
}

// testMove divides a node anew, there and back: every key keeps its value and its place on the agenda, a move that ends in its midst leaves everything
// as it was, and owners from before are fenced.
func testMove(t *storeTest) {
	eight := t.division(8)
	var epochs []uint64
	for i, task := range eight {
		epoch, err := t.store.Claim(background, task)
		if err != nil {
			t.Fatal(err)
		}
		b := state.Batch{
			Floors: map[tuple.Origin]int64{1: int64(i), 2: 100 - int64(i)},
			Apply:  []state.Record{{ID: id(i), Applied: state.Applied{Position: tuple.Position{Origin: 1, Offset: int64(40 + i)}, Slices: 1}, Outputs: []byte("x")}},
		}
		for k := range 300 {
			if key := fmt.Sprintf("cache-a-%d", k); int(partition.Task(key, 8)) == i {
				b.Set = append(b.Set, state.Entry{Key: key, Value: fmt.Append(nil, k)})
				b.Agenda = append(b.Agenda, state.Due{Key: key, At: int64(k) - 150})
			}
		}
		if err := t.store.Commit(background, task, epoch, &b); err != nil {
			t.Fatal(err)
		}
		epochs = append(epochs, epoch)
	}
	floors := map[tuple.Origin]int64{1: 50, 2: 100, 9: 9}
	wanted := whole{Values: map[string]string{}, Agenda: map[string]int64{}}
	for k := range 300 {
		key := fmt.Sprintf("cache-a-%d", k)
		wanted.Values[key], wanted.Agenda[key] = fmt.Sprint(k), int64(k)-150
	}
	from := eight
	for _, n := range []int{12, 3, 1, 8, 12} {
		to := t.division(n)
		t.interrupted(from, to)
		moved, err := move(from, to).Run(background, t.store)
		if err != nil {
			t.Fatal(err)
		}
		if moved.Keys < 300 || moved.Groups != 300 {
			t.Errorf("moved %+v", moved)
		}
		wanted.Floors = slices.Repeat([]map[tuple.Origin]int64{floors}, n)
		want(t, fmt.Sprintf("state in %d tasks", n), wanted, t.whole(to))
		if n == 12 {
			for i, task := range eight {
				if err := t.store.Commit(background, task, epochs[i], &state.Batch{Set: set("k", "zombie")}); !errors.Is(err, state.ErrFenced) {
					t.Errorf("the owner from before: %v", err)
				}
			}
		}
		from = to
	}
}

// interrupted ends a move at each of its calls, one more each time: what is in from stays.
func (t *storeTest) interrupted(from, to []state.Task) {
	t.Helper()
	values := func() (out []state.Entry) {
		for _, task := range from {
			some, err := walked(t.store, 100, task)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, some...)
		}
		return out
	}
	old := values()
	for _, calls := range []int{0, 1, 5, 20, 40} {
		if _, err := move(from, to).Run(background, &failing{Store: t.store, left: calls}); !errors.Is(err, errBroken) {
			t.Fatalf("broken after %d calls: %v", calls, err)
		}
		want(t, fmt.Sprintf("the old tasks after %d calls", calls), old, values())
	}
}

// testWithdrawnMove stops whoever moves before its first call, and where it is asked whether the move is still wanted; another one makes it meanwhile, and
// the new tasks are used. What they keep stays.
func testWithdrawnMove(t *storeTest) {
	two, three := t.division(2), t.division(3)
	t.put(two, "a", "b", "c")
	use := func() {
		t.Helper()
		if _, err := move(two, three).Run(background, t.store); err != nil {
			t.Fatal(err)
		}
		t.put(three, "a", "b", "c", "d")
	}
	use()
	used := t.whole(three)
	late := move(two, three)
	late.Still = func(context.Context) error { return errBroken } // all of it comes late: it asks, and is told
	if _, err := late.Run(background, t.store); !errors.Is(err, errBroken) {
		t.Errorf("a move that is not wanted any more: %v", err)
	}
	want(t, "what is in use", used, t.whole(three))
	late.Still = func(context.Context) error { use(); return nil } // it was still wanted when it asked
	if _, err := late.Run(background, t.store); !errors.Is(err, state.ErrFenced) {
		t.Errorf("a move that another one has overtaken: %v", err)
	}
	want(t, "what is in use", used, t.whole(three))
}

// put writes keys where they belong among tasks.
func (t *storeTest) put(tasks []state.Task, keys ...string) {
	t.Helper()
	for _, key := range keys {
		task := tasks[partition.Task(key, len(tasks))]
		epoch, err := t.store.Claim(background, task)
		if err == nil {
			err = t.store.Commit(background, task, epoch, &state.Batch{Set: set(key, "of "+key)})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// testUnrest has applied what lies beyond the floor that the spout tells of: neither a move nor raised floors may make anybody forget it.
func testUnrest(t *storeTest) {
	two, three := t.division(2), t.division(3)
	apply := func(x int, origin tuple.Origin, offset int64) {
		t.Helper()
		epoch, err := t.store.Claim(background, two[1])
		if err == nil {
			err = t.store.Commit(background, two[1], epoch, &state.Batch{Apply: []state.Record{{ID: id(x), Applied: state.Applied{Position: tuple.Position{Origin: origin, Offset: offset}}}}})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	try := func(what string, wanted error) {
		t.Helper()
		m := move(two, three)
		if err := state.RaiseFloors(background, t.store, two[:1], m.Floors); err != nil { // what the other task has applied says nothing of this one
			t.Fatal(err)
		}
		if _, err := m.Run(background, t.store); !errors.Is(err, wanted) {
			t.Errorf("move, %s: %v", what, err)
		}
		if wanted == nil {
			return
		}
		if err := state.RaiseFloors(background, t.store, two, m.Floors); !errors.Is(err, wanted) {
			t.Errorf("raise floors, %s: %v", what, err)
		}
	}
	apply(1, 1, 49)
	apply(2, 5, 7) // of an origin that nobody reads any more
	try("all below the floor", nil)
	apply(3, 1, 50)
	try("one at the floor", state.ErrUnrest)
	head, err := t.store.Head(background, two[1])
	if _, known := head.Applied[id(3)]; err != nil || !known {
		t.Errorf("it is forgotten: %v, %v", head, err)
	}
}

// testTidy drops what is kept in tasks, unless somebody has begun to use them again.
func testTidy(t *storeTest) {
	two, three := t.division(2), t.division(3)
	t.put(two, "a", "b", "c")
	if _, err := move(two, three).Run(background, t.store); err != nil {
		t.Fatal(err)
	}
	kept := t.whole(three)
	if err := state.Tidy(background, t.store, three, func(context.Context) error { return errBroken }); !errors.Is(err, errBroken) {
		t.Errorf("%v", err)
	}
	want(t, "what is not to be dropped any more", kept, t.whole(three))
	err := state.Tidy(background, t.store, three, func(context.Context) error {
		_, err := move(two, three).Run(background, t.store)
		return err
	})
	if !errors.Is(err, state.ErrFenced) {
		t.Errorf("somebody has moved something there: %v", err)
	}
	want(t, "what was moved there", kept, t.whole(three))
	still := func(context.Context) error { return nil }
	if err := state.Tidy(background, t.store, slices.Concat(three, t.division(7)), still); err != nil {
		t.Error(err)
	}
	if left := t.whole(three); len(left.Values)+len(left.Floors[0])+len(left.Floors[1])+len(left.Floors[2]) > 0 {
		t.Errorf("left: %+v", left)
	}
}

var errBroken = errors.New("broken")

// failing breaks after some calls.
type failing struct {
	state.Store
	left int
}

func (f *failing) use() error {
	if f.left--; f.left < 0 {
		return errBroken
	}
	return nil
}

func (f *failing) Claim(ctx context.Context, t state.Task) (uint64, error) {
	if err := f.use(); err != nil {
		return 0, err
	}
	return f.Store.Claim(ctx, t)
}

func (f *failing) Drop(ctx context.Context, tasks []state.Claimed) error {
	if err := f.use(); err != nil {
		return err
	}
	return f.Store.Drop(ctx, tasks)
}

func (f *failing) Commit(ctx context.Context, t state.Task, epoch uint64, b *state.Batch) error {
	if err := f.use(); err != nil {
		return err
	}
	return f.Store.Commit(ctx, t, epoch, b)
}

func (f *failing) Walk(ctx context.Context, tasks []state.Task, cursor string, limit int) ([]state.Entry, string, error) {
	if err := f.use(); err != nil {
		return nil, "", err
	}
	return f.Store.Walk(ctx, tasks, cursor, limit)
}
