// Package redis keeps task state and spout logs in Redis: state.Store and state.Logs, one Lua script per commit so that the fence is checked in the same
// instant as the writes. Services use it when they run apart from each other; pkg/sqlite is its embedded twin.
// It never retries a write whose outcome is unknown: that is the engine's to resolve.
package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Options say how to reach Redis.
type Options struct {
	URL      string        // redis://user:password@host:port/db, or rediss:// for TLS, or unix:///path
	TLS      *tls.Config   // certificates for rediss://, or TLS for a redis:// URL; nil: as the URL says
	Timeout  time.Duration // of one round trip, and of connecting; 0: 5 s
	PoolSize int           // most connections at once; 0: 10 for each processor
}

// Store is state.Store and state.Logs on one Redis. It is safe for concurrent use.
//
// A task's keys are `bm:<topology>:{<node>.<task>}:` and the user's key; what the engine keeps is beside them, with a point instead of the colon:
//
//	.fence      string  the epoch of the current owner
//	.floors     hash    origin (decimal) -> floor
//	.packs      zset    of what was applied, by name: place of the greatest offset, see place, and the ids, see state.Pack
//	.applied    hash    what is not packed: id (16 bytes) -> record, see appendApplied
//	.positions  zset    of the same, by name: place and id
//	.outputs    hash    id and slice (16 + 4 bytes) -> outputs
//	.agenda     zset    key, by the time that it is due at
//	.order      zset    the same keys, by name
//
// A log's keys are `bm:<topology>:{log:<name>}` and .generation (string), .floor (string), .entries (list, from the floor on), .once (hash, name ->
// index). The braces put everything of a task, and of a log, in one slot of a Redis Cluster.
type Store struct {
	client *redis.Client
}

// Open connects and asks the server for a sign of life.
func Open(ctx context.Context, o Options) (*Store, error) {
	options, err := redis.ParseURL(o.URL)
	if err != nil {
		if invalid := (*url.Error)(nil); errors.As(err, &invalid) {
			err = invalid.Err // without the URL, for it may hold a password
		}
		return nil, fmt.Errorf("redis url: %w", err)
	}
	if o.TLS != nil {
		options.TLSConfig = o.TLS.Clone()
		if host, _, err := net.SplitHostPort(options.Addr); err == nil && options.TLSConfig.ServerName == "" {
			options.TLSConfig.ServerName = host
		}
	}
	if o.Timeout <= 0 {
		o.Timeout = 5 * time.Second
	}
	options.DialTimeout, options.ReadTimeout, options.WriteTimeout = o.Timeout, o.Timeout, o.Timeout
	options.PoolSize = o.PoolSize
	options.ContextTimeoutEnabled = true
	options.MaxRetries = -1 // a repeated commit is the engine's decision, after it has read what became of the first
	s := &Store{redis.NewClient(options)}
	if err := s.client.Ping(ctx).Err(); err != nil {
		return nil, errors.Join(fmt.Errorf("connect to redis at %s: %w", options.Addr, err), s.client.Close())
	}
	return s, nil
}

// Ping returns nil while the server answers.
func (s *Store) Ping(ctx context.Context) error { return s.client.Ping(ctx).Err() }

// Durable reports whether the server fsyncs what it acknowledges (appendonly yes, appendfsync always). Without that, a crash of the Redis host may
// take back the last second of commits. It returns an error where the server does not let its configuration be read.
func (s *Store) Durable(ctx context.Context) (bool, error) {
	c, err := s.client.ConfigGet(ctx, "append*").Result()
	if err != nil {
		return false, fmt.Errorf("read the configuration of redis: %w", err)
	}
	return c["appendonly"] == "yes" && c["appendfsync"] == "always", nil
}

// Close ends the connections.
func (s *Store) Close() error { return s.client.Close() }

// unlink deletes every key that begins with prefix, unless keep says otherwise. It walks the whole keyspace.
func (s *Store) unlink(ctx context.Context, prefix string, keep func(key string) bool) error {
	var cursor uint64
	for {
		keys, next, err := s.client.Scan(ctx, cursor, glob(prefix)+"*", 1000).Result()
		if err != nil {
			return fmt.Errorf("scan for %s: %w", prefix, err)
		}
		var gone []string
		for _, key := range keys {
			if strings.HasPrefix(key, prefix) && !keep(key) {
				gone = append(gone, key)
			}
		}
		if len(gone) > 0 {
			if err := s.client.Unlink(ctx, gone...).Err(); err != nil {
				return fmt.Errorf("delete keys of %s: %w", prefix, err)
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// glob quotes what a pattern of Redis would interpret.
func glob(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`).Replace(s)
}
