package sqlite

import (
	"context"
	"database/sql"
	"maps"
	"slices"
	"sync"

	"github.com/boltmesh/boltmesh/pkg/state"
)

// Commits wait to be merged until there are so many of them, or so many bytes; then those of the task that has most go into the tables. A commit is a row of its
// own until then: one of few tuples touches a page or two instead of some of each table, and a key that changes with each goes into the table of values once for
// all of them. One of many keys does not wait, since others will hardly change the same. All tasks' at once would hold up whoever commits next for
// as long as a merge of all takes, tens of milliseconds.
const (
	mergeCommits = 512
	mergeBytes   = 2 << 20
	largeKeys    = 512
	largeBytes   = 512 << 10
)

// large reports whether a commit, encoded as row, goes into the tables at once. What ticks have recorded does not count much: most of it is forgotten before it
// would be merged.
func large(row []byte, b *state.Batch) bool {
	return len(b.Set)+len(b.Delete) >= largeKeys || len(row) >= largeBytes
}

// unmerged is what this process has committed and the table of values does not say yet, for Load. What others have committed, to tasks that were theirs,
// is merged when a task is claimed.
type unmerged struct {
	mu             sync.Mutex
	tasks          map[state.Task]*recent
	commits, bytes int // of all tasks; only the writer looks at these
}

// recent is a task's commits, in order.
type recent struct {
	rows           [][]byte // encoded, not in change yet: who commits seldom loads
	change         *change
	commits, bytes int // in both
}

// look shows f what is unmerged of a task, if anything is.
func (u *unmerged) look(t state.Task, f func(*change)) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	r := u.tasks[t]
	if r == nil {
		return nil
	}
	for _, row := range r.rows {
		if err := r.change.fold(row); err != nil {
			return err
		}
	}
	r.rows = nil
	f(r.change)
	return nil
}

// committed forgets what a transaction has merged, and adds what it has committed.
func (u *unmerged) committed(all bool, merged []state.Task, commits []commit) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if all || u.tasks == nil {
		u.tasks, u.commits, u.bytes = map[state.Task]*recent{}, 0, 0
	}
	for _, t := range merged {
		if r := u.tasks[t]; r != nil {
			u.commits, u.bytes = u.commits-r.commits, u.bytes-r.bytes
			delete(u.tasks, t)
		}
	}
	for _, c := range commits {
		r := u.tasks[c.task]
		if r == nil {
			r = &recent{change: newChange()}
			u.tasks[c.task] = r
		}
		r.rows = append(r.rows, c.row)
		r.commits, r.bytes = r.commits+1, r.bytes+len(c.row)
		u.commits, u.bytes = u.commits+1, u.bytes+len(c.row)
	}
}

// due returns the task whose commits are to be merged next, if it is time to.
func (u *unmerged) due() (fullest state.Task, is bool) {
	if u.commits < mergeCommits && u.bytes < mergeBytes {
		return fullest, false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	most := 0.0
	for t, r := range u.tasks {
		if share := max(float64(r.commits)/mergeCommits, float64(r.bytes)/mergeBytes); share > most {
			fullest, most = t, share
		}
	}
	return fullest, true
}

// commit is one of a transaction.
type commit struct {
	task state.Task
	row  []byte
}

// merge merges everything that has been committed, by whomever, into the tables that are read.
func (w *writer) merge(ctx context.Context) error {
	w.staged, w.merged, w.all = w.staged[:0], w.merged[:0], true
	return w.mergeOf(ctx, everyTask)
}

// mergeTask merges what has been committed of one task, in this transaction too.
func (w *writer) mergeTask(ctx context.Context, t state.Task, task int64) error {
	w.staged = slices.DeleteFunc(w.staged, func(c commit) bool { return c.task == t })
	w.merged = append(w.merged, t)
	return w.mergeOf(ctx, task)
}

// mergeSome merges the commits of one task, if it is time to.
func (w *writer) mergeSome(ctx context.Context) error {
	t, due := w.unmerged.due()
	if !due {
		return nil
	}
	var task int64
	if err := w.row(ctx, "SELECT "+theTask, []any{&task}, names(t)...); err != nil {
		return err
	}
	return w.mergeTask(ctx, t, task)
}

// direct commits a large change: what was committed of the task before is merged, and then it.
func (w *writer) direct(ctx context.Context, t state.Task, task int64, row []byte) error {
	if err := w.mergeTask(ctx, t, task); err != nil {
		return err
	}
	c := newChange()
	if err := c.fold(row); err != nil {
		return err
	}
	return w.apply(ctx, task, c)
}

// everyTask is no task's number.
const everyTask = 0

func (w *writer) mergeOf(ctx context.Context, task int64) error {
	const which = "FROM change WHERE ?1 = 0 OR task = ?1"
	tasks := map[int64]*change{}
	err := w.stmts.each(ctx, "SELECT task, batch "+which+" ORDER BY seq", []any{task}, func(r *sql.Rows) error {
		var task int64
		var row []byte
		if err := r.Scan(&task, &row); err != nil {
			return err
		}
		if tasks[task] == nil {
			tasks[task] = newChange()
		}
		return tasks[task].fold(row)
	})
	if err != nil || len(tasks) == 0 {
		return err
	}
	for _, task := range slices.Sorted(maps.Keys(tasks)) {
		if err := w.apply(ctx, task, tasks[task]); err != nil {
			return err
		}
	}
	return w.exec(ctx, "DELETE "+which, task)
}

// apply writes a change into the tables that are read.
func (w *writer) apply(ctx context.Context, task int64, c *change) error {
	c.forget()
	for _, part := range []func(context.Context, int64, *change) error{w.values, w.floors, w.packs, w.applied, w.outputs} {
		if err := part(ctx, task, c); err != nil {
			return err
		}
	}
	return nil
}

// The inserts below say OR FAIL to spare SQLite the journal with which it undoes a statement of many rows that fails at one of them: whatever fails
// here undoes the whole transaction. For documents that journal was a third of the processor time.

func (w *writer) values(ctx context.Context, task int64, c *change) error {
	var set, gone []string
	for _, key := range slices.Sorted(maps.Keys(c.values)) {
		if c.values[key] != nil {
			set = append(set, key)
		} else {
			gone = append(gone, key)
		}
	}
	err := w.many(ctx, "INSERT OR FAIL INTO value VALUES ", "(?,?,?)", " ON CONFLICT DO UPDATE SET value = excluded.value", len(set),
		func(args []any, i int) []any { return append(args, task, blob(set[i]), c.values[set[i]]) })
	if err != nil {
		return err
	}
	return w.many(ctx, "DELETE FROM value WHERE task = ? AND key IN (", "?", ")", len(gone),
		func(args []any, i int) []any { return append(args, blob(gone[i])) }, task)
}

func (w *writer) packs(ctx context.Context, task int64, c *change) error {
	var packs []state.Pack
	for o, ids := range c.packs {
		if p := state.Repack(o, ids, c.floors); len(p.IDs) > 0 {
			packs = append(packs, p)
		}
	}
	return w.many(ctx, "INSERT OR FAIL INTO pack (task, origin, greatest, ids) VALUES ", "(?,?,?,?)", "", len(packs), func(args []any, i int) []any {
		return append(args, task, int64(packs[i].Origin), packs[i].Greatest, packs[i].IDs)
	})
}

func (w *writer) applied(ctx context.Context, task int64, c *change) error {
	ids := slices.Collect(maps.Keys(c.applied))
	const again = ` ON CONFLICT DO UPDATE SET origin = excluded.origin, offset = excluded.offset, slices = excluded.slices,
		unfinished = excluded.unfinished, cursor = excluded.cursor`
	return w.many(ctx, "INSERT OR FAIL INTO applied VALUES ", "(?,?,?,?,?,?,?)", again, len(ids), func(args []any, i int) []any {
		a := c.applied[ids[i]]
		return append(args, task, ids[i][:], int64(a.Position.Origin), a.Position.Offset, a.Slices, a.Unfinished, blob(a.Cursor))
	})
}

func (w *writer) outputs(ctx context.Context, task int64, c *change) error {
	recorded := slices.Collect(maps.Keys(c.outputs))
	const replace = " ON CONFLICT DO UPDATE SET outputs = excluded.outputs"
	return w.many(ctx, "INSERT OR FAIL INTO output VALUES ", "(?,?,?,?)", replace, len(recorded), func(args []any, i int) []any {
		return append(args, task, recorded[i].id[:], recorded[i].slice, c.outputs[recorded[i]])
	})
}

func (w *writer) floors(ctx context.Context, task int64, c *change) error {
	for origin, floor := range c.floors {
		const query = "INSERT INTO floor VALUES (?,?,?) ON CONFLICT DO UPDATE SET floor = excluded.floor WHERE excluded.floor > floor.floor"
		raised, err := w.update(ctx, query, task, int64(origin), floor)
		if err != nil {
			return err
		}
		if raised > 0 {
			if err := w.forget(ctx, task, int64(origin), floor); err != nil {
				return err
			}
		}
	}
	return nil
}

// forget deletes what was applied below a floor that has been raised.
func (w *writer) forget(ctx context.Context, task, origin, floor int64) error {
	const below = "WHERE task = ?1 AND origin = ?2 AND offset < ?3"
	var some bool // most often there is nothing but packs
	if err := w.row(ctx, "SELECT EXISTS (SELECT 1 FROM applied "+below+")", []any{&some}, task, origin, floor); err != nil {
		return err
	}
	if some {
		err := w.exec(ctx, "DELETE FROM output WHERE task = ?1 AND id IN (SELECT id FROM applied "+below+")", task, origin, floor)
		if err == nil {
			err = w.exec(ctx, "DELETE FROM applied "+below, task, origin, floor)
		}
		if err != nil {
			return err
		}
	}
	return w.exec(ctx, "DELETE FROM pack WHERE task = ?1 AND origin = ?2 AND greatest < ?3", task, origin, floor)
}
