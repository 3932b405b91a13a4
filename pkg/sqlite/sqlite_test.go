package sqlite_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/boltmesh/boltmesh/pkg/document"
	"github.com/boltmesh/boltmesh/pkg/spout/spouttest"
	"github.com/boltmesh/boltmesh/pkg/sqlite"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/state/statetest"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var ctx = context.Background()

func open(t testing.TB, path string, o sqlite.Options) *sqlite.DB {
	t.Helper()
	db, err := sqlite.OpenWith(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func TestState(t *testing.T) {
	statetest.Run(t, func(t *testing.T) (state.Store, state.Logs) {
		db := open(t, filepath.Join(t.TempDir(), "mesh.db"), sqlite.Options{Relaxed: true})
		return db.State(), db.State()
	})
}

// TestCalls: the log of calls.
func TestCalls(t *testing.T) {
	spouttest.Run(t, func(t *testing.T) state.Logs {
		return open(t, filepath.Join(t.TempDir(), "mesh.db"), sqlite.Options{Relaxed: true}).State()
	})
}

func TestStateIsThereAfterReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "odd name ?#%.db")
	task := state.Task{Topology: "t", Node: "n"}
	for run := range 3 {
		db, err := sqlite.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		s := db.State()
		epoch, err := s.Claim(ctx, task)
		if err != nil || epoch != uint64(run+1) {
			t.Fatalf("epoch %d (%v) in run %d", epoch, err, run)
		}
		values, err := s.Load(ctx, task, []string{"n"})
		if err != nil || len(values[0]) != run {
			t.Fatalf("value %q (%v) in run %d", values[0], err, run)
		}
		b := state.Batch{Set: []state.Entry{{Key: "n", Value: append(values[0], '.')}}}
		if err := s.Commit(ctx, task, epoch, &b); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if err := s.Commit(ctx, task, epoch, &b); err == nil || errors.Is(err, state.ErrFenced) {
			t.Errorf("commit after Close: %v, want an error other than ErrFenced", err)
		}
	}
}

// TestCommitsSurviveACrash takes the files as they lie on disk while the database is open, as a killed process leaves them.
func TestCommitsSurviveACrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mesh.db")
	s := open(t, path, sqlite.Options{}).State()
	task := state.Task{Topology: "t", Node: "n"}
	epoch, err := s.Claim(ctx, task)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 5 {
		if err := s.Commit(ctx, task, epoch, batch(n)); err != nil {
			t.Fatal(err)
		}
	}
	left := filepath.Join(t.TempDir(), "left.db")
	for _, suffix := range []string{"", "-wal"} {
		content, err := os.ReadFile(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(left+suffix, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := s.Head(ctx, task)
	if err != nil {
		t.Fatal(err)
	}
	after := open(t, left, sqlite.Options{}).State()
	got, err := after.Head(ctx, task)
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("head after the crash (%v, -want +got):\n%s", err, d)
	}
	for _, e := range batch(4).Set {
		if values, err := after.Load(ctx, task, []string{e.Key}); err != nil || !bytes.Equal(values[0], e.Value) {
			t.Errorf("%s after the crash: %d bytes (%v), want %d", e.Key, len(values[0]), err, len(e.Value))
		}
	}
}

// TestCommitsAreMerged looks into the file: commits wait in a table of their own, of which there are never many, and none when the file is closed.
func TestCommitsAreMerged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mesh.db")
	db, err := sqlite.OpenWith(path, sqlite.Options{Relaxed: true})
	if err != nil {
		t.Fatal(err)
	}
	other, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	wait := func(query string) (n int) {
		t.Helper()
		if err := other.QueryRowContext(ctx, query).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	s, task := db.State(), state.Task{Topology: "t", Node: "n"}
	epoch, err := s.Claim(ctx, task)
	if err != nil {
		t.Fatal(err)
	}
	most := 0
	commit := func(times, size int) {
		for n := range times {
			b := state.Batch{Set: []state.Entry{{Key: "n", Value: fmt.Appendf(make([]byte, size), " %d", n)}}}
			if err := s.Commit(ctx, task, epoch, &b); err != nil {
				t.Fatal(err)
			}
			if n%10 == 0 {
				most = max(most, wait("SELECT count(*) FROM change"))
			}
			if n%100 == 0 {
				if values, err := s.Load(ctx, task, []string{"n"}); err != nil || !bytes.HasSuffix(values[0], fmt.Appendf(nil, " %d", n)) {
					t.Fatalf("after commit %d the value ends %q (%v)", n, values[0][size:], err)
				}
			}
		}
	}
	commit(1200, 0)
	if most < 100 || most > 512 {
		t.Errorf("at most %d commits waited, want some hundreds, and not more than 512", most)
	}
	commit(60, 60_000)
	commit(2, 600_000) // does not wait, nor does what came before
	if n := wait("SELECT count(*) FROM change"); n > 0 {
		t.Errorf("%d commits wait behind a large one", n)
	}
	most = 0
	commit(60, 60_000)
	if most > 34 {
		t.Errorf("%d commits of 60 KB waited, want at most 34: 2 MiB", most)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if n := wait("SELECT count(*) FROM change"); n > 0 {
		t.Errorf("%d commits were not merged when the file was closed", n)
	}
	if n := wait("SELECT length(value) FROM value"); n != 60_003 {
		t.Errorf("the value has %d bytes, want 60003", n)
	}
}

// TestTasksAreMergedInTurn: when many commits wait those of one task are merged, the task that has most of them, and the others' are left.
func TestTasksAreMergedInTurn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mesh.db")
	db, err := sqlite.OpenWith(path, sqlite.Options{Relaxed: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	other, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	s := db.State()
	var epochs [3]uint64
	task := func(i int) state.Task { return state.Task{Topology: "t", Node: "n", Index: int32(i)} }
	for i := range epochs {
		if epochs[i], err = s.Claim(ctx, task(i)); err != nil {
			t.Fatal(err)
		}
	}
	value := func(n int) []byte { return fmt.Append(nil, n) }
	var last [3]int
	commit := func(i, n int) {
		t.Helper()
		if err := s.Commit(ctx, task(i), epochs[i], &state.Batch{Set: []state.Entry{{Key: "n", Value: value(n)}}}); err != nil {
			t.Fatal(err)
		}
		last[i] = n
	}
	want := func(waiting [3]int) {
		t.Helper()
		for i, n := range waiting {
			var got int
			if err := other.QueryRowContext(ctx, "SELECT count(*) FROM change WHERE task = (SELECT id FROM task WHERE number = ?)", i).Scan(&got); err != nil || got != n {
				t.Errorf("%d commits of task %d wait (%v), want %d", got, i, err, n)
			}
			values, err := s.Load(ctx, task(i), []string{"n"})
			if err != nil || !bytes.Equal(values[0], value(last[i])) {
				t.Errorf("task %d has %q (%v), want %d", i, values, err, last[i])
			}
		}
	}
	for n := range 512 {
		commit([]int{0, 0, 1, 2}[n%4], n)
	}
	want([3]int{256, 128, 128})
	commit(1, 600) // there are enough: what task 0 has goes first
	want([3]int{0, 129, 128})
	for n := range 255 {
		commit(2, n)
	}
	want([3]int{0, 129, 383})
	commit(2, 700) // with this one
	want([3]int{0, 129, 0})
}

// TestTaskGoesToAnotherProcessAndBack: what each has committed is there for the next, though neither has merged it.
func TestTaskGoesToAnotherProcessAndBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mesh.db")
	task := state.Task{Topology: "t", Node: "n"}
	stores := []*sqlite.State{open(t, path, sqlite.Options{}).State(), open(t, path, sqlite.Options{}).State()}
	for n := range 6 {
		s := stores[n%2]
		epoch, err := s.Claim(ctx, task)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			values, err := s.Load(ctx, task, []string{"n"})
			if err != nil || len(values[0]) != 3*n+i {
				t.Fatalf("owner %d, commit %d: the value is %q (%v)", n, i, values[0], err)
			}
			if err := s.Commit(ctx, task, epoch, &state.Batch{Set: []state.Entry{{Key: "n", Value: append(values[0], '.')}}}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestSeveralProcessesShareAFile opens one new file many times at once, as services on one machine do. Each DB has a writer of its own; SQLite has
// them take turns.
func TestSeveralProcessesShareAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mesh.db")
	var wg sync.WaitGroup
	for i := range int32(5) {
		wg.Go(func() {
			db, err := sqlite.Open(path)
			if err != nil {
				t.Error(err)
				return
			}
			defer db.Close()
			s, task := db.State(), state.Task{Topology: "t", Node: "n", Index: i}
			epoch, err := s.Claim(ctx, task)
			if err != nil {
				t.Error(err)
			}
			for n := range 20 {
				if err := s.Commit(ctx, task, epoch, batch(n)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// TestCommitsPassDocuments commits small batches while many documents are written: they do not wait until the last of these is stored.
func TestCommitsPassDocuments(t *testing.T) {
	db, err := sqlite.OpenWith(filepath.Join(t.TempDir(), "mesh.db"), sqlite.Options{Relaxed: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s, task := db.State(), state.Task{Topology: "t", Node: "n"}
	epoch, err := s.Claim(ctx, task)
	if err != nil {
		t.Fatal(err)
	}
	docs := make([]document.Document, 20_000)
	for i := range docs {
		id := fmt.Sprintf("%032x", i*7919%len(docs))
		docs[i] = document.Document{Collection: "c", ID: id, Body: fmt.Appendf(nil, `{"_id":%q}`, id)}
	}
	written := make(chan error, 1)
	go func() {
		refused, err := db.Documents().Write(ctx, docs)
		if err == nil && len(refused) > 0 {
			err = refused[0].Err
		}
		written <- err
	}()
	for commits := 0; ; commits++ {
		if err := s.Commit(ctx, task, epoch, &state.Batch{Set: []state.Entry{{Key: "k", Value: []byte("v")}}}); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-written:
			if err != nil || commits < 50 {
				t.Errorf("%d commits went through while %d documents were written (%v), want one for about every 64", commits, len(docs), err)
			}
			if n, err := db.Documents().Count(ctx, "c"); err != nil || n != int64(len(docs)) {
				t.Errorf("%d documents are there (%v), want %d", n, err, len(docs))
			}
			return
		default:
		}
	}
}

// TestManyCreateAFile has several open the same file at the same moment, which is not there yet.
func TestManyCreateAFile(t *testing.T) {
	for round := range 20 {
		path := filepath.Join(t.TempDir(), "new.db")
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				db, err := sqlite.Open(path)
				if err == nil {
					err = db.Close()
				}
				if err != nil {
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		all.Wait()
	}
}

// TestFailureIsItsOwn has writes that fail halfway share transactions with commits: they leave nothing, and the commits are whole.
func TestFailureIsItsOwn(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "mesh.db"), sqlite.Options{Relaxed: true})
	s, documents := db.State(), db.Documents()
	var twins []document.Document
	for _, id := range []string{"1", "2"} {
		twins = append(twins, document.Document{Collection: "c", ID: id, Body: fmt.Appendf(nil, `{"_id":%q,"a":1}`, id)})
	}
	if refused, err := documents.Write(ctx, twins); err != nil || len(refused) > 0 {
		t.Fatal(refused, err)
	}
	var wg sync.WaitGroup
	for i := range int32(4) {
		wg.Go(func() {
			task := state.Task{Topology: "t", Node: "n", Index: i}
			epoch, err := s.Claim(ctx, task)
			if err != nil {
				t.Error(err)
			}
			for n := range 50 {
				if err := s.Commit(ctx, task, epoch, batch(n)); err != nil {
					t.Error(err)
				}
				unique := []document.Index{{Collection: fmt.Sprint("new", i), Fields: []string{"a"}}, {Collection: "c", Fields: []string{"a"}, Unique: true}}
				if err := documents.Ensure(ctx, unique); err == nil {
					t.Error("made a unique index on values that are there twice")
				}
			}
			if head, err := s.Head(ctx, task); err != nil || len(head.Applied) != 5*256 {
				t.Errorf("%d ids applied, want those of the last five commits (%v)", len(head.Applied), err)
			}
		})
	}
	wg.Wait()
}

func TestFileOfAnotherVersionIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mesh.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if opened, err := sqlite.Open(path); err == nil || !strings.Contains(err.Error(), "version 99") {
		if err == nil {
			_ = opened.Close()
		}
		t.Errorf("opened a file of version 99: %v", err)
	}
}

func TestForeignFileIsRefused(t *testing.T) {
	for name, path := range map[string]string{"a directory": t.TempDir(), "no directory": filepath.Join(t.TempDir(), "none", "x.db")} {
		if db, err := sqlite.Open(path); err == nil {
			_ = db.Close()
			t.Errorf("opened %s", name)
		} else if !strings.Contains(err.Error(), path) {
			t.Errorf("error %q does not name the path", err)
		}
	}
}

// batch is a commit as a stat node makes it: 256 tuples of 64 devices, each applied; the floor follows four commits behind.
func batch(n int) *state.Batch {
	b := &state.Batch{Floors: map[tuple.Origin]int64{1: int64(256 * (n - 4))}}
	for d := range 64 {
		b.Set = append(b.Set, state.Entry{Key: fmt.Sprintf("cache-hourly-device-%03d", d), Value: make([]byte, 120)})
	}
	for i := range 256 {
		p := tuple.Position{Origin: 1, Offset: int64(256*n + i)}
		b.Apply = append(b.Apply, state.Record{ID: tuple.RootID(p), Applied: state.Applied{Position: p}})
	}
	return b
}

// BenchmarkCommit measures commits of one tuple and of 256, from one task and from eight at once.
func BenchmarkCommit(b *testing.B) {
	for _, relaxed := range []bool{false, true} {
		for _, tasks := range []int{1, 8} {
			for _, size := range []int{1, 256} {
				b.Run(fmt.Sprintf("relaxed=%t/tasks=%d/tuples=%d", relaxed, tasks, size), func(b *testing.B) {
					s := open(b, filepath.Join(b.TempDir(), "mesh.db"), sqlite.Options{Relaxed: relaxed}).State()
					var wg sync.WaitGroup
					for i := range tasks {
						wg.Go(func() {
							task := state.Task{Topology: "t", Node: "n", Index: int32(i)}
							epoch, err := s.Claim(ctx, task)
							if err != nil {
								b.Error(err)
							}
							for n := range (b.N + tasks - 1) / tasks {
								x := batch(n)
								if size == 1 {
									x.Set, x.Apply = x.Set[:1], x.Apply[:1]
								}
								if err := s.Commit(ctx, task, epoch, x); err != nil {
									b.Error(err)
								}
							}
						})
					}
					wg.Wait()
					b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
				})
			}
		}
	}
}

// BenchmarkLoad measures one round trip for 64 keys.
func BenchmarkLoad(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "mesh.db"), sqlite.Options{}).State()
	task := state.Task{Topology: "t", Node: "n"}
	epoch, err := s.Claim(ctx, task)
	if err != nil {
		b.Fatal(err)
	}
	x := batch(0)
	if err := s.Commit(ctx, task, epoch, x); err != nil {
		b.Fatal(err)
	}
	var keys []string
	for _, e := range x.Set {
		keys = append(keys, e.Key)
	}
	for b.Loop() {
		if _, err := s.Load(ctx, task, keys); err != nil {
			b.Fatal(err)
		}
	}
}
