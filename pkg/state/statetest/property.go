package statetest

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

var (
	anyKey    = rapid.SampledFrom([]string{"", "a", "a\x00", "b", "ba", "c", "\xff", "{d}", "*"})
	anyID     = rapid.Custom(func(r *rapid.T) tuple.ID { return id(rapid.IntRange(0, 5).Draw(r, "id")) })
	anyAt     = rapid.Int64Range(-3, 12)
	anyOrigin = rapid.SampledFrom([]tuple.Origin{0, 1, 1<<64 - 1})
)

// anyBatch draws batches whose parts overlap.
func anyBatch(r *rapid.T) *state.Batch {
	b := &state.Batch{
		Set: rapid.SliceOfN(rapid.Custom(func(r *rapid.T) state.Entry {
			return state.Entry{Key: anyKey.Draw(r, "key"), Value: rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(r, "value")}
		}), 0, 4).Draw(r, "set"),
		Delete: rapid.SliceOfN(anyKey, 0, 2).Draw(r, "delete"),
		Floors: rapid.MapOfN(anyOrigin, rapid.Int64Range(-1, 100), 0, 3).Draw(r, "floors"),
		Agenda: rapid.SliceOfN(rapid.Custom(func(r *rapid.T) state.Due { return state.Due{Key: anyKey.Draw(r, "key"), At: anyAt.Draw(r, "at")} }), 0, 4).Draw(r, "agenda"),
		Strike: rapid.SliceOfN(anyKey, 0, 2).Draw(r, "strike"),
	}
	return b
}

// anyRecords draws records as an engine makes them: none below its floor, an id that is applied goes on from where it is, by at most one slice, and one that
// was applied ever before has the same position.
func anyRecords(r *rapid.T, head state.Head, floors map[tuple.Origin]int64, before map[tuple.ID]tuple.Position) (records []state.Record) {
	floor := func(o tuple.Origin) int64 {
		old, known := head.Floors[o]
		if f, ok := floors[o]; ok && (f > old || !known) {
			return f
		}
		return old
	}
	for _, id := range rapid.SliceOfNDistinct(anyID, 0, 4, rapid.ID).Draw(r, "apply") {
		x, known := head.Applied[id]
		if was, ever := before[id]; ever {
			x.Position = was
		} else if !known {
			o := anyOrigin.Draw(r, "origin")
			x.Position = tuple.Position{Origin: o, Offset: floor(o) + rapid.Int64Range(0, 20).Draw(r, "offset")}
		}
		if x.Position.Offset < floor(x.Position.Origin) {
			continue
		}
		if x.Unfinished {
			x.Unfinished = rapid.Bool().Draw(r, "still unfinished")
		} else if rapid.IntRange(0, 3).Draw(r, "one in four is unfinished") == 0 {
			x.Unfinished, x.Cursor = true, "key "+anyKey.Draw(r, "cursor")
		}
		record := state.Record{ID: id, Applied: x}
		if rapid.Bool().Draw(r, "emits") {
			record.Slices++
			record.Outputs = append([]byte{}, rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(r, "outputs")...)
		}
		records = append(records, record)
	}
	return records
}

func testStoreProperty(t *storeTest) {
	var run atomic.Int64
	rapid.Check(t.T, func(r *rapid.T) {
		memory := state.NewMemory()
		task := state.Task{Topology: fmt.Sprintf("%s-%d", t.task.Topology, run.Add(1)), Node: "stat"}
		var epoch uint64
		applied := map[tuple.ID]tuple.Position{} // all that ever was since the last drop
		both := func(what string, f func(state.Store) (any, error)) {
			want, wantErr := f(memory)
			got, err := f(t.store)
			same(r, what, want, got, wantErr, err)
		}
		r.Repeat(map[string]func(*rapid.T){
			"claim": func(*rapid.T) {
				both("claim", func(s state.Store) (any, error) { e, err := s.Claim(background, task); epoch = e; return e, err })
			},
			"drop": func(r *rapid.T) {
				if rapid.IntRange(0, 9).Draw(r, "one in ten") == 0 {
					e := epoch
					if e > 0 && rapid.Bool().Draw(r, "stale") {
						e--
					}
					both("drop", func(s state.Store) (any, error) {
						return nil, s.Drop(background, []state.Claimed{{Task: task, Epoch: e}})
					})
					if e == epoch && e > 0 {
						clear(applied)
					}
				}
			},
			"commit": func(r *rapid.T) {
				head, _ := memory.Head(background, task)
				b, e := anyBatch(r), epoch
				b.Apply = anyRecords(r, head, b.Floors, applied)
				if e > 0 && rapid.IntRange(0, 9).Draw(r, "one in ten is stale") == 0 {
					e--
				}
				both("commit", func(s state.Store) (any, error) { return nil, s.Commit(background, task, e, b) })
				if memory.Commit(background, task, e, &state.Batch{}) == nil { // the fence let it pass
					for _, x := range b.Apply {
						applied[x.ID] = x.Position
					}
				}
			},
			"load": func(r *rapid.T) {
				keys := rapid.SliceOfN(anyKey, 0, 12).Draw(r, "keys")
				both("load", func(s state.Store) (any, error) { return s.Load(background, task, keys) })
			},
			"walk": func(r *rapid.T) {
				limit := rapid.IntRange(1, 5).Draw(r, "limit")
				both("walk", func(s state.Store) (any, error) { return walked(s, limit, task) })
			},
			"due": func(r *rapid.T) {
				until, after, limit := anyAt.Draw(r, "until"), anyKey.Draw(r, "after"), rapid.IntRange(0, 5).Draw(r, "limit")
				both("due", func(s state.Store) (any, error) { return s.Due(background, task, until, after, limit) })
			},
			"outputs": func(r *rapid.T) {
				id := anyID.Draw(r, "id")
				head, _ := memory.Head(background, task)
				_, shown := head.Applied[id]
				if _, ever := applied[id]; ever && !shown {
					return // a store may return what is left
				}
				both("outputs", func(s state.Store) (any, error) { return s.Outputs(background, task, id) })
			},
			"head and outputs": func(r *rapid.T) {
				both("head", func(s state.Store) (any, error) { return s.Head(background, task) })
				head, _ := memory.Head(background, task)
				for id, x := range applied {
					floor, ok := head.Floors[x.Origin]
					if _, shown := head.Applied[id]; shown == (ok && x.Offset < floor) {
						r.Fatalf("id %s at %v, floor %d: in the head: %t", id, x, floor, shown)
					}
				}
				id := anyID.Draw(r, "id")
				both("outputs", func(s state.Store) (any, error) { return s.Outputs(background, task, id) })
			},
		})
	})
}

func testLogProperty(t *logTest) {
	var run atomic.Int64
	rapid.Check(t.T, func(r *rapid.T) {
		memory := state.NewMemory()
		topology := fmt.Sprintf("%s-%d", t.topology, run.Add(1))
		both := func(what string, f func(state.Logs) (any, error)) {
			want, wantErr := f(memory)
			got, err := f(t.logs)
			same(r, what, want, got, wantErr, err)
		}
		generation := rapid.Uint32Range(0, 4)
		log := rapid.SampledFrom([]string{"tick", "calls"})
		type read struct {
			Entries       [][]byte
			Length, Floor int64
		}
		r.Repeat(map[string]func(*rapid.T){
			"raise": func(r *rapid.T) {
				l := log.Draw(r, "log")
				both("raise", func(s state.Logs) (any, error) { return s.Raise(background, topology, l) })
			},
			"append": func(r *rapid.T) {
				l, g, at := log.Draw(r, "log"), generation.Draw(r, "generation"), rapid.Int64Range(0, 6).Draw(r, "at")
				both("append", func(s state.Logs) (any, error) {
					return nil, s.Append(background, topology, l, g, at, fmt.Append(nil, at))
				})
			},
			"append once": func(r *rapid.T) {
				l, once := log.Draw(r, "log"), anyKey.Draw(r, "once")
				both("append once", func(s state.Logs) (any, error) {
					at, added, err := s.AppendOnce(background, topology, l, once, []byte(once))
					return fmt.Sprint(at, added), err
				})
			},
			"floor": func(r *rapid.T) {
				l, g, floor := log.Draw(r, "log"), generation.Draw(r, "generation"), rapid.Int64Range(-1, 6).Draw(r, "floor")
				both("floor", func(s state.Logs) (any, error) { return nil, s.SetFloor(background, topology, l, g, floor) })
			},
			"advance": func(r *rapid.T) {
				l, g, floor := log.Draw(r, "log"), generation.Draw(r, "generation"), rapid.Int64Range(-1, 6).Draw(r, "floor")
				both("advance", func(s state.Logs) (any, error) { return nil, s.Advance(background, topology, l, g, floor) })
			},
			"read": func(r *rapid.T) {
				l, from, limit := log.Draw(r, "log"), rapid.Int64Range(0, 8).Draw(r, "from"), rapid.IntRange(0, 4).Draw(r, "limit")
				both("read", func(s state.Logs) (any, error) {
					entries, length, floor, err := s.Read(background, topology, l, from, limit)
					return read{entries, length, floor}, err
				})
			},
		})
	})
}

// same compares what two implementations answered.
func same(r *rapid.T, what string, want, got any, wantErr, err error) {
	for _, e := range []error{state.ErrFenced, state.ErrConflict} {
		if errors.Is(wantErr, e) && errors.Is(err, e) {
			return
		}
	}
	if wantErr != nil || err != nil {
		r.Fatalf("%s: memory says %v, this store %v", what, wantErr, err)
	}
	if d := cmp.Diff(want, got, alike()); d != "" {
		r.Fatalf("%s (-memory +this):\n%s", what, d)
	}
}
