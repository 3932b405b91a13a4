package redis

import (
	"context"
	_ "embed" // the script beside this file
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/boltmesh/boltmesh/pkg/state"
)

//go:embed lua/drop.lua
var dropSource string

var dropScript = redis.NewScript(dropSource)

// Walk implements state.Store by SCAN, for no index of a task's keys is kept: a whole walk looks at every key of the server, once, however many tasks
// there are.
func (s *Store) Walk(ctx context.Context, tasks []state.Task, cursor string, limit int) (page []state.Entry, next string, err error) {
	var at uint64
	if cursor != "" {
		if at, err = strconv.ParseUint(cursor, 10, 64); err != nil {
			return nil, "", fmt.Errorf("walk: cursor: %w", err)
		}
	}
	if len(tasks) == 0 {
		return nil, "", nil
	}
	names := map[string]bool{}
	for _, t := range tasks {
		names[taskKey(t)] = true
	}
	found, at, err := s.scan(ctx, names, at, limit)
	if err != nil {
		return nil, "", err
	}
	if at > 0 {
		next = strconv.FormatUint(at, 10)
	}
	var full, keys []string
	for name, of := range found {
		for _, key := range of {
			if user, ok := strings.CutPrefix(key, name+":"); ok {
				full, keys = append(full, key), append(keys, user)
			}
		}
	}
	if len(full) == 0 {
		return nil, next, nil
	}
	values, err := s.client.MGet(ctx, full...).Result()
	if err != nil {
		return nil, "", fmt.Errorf("load %d values of a walk: %w", len(full), err)
	}
	for i, v := range values {
		if v, ok := v.(string); ok { // or it was deleted meanwhile
			page = append(page, state.Entry{Key: keys[i], Value: []byte(v)})
		}
	}
	return page, next, nil
}

// Drop implements state.Store. Like Walk it looks at every key of the server once. The fence is asked with each deletion: whoever claims a task meanwhile
// may write at once.
func (s *Store) Drop(ctx context.Context, tasks []state.Claimed) error {
	if len(tasks) == 0 {
		return nil
	}
	names, of := map[string]bool{}, map[string]state.Claimed{}
	for _, t := range tasks {
		name := taskKey(t.Task)
		names[name], of[name] = true, t
		if err := s.unlinkOf(ctx, t, nil); err != nil { // so that a stale epoch is told of also where nothing is kept
			return err
		}
	}
	for at, first := uint64(0), true; first || at > 0; first = false {
		found, next, err := s.scan(ctx, names, at, scanPage)
		if err != nil {
			return err
		}
		for name, keys := range found {
			if err := s.unlinkOf(ctx, of[name], keys); err != nil {
				return err
			}
		}
		at = next
	}
	return nil
}

// unlinkOf deletes keys of a task, but for its fence, as long as its epoch is the current one.
func (s *Store) unlinkOf(ctx context.Context, t state.Claimed, keys []string) error {
	fence := taskKey(t.Task) + ".fence"
	gone := []string{fence}
	for _, key := range keys {
		if key != fence {
			gone = append(gone, key)
		}
	}
	for first := true; first || len(gone) > 1; first = false {
		n := min(len(gone), scanPage)
		done, err := dropScript.Run(ctx, s.client, gone[:n], t.Epoch).Int()
		if err != nil {
			return fmt.Errorf("drop %s: %w", t, err)
		}
		if done == 0 {
			return fmt.Errorf("drop %s in epoch %d: %w", t, t.Epoch, state.ErrFenced)
		}
		gone = append([]string{fence}, gone[n:]...)
	}
	return nil
}

// scanPage is how many keys the server looks at between two answers, and how many are deleted at once.
const scanPage = 1000

// scan looks at about limit keys of the server, from a cursor on, and returns those of the named tasks, by task. Its next cursor is 0 at the end.
func (s *Store) scan(ctx context.Context, names map[string]bool, cursor uint64, limit int) (found map[string][]string, next uint64, err error) {
	keys, next, err := s.client.Scan(ctx, cursor, glob(common(names))+"*", int64(max(limit, 1))).Result()
	if err != nil {
		return nil, 0, fmt.Errorf("look for keys of tasks: %w", err)
	}
	found = map[string][]string{}
	for _, key := range keys {
		if end := strings.IndexByte(key, '}'); end >= 0 && names[key[:end+1]] {
			found[key[:end+1]] = append(found[key[:end+1]], key)
		}
	}
	return found, next, nil
}

// common returns what all names begin with, so that the server need not hand out the keys of others.
func common(names map[string]bool) (prefix string) {
	first := true
	for name := range names {
		if first {
			prefix, first = name, false
		}
		for !strings.HasPrefix(name, prefix) {
			prefix = prefix[:len(prefix)-1]
		}
	}
	return prefix
}
