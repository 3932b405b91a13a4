package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"github.com/boltmesh/boltmesh/pkg/archive"
)

// Archives is archive.Store in a file.
type Archives struct{ db *DB }

var _ archive.Store = (*Archives)(nil)

// Archives returns the file's archives, whose table is made if it is missing: files from before have none. Closing them does nothing: close the DB.
func (db *DB) Archives(ctx context.Context) (*Archives, error) {
	err := db.writer.do(ctx, func(ctx context.Context, w *writer) error {
		_, err := w.conn.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS archive (
			archive TEXT, device TEXT, version INTEGER NOT NULL, fields TEXT NOT NULL, PRIMARY KEY (archive, device)) WITHOUT ROWID`)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open archives: %w", err)
	}
	return &Archives{db}, nil
}

// Read implements archive.Store.
func (s *Archives) Read(ctx context.Context, name string, devices []string) ([]*archive.Profile, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	wanted, err := json.Marshal(devices)
	if err != nil {
		return nil, err
	}
	found := make(map[string]*archive.Profile, len(devices))
	err = s.db.query(ctx, "SELECT device, version, fields FROM archive WHERE archive = ? AND device IN (SELECT value FROM json_each(?))",
		[]any{name, string(wanted)}, func(r *sql.Rows) error {
			p := &archive.Profile{}
			err := r.Scan(&p.Device, &p.Version, &p.Fields)
			found[p.Device] = p
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("read archive %s: %w", name, err)
	}
	out := make([]*archive.Profile, len(devices))
	for i, d := range devices {
		out[i] = found[d]
	}
	return out, nil
}

// Write implements archive.Store: all profiles in one transaction.
func (s *Archives) Write(ctx context.Context, name string, profiles []archive.Profile) error {
	if err := archive.CheckBatch(name, profiles); err != nil {
		return err
	}
	err := s.db.writer.do(ctx, func(ctx context.Context, w *writer) error {
		return w.many(ctx, "INSERT INTO archive (archive, device, version, fields) VALUES ", "(?,?,1,?)",
			" ON CONFLICT (archive, device) DO UPDATE SET version = version + 1, fields = excluded.fields", len(profiles), func(args []any, i int) []any {
				return append(args, name, profiles[i].Device, string(profiles[i].Fields))
			})
	})
	if err != nil {
		return fmt.Errorf("write %d profiles to archive %s: %w", len(profiles), name, err)
	}
	return nil
}

// Replace implements archive.Store.
func (s *Archives) Replace(ctx context.Context, name string, p archive.Profile) (int64, error) {
	if err := archive.CheckBatch(name, []archive.Profile{p}); err != nil {
		return 0, err
	}
	changed := int64(0)
	err := s.db.writer.do(ctx, func(ctx context.Context, w *writer) (err error) {
		if p.Version == 0 {
			changed, err = w.update(ctx, "INSERT INTO archive (archive, device, version, fields) VALUES (?,?,1,?) ON CONFLICT DO NOTHING", name, p.Device, string(p.Fields))
			return err
		}
		changed, err = w.update(ctx, "UPDATE archive SET version = version + 1, fields = ? WHERE archive = ? AND device = ? AND version = ?",
			string(p.Fields), name, p.Device, p.Version)
		return err
	})
	if err == nil && changed == 0 {
		err = archive.ErrConflict
	}
	if err != nil {
		return 0, fmt.Errorf("replace the profile of %s in archive %s: %w", p.Device, name, err)
	}
	return p.Version + 1, nil
}

// Delete implements archive.Store.
func (s *Archives) Delete(ctx context.Context, name string, devices []string) (known int, err error) {
	wanted, err := json.Marshal(devices)
	if err != nil {
		return 0, err
	}
	err = s.db.writer.do(ctx, func(ctx context.Context, w *writer) error {
		n, err := w.update(ctx, "DELETE FROM archive WHERE archive = ? AND device IN (SELECT value FROM json_each(?))", name, string(wanted))
		known = int(n)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("delete from archive %s: %w", name, err)
	}
	return known, nil
}

// List implements archive.Store.
func (s *Archives) List(ctx context.Context, name, prefix, after string, limit int) (out []archive.Profile, err error) {
	query, args := "SELECT device, version, fields FROM archive WHERE archive = ? AND device >= ? AND device > ?", []any{name, prefix, after}
	if end := archive.Prefixed(prefix); end != "" {
		query, args = query+" AND CAST(device AS BLOB) < ?", append(args, []byte(end)) // the end need not be UTF-8
	}
	err = s.db.query(ctx, query+" ORDER BY device LIMIT ?", append(args, limit), func(r *sql.Rows) error {
		var p archive.Profile
		err := r.Scan(&p.Device, &p.Version, &p.Fields)
		out = append(out, p)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list archive %s: %w", name, err)
	}
	return out, nil
}

// Close does nothing: the DB is closed by who opened it.
func (s *Archives) Close() error { return nil }
