package notify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// world is what survives a crash: the notes, and what the other sides have taken.
type world struct {
	notes map[string]bool
	taken []string // "target id", in order
	down  int      // calls of whatever kind that still fail
	crash int      // calls after which the process dies; below 0: never
}

var errCrash = errors.New("the process died")

// call is one call to the outside: it may fail, or be the last one.
func (w *world) call() error {
	if w.crash == 0 {
		panic(errCrash)
	}
	w.crash--
	if w.down > 0 {
		w.down--
		return bolt.Unavailable(errors.New("connection refused"))
	}
	return nil
}

func (w *world) Noted(_ context.Context, key string) (bool, error) { return w.notes[key], w.call() }

func (w *world) Note(_ context.Context, key string) error {
	if err := w.call(); err != nil {
		return err
	}
	w.notes[key] = true
	return nil
}

type target struct {
	*world
	name   string
	refuse error
}

func (t *target) Deliver(_ context.Context, n Notice) error {
	if err := t.call(); err != nil {
		return err
	}
	if t.refuse != nil {
		return t.refuse
	}
	t.taken = append(t.taken, t.name+" "+n.ID)
	return nil
}

func open(t testing.TB, w *world, targets ...*target) *Bolt {
	t.Helper()
	var to []To
	for _, x := range targets {
		to = append(to, To{x.name, x})
	}
	b, err := New(w, to...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func event(n byte, notify string) tuple.Tuple {
	return tuple.Tuple{ID: tuple.ID{15: n}, Stream: "default", Key: "m1", Payload: fmt.Appendf(nil, `{"event":"raise","group":"m1","notify":%s}`, notify)}
}

func TestWhatLeaves(t *testing.T) {
	w := &world{notes: map[string]bool{}, crash: -1, down: 2}
	h := bolttest.New(t, open(t, w, &target{world: w, name: "subject"}, &target{world: w, name: "webhook"}))
	h.Push("hot", event(1, "true"), event(2, "false"), event(3, "null"), event(4, `"true"`), event(5, "true"))
	h.Push("hot", event(1, "true")) // another attempt
	h.Step()
	h.Restart()
	h.Push("hot", event(5, "true"), event(1, "true"))
	h.Step()
	id := func(n byte) string { return tuple.ID{15: n}.String() }
	want := []string{"subject " + id(1), "webhook " + id(1), "subject " + id(5), "webhook " + id(5)}
	if !slices.Equal(w.taken, want) || len(h.Letters) > 0 {
		t.Errorf("taken %q, want %q; letters %v", w.taken, want, h.Letters)
	}
}

// A target that refuses makes a letter; what another target has taken stays taken, and is not told again when the letter is replayed.
func TestRefused(t *testing.T) {
	for _, tt := range []struct {
		refuse  error
		letters int
	}{
		{bolt.Reject(errors.New("answered 404")), 1},
		{errors.New("answered 429"), 1}, // five times
	} {
		w := &world{notes: map[string]bool{}, crash: -1}
		hook := &target{world: w, name: "webhook", refuse: tt.refuse}
		h := bolttest.New(t, open(t, w, &target{world: w, name: "subject"}, hook))
		h.Push("hot", event(1, "true"))
		h.Step()
		if len(w.taken) != 1 || len(h.Letters) != tt.letters {
			t.Fatalf("taken %q, letters %v", w.taken, h.Letters)
		}
		hook.refuse, h.Letters = nil, nil
		h.Push("hot", event(1, "true"))
		h.Step()
		if len(w.taken) != 2 || w.taken[1][:7] != "webhook" {
			t.Errorf("taken %q", w.taken)
		}
	}
}

// TestCrashes: whenever the process dies and whatever fails, each event reaches each target, in order, and a second time only when the process died
// between the target's answer and its note.
func TestCrashes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{notes: map[string]bool{}}
		events := byte(rapid.IntRange(1, 4).Draw(t, "events"))
		allowed := 0 // deaths between an answer and its note
		b := (*Bolt)(nil)
		start := func() {
			b, _ = New(w, To{"subject", &target{world: w, name: "subject"}}, To{"webhook", &target{world: w, name: "webhook"}})
			w.crash = rapid.IntRange(-1, 12).Draw(t, "crash")
		}
		start()
		for deaths, n := 0, byte(1); n <= events; {
			w.down = rapid.IntRange(0, 3).Draw(t, "down")
			e := event(n, "true")
			err, died := execute(b, &e)
			switch {
			case died:
				if deaths++; deaths > 8 {
					w.crash = -1
				}
				allowed += len(b.owed)
				start()
				if deaths > 8 {
					w.crash = -1
				}
			case err == nil:
				n++
			case !bolt.IsUnavailable(err):
				t.Fatal(err)
			}
		}
		first := map[string]bool{}
		repeats := 0
		var order []string
		for _, x := range w.taken {
			if first[x] {
				repeats++
				continue
			}
			first[x] = true
			order = append(order, x)
		}
		if len(order) != 2*int(events) || repeats > allowed {
			t.Fatalf("%d deliveries of %d, %d repeated, %d allowed: %q", len(order), 2*events, repeats, allowed, w.taken)
		}
		for i := range order {
			if want := (tuple.ID{15: byte(i/2 + 1)}).String(); order[i][8:] != want {
				t.Fatalf("not in order: %q", order)
			}
		}
	})
}

func execute(b *Bolt, t *tuple.Tuple) (err error, died bool) { //nolint:revive // died is no result of the bolt
	defer func() {
		if r := recover(); r != nil {
			if r != any(errCrash) {
				panic(r)
			}
			died = true
		}
	}()
	return b.Execute(context.Background(), t, nil), false
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(nil, To{"webhook", &target{}}); err == nil {
		t.Error("targets without notes are accepted")
	}
	b, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	e := event(1, "true")
	if err := b.Execute(t.Context(), &e, nil); err != nil {
		t.Error(err)
	}
}
