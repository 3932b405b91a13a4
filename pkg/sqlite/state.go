package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// State is state.Store and state.Logs on a DB.
type State struct{ db *DB }

var _ state.Store = (*State)(nil)

// theTask selects a task's number by its names, the first three parameters.
const theTask = "(SELECT id FROM task WHERE topology = ? AND node = ? AND number = ?)"

func names(t state.Task) []any { return []any{t.Topology, t.Node, t.Index} }

// blob makes b a value: an empty one instead of NULL.
func blob[B ~[]byte | ~string](b B) []byte { return append([]byte{}, b...) }

// query calls f for each row of a reading query.
func (db *DB) query(ctx context.Context, query string, args []any, f func(*sql.Rows) error) error {
	return db.read.each(ctx, query, args, f)
}

// Claim implements state.Store.
func (s *State) Claim(ctx context.Context, t state.Task) (epoch uint64, err error) {
	err = s.db.writer.do(ctx, func(ctx context.Context, w *writer) error {
		epoch, err = w.claim(ctx, t)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("claim %s: %w", t, err)
	}
	return epoch, nil
}

func (w *writer) claim(ctx context.Context, t state.Task) (epoch uint64, err error) {
	const query = `INSERT INTO task (topology, node, number, fence) VALUES (?, ?, ?, 1)
		ON CONFLICT (topology, node, number) DO UPDATE SET fence = fence + 1 RETURNING fence`
	if err = w.row(ctx, query, []any{&epoch}, names(t)...); err != nil {
		return 0, err
	}
	return epoch, w.merge(ctx) // what another process has committed: Load would not see it
}

// settle merges what has been committed, so that the tables say everything.
func (s *State) settle(ctx context.Context) error {
	return s.db.writer.do(ctx, func(ctx context.Context, w *writer) error { return w.merge(ctx) })
}

// Head implements state.Store.
func (s *State) Head(ctx context.Context, t state.Task) (state.Head, error) {
	h := state.Head{Floors: map[tuple.Origin]int64{}, Applied: map[tuple.ID]state.Applied{}}
	if err := s.settle(ctx); err != nil {
		return state.Head{}, fmt.Errorf("head of %s: %w", t, err)
	}
	err := s.db.query(ctx, "SELECT origin, floor FROM floor WHERE task = "+theTask, names(t), func(r *sql.Rows) error {
		var origin, floor int64
		err := r.Scan(&origin, &floor)
		h.Floors[tuple.Origin(origin)] = floor
		return err
	})
	if err != nil {
		return state.Head{}, fmt.Errorf("head of %s: %w", t, err)
	}
	const others = "SELECT id, origin, offset, slices, unfinished, cursor FROM applied WHERE task = " + theTask
	err = s.db.query(ctx, others, names(t), func(r *sql.Rows) error {
		var id, cursor sql.RawBytes
		var a state.Applied
		var origin int64
		if err := r.Scan(&id, &origin, &a.Position.Offset, &a.Slices, &a.Unfinished, &cursor); err != nil {
			return err
		}
		a.Position.Origin, a.Cursor = tuple.Origin(origin), string(cursor)
		h.Add(tuple.ID(id), a)
		return nil
	})
	if err != nil {
		return state.Head{}, fmt.Errorf("head of %s: %w", t, err)
	}
	err = s.db.query(ctx, "SELECT origin, ids FROM pack WHERE task = "+theTask, names(t), func(r *sql.Rows) error {
		var origin int64
		var ids sql.RawBytes
		if err := r.Scan(&origin, &ids); err != nil {
			return err
		}
		return h.Unpack(state.Pack{Origin: tuple.Origin(origin), IDs: ids})
	})
	if err != nil {
		return state.Head{}, fmt.Errorf("head of %s: %w", t, err)
	}
	return h, nil
}

// loadQueries look up 64, 8 or 1 keys.
var loadQueries = map[int]string{64: loadQuery(64), 8: loadQuery(8), 1: loadQuery(1)}

func loadQuery(keys int) string {
	return "SELECT key, value FROM value WHERE task = " + theTask + " AND key IN (?" + strings.Repeat(",?", keys-1) + ")"
}

// Load implements state.Store. To the task's owner it returns what is committed; what another process has committed since the task was claimed here may be
// missing.
func (s *State) Load(ctx context.Context, t state.Task, keys []string) ([][]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("load %d values of %s: %w", len(keys), t, err)
	}
	found := make(map[string][]byte, len(keys))
	rest := keys
	err := s.db.writer.unmerged.look(t, func(c *change) {
		rest = nil
		for _, key := range keys {
			if v, there := c.values[key]; there {
				found[key] = bytes.Clone(v)
			} else {
				rest = append(rest, key)
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("load %d values of %s: %w", len(keys), t, err)
	}
	take := func(r *sql.Rows) error {
		var key, value sql.RawBytes
		err := r.Scan(&key, &value)
		found[string(key)] = blob(value)
		return err
	}
	for len(rest) > 0 {
		size := 64
		for size > len(rest) {
			size /= 8
		}
		args := append(make([]any, 0, 3+size), names(t)...)
		for _, key := range rest[:size] {
			args = append(args, blob(key))
		}
		rest = rest[size:]
		if err := s.db.query(ctx, loadQueries[size], args, take); err != nil {
			return nil, fmt.Errorf("load %d values of %s: %w", len(keys), t, err)
		}
	}
	values := make([][]byte, len(keys))
	for i, key := range keys {
		values[i] = found[key]
	}
	return values, nil
}

// Outputs implements state.Store.
func (s *State) Outputs(ctx context.Context, t state.Task, id tuple.ID) (outputs [][]byte, err error) {
	unmerged := false
	err = s.db.writer.unmerged.look(t, func(c *change) { _, unmerged = c.applied[id] })
	if err == nil && unmerged {
		err = s.settle(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("outputs of %s in %s: %w", id, t, err)
	}
	const query = "SELECT outputs FROM output WHERE task = " + theTask + " AND id = ? ORDER BY slice"
	err = s.db.query(ctx, query, append(names(t), id[:]), func(r *sql.Rows) error {
		var o sql.RawBytes
		err := r.Scan(&o)
		outputs = append(outputs, blob(o))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("outputs of %s in %s: %w", id, t, err)
	}
	return outputs, nil
}

// Due implements state.Store. When few entries are due, it takes them all by time and sorts them; when many are, it walks the keys, most of which
// are then wanted: what it looks at is at most 8 x limit entries, or an eighth of the agenda.
func (s *State) Due(ctx context.Context, t state.Task, until int64, after string, limit int) (due []state.Due, err error) {
	if limit <= 0 {
		return nil, nil
	}
	take := func(r *sql.Rows) error {
		var key sql.RawBytes
		var at int64
		err := r.Scan(&key, &at)
		due = append(due, state.Due{Key: string(key), At: at})
		return err
	}
	few := 8 * limit
	const byTime = "SELECT key, at FROM agenda INDEXED BY agenda_at WHERE task = " + theTask + " AND at <= ? LIMIT ?"
	if err := s.db.query(ctx, byTime, append(names(t), until, few+1), take); err != nil {
		return nil, fmt.Errorf("agenda of %s: %w", t, err)
	}
	if len(due) <= few {
		due = slices.DeleteFunc(due, func(d state.Due) bool { return d.Key <= after })
		slices.SortFunc(due, func(a, b state.Due) int { return strings.Compare(a.Key, b.Key) })
		return due[:min(limit, len(due))], nil
	}
	due = nil
	const byKey = "SELECT key, at FROM agenda NOT INDEXED WHERE task = " + theTask + " AND key > ? AND at <= ? ORDER BY key LIMIT ?"
	if err := s.db.query(ctx, byKey, append(names(t), blob(after), until, limit), take); err != nil {
		return nil, fmt.Errorf("agenda of %s: %w", t, err)
	}
	return due, nil
}

// Walk implements state.Store, in the order of keys. The cursor is the last key behind a sign, so that there is one after the empty key.
func (s *State) Walk(ctx context.Context, tasks []state.Task, cursor string, limit int) (page []state.Entry, next string, err error) {
	if err := s.settle(ctx); err != nil {
		return nil, "", fmt.Errorf("walk over %d tasks: %w", len(tasks), err)
	}
	return state.InTurn(tasks, cursor, func(t state.Task, cursor string) ([]state.Entry, string, error) { return s.walk(ctx, t, cursor, limit) })
}

func (s *State) walk(ctx context.Context, t state.Task, cursor string, limit int) (page []state.Entry, next string, err error) {
	const query = "SELECT key, value FROM value WHERE task = " + theTask + " AND (? OR key > ?) ORDER BY key LIMIT ?"
	last, goesOn := strings.CutPrefix(cursor, "+")
	limit = max(limit, 1)
	err = s.db.query(ctx, query, append(names(t), !goesOn, blob(last), limit), func(r *sql.Rows) error {
		var key, value sql.RawBytes
		err := r.Scan(&key, &value)
		page = append(page, state.Entry{Key: string(key), Value: blob(value)})
		return err
	})
	if err != nil {
		return nil, "", fmt.Errorf("walk over %s: %w", t, err)
	}
	if len(page) == limit {
		next = "+" + page[limit-1].Key
	}
	return page, next, nil
}

// Commit implements state.Store.
func (s *State) Commit(ctx context.Context, t state.Task, epoch uint64, b *state.Batch) error {
	row, do := appendChange(nil, b), s.db.writer.do
	if large(row, b) || len(b.Agenda)+len(b.Strike) > pieces {
		do = s.db.writer.doLong
	}
	err := do(ctx, func(ctx context.Context, w *writer) error { return w.commit(ctx, t, epoch, row, b) })
	if err != nil {
		return fmt.Errorf("commit %s in epoch %d: %w", t, epoch, err)
	}
	return nil
}

func (w *writer) commit(ctx context.Context, t state.Task, epoch uint64, row []byte, b *state.Batch) error {
	whole := large(row, b)
	if !whole {
		if err := w.stage(ctx, t, epoch, row); err != nil {
			return err
		}
	}
	if !whole && len(b.Agenda)+len(b.Strike) == 0 { // most often
		return nil
	}
	task, err := w.held(ctx, t, epoch)
	if err == nil && whole {
		err = w.direct(ctx, t, task, row)
	}
	if err != nil {
		return err
	}
	return w.agenda(ctx, task, b)
}

// stage commits a change as a row, to be merged later.
func (w *writer) stage(ctx context.Context, t state.Task, epoch uint64, row []byte) error {
	const insert = "INSERT OR FAIL INTO change (task, batch) SELECT id, ? FROM task WHERE topology = ? AND node = ? AND number = ? AND fence = ?"
	written, err := w.update(ctx, insert, row, t.Topology, t.Node, t.Index, epoch)
	if err != nil {
		return err
	}
	if written == 0 {
		return state.ErrFenced
	}
	w.staged = append(w.staged, commit{t, row})
	return nil
}

// held returns the number under which a task's rows are kept, if it has been claimed in that epoch and not since.
func (w *writer) held(ctx context.Context, t state.Task, epoch uint64) (task int64, err error) {
	var fence uint64
	err = w.row(ctx, "SELECT id, fence FROM task WHERE topology = ? AND node = ? AND number = ?", []any{&task, &fence}, names(t)...)
	if errors.Is(err, sql.ErrNoRows) || err == nil && fence != epoch {
		return 0, state.ErrFenced
	}
	return task, err
}

func (w *writer) agenda(ctx context.Context, task int64, b *state.Batch) error {
	err := w.many(ctx, "INSERT OR FAIL INTO agenda VALUES ", "(?,?,?)", " ON CONFLICT DO UPDATE SET at = excluded.at", len(b.Agenda),
		func(args []any, i int) []any { return append(args, task, blob(b.Agenda[i].Key), b.Agenda[i].At) })
	if err != nil {
		return err
	}
	return w.many(ctx, "DELETE FROM agenda WHERE task = ? AND key IN (", "?", ")", len(b.Strike),
		func(args []any, i int) []any { return append(args, blob(b.Strike[i])) }, task)
}

// Drop implements state.Store.
func (s *State) Drop(ctx context.Context, tasks []state.Claimed) error {
	for _, t := range tasks {
		if err := s.db.writer.do(ctx, func(ctx context.Context, w *writer) error { return w.drop(ctx, t) }); err != nil {
			return fmt.Errorf("drop %s in epoch %d: %w", t, t.Epoch, err)
		}
	}
	return nil
}

func (w *writer) drop(ctx context.Context, t state.Claimed) error {
	if _, err := w.held(ctx, t.Task, t.Epoch); err != nil {
		return err
	}
	if err := w.merge(ctx); err != nil {
		return err
	}
	for _, table := range []string{"value", "floor", "pack", "applied", "output", "agenda"} {
		if err := w.exec(ctx, "DELETE FROM "+table+" WHERE task = "+theTask, names(t.Task)...); err != nil {
			return err
		}
	}
	return nil
}

// Close does nothing: the DB is closed by who opened it.
func (s *State) Close() error { return nil }
