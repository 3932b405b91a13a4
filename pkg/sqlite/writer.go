package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/boltmesh/boltmesh/pkg/state"
)

// errClosed is what writes after Close get.
var errClosed = errors.New("the database is closed")

// How many writes share a transaction at most, and with it how long the first of them waits.
const (
	maxGroup = 64
	maxBulk  = 4
)

// writer is the one connection that writes. Its goroutine takes all short writes that wait, runs them in one transaction, and commits: while one fsync goes on,
// the next group gathers. Then it is a long one's turn, by itself, so that short ones wait for no more than one; or that of the bulk ones that wait, which
// together change fewer pages than one by one, and for which no short one waits, as they pause.
type writer struct {
	conn    *sql.Conn
	short   chan *write // unbuffered, as the others: what was sent has been received
	long    chan *write
	bulk    chan *write
	closing chan struct{}
	closed  chan struct{}
	once    sync.Once
	stmts   statements
	args    []any // scratch of many

	unmerged unmerged
	staged   []commit     // in this transaction
	merged   []state.Task // in this transaction
	all      bool         // everything was merged in this transaction, before what merged and staged say
}

// write is one caller's work. It is done whole or not at all.
type write struct {
	run   func(context.Context, *writer) error
	state atomic.Int32
	done  chan error
}

const (
	waiting int32 = iota
	taken
	abandoned
)

func newWriter(db *sql.DB) (*writer, error) {
	conn, err := db.Conn(context.Background())
	if err != nil {
		return nil, err
	}
	w := &writer{conn: conn, short: make(chan *write), long: make(chan *write), bulk: make(chan *write), closing: make(chan struct{}), closed: make(chan struct{})}
	w.stmts.prepare = conn.PrepareContext
	go w.loop()
	return w, nil
}

// do has the writer run f, perhaps twice, and returns once that is committed. An error that f did not return means that the outcome is unknown. When
// ctx ends before the writer has begun, f is not run; otherwise do waits for the end, so that f's data is the caller's again.
func (w *writer) do(ctx context.Context, f func(context.Context, *writer) error) error {
	return w.queue(ctx, w.short, f)
}

// doLong is do for what takes milliseconds.
func (w *writer) doLong(ctx context.Context, f func(context.Context, *writer) error) error {
	return w.queue(ctx, w.long, f)
}

// doBulk is do for what takes milliseconds and changes nothing when it is done again. f pauses now and then.
func (w *writer) doBulk(ctx context.Context, f func(context.Context, *writer) error) error {
	return w.queue(ctx, w.bulk, f)
}

func (w *writer) queue(ctx context.Context, queue chan<- *write, f func(context.Context, *writer) error) error {
	if err := ctx.Err(); err != nil {
		return err // select would take either way
	}
	job := &write{run: f, done: make(chan error, 1)}
	select {
	case queue <- job:
	case <-w.closing:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-job.done:
		return err
	case <-ctx.Done():
		if job.state.CompareAndSwap(waiting, abandoned) {
			return ctx.Err()
		}
		return <-job.done
	}
}

func (w *writer) close() error {
	w.once.Do(func() { close(w.closing) })
	<-w.closed
	var err error
	if w.unmerged.commits > 0 {
		_, err = w.together([]*write{{run: func(ctx context.Context, w *writer) error { return w.merge(ctx) }}})
	}
	return errors.Join(err, w.stmts.close(), w.conn.Close())
}

func (w *writer) loop() {
	defer close(w.closed)
	for {
		var group, turn, bulk []*write
		select {
		case job := <-w.short:
			group = job.join(group)
		case job := <-w.long:
			turn = job.join(turn)
		case job := <-w.bulk:
			bulk = job.join(bulk)
		case <-w.closing:
			return
		}
		w.transact(gather(group, w.short, maxGroup))
		if len(bulk) == 0 {
			turn = gather(turn, w.long, 1)
		}
		if len(turn) == 0 {
			turn = gather(bulk, w.bulk, maxBulk)
		}
		w.transact(turn)
	}
}

// join adds a write to a group, unless its caller has given it up.
func (job *write) join(group []*write) []*write {
	if job.state.CompareAndSwap(waiting, taken) {
		group = append(group, job)
	}
	return group
}

// gather adds writes that wait to a group of at most so many.
func gather(group []*write, from <-chan *write, most int) []*write {
	for len(group) < most {
		select {
		case job := <-from:
			group = job.join(group)
		default:
			return group
		}
	}
	return group
}

// pause lets short writes that wait go before the rest of a bulk one: what it has done until now is committed, with those that share its transaction. Whoever
// calls it must be content with that when what follows fails, and is done again.
func (w *writer) pause(ctx context.Context) error {
	group := gather(nil, w.short, maxGroup)
	if len(group) == 0 {
		return nil
	}
	if err := w.end(ctx); err != nil {
		for _, job := range group {
			job.done <- err
		}
		return err
	}
	w.transact(group)
	return w.begin(ctx)
}

// transact runs a group in one transaction and tells each caller the outcome. When one of several fails, all are undone, and each is run again in a
// transaction of its own. Savepoints would undo one alone, but they have SQLite copy every page that changes, and failures are rare.
func (w *writer) transact(group []*write) {
	failed, err := w.together(group)
	for i, job := range group {
		if failed && len(group) > 1 {
			_, err = w.together(group[i : i+1])
		}
		job.done <- err
	}
}

// together runs a group whole or not at all; failed reports that it was one of them that returned the error.
func (w *writer) together(group []*write) (failed bool, err error) {
	if len(group) == 0 {
		return false, nil
	}
	ctx := context.Background() // a write once begun is finished
	if err := w.begin(ctx); err != nil {
		return false, err
	}
	for _, job := range group {
		if err := job.run(ctx, w); err != nil {
			return true, errors.Join(err, w.exec(ctx, "ROLLBACK"))
		}
	}
	return false, w.end(ctx)
}

func (w *writer) begin(ctx context.Context) error {
	w.staged, w.merged, w.all = w.staged[:0], w.merged[:0], false
	if err := w.exec(ctx, "BEGIN IMMEDIATE"); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	return nil
}

// end commits, after merging some of what is due to be.
func (w *writer) end(ctx context.Context) error {
	if err := w.mergeSome(ctx); err != nil {
		return errors.Join(fmt.Errorf("merge commits: %w", err), w.exec(ctx, "ROLLBACK"))
	}
	if err := w.exec(ctx, "COMMIT"); err != nil {
		return errors.Join(fmt.Errorf("commit: %w", err), w.exec(ctx, "ROLLBACK"))
	}
	w.unmerged.committed(w.all, w.merged, w.staged)
	clear(w.staged)
	return nil
}

// exec runs one statement, prepared once.
func (w *writer) exec(ctx context.Context, query string, args ...any) error {
	_, err := w.update(ctx, query, args...)
	return err
}

// update is exec, and returns how many rows that has changed.
func (w *writer) update(ctx context.Context, query string, args ...any) (rows int64, err error) {
	stmt, err := w.stmts.get(ctx, query)
	if err != nil {
		return 0, err
	}
	result, err := stmt.ExecContext(ctx, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// row returns the first row of a query, prepared once.
func (w *writer) row(ctx context.Context, query string, dest []any, args ...any) error {
	stmt, err := w.stmts.get(ctx, query)
	if err != nil {
		return err
	}
	return stmt.QueryRowContext(ctx, args...).Scan(dest...)
}

// pieces is how many rows a statement writes at most.
const pieces = 64

// many runs a statement for n rows, up to pieces of them at a time: before, then row once for each, separated by commas, then after. fixed are the
// arguments of before, add appends those of row i.
func (w *writer) many(ctx context.Context, before, row, after string, n int, add func(args []any, i int) []any, fixed ...any) error {
	for first := 0; first < n; {
		size := pieces
		for size > n-first {
			size /= 4 // 64, 16, 4, 1: few statements to prepare
		}
		args := append(w.args[:0], fixed...)
		for i := first; i < first+size; i++ {
			args = add(args, i)
		}
		err := w.exec(ctx, before+row+strings.Repeat(","+row, size-1)+after, args...)
		clear(args)
		w.args = args[:0]
		if err != nil {
			return err
		}
		first += size
	}
	return nil
}

// statements prepares each query once.
type statements struct {
	prepare func(ctx context.Context, query string) (*sql.Stmt, error)
	mu      sync.Mutex
	known   map[string]*sql.Stmt
}

func (s *statements) get(ctx context.Context, query string) (*sql.Stmt, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if stmt := s.known[query]; stmt != nil {
		return stmt, nil
	}
	stmt, err := s.prepare(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("prepare %q: %w", query, err)
	}
	if s.known == nil {
		s.known = map[string]*sql.Stmt{}
	}
	s.known[query] = stmt
	return stmt, nil
}

// each calls f for each row of a query.
func (s *statements) each(ctx context.Context, query string, args []any, f func(*sql.Rows) error) error {
	stmt, err := s.get(ctx, query)
	if err != nil {
		return err
	}
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (s *statements) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	for _, stmt := range s.known {
		err = errors.Join(err, stmt.Close())
	}
	s.known = nil
	return err
}
