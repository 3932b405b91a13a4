package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/boltmesh/boltmesh/pkg/archive"
	doc "github.com/boltmesh/boltmesh/pkg/document"
	"github.com/boltmesh/boltmesh/pkg/mongo"
	"github.com/boltmesh/boltmesh/pkg/redis"
	"github.com/boltmesh/boltmesh/pkg/sqlite"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// stores are the durable ones, opened as far as a kind of service needs them.
type stores struct {
	state     state.Store
	logs      state.Logs
	documents func(ctx context.Context, database string) (doc.Store, error)
	archives  func(ctx context.Context) (archive.Store, error)

	mu    sync.Mutex
	close func()
}

// SQLiteFile is where a database's documents are, beside the file that holds the state.
func SQLiteFile(state, database string) string {
	return filepath.Join(filepath.Dir(state), "documents-"+database+".db")
}

// openStores opens what the configuration names. An output service keeps no state, a stat service no documents. A server that is away is waited for until
// ctx ends, and waiting told; databases are opened by the nodes that need them, which try again by themselves.
func openStores(ctx context.Context, kind string, c Config, waiting func(what string, err error)) (*stores, error) {
	s := &stores{}
	var closers []func() error
	s.close = func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, f := range closers {
			_ = f() // nothing is buffered: what counted was committed
		}
	}
	var file *sqlite.DB
	if c.SQLite != "" {
		db, err := sqlite.Open(c.SQLite)
		if err != nil {
			return nil, err
		}
		file = db
		closers = append(closers, db.Close)
	}
	if kind != topology.KindOutput && kind != topology.KindConvert {
		if c.State == BackendSQLite {
			s.state, s.logs = file.State(), file.State()
		} else {
			config, err := c.Redis.TLS.Config()
			if err != nil {
				return nil, fmt.Errorf("redis.tls: %w", err)
			}
			r, err := openRedis(ctx, redis.Options{URL: c.Redis.URL, TLS: config}, waiting)
			if err != nil {
				return nil, err
			}
			s.state, s.logs = r, r
			closers = append(closers, r.Close)
		}
	}
	s.archives = func(ctx context.Context) (archive.Store, error) { return OpenArchives(ctx, c) }
	s.documents = func(ctx context.Context, database string) (doc.Store, error) {
		if kind != topology.KindOutput {
			return nil, errors.New("only the output service stores documents")
		}
		if c.Documents == BackendSQLite {
			db, err := sqlite.Open(SQLiteFile(c.SQLite, database))
			if err != nil {
				return nil, err
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			closers = append(closers, db.Close)
			return db.Documents(), nil
		}
		o, err := mongoOptions(c, database)
		if err != nil {
			return nil, err
		}
		m, err := mongo.Open(ctx, o)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		closers = append(closers, m.Close)
		return m, nil
	}
	return s, nil
}

// openRedis tries until ctx ends, but for what waiting does not mend, such as a password that is wrong.
func openRedis(ctx context.Context, o redis.Options, waiting func(what string, err error)) (*redis.Store, error) {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		r, err := redis.Open(ctx, o)
		if err == nil || ctx.Err() != nil || !away(err) {
			return r, err
		}
		waiting("Redis", err)
		sleep(ctx, pause)
	}
}

// away reports whether a server did not answer, or said that it still reads its data.
func away(err error) bool {
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, io.EOF) || strings.Contains(err.Error(), "LOADING ")
}

// mongoOptions say how to reach a database, by its own name unless the configuration names one for all.
func mongoOptions(c Config, database string) (mongo.Options, error) {
	config, err := c.Mongo.TLS.Config()
	if err != nil {
		return mongo.Options{}, fmt.Errorf("mongo.tls: %w", err)
	}
	if c.Mongo.Database != "" {
		database = c.Mongo.Database
	}
	return mongo.Options{URI: c.Mongo.URI, Database: database, TLS: config}, nil
}

// OpenArchives opens the archives that the configuration names: in MongoDB, or in the SQLite file beside that of the state. The caller closes them.
func OpenArchives(ctx context.Context, c Config) (archive.Store, error) {
	if c.Documents == BackendSQLite {
		return OpenArchivesFile(ctx, ArchivesFile(c.SQLite))
	}
	o, err := mongoOptions(c, ArchiveDatabase)
	if err != nil {
		return nil, err
	}
	return mongo.OpenArchives(ctx, o)
}

// OpenArchivesFile opens the archives in a SQLite file, which is closed with them.
func OpenArchivesFile(ctx context.Context, file string) (archive.Store, error) {
	db, err := sqlite.Open(file)
	if err != nil {
		return nil, err
	}
	a, err := db.Archives(ctx)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return archivesFile{a, db}, nil
}

type archivesFile struct {
	*sqlite.Archives
	db *sqlite.DB
}

func (f archivesFile) Close() error { return f.db.Close() }
