package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/boltmesh/boltmesh/pkg/state"
)

var _ state.Logs = (*State)(nil)

// Raise implements state.Logs.
func (s *State) Raise(ctx context.Context, topology, log string) (generation uint32, err error) {
	err = s.db.writer.do(ctx, func(ctx context.Context, w *writer) error {
		const query = `INSERT INTO log (topology, name, generation) VALUES (?, ?, 1)
			ON CONFLICT (topology, name) DO UPDATE SET generation = generation + 1 RETURNING generation`
		return w.row(ctx, query, []any{&generation}, topology, log)
	})
	if err != nil {
		return 0, fmt.Errorf("raise the generation of %s in %s: %w", log, topology, err)
	}
	return generation, nil
}

// logRow is what a log's row says; the zero value stands for a log that is not there.
type logRow struct {
	id, floor, length int64
	generation        uint32
}

const logQuery = "SELECT id, floor, length, generation FROM log WHERE topology = ? AND name = ?"

func (l *logRow) dest() []any { return []any{&l.id, &l.floor, &l.length, &l.generation} }

func (w *writer) log(ctx context.Context, topology, log string) (l logRow, err error) {
	if err = w.row(ctx, logQuery, l.dest(), topology, log); errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return l, err
}

// append adds an entry at the end of l.
func (w *writer) append(ctx context.Context, l logRow, entry []byte) error {
	if err := w.exec(ctx, "INSERT INTO entry VALUES (?,?,?)", l.id, l.length, nonNil(entry)); err != nil {
		return err
	}
	return w.exec(ctx, "UPDATE log SET length = length + 1 WHERE id = ?", l.id)
}

// Append implements state.Logs.
func (s *State) Append(ctx context.Context, topology, log string, generation uint32, at int64, entry []byte) error {
	err := s.db.writer.do(ctx, func(ctx context.Context, w *writer) error {
		l, err := w.log(ctx, topology, log)
		switch {
		case err != nil:
			return err
		case generation == 0 || l.generation != generation:
			return state.ErrFenced
		case l.length != at:
			return state.ErrConflict
		}
		return w.append(ctx, l, entry)
	})
	if err != nil {
		return fmt.Errorf("append to log %s of %s at %d: %w", log, topology, at, err)
	}
	return nil
}

// AppendOnce implements state.Logs.
func (s *State) AppendOnce(ctx context.Context, topology, log, once string, entry []byte) (at int64, added bool, err error) {
	err = s.db.writer.do(ctx, func(ctx context.Context, w *writer) error {
		if err := w.exec(ctx, "INSERT INTO log (topology, name) VALUES (?, ?) ON CONFLICT DO NOTHING", topology, log); err != nil {
			return err
		}
		l, err := w.log(ctx, topology, log)
		if err != nil {
			return err
		}
		added = false
		err = w.row(ctx, "SELECT number FROM once WHERE log = ? AND name = ?", []any{&at}, l.id, blob(once))
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		at, added = l.length, true
		if err := w.exec(ctx, "INSERT INTO once VALUES (?,?,?)", l.id, blob(once), at); err != nil {
			return err
		}
		return w.append(ctx, l, entry)
	})
	if err != nil {
		return 0, false, fmt.Errorf("append %q to log %s of %s: %w", once, log, topology, err)
	}
	return at, added, nil
}

// Forget implements state.Logs.
func (s *State) Forget(ctx context.Context, topology, log string, below int64) error {
	err := s.db.writer.do(ctx, func(ctx context.Context, w *writer) error {
		return w.exec(ctx, "DELETE FROM once WHERE log IN (SELECT id FROM log WHERE topology = ? AND name = ?) AND number < ?", topology, log, below)
	})
	if err != nil {
		return fmt.Errorf("forget names of log %s of %s below %d: %w", log, topology, below, err)
	}
	return nil
}

// Read implements state.Logs.
func (s *State) Read(ctx context.Context, topology, log string, from int64, limit int) (entries [][]byte, length, floor int64, err error) {
	var l logRow
	err = s.db.query(ctx, logQuery, []any{topology, log}, func(r *sql.Rows) error { return r.Scan(l.dest()...) })
	if err == nil && l.length > 0 && limit > 0 {
		const query = "SELECT entry FROM entry WHERE log = ? AND number >= ? AND number < ? ORDER BY number LIMIT ?"
		err = s.db.query(ctx, query, []any{l.id, max(from, l.floor), l.length, limit}, func(r *sql.Rows) error {
			var e sql.RawBytes
			err := r.Scan(&e)
			entries = append(entries, blob(e))
			return err
		})
	}
	if err != nil {
		return nil, 0, 0, fmt.Errorf("read log %s of %s: %w", log, topology, err)
	}
	return entries, l.length, l.floor, nil
}

// SetFloor implements state.Logs.
func (s *State) SetFloor(ctx context.Context, topology, log string, generation uint32, floor int64) error {
	return s.setFloor(ctx, topology, log, generation, floor, false)
}

// Advance implements state.Logs.
func (s *State) Advance(ctx context.Context, topology, log string, generation uint32, floor int64) error {
	return s.setFloor(ctx, topology, log, generation, floor, true)
}

func (s *State) setFloor(ctx context.Context, topology, log string, generation uint32, floor int64, beyond bool) error {
	err := s.db.writer.do(ctx, func(ctx context.Context, w *writer) error {
		l, err := w.log(ctx, topology, log)
		switch {
		case err != nil:
			return err
		case generation == 0 || l.generation != generation:
			return state.ErrFenced
		case floor > l.length && !beyond:
			return state.ErrConflict
		case floor <= l.floor:
			return nil
		}
		if err := w.exec(ctx, "DELETE FROM entry WHERE log = ? AND number < ?", l.id, floor); err != nil {
			return err
		}
		return w.exec(ctx, "UPDATE log SET floor = ?, length = ? WHERE id = ?", floor, max(floor, l.length), l.id)
	})
	if err != nil {
		return fmt.Errorf("floor %d of log %s of %s: %w", floor, log, topology, err)
	}
	return nil
}

// DropLogs implements state.Logs.
func (s *State) DropLogs(ctx context.Context, topology string) error {
	const theLogs = "(SELECT id FROM log WHERE topology = ?)"
	err := s.db.writer.do(ctx, func(ctx context.Context, w *writer) error {
		for _, query := range []string{
			"UPDATE log SET generation = generation + 1, floor = 0, length = 0 WHERE topology = ?",
			"DELETE FROM entry WHERE log IN " + theLogs, "DELETE FROM once WHERE log IN " + theLogs,
		} {
			if err := w.exec(ctx, query, topology); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("drop the logs of %s: %w", topology, err)
	}
	return nil
}

// nonNil is blob without a copy, for what stays untouched until the statement has run.
func nonNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
