package service

import (
	"context"
	"path/filepath"
	"sync"

	"github.com/boltmesh/boltmesh/pkg/archive"
	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/trace"
)

// ArchiveDatabase is the MongoDB database of archives where the configuration names none: topologies share them.
const ArchiveDatabase = "boltmesh"

// ArchivesFile is where archives are, beside the SQLite file that holds the state.
func ArchivesFile(state string) string { return filepath.Join(filepath.Dir(state), "archives.db") }

// Archives gives the nodes of a worker the profiles of devices. Nothing is opened before the first node asks; then there is one store and one cache for
// all, and word of changes is listened to.
type Archives struct {
	Conn   *jetstream.Conn
	Open   func(ctx context.Context) (archive.Store, error)
	Cache  archive.CacheOptions
	Worker string
	Sink   trace.Sink

	mu    sync.Mutex
	cache *archive.Cache
	close []func()
}

// Build returns build for nodes that know the archive.
func (a *Archives) Build(build Build) Build {
	if build == nil {
		return nil
	}
	return func(ctx context.Context, n Node) (bolt.Bolt, error) {
		n.Archive = func(ctx context.Context) (*archive.Reader, error) { return a.reader(ctx, n) }
		return build(ctx, n)
	}
}

// reader returns what one loop of a node reads profiles with.
func (a *Archives) reader(ctx context.Context, n Node) (*archive.Reader, error) {
	cache, err := a.shared(ctx)
	if err != nil {
		return nil, err
	}
	t := n.Plan.Topology
	return &archive.Reader{
		Cache: cache, Archive: t.Archive.Name, Reject: t.Archive.Unknown == topology.UnknownReject, Sink: a.Sink,
		Where: trace.Where{Topology: t.Name, Node: n.ID, Kind: n.Kind, Worker: a.Worker},
	}, nil
}

// shared returns the cache, which it makes the first time.
func (a *Archives) shared(ctx context.Context) (*archive.Cache, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cache != nil {
		return a.cache, nil
	}
	store, err := a.Open(ctx)
	if err != nil {
		return nil, err
	}
	cache := archive.NewCache(store, a.Cache)
	stop, err := a.Conn.WatchArchives(ctx, cache.Changed)
	if err != nil {
		cache.Close()
		_ = store.Close() // nothing was written
		return nil, err
	}
	a.cache, a.close = cache, []func(){stop, cache.Close, func() { _ = store.Close() }}
	return cache, nil
}

// Close ends what was opened. Nodes must not run any more.
func (a *Archives) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, f := range a.close {
		f()
	}
	a.cache, a.close = nil, nil
}
