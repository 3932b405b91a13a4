package bolt_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// echo emits what it gets, or fails as it is told.
type echo struct{ failing []error }

func (b *echo) Execute(_ context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	if len(b.failing) > 0 {
		err := b.failing[0]
		b.failing = b.failing[1:]
		return err
	}
	c.Emit(bolt.Emission{Key: t.Key, Payload: t.Payload})
	return nil
}

// TestOutageNeverDeadLetters: however often the state store or another dependency is away, the tuple waits.
func TestOutageNeverDeadLetters(t *testing.T) {
	for name, err := range map[string]error{
		"declared":         bolt.Unavailable(errors.New("no route to host")),
		"of the state":     fmt.Errorf("read the cell: %w", state.ErrUnavailable),
		"declared, around": fmt.Errorf("look up the site: %w", bolt.Unavailable(errors.New("no route to host"))),
	} {
		t.Run(name, func(t *testing.T) {
			b := &echo{}
			for range 20 {
				b.failing = append(b.failing, err)
			}
			h := bolttest.New(t, b)
			want(t, h.Feed(at("a")), `a{}`)
			if len(h.Letters) > 0 {
				t.Errorf("letters %+v", h.Letters)
			}
		})
	}
}

// TestLetteredIsNotHandledAgain: a redelivered original of a dead letter is counted as handled, whatever the bolt would make of it now, because the
// letter may have been replayed.
func TestLetteredIsNotHandledAgain(t *testing.T) {
	for name, b := range map[string]bolt.Bolt{"stateless": &echo{}, "stateful": &counting{}} {
		t.Run(name, func(t *testing.T) {
			h := bolttest.New(t, b)
			bad := at("a")
			bad.ID, bad.Offset = tuple.ID{9}, 7
			h.Letters = append(h.Letters, &tuple.Letter{ID: bad.ID}) // stored by an owner that died before it could record anything
			for range 2 {
				h.Count++
				h.Deltas = nil
				want(t, h.Feed(bad))
				ledger := tuple.LedgerID(bad.ID, tuple.NameOf("node"), 0, tuple.Attempt{Generation: 1, Count: h.Count})
				if len(h.Deltas) != 1 || h.Deltas[0].XOR != ledger {
					t.Errorf("deltas %+v, want the tuple alone", h.Deltas)
				}
				h.Restart()
			}
			if len(h.Letters) != 1 {
				t.Errorf("letters %+v", h.Letters)
			}
		})
	}
}

// stubborn is counting whose tick fails for one group until it is mended.
type stubborn struct {
	counting
	broken string
}

func (b *stubborn) Tick(ctx context.Context, tick bolt.Tick, group string, c *bolt.Collector) error {
	if group == b.broken {
		return bolt.Reject(errors.New("no"))
	}
	return b.counting.Tick(ctx, tick, group, c)
}

// TestTickOfOneGroup: the letter of a tick names the group that it failed for, and replayed it concerns that group alone.
func TestTickOfOneGroup(t *testing.T) {
	b := &stubborn{broken: "b"}
	h := bolttest.New(t, b)
	h.Feed(at("a"), at("b"))
	want(t, h.Tick(bolt.Tick{Time: 10}), `a{"total":1}`)
	if len(h.Letters) != 1 || h.Letters[0].Group != "b" || h.Letters[0].Stream != tuple.TickStream {
		t.Fatalf("letters %+v", h.Letters)
	}
	b.broken = ""
	l := h.Letters[0]
	h.Store = state.NewMemory() // as if nothing after the letter had happened
	h.Restart()
	h.Feed(at("a"), at("b"))
	tick := tuple.Tuple{ID: tuple.RootID(tuple.Position{Origin: bolttest.TickOrigin}), Stream: l.Stream, Payload: l.Payload}
	want(t, h.Feed(tick), `a{"total":1}`)
	again := tuple.Tuple{ID: tuple.ID{5}, Offset: 40, Stream: l.Stream, Key: l.Key, Group: l.Group, Payload: l.Payload}
	want(t, h.Feed(again), `b{"total":1}`)
	h.Restart()
	want(t, h.Feed(again), `b{"total":1}`) // recorded: emitted again, not computed
}

// TestLetterOfAFormerOwner: whether a tuple can be handled may depend on the state, so an owner that was replaced makes no letter of it.
func TestLetterOfAFormerOwner(t *testing.T) {
	h := bolttest.New(t, &counting{failing: bolt.Reject(errors.New("no"))})
	h.Commit = func(*state.Batch) {
		if _, err := h.Store.Claim(t.Context(), h.Loop.Own.Task); err != nil {
			t.Fatal(err)
		}
	}
	h.Push("source", tuple.Tuple{ID: tuple.ID{9}, Stream: tuple.DefaultStream, Key: "a", Payload: []byte(`{"poison":1}`)})
	if _, err := h.Loop.Step(t.Context()); !errors.Is(err, state.ErrFenced) || len(h.Letters)+len(h.Deltas) > 0 {
		t.Errorf("%v, letters %+v, deltas %+v", err, h.Letters, h.Deltas)
	}
}

// TestLetterIsMadeUpFor: a letter was committed, and its owner died before it was stored. The next one stores it when the tuple comes again, before it reports it,
// whatever the bolt would make of the tuple now; and so with a tick's.
func TestLetterIsMadeUpFor(t *testing.T) {
	b := &stubborn{broken: "b"}
	b.failing = bolt.Reject(errors.New("no"))
	h := bolttest.New(t, b)
	bad := tuple.Tuple{ID: tuple.ID{9}, Offset: 7, Key: "a", Payload: []byte(`{"poison":1}`)}
	want(t, h.Feed(bad, at("a"), at("b")), `a{"n":1}`, `b{"n":1}`)
	want(t, h.Tick(bolt.Tick{Time: 10}), `a{"total":1}`)
	stored := h.Letters
	if len(stored) != 2 {
		t.Fatalf("letters %+v", stored)
	}
	b.failing, b.broken = nil, ""
	for _, lost := range []int{2, 1, 0} {
		h.Letters = slices.Clone(stored[lost:])
		h.Count++
		h.Deltas = nil
		h.Restart()
		want(t, h.Feed(bad))
		tick := tuple.Tuple{ID: tuple.RootID(tuple.Position{Origin: bolttest.TickOrigin}), Stream: tuple.TickStream, Payload: stored[1].Payload}
		want(t, h.Feed(tick), `a{"total":1}`)
		slices.SortFunc(h.Letters, func(a, b *tuple.Letter) int { return strings.Compare(a.Stream, b.Stream) })
		slices.SortFunc(stored, func(a, b *tuple.Letter) int { return strings.Compare(a.Stream, b.Stream) })
		if !reflect.DeepEqual(h.Letters, stored) {
			t.Errorf("%d letters were lost: %+v, want %+v", lost, h.Letters, stored)
		}
		ledger := tuple.LedgerID(bad.ID, tuple.NameOf("node"), 0, tuple.Attempt{Generation: 1, Count: h.Count})
		if h.Deltas[0].XOR != ledger {
			t.Errorf("deltas %+v, want the tuple alone", h.Deltas)
		}
	}
}

// told is letters that note what they announce, and cannot the first time.
type told struct {
	bolt.Letters
	heard []tuple.Letter
	away  bool
}

func (x *told) Announce(_ context.Context, l *tuple.Letter) error {
	if x.away = !x.away; x.away {
		return errors.New("nobody answers")
	}
	x.heard = append(x.heard, *l)
	return nil
}

// TestLettersAreAnnounced: each time that a tuple with a letter is delivered this is told under the attempt of the delivery, before the tuple is reported.
func TestLettersAreAnnounced(t *testing.T) {
	bad := tuple.Tuple{ID: tuple.ID{9}, Offset: 7, Key: "a", Payload: []byte(`{"poison":1}`)}
	for name, b := range map[string]bolt.Bolt{
		"stateless": &echo{failing: []error{bolt.Reject(errors.New("no"))}}, "stateful": &counting{failing: bolt.Reject(errors.New("no"))}, "at the end": &late{},
	} {
		t.Run(name, func(t *testing.T) {
			h := bolttest.New(t, b)
			x := &told{}
			h.Announced(func(l bolt.Letters) bolt.Letters { x.Letters = l; return x })
			for i := range 3 {
				before := len(h.Deltas)
				h.Sink = func(trace.Event) {
					if len(h.Deltas) > before && len(x.heard) <= i {
						t.Error("reported, and not yet told")
					}
				}
				want(t, h.Feed(bad))
				h.Count++
				h.Restart()
			}
			if len(x.heard) != 3 || len(h.Letters) != 1 {
				t.Fatalf("told %+v, letters %+v", x.heard, h.Letters)
			}
			for i, l := range x.heard {
				if l.ID != bad.ID || l.Offset != 7 || l.Count != uint32(i) || l.Generation != 1 || l.Node != "node" || i == 0 && l.Error != "no" {
					t.Errorf("delivery %d: %+v", i, l)
				}
			}
		})
	}
}

// late is a bolt that finds at the end of a batch that it cannot handle its tuples.
type late struct{ n int }

func (b *late) Execute(context.Context, *tuple.Tuple, *bolt.Collector) error { b.n++; return nil }

func (b *late) Finish(context.Context, *bolt.Collector) (failures []bolt.Failure, err error) {
	for i := range b.n {
		failures = append(failures, bolt.Failure{Index: i, Err: errors.New("no")})
	}
	b.n = 0
	return failures, nil
}

// refusing is counting that cannot handle anything.
type refusing struct{ counting }

func (refusing) Execute(context.Context, *tuple.Tuple, *bolt.Collector) error {
	return bolt.Reject(errors.New("no"))
}

// TestLetterOfOneTask: where all tasks get a tuple, that one of them cannot handle it says nothing of the others.
func TestLetterOfOneTask(t *testing.T) {
	for name, x := range map[string]struct{ able, unable bolt.Bolt }{
		"stateless": {&echo{}, bolt.Func(refusing{}.Execute)}, "stateful": {&counting{}, &refusing{}},
	} {
		t.Run(name, func(t *testing.T) {
			in := tuple.Tuple{ID: tuple.ID{9}, Offset: 7, Key: "a", Payload: []byte(`{}`)}
			h := bolttest.New(t, x.unable)
			h.Copies(0)
			for range 2 {
				want(t, h.Feed(in))
				h.Restart()
			}
			letters := h.Letters
			mine := tuple.ChildID(in.ID, tuple.Emitter{Node: tuple.NameOf("node"), By: tuple.ByTask(0)}, 0, 0)
			if len(letters) != 1 || letters[0].Task != 0 || letters[0].ID != mine {
				t.Fatalf("letters %+v", letters)
			}
			other := bolttest.New(t, x.able)
			other.Copies(1)
			other.Letters = letters
			if got := other.Feed(in); len(got) != 1 {
				t.Errorf("another task made %+v of the tuple", got)
			}
			third := bolttest.New(t, x.unable)
			third.Copies(2)
			third.Letters = letters
			want(t, third.Feed(in))
			if len(third.Letters) != 2 || third.Letters[1].Task != 2 || third.Letters[1].ID == letters[0].ID {
				t.Errorf("letters %+v", third.Letters)
			}
		})
	}
}
