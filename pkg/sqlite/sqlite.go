// Package sqlite keeps task state, spout logs and documents in one SQLite file: state.Store, state.Logs and document.Store without any server.
// `boltmesh dev` and small gateways use it where larger installations have Redis and MongoDB.
// A DB never writes from more than one connection: commits that wait at the same time share a transaction, and so one fsync.
package sqlite

import (
	"context"
	"database/sql"
	_ "embed" // the schema
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"runtime"
	"time"

	driver "modernc.org/sqlite" // registers itself as "sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Options adjust how a file is opened.
type Options struct {
	// Relaxed leaves the fsync to checkpoints (synchronous=NORMAL): a crash of the process loses nothing, one of the machine may take back the
	// latest commits.
	Relaxed bool
}

// DB is one open file. It is safe for concurrent use.
type DB struct {
	readers *sql.DB
	writes  *sql.DB
	writer  *writer
	read    statements
}

//go:embed schema.sql
var schema string

// schemaVersion is kept in the file; a file of another version is refused.
const schemaVersion = 3

// busyTimeout is how long it waits for other processes that have the file locked.
const busyTimeout = 10 * time.Second

// checkpointPages is how many pages the log has when it is copied into the file, which holds up whoever commits: with four times SQLite's own 1,000, pages that change
// again and again are copied less often. 16 MB on disk.
const checkpointPages = 4000

// Open opens the file at path, creating it when it is missing, such that a commit is on disk when it is acknowledged.
func Open(path string) (*DB, error) { return OpenWith(path, Options{}) }

// OpenWith is Open with options.
func OpenWith(path string, o Options) (*DB, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	synchronous := "FULL"
	if o.Relaxed {
		synchronous = "NORMAL"
	}
	dsn := (&url.URL{Scheme: "file", Path: absolute, RawQuery: url.Values{"_pragma": {
		fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()), "journal_mode(WAL)", "synchronous(" + synchronous + ")", "cache_size(-8000)", "temp_store(MEMORY)",
		fmt.Sprintf("wal_autocheckpoint(%d)", checkpointPages),
	}}.Encode()}).String()
	writes, err := sql.Open("sqlite", dsn+"&_txlock=immediate")
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if err := patiently(func() error { return migrate(writes) }); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), writes.Close())
	}
	readers, err := sql.Open("sqlite", dsn+"&_pragma=query_only(1)")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), writes.Close())
	}
	connections := max(4, runtime.GOMAXPROCS(0))
	readers.SetMaxOpenConns(connections)
	readers.SetMaxIdleConns(connections)
	w, err := newWriter(writes)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), readers.Close(), writes.Close())
	}
	return &DB{readers: readers, writes: writes, writer: w, read: statements{prepare: readers.PrepareContext}}, nil
}

// patiently runs f again while the file is locked: SQLite itself does not wait when it gives a new file its journal mode while others open it too.
func patiently(f func() error) error {
	for deadline := time.Now().Add(busyTimeout); ; time.Sleep(5 * time.Millisecond) {
		if err := f(); !isCode(err, sqlite3.SQLITE_BUSY) || time.Now().After(deadline) {
			return err
		}
	}
}

// isCode reports whether an error is one of SQLite's with that primary result code.
func isCode(err error, code int) bool {
	var e *driver.Error
	return errors.As(err, &e) && e.Code()&0xff == code
}

// migrate creates the tables of an empty file and refuses a file of another version.
func migrate(db *sql.DB) error {
	ctx := context.Background()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it has nothing to do
	var version int
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	switch version {
	case schemaVersion:
		return nil
	case 0:
	default:
		return fmt.Errorf("the file has version %d, this program knows version %d: use the program that wrote it, or another file", version, schemaVersion)
	}
	if _, err := tx.ExecContext(ctx, schema+fmt.Sprintf("PRAGMA user_version = %d;", schemaVersion)); err != nil {
		return err
	}
	return tx.Commit()
}

// State returns the file's state store and logs. Closing it does nothing: close the DB.
func (db *DB) State() *State { return &State{db} }

// Documents returns the file's document store. Closing it does nothing: close the DB.
func (db *DB) Documents() *Documents { return &Documents{db} }

// Close finishes the writes under way and closes the file.
func (db *DB) Close() error {
	return errors.Join(db.writer.close(), db.read.close(), db.readers.Close(), db.writes.Close())
}
