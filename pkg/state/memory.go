package state

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Memory is a Store and Logs in memory, for tests and simulations: every other implementation is compared with it. The same calls in the same order
// always give the same results. The zero value is empty and ready; it is safe for concurrent use.
type Memory struct {
	mu    sync.Mutex
	tasks map[Task]*memoryTask
	logs  map[logName]*memoryLog
}

type memoryTask struct {
	fence   uint64
	values  map[string][]byte
	floors  map[tuple.Origin]int64
	applied map[tuple.ID]Applied
	outputs map[slice][]byte
	agenda  map[string]int64
}

// slice names one recorded output.
type slice struct {
	id tuple.ID
	n  int
}

type logName struct{ topology, log string }

type memoryLog struct {
	generation uint32
	floor      int64
	entries    [][]byte // of indexes from floor on
	once       map[string]int64
}

// NewMemory returns an empty Memory.
func NewMemory() *Memory { return &Memory{} }

func newMemoryTask(fence uint64) *memoryTask {
	return &memoryTask{
		fence: fence, values: map[string][]byte{}, floors: map[tuple.Origin]int64{}, applied: map[tuple.ID]Applied{}, outputs: map[slice][]byte{},
		agenda: map[string]int64{},
	}
}

// task returns the record of t, a new one for an unknown task. m.mu is held.
func (m *Memory) task(t Task) *memoryTask {
	if m.tasks == nil {
		m.tasks = map[Task]*memoryTask{}
	}
	if m.tasks[t] == nil {
		m.tasks[t] = newMemoryTask(0)
	}
	return m.tasks[t]
}

// Claim implements Store.
func (m *Memory) Claim(_ context.Context, t Task) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := m.task(t)
	k.fence++
	return k.fence, nil
}

// Head implements Store.
func (m *Memory) Head(_ context.Context, t Task) (Head, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := m.task(t)
	return Head{Floors: maps.Clone(k.floors), Applied: maps.Clone(k.applied)}, nil
}

// Load implements Store.
func (m *Memory) Load(_ context.Context, t Task, keys []string) ([][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := m.task(t)
	values := make([][]byte, len(keys))
	for i, key := range keys {
		values[i] = bytes.Clone(k.values[key])
	}
	return values, nil
}

// Outputs implements Store.
func (m *Memory) Outputs(_ context.Context, t Task, id tuple.ID) ([][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := m.task(t)
	var outputs [][]byte
	for n := range k.applied[id].Slices {
		if o, ok := k.outputs[slice{id, n}]; ok {
			outputs = append(outputs, bytes.Clone(o))
		}
	}
	return outputs, nil
}

// Due implements Store.
func (m *Memory) Due(_ context.Context, t Task, until int64, after string, limit int) ([]Due, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var due []Due
	for key, at := range m.task(t).agenda {
		if at <= until && key > after {
			due = append(due, Due{key, at})
		}
	}
	slices.SortFunc(due, func(a, b Due) int { return strings.Compare(a.Key, b.Key) })
	return due[:min(len(due), max(limit, 0))], nil
}

// Walk implements Store.
func (m *Memory) Walk(_ context.Context, tasks []Task, cursor string, limit int) (page []Entry, next string, err error) {
	return InTurn(tasks, cursor, func(t Task, cursor string) (page []Entry, next string, err error) {
		for _, e := range m.Values(t) {
			if "+"+e.Key <= cursor {
				continue
			}
			if len(page) == max(limit, 1) {
				return page, "+" + page[len(page)-1].Key, nil
			}
			page = append(page, e)
		}
		return page, "", nil
	})
}

// Commit implements Store.
func (m *Memory) Commit(_ context.Context, t Task, epoch uint64, b *Batch) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := m.task(t)
	if epoch == 0 || k.fence != epoch {
		return fmt.Errorf("commit %s in epoch %d: %w", t, epoch, ErrFenced)
	}
	for _, e := range b.Set {
		k.values[e.Key] = append([]byte{}, e.Value...)
	}
	for _, key := range b.Delete {
		delete(k.values, key)
	}
	for o, floor := range b.Floors {
		if old, ok := k.floors[o]; !ok || floor > old {
			k.floors[o] = floor
		}
	}
	for _, r := range b.Apply {
		k.applied[r.ID] = r.Applied
		if r.Outputs != nil {
			k.outputs[slice{r.ID, r.Slices - 1}] = bytes.Clone(r.Outputs)
		}
	}
	for id, a := range k.applied {
		if floor, ok := k.floors[a.Position.Origin]; !ok || a.Position.Offset >= floor {
			continue
		}
		for n := range a.Slices {
			delete(k.outputs, slice{id, n})
		}
		delete(k.applied, id)
	}
	for _, d := range b.Agenda {
		k.agenda[d.Key] = d.At
	}
	for _, key := range b.Strike {
		delete(k.agenda, key)
	}
	return nil
}

// Drop implements Store.
func (m *Memory) Drop(_ context.Context, tasks []Claimed) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range tasks {
		if t.Epoch == 0 || m.task(t.Task).fence != t.Epoch {
			return fmt.Errorf("drop %s in epoch %d: %w", t, t.Epoch, ErrFenced)
		}
		m.tasks[t.Task] = newMemoryTask(t.Epoch)
	}
	return nil
}

// Close implements Store. A Memory keeps its contents and can be used on.
func (m *Memory) Close() error { return nil }

// log returns the record of a log, a new one for an unknown log. m.mu is held.
func (m *Memory) log(topology, log string) *memoryLog {
	if m.logs == nil {
		m.logs = map[logName]*memoryLog{}
	}
	name := logName{topology, log}
	if m.logs[name] == nil {
		m.logs[name] = &memoryLog{once: map[string]int64{}}
	}
	return m.logs[name]
}

func (l *memoryLog) length() int64 { return l.floor + int64(len(l.entries)) }

// Raise implements Logs.
func (m *Memory) Raise(_ context.Context, topology, log string) (uint32, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.log(topology, log)
	l.generation++
	return l.generation, nil
}

// Append implements Logs.
func (m *Memory) Append(_ context.Context, topology, log string, generation uint32, at int64, entry []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.log(topology, log)
	switch {
	case generation == 0 || l.generation != generation:
		return fmt.Errorf("append to log %s of %s in generation %d: %w", log, topology, generation, ErrFenced)
	case l.length() != at:
		return fmt.Errorf("append to log %s of %s at %d: %w", log, topology, at, ErrConflict)
	}
	l.entries = append(l.entries, append([]byte{}, entry...))
	return nil
}

// AppendOnce implements Logs.
func (m *Memory) AppendOnce(_ context.Context, topology, log, once string, entry []byte) (int64, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.log(topology, log)
	if at, ok := l.once[once]; ok {
		return at, false, nil
	}
	at := l.length()
	l.once[once] = at
	l.entries = append(l.entries, append([]byte{}, entry...))
	return at, true, nil
}

// Forget implements Logs.
func (m *Memory) Forget(_ context.Context, topology, log string, below int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.log(topology, log).once, func(_ string, at int64) bool { return at < below })
	return nil
}

// Read implements Logs.
func (m *Memory) Read(_ context.Context, topology, log string, from int64, limit int) ([][]byte, int64, int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.log(topology, log)
	first := min(max(from-l.floor, 0), int64(len(l.entries)))
	last := min(first+int64(max(limit, 0)), int64(len(l.entries)))
	var entries [][]byte
	for _, e := range l.entries[first:last] {
		entries = append(entries, bytes.Clone(e))
	}
	return entries, l.length(), l.floor, nil
}

// SetFloor implements Logs.
func (m *Memory) SetFloor(_ context.Context, topology, log string, generation uint32, floor int64) error {
	return m.setFloor(topology, log, generation, floor, false)
}

// Advance implements Logs.
func (m *Memory) Advance(_ context.Context, topology, log string, generation uint32, floor int64) error {
	return m.setFloor(topology, log, generation, floor, true)
}

func (m *Memory) setFloor(topology, log string, generation uint32, floor int64, beyond bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.log(topology, log)
	switch {
	case generation == 0 || l.generation != generation:
		return fmt.Errorf("floor of log %s of %s in generation %d: %w", log, topology, generation, ErrFenced)
	case floor > l.length() && beyond:
		l.entries, l.floor = nil, floor
	case floor > l.length():
		return fmt.Errorf("floor %d of log %s of %s: %w", floor, log, topology, ErrConflict)
	case floor > l.floor:
		l.entries = slices.Clone(l.entries[floor-l.floor:])
		l.floor = floor
	}
	return nil
}

// DropLogs implements Logs.
func (m *Memory) DropLogs(_ context.Context, topology string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, l := range m.logs {
		if name.topology == topology {
			m.logs[name] = &memoryLog{generation: l.generation + 1, once: map[string]int64{}}
		}
	}
	return nil
}

// Values returns every key of a task with its value, ordered by key: a look inside for checkers.
func (m *Memory) Values(t Task) []Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	var entries []Entry
	for key, v := range m.task(t).values {
		entries = append(entries, Entry{key, bytes.Clone(v)})
	}
	slices.SortFunc(entries, func(a, b Entry) int { return cmp.Compare(a.Key, b.Key) })
	return entries
}
