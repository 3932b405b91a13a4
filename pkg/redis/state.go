package redis

import (
	"context"
	_ "embed" // the scripts beside this file
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

//go:embed lua/commit.lua
var commitSource string

//go:embed lua/due.lua
var dueSource string

// Scripts are constants: a source and its hash. Run sends the hash, and the source when the server does not know it yet.
var (
	commitScript = redis.NewScript(commitSource)
	dueScript    = redis.NewScript(dueSource)
)

var _ state.Store = (*Store)(nil)

// taskKey is the common beginning of a task's keys.
func taskKey(t state.Task) string {
	return "bm:" + t.Topology + ":{" + t.Node + "." + strconv.Itoa(int(t.Index)) + "}"
}

// Claim implements state.Store.
func (s *Store) Claim(ctx context.Context, t state.Task) (uint64, error) {
	epoch, err := s.client.Incr(ctx, taskKey(t)+".fence").Uint64()
	if err != nil {
		return 0, fmt.Errorf("claim %s: %w", t, err)
	}
	return epoch, nil
}

// Head implements state.Store.
func (s *Store) Head(ctx context.Context, t state.Task) (state.Head, error) {
	p := taskKey(t)
	var floors, applied *redis.MapStringStringCmd
	var packs *redis.StringSliceCmd
	_, err := s.client.TxPipelined(ctx, func(tx redis.Pipeliner) error {
		floors, applied, packs = tx.HGetAll(ctx, p+".floors"), tx.HGetAll(ctx, p+".applied"), tx.ZRange(ctx, p+".packs", 0, -1)
		return nil
	})
	if err != nil {
		return state.Head{}, fmt.Errorf("head of %s: %w", t, err)
	}
	h := state.Head{Floors: make(map[tuple.Origin]int64, len(floors.Val())), Applied: make(map[tuple.ID]state.Applied, len(applied.Val()))}
	for origin, floor := range floors.Val() {
		o, err := strconv.ParseUint(origin, 10, 64)
		if err != nil {
			return state.Head{}, fmt.Errorf("head of %s: origin: %w", t, err)
		}
		if h.Floors[tuple.Origin(o)], err = strconv.ParseInt(floor, 10, 64); err != nil {
			return state.Head{}, fmt.Errorf("head of %s: floor: %w", t, err)
		}
	}
	for id, record := range applied.Val() {
		a, err := decodeApplied(record)
		if err != nil || len(id) != len(tuple.ID{}) {
			return state.Head{}, fmt.Errorf("head of %s: id %x: %w", t, id, errApplied)
		}
		h.Add(tuple.ID([]byte(id)), a)
	}
	for _, member := range packs.Val() {
		if err := unpack(&h, []byte(member)); err != nil {
			return state.Head{}, fmt.Errorf("head of %s: %w", t, err)
		}
	}
	return h, nil
}

// Load implements state.Store.
func (s *Store) Load(ctx context.Context, t state.Task, keys []string) ([][]byte, error) {
	values := make([][]byte, len(keys))
	if len(keys) == 0 {
		return values, nil
	}
	p := taskKey(t) + ":"
	full := make([]string, len(keys))
	for i, key := range keys {
		full[i] = p + key
	}
	found, err := s.client.MGet(ctx, full...).Result()
	if err != nil {
		return nil, fmt.Errorf("load %d values of %s: %w", len(keys), t, err)
	}
	for i, v := range found {
		if v, ok := v.(string); ok {
			values[i] = []byte(v)
		}
	}
	return values, nil
}

// Outputs implements state.Store.
func (s *Store) Outputs(ctx context.Context, t state.Task, id tuple.ID) ([][]byte, error) {
	p := taskKey(t)
	record, err := s.client.HGet(ctx, p+".applied", string(id[:])).Result()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("outputs of %s in %s: %w", id, t, err)
	}
	a, err := decodeApplied(record)
	if err != nil || a.Slices == 0 {
		return nil, err
	}
	fields := make([]string, a.Slices)
	for n := range fields {
		fields[n] = outputField(id, n)
	}
	found, err := s.client.HMGet(ctx, p+".outputs", fields...).Result()
	if err != nil {
		return nil, fmt.Errorf("outputs of %s in %s: %w", id, t, err)
	}
	var outputs [][]byte
	for _, v := range found {
		if v, ok := v.(string); ok {
			outputs = append(outputs, []byte(v))
		}
	}
	return outputs, nil
}

// Due implements state.Store. Its cost is bounded as due.lua says.
func (s *Store) Due(ctx context.Context, t state.Task, until int64, after string, limit int) ([]state.Due, error) {
	p := taskKey(t)
	found, err := dueScript.Run(ctx, s.client, []string{p + ".agenda", p + ".order"}, until, after, limit).StringSlice()
	if err != nil {
		return nil, fmt.Errorf("agenda of %s: %w", t, err)
	}
	due := make([]state.Due, len(found)/2)
	for i := range due {
		at, err := strconv.ParseFloat(found[2*i+1], 64)
		if err != nil {
			return nil, fmt.Errorf("agenda of %s: %w", t, err)
		}
		due[i] = state.Due{Key: found[2*i], At: int64(at)}
	}
	return due, nil
}

// Commit implements state.Store: one call of commit.lua.
func (s *Store) Commit(ctx context.Context, t state.Task, epoch uint64, b *state.Batch) error {
	done, err := commitScript.Run(ctx, s.client, commitKeys(t, b), commitArgs(epoch, b)...).Int()
	if err != nil {
		return fmt.Errorf("commit %s: %w", t, err)
	}
	if done == 0 {
		return fmt.Errorf("commit %s in epoch %d: %w", t, epoch, state.ErrFenced)
	}
	return nil
}

func commitKeys(t state.Task, b *state.Batch) []string {
	p := taskKey(t)
	keys := make([]string, 0, 8+len(b.Set)+len(b.Delete))
	keys = append(keys, p+".fence", p+".floors", p+".packs", p+".applied", p+".positions", p+".outputs", p+".agenda", p+".order")
	p += ":"
	for i := range b.Set {
		keys = append(keys, p+b.Set[i].Key)
	}
	for _, key := range b.Delete {
		keys = append(keys, p+key)
	}
	return keys
}

func commitArgs(epoch uint64, b *state.Batch) []any {
	packs, others := state.Packs(b.Apply)
	outputs := 0
	for _, i := range others {
		if b.Apply[i].Outputs != nil {
			outputs++
		}
	}
	args := make([]any, 0, 9+len(b.Set)+2*len(packs)+4*len(others)+2*outputs+3*len(b.Floors)+2*len(b.Agenda)+len(b.Strike))
	args = append(args, epoch, len(b.Set), len(packs), len(others), outputs, len(b.Floors), len(b.Agenda), len(b.Strike))
	for i := range b.Set {
		args = append(args, b.Set[i].Value)
	}
	for _, p := range packs {
		args = append(args, 0, append(place(p.Origin, p.Greatest, len(p.IDs)), p.IDs...))
	}
	for _, i := range others {
		args = append(args, b.Apply[i].ID[:], appendApplied(nil, &b.Apply[i].Applied))
	}
	for _, i := range others {
		r := &b.Apply[i]
		args = append(args, 0, append(place(r.Position.Origin, r.Position.Offset, len(r.ID)), r.ID[:]...))
	}
	for _, i := range others {
		if r := &b.Apply[i]; r.Outputs != nil {
			args = append(args, outputField(r.ID, r.Slices-1), r.Outputs)
		}
	}
	for origin, floor := range b.Floors {
		args = append(args, uint64(origin), floor, place(origin, floor, 0))
	}
	for _, d := range b.Agenda {
		args = append(args, d.Key, d.At)
	}
	for _, key := range b.Strike {
		args = append(args, key)
	}
	return args
}

// outputField names a recorded slice within .outputs; commit.lua builds the same.
func outputField(id tuple.ID, slice int) string {
	return string(binary.BigEndian.AppendUint32(id[:], uint32(slice)))
}

const placeBytes = 8 + 8

// place begins a member of .packs and .positions, with room for more bytes behind it: origin and offset, ordered as bytes as they are as numbers.
func place(origin tuple.Origin, offset int64, more int) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, placeBytes+more), uint64(origin))
	return binary.BigEndian.AppendUint64(b, uint64(offset)^1<<63)
}

// unpack adds a member of .packs to the head.
func unpack(h *state.Head, member []byte) error {
	if len(member) < placeBytes {
		return errApplied
	}
	return h.Unpack(state.Pack{Origin: tuple.Origin(binary.BigEndian.Uint64(member)), IDs: member[placeBytes:]})
}

var errApplied = errors.New("corrupt record of an applied id")

const appliedBytes = 4 + 8 + 8 + 1

// appendApplied encodes a record: slices (4 bytes, which commit.lua reads), origin and offset (8 each), all big endian, unfinished (1), cursor.
func appendApplied(b []byte, a *state.Applied) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(a.Slices))
	b = binary.BigEndian.AppendUint64(b, uint64(a.Position.Origin))
	b = binary.BigEndian.AppendUint64(b, uint64(a.Position.Offset))
	if a.Unfinished {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	return append(b, a.Cursor...)
}

// decodeApplied reads what appendApplied wrote.
func decodeApplied(s string) (a state.Applied, err error) {
	if len(s) < appliedBytes {
		return a, errApplied
	}
	b := []byte(s[:appliedBytes])
	a.Slices = int(binary.BigEndian.Uint32(b))
	a.Position.Origin = tuple.Origin(binary.BigEndian.Uint64(b[4:]))
	a.Position.Offset = int64(binary.BigEndian.Uint64(b[12:]))
	a.Unfinished = b[20] != 0
	a.Cursor = strings.Clone(s[appliedBytes:])
	return a, nil
}
