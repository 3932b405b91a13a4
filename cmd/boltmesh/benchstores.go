package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/pflag"

	"github.com/boltmesh/boltmesh/pkg/document"
	"github.com/boltmesh/boltmesh/pkg/mongo"
	"github.com/boltmesh/boltmesh/pkg/redis"
	"github.com/boltmesh/boltmesh/pkg/sqlite"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/services/output/write"
)

// benchStores are where the device scenarios keep state and documents. The zero value is SQLite files, which the mesh opens by itself.
type benchStores struct {
	name  string // of the topology in Redis and of the database in MongoDB, of this run alone; "": there are none
	dir   string
	redis *redis.Store
	mongo *mongo.Store
}

// storeFlags says which stores.
func (f *benchFlags) storeFlags(fs *pflag.FlagSet) {
	fs.StringVar(&f.redis, "redis", "", "device scenarios keep their state in this Redis instead of SQLite, under names that are removed afterwards (BOLTMESH_REDIS_URL)")
	fs.StringVar(&f.mongo, "mongo", "", "device scenarios store their documents in this MongoDB, in databases that are emptied afterwards (BOLTMESH_MONGO_URI)")
}

// fromEnvironment fills in the stores that no flag names.
func (f *benchFlags) fromEnvironment() {
	f.redis, f.mongo = cmp.Or(f.redis, os.Getenv("BOLTMESH_REDIS_URL")), cmp.Or(f.mongo, os.Getenv("BOLTMESH_MONGO_URI"))
}

// openStores opens those of one run; dir is where SQLite files are.
func (f *benchFlags) openStores(ctx context.Context, dir string, devices bool) (*benchStores, error) {
	if f.redis == "" && f.mongo == "" || !devices {
		return &benchStores{dir: dir}, nil
	}
	return f.openNamed(ctx, "bench-"+strings.ToLower(rand.Text()[:8]), dir)
}

func (f *benchFlags) openNamed(ctx context.Context, name, dir string) (*benchStores, error) {
	s := &benchStores{name: name, dir: dir}
	var err error
	if f.redis != "" {
		if s.redis, err = redis.Open(ctx, redis.Options{URL: f.redis}); err != nil {
			return nil, fmt.Errorf("--redis: %w", err)
		}
	}
	if f.mongo != "" {
		if s.mongo, err = mongo.Open(ctx, mongo.Options{URI: f.mongo, Database: name}); err != nil {
			return nil, errors.Join(fmt.Errorf("--mongo: %w", err), s.disconnect())
		}
	}
	return s, nil
}

// stored says where state and documents are.
func (f *benchFlags) stored() string {
	at := [2]string{"SQLite", "SQLite"}
	if f.redis != "" {
		at[0] = "Redis"
	}
	if f.mongo != "" {
		at[1] = "MongoDB"
	}
	return "state in " + at[0] + ", documents in " + at[1]
}

// keep is where state is; nil: in a SQLite file.
func (s *benchStores) keep() keeper {
	if s.redis == nil {
		return nil
	}
	return s.redis
}

// documents is where documents are; nil: in a SQLite file.
func (s *benchStores) documents() document.Store {
	if s.mongo == nil {
		return nil
	}
	return s.mongo
}

// named gives a topology the name of the run.
func (s *benchStores) named(text string) string {
	if s.name == "" {
		return text
	}
	return strings.Replace(text, "topology: bench", "topology: "+s.name, 1)
}

// close removes what a run has left in the stores and disconnects. Of each task a number stays in Redis, that of its last owner.
func (s *benchStores) close(ctx context.Context, plan *topology.Plan) (err error) {
	if s.redis != nil && plan != nil {
		err = s.forget(ctx, plan)
	}
	if s.mongo != nil {
		names, e := s.mongo.Collections(ctx)
		err = errors.Join(err, e)
		for _, name := range names {
			err = errors.Join(err, s.mongo.Drop(ctx, name))
		}
	}
	return errors.Join(err, s.disconnect())
}

func (s *benchStores) forget(ctx context.Context, plan *topology.Plan) error {
	var tasks []state.Claimed
	for _, n := range plan.Nodes {
		for i := range n.Tasks {
			if !n.Stateful {
				continue
			}
			t := state.TaskOf(plan.Topology.Name, n.ID, n.Tasks, int32(i))
			epoch, err := s.redis.Claim(ctx, t)
			if err != nil {
				return err
			}
			tasks = append(tasks, state.Claimed{Task: t, Epoch: epoch})
		}
	}
	return errors.Join(s.redis.Drop(ctx, tasks), s.redis.DropLogs(ctx, plan.Topology.Name))
}

func (s *benchStores) disconnect() (err error) {
	if s.redis != nil {
		err = s.redis.Close()
	}
	if s.mongo != nil {
		err = errors.Join(err, s.mongo.Close())
	}
	return err
}

// bulkWriters write at the same time, as the loops of an output service do.
const bulkWriters = 4

// bulkCollection is where bulk writes.
const bulkCollection = "reference"

// bulk writes the documents of store-all's readings, with nothing else done, and returns how many a second were stored. Like the scenario it is measured for some
// time after some others, as a store becomes slower the more it has.
func (s *benchStores) bulk(ctx context.Context, from readings, warm, measure time.Duration) (perSecond float64, err error) {
	store := s.documents()
	if store == nil {
		db, err := sqlite.Open(filepath.Join(s.dir, "reference.db"))
		if err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, db.Close()) }()
		store = db.Documents()
	}
	var next, done atomic.Int64
	var writing sync.WaitGroup
	failures := make(chan error, bulkWriters)
	began := time.Now()
	for range bulkWriters {
		writing.Go(func() {
			for time.Since(began) < warm+measure {
				docs := make([]document.Document, write.DefaultBatch)
				first := int(next.Add(write.DefaultBatch)) - write.DefaultBatch
				for i := range docs {
					docs[i] = bulkDocument(from, first+i, began)
				}
				refused, err := store.Write(ctx, docs)
				if err == nil && len(refused) > 0 {
					err = refused[0].Err
				}
				if err != nil {
					failures <- err
					return
				}
				if time.Since(began) >= warm {
					done.Add(write.DefaultBatch)
				}
			}
		})
	}
	writing.Wait()
	perSecond = float64(done.Load()) / (time.Since(began) - warm).Seconds()
	close(failures)
	return perSecond, errors.Join(<-failures, store.Drop(ctx, bulkCollection))
}

// bulkDocument is what store-all stores of its i-th reading.
func bulkDocument(from readings, i int, began time.Time) document.Document {
	at := began.Add(time.Duration(i) * time.Millisecond)
	m := from.at(i, at)
	sum := sha256.Sum256(strconv.AppendInt(nil, int64(i), 10))
	id := hex.EncodeToString(sum[:16]) // as long, and as little in order, as a tuple's
	b := fmt.Appendf(nil, `{"_id":%q,"node":"clean","device":%q,"time":%q,`, id, m.Key, at.UTC().Format("2006-01-02T15:04:05.000Z"))
	fields := bytes.TrimPrefix(m.Value, fmt.Appendf(nil, `{"device":%q,`, m.Key))
	b = append(b, fields[:len(fields)-1]...)
	b = fmt.Appendf(b, `,"celsius":%.12f,"power":%.2f,"dew":%.12f}`, float64(i%100)/3, float64(i%2000)/4, float64(i%100)/7)
	return document.Document{Collection: bulkCollection, ID: id, Body: b}
}

// cpuOf is the CPU time that other processes of this machine have used, user and system.
func cpuOf(pids []int) (sum time.Duration, err error) {
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, fmt.Errorf("--store-pid: %w", err)
		}
		used, err := cpuInStat(b)
		if err != nil {
			return 0, fmt.Errorf("--store-pid: %d: %w", pid, err)
		}
		sum += used
	}
	return sum, nil
}

// clockTick is the unit of /proc/PID/stat, the same on every Linux.
const clockTick = 10 * time.Millisecond

// cpuInStat reads the 14th and 15th field; the second is a name in parentheses, which may have blanks in it.
func cpuInStat(stat []byte) (time.Duration, error) {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0, errors.New("no such figures")
	}
	user, err := strconv.ParseInt(string(fields[11]), 10, 64)
	system, err2 := strconv.ParseInt(string(fields[12]), 10, 64)
	return time.Duration(user+system) * clockTick, errors.Join(err, err2)
}
