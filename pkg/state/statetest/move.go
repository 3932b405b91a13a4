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
