// Package statetest is the conformance suite of state.Store and state.Logs: what the engine relies on, with the faults that make it matter.
// The memory store and every adapter run it in their tests. It never looks behind the two interfaces.
package statetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Open returns a store to test and ends it with t. It may be one that earlier tests have used: every test has a topology of its own.
type Open func(t *testing.T) (state.Store, state.Logs)

// Run checks one implementation.
func Run(t *testing.T, open Open) {
	stores := []struct {
		name string
		test func(*storeTest)
	}{
		{"unknown task", testUnknownTask},
		{"values", testValues},
		{"parts apply in order", testOrderOfParts},
		{"fence", testFence},
		{"concurrent claims", testConcurrentClaims},
		{"no update is lost between owners", testLostUpdate},
		{"concurrent commits of many tasks", testManyTasks},
		{"floors only rise", testFloors},
		{"applied and outputs", testApplied},
		{"what lies below a floor is forgotten", testForgotten},
		{"floor of a refused commit", testFloorOfARefusedCommit},
		{"a record that says more", testSaysMore},
		{"agenda", testAgenda},
		{"large agenda", testLargeAgenda},
		{"large batch", testLargeBatch},
		{"tasks are apart", testApart},
		{"drop", testDrop},
		{"walk", testWalk},
		{"move", testMove},
		{"a move that is not wanted any more", testWithdrawnMove},
		{"a move without rest", testUnrest},
		{"tidy", testTidy},
		{"ended context", testEndedContext},
		{"any history equals memory's", testStoreProperty},
	}
	for i, c := range stores {
		t.Run(c.name, func(t *testing.T) {
			store, _ := open(t)
			c.test(&storeTest{T: t, store: store, task: state.Task{Topology: fmt.Sprintf("store-%d", i), Node: "stat", Index: 3}})
		})
	}
	logs := []struct {
		name string
		test func(*logTest)
	}{
		{"append", testAppend},
		{"append once", testAppendOnce},
		{"concurrent append once", testConcurrentAppendOnce},
		{"forget names", testForget},
		{"log floor", testLogFloor},
		{"advance", testAdvance},
		{"drop logs", testDropLogs},
		{"any history of a log equals memory's", testLogProperty},
	}
	for i, c := range logs {
		t.Run(c.name, func(t *testing.T) {
			_, logs := open(t)
			c.test(&logTest{T: t, logs: logs, topology: fmt.Sprintf("log-%d", i)})
		})
	}
}

var background = context.Background()

// storeTest is a task under test, with the calls that must succeed.
type storeTest struct {
	*testing.T
	store state.Store
	task  state.Task
}

func (t *storeTest) claim() uint64 {
	t.Helper()
	epoch, err := t.store.Claim(background, t.task)
	if err != nil {
		t.Fatal(err)
	}
	return epoch
}

func (t *storeTest) commit(epoch uint64, b state.Batch) {
	t.Helper()
	if err := t.store.Commit(background, t.task, epoch, &b); err != nil {
		t.Fatal(err)
	}
}

func (t *storeTest) fenced(epoch uint64, b state.Batch) {
	t.Helper()
	if err := t.store.Commit(background, t.task, epoch, &b); !errors.Is(err, state.ErrFenced) {
		t.Fatalf("commit in epoch %d: %v, want ErrFenced", epoch, err)
	}
}

func (t *storeTest) load(keys ...string) [][]byte {
	t.Helper()
	values, err := t.store.Load(background, t.task, keys)
	if err != nil {
		t.Fatal(err)
	}
	return values
}

func (t *storeTest) head() state.Head {
	t.Helper()
	h, err := t.store.Head(background, t.task)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (t *storeTest) outputs(id tuple.ID) [][]byte {
	t.Helper()
	o, err := t.store.Outputs(background, t.task, id)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func (t *storeTest) due(until int64, after string, limit int) []state.Due {
	t.Helper()
	d, err := t.store.Due(background, t.task, until, after, limit)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// alike has nil and empty slices and maps equal, except for values, where nil means absent.
func alike() cmp.Option {
	notValue := func(p cmp.Path) bool { return p.Last().Type() != reflect.TypeFor[[]byte]() }
	sameValue := func(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }
	return cmp.Options{cmp.FilterPath(notValue, cmpopts.EquateEmpty()), cmp.Comparer(sameValue)}
}

func want(t testing.TB, what string, want, got any) {
	t.Helper()
	if d := cmp.Diff(want, got, alike()); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func set(pairs ...string) (entries []state.Entry) {
	for i := 0; i < len(pairs); i += 2 {
		entries = append(entries, state.Entry{Key: pairs[i], Value: []byte(pairs[i+1])})
	}
	return entries
}

func id(n int) tuple.ID { return tuple.RootID(tuple.Position{Origin: 7, Offset: int64(n)}) }
