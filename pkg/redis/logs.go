package redis

import (
	"context"
	_ "embed" // the scripts beside this file
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/boltmesh/boltmesh/pkg/state"
)

//go:embed lua/append.lua
var appendSource string

//go:embed lua/append_once.lua
var appendOnceSource string

//go:embed lua/forget.lua
var forgetSource string

//go:embed lua/read.lua
var readSource string

//go:embed lua/set_floor.lua
var setFloorSource string

var (
	appendScript     = redis.NewScript(appendSource)
	appendOnceScript = redis.NewScript(appendOnceSource)
	forgetScript     = redis.NewScript(forgetSource)
	readScript       = redis.NewScript(readSource)
	setFloorScript   = redis.NewScript(setFloorSource)
)

var _ state.Logs = (*Store)(nil)

// logsKey is the common beginning of the keys of a topology's logs. The colon tells a log from the tasks of a node called log.
func logsKey(topology string) string { return "bm:" + topology + ":{log:" }

func logKey(topology, log string) string { return logsKey(topology) + log + "}" }

const generationSuffix = "}.generation"

// Raise implements state.Logs.
func (s *Store) Raise(ctx context.Context, topology, log string) (uint32, error) {
	generation, err := s.client.Incr(ctx, logKey(topology, log)+".generation").Uint64()
	if err != nil {
		return 0, fmt.Errorf("raise the generation of %s in %s: %w", log, topology, err)
	}
	return uint32(generation), nil
}

// Append implements state.Logs.
func (s *Store) Append(ctx context.Context, topology, log string, generation uint32, at int64, entry []byte) error {
	p := logKey(topology, log)
	done, err := appendScript.Run(ctx, s.client, []string{p + ".generation", p + ".floor", p + ".entries"}, generation, at, entry).Int()
	if err = refusal(done, err); err != nil {
		return fmt.Errorf("append to log %s of %s at %d: %w", log, topology, at, err)
	}
	return nil
}

// AppendOnce implements state.Logs.
func (s *Store) AppendOnce(ctx context.Context, topology, log, once string, entry []byte) (int64, bool, error) {
	p := logKey(topology, log)
	r, err := appendOnceScript.Run(ctx, s.client, []string{p + ".floor", p + ".entries", p + ".once", p + ".names"}, once, entry).Int64Slice()
	if err != nil {
		return 0, false, fmt.Errorf("append %q to log %s of %s: %w", once, log, topology, err)
	}
	return r[0], r[1] == 1, nil
}

// forgotten is how many names one script forgets at most: nobody else is served meanwhile.
const forgotten = 1000

// Forget implements state.Logs.
func (s *Store) Forget(ctx context.Context, topology, log string, below int64) error {
	p := logKey(topology, log)
	for {
		n, err := forgetScript.Run(ctx, s.client, []string{p + ".once", p + ".names"}, below, forgotten).Int()
		if err != nil {
			return fmt.Errorf("forget names of log %s of %s below %d: %w", log, topology, below, err)
		}
		if n < forgotten {
			return nil
		}
	}
}

// Read implements state.Logs.
func (s *Store) Read(ctx context.Context, topology, log string, from int64, limit int) ([][]byte, int64, int64, error) {
	p := logKey(topology, log)
	r, err := readScript.Run(ctx, s.client, []string{p + ".floor", p + ".entries"}, from, limit).Slice()
	if err != nil {
		return nil, 0, 0, fmt.Errorf("read log %s of %s: %w", log, topology, err)
	}
	length, _ := r[0].(int64)
	floor, _ := r[1].(int64)
	found, _ := r[2].([]any)
	entries := make([][]byte, len(found))
	for i, e := range found {
		e, _ := e.(string)
		entries[i] = []byte(e)
	}
	return entries, length, floor, nil
}

// SetFloor implements state.Logs.
func (s *Store) SetFloor(ctx context.Context, topology, log string, generation uint32, floor int64) error {
	return s.setFloor(ctx, topology, log, generation, floor, 0)
}

// Advance implements state.Logs.
func (s *Store) Advance(ctx context.Context, topology, log string, generation uint32, floor int64) error {
	return s.setFloor(ctx, topology, log, generation, floor, 1)
}

// setFloor raises a log's floor, beyond its end too if beyond is 1.
func (s *Store) setFloor(ctx context.Context, topology, log string, generation uint32, floor int64, beyond int) error {
	p := logKey(topology, log)
	done, err := setFloorScript.Run(ctx, s.client, []string{p + ".generation", p + ".floor", p + ".entries"}, generation, floor, beyond).Int()
	if err = refusal(done, err); err != nil {
		return fmt.Errorf("floor %d of log %s of %s: %w", floor, log, topology, err)
	}
	return nil
}

// DropLogs implements state.Logs. It walks the whole keyspace twice: first it raises the generations, so that nobody writes behind the second walk.
func (s *Store) DropLogs(ctx context.Context, topology string) error {
	prefix := logsKey(topology)
	var raised error
	err := s.unlink(ctx, prefix, func(key string) bool {
		if strings.HasSuffix(key, generationSuffix) {
			raised = errors.Join(raised, s.client.Incr(ctx, key).Err())
		}
		return true
	})
	if err = errors.Join(raised, err); err != nil {
		return fmt.Errorf("raise the generations of %s: %w", topology, err)
	}
	return s.unlink(ctx, prefix, func(key string) bool { return strings.HasSuffix(key, generationSuffix) })
}

// refusal translates what the scripts return.
func refusal(done int, err error) error {
	switch {
	case err != nil:
		return err
	case done == 0:
		return state.ErrFenced
	case done < 0:
		return state.ErrConflict
	}
	return nil
}
