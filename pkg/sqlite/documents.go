package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/boltmesh/boltmesh/pkg/document"
)

// Documents is document.Store on a DB. Each follows the order of insertion; there is no TTL.
type Documents struct{ db *DB }

var _ document.Store = (*Documents)(nil)

// Write implements document.Store: all documents in one transaction, perhaps with those of other callers, unless state is waiting to be committed, which goes
// between two pieces of them.
func (s *Documents) Write(ctx context.Context, docs []document.Document) ([]document.Refusal, error) {
	var refused []document.Refusal
	var order []kind
	kinds := map[kind][]int{}
	for i := range docs {
		if err := docs[i].Check(); err != nil {
			refused = append(refused, document.Refusal{Index: i, Err: err})
			continue
		}
		k := kind{docs[i].Collection, docs[i].Version > 0}
		if kinds[k] == nil {
			order = append(order, k)
		}
		kinds[k] = append(kinds[k], i)
	}
	if len(order) == 0 {
		return refused, ctx.Err()
	}
	var broken []document.Refusal
	err := s.db.writer.doBulk(ctx, func(ctx context.Context, w *writer) error {
		broken = nil
		for _, k := range order {
			for some := range slices.Chunk(kinds[k], pieces) {
				r, err := w.documents(ctx, k, docs, some)
				if err == nil {
					err = w.pause(ctx)
				}
				if err != nil {
					return err
				}
				broken = append(broken, r...)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("write %d documents: %w", len(docs), err)
	}
	return append(refused, broken...), nil
}

// kind is what one statement can write.
type kind struct {
	collection string
	versioned  bool
}

// documents writes the chosen ones of docs, all of one kind.
func (w *writer) documents(ctx context.Context, k kind, docs []document.Document, chosen []int) (refused []document.Refusal, err error) {
	table, err := w.collection(ctx, k.collection)
	if err != nil {
		return nil, err
	}
	before, after := "INSERT OR FAIL INTO "+table+" (id, version, body) VALUES ", " ON CONFLICT (id) DO NOTHING"
	if k.versioned {
		after = " ON CONFLICT (id) DO UPDATE SET version = excluded.version, body = excluded.body WHERE excluded.version > version"
	}
	insert := func(some []int) error {
		return w.many(ctx, before, "(?,?,?)", after, len(some), func(args []any, i int) []any {
			d := &docs[some[i]]
			return append(args, d.ID, d.Version, string(d.Body))
		})
	}
	if err = insert(chosen); !isConstraint(err) {
		return nil, err
	}
	// Some document breaks a unique index: find out which, one by one. Those before it are stored (OR FAIL) and stay as they are.
	for i := range chosen {
		if err := insert(chosen[i : i+1]); isConstraint(err) {
			refused = append(refused, document.Refusal{Index: chosen[i], Err: err})
		} else if err != nil {
			return nil, err
		}
	}
	return refused, nil
}

func isConstraint(err error) bool { return isCode(err, sqlite3.SQLITE_CONSTRAINT) }

// collection returns the table of a collection, creating it when it is new.
func (w *writer) collection(ctx context.Context, name string) (table string, err error) {
	var id int64
	err = w.row(ctx, "SELECT id FROM collection WHERE name = ?", []any{&id}, name)
	if !errors.Is(err, sql.ErrNoRows) {
		return tableOf(id), err
	}
	if err := w.row(ctx, "INSERT INTO collection (name) VALUES (?) RETURNING id", []any{&id}, name); err != nil {
		return "", err
	}
	_, err = w.conn.ExecContext(ctx, "CREATE TABLE "+tableOf(id)+
		" (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, body TEXT NOT NULL)")
	return tableOf(id), err
}

func tableOf(id int64) string { return fmt.Sprintf("document_%d", id) }

// table returns the table of a collection, "" when there is none.
func (s *Documents) table(ctx context.Context, collection string) (table string, err error) {
	err = s.db.query(ctx, "SELECT id FROM collection WHERE name = ?", []any{collection}, func(r *sql.Rows) error {
		var id int64
		err := r.Scan(&id)
		table = tableOf(id)
		return err
	})
	return table, err
}

// Ensure implements document.Store with indexes over JSON expressions. A TTL is an error.
func (s *Documents) Ensure(ctx context.Context, indexes []document.Index) error {
	for _, x := range indexes {
		if x.TTL != 0 {
			return fmt.Errorf("index on %s %v: SQLite: %w; leave it out, or store documents in MongoDB", x.Collection, x.Fields, document.ErrNoTTL)
		}
	}
	err := s.db.writer.do(ctx, func(ctx context.Context, w *writer) error {
		for _, x := range indexes {
			table, err := w.collection(ctx, x.Collection)
			if err != nil {
				return err
			}
			if _, err := w.conn.ExecContext(ctx, createIndex(table, x)); err != nil {
				return fmt.Errorf("index on %s %v: %w", x.Collection, x.Fields, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("ensure indexes: %w", err)
	}
	return nil
}

// createIndex writes the statement for one index; x-y.z becomes the JSON path $."x-y"."z".
func createIndex(table string, x document.Index) string {
	var terms []string
	for _, field := range x.Fields {
		name, descending := strings.CutPrefix(field, "-")
		var path strings.Builder
		path.WriteString("$")
		for part := range strings.SplitSeq(name, ".") {
			path.WriteString(`."` + strings.ReplaceAll(part, `"`, `\"`) + `"`)
		}
		term := "json_extract(body, " + quote(path.String(), "'") + ")"
		if descending {
			term += " DESC"
		}
		terms = append(terms, term)
	}
	unique := ""
	if x.Unique {
		unique = "UNIQUE "
	}
	name := quote(table+" "+strings.Join(x.Fields, " "), `"`)
	return "CREATE " + unique + "INDEX IF NOT EXISTS " + name + " ON " + table + " (" + strings.Join(terms, ", ") + ")"
}

func quote(s, mark string) string { return mark + strings.ReplaceAll(s, mark, mark+mark) + mark }

// Collections implements document.Store.
func (s *Documents) Collections(ctx context.Context) (names []string, err error) {
	var all []string
	err = s.db.query(ctx, "SELECT name FROM collection ORDER BY name", nil, func(r *sql.Rows) error {
		var name string
		err := r.Scan(&name)
		all = append(all, name)
		return err
	})
	for _, name := range all {
		n, e := s.count(ctx, name, " LIMIT 1")
		err = errors.Join(err, e)
		if n > 0 {
			names = append(names, name)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list collections: %w", err)
	}
	return names, nil
}

// Count implements document.Store.
func (s *Documents) Count(ctx context.Context, collection string) (int64, error) {
	n, err := s.count(ctx, collection, "")
	if err != nil {
		return 0, fmt.Errorf("count %s: %w", collection, err)
	}
	return n, nil
}

func (s *Documents) count(ctx context.Context, collection, limit string) (n int64, err error) {
	table, err := s.table(ctx, collection)
	if err != nil || table == "" {
		return 0, err
	}
	query := "SELECT count(*) FROM (SELECT 1 FROM " + table + limit + ")"
	err = s.db.query(ctx, query, nil, func(r *sql.Rows) error { return r.Scan(&n) })
	return n, err
}

// Each implements document.Store.
func (s *Documents) Each(ctx context.Context, collection string, f func(body []byte) error) error {
	table, err := s.table(ctx, collection)
	if err == nil && table != "" {
		err = s.db.query(ctx, "SELECT body FROM "+table+" ORDER BY seq", nil, func(r *sql.Rows) error {
			var body []byte
			if err := r.Scan(&body); err != nil {
				return err
			}
			return f(body)
		})
	}
	if err != nil {
		return fmt.Errorf("documents of %s: %w", collection, err)
	}
	return nil
}

// Drop implements document.Store.
func (s *Documents) Drop(ctx context.Context, collection string) error {
	err := s.db.writer.do(ctx, func(ctx context.Context, w *writer) error {
		var id int64
		err := w.row(ctx, "DELETE FROM collection WHERE name = ? RETURNING id", []any{&id}, collection)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		_, err = w.conn.ExecContext(ctx, "DROP TABLE "+tableOf(id))
		return err
	})
	if err != nil {
		return fmt.Errorf("drop %s: %w", collection, err)
	}
	return nil
}

// Close does nothing: the DB is closed by who opened it.
func (s *Documents) Close() error { return nil }
