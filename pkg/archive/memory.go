package archive

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Memory is a Store that lives as long as the process: for tests, and for whoever embeds a mesh. Its zero value is ready to use.
type Memory struct {
	mu       sync.Mutex
	archives map[string]map[string]Profile
}

var _ Store = (*Memory)(nil)

// Read implements Store.
func (m *Memory) Read(ctx context.Context, archive string, devices []string) ([]*Profile, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]*Profile, len(devices))
	for i, d := range devices {
		if p, ok := m.archives[archive][d]; ok {
			p.Fields = bytes.Clone(p.Fields)
			out[i] = &p
		}
	}
	return out, ctx.Err()
}

// Write implements Store.
func (m *Memory) Write(ctx context.Context, archive string, profiles []Profile) error {
	if err := CheckBatch(archive, profiles); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range profiles {
		m.put(archive, p)
	}
	return nil
}

// put stores p under the next version, which it returns.
func (m *Memory) put(archive string, p Profile) int64 {
	if m.archives == nil {
		m.archives = map[string]map[string]Profile{}
	}
	if m.archives[archive] == nil {
		m.archives[archive] = map[string]Profile{}
	}
	p.Version = m.archives[archive][p.Device].Version + 1
	p.Fields = bytes.Clone(p.Fields)
	m.archives[archive][p.Device] = p
	return p.Version
}

// Replace implements Store.
func (m *Memory) Replace(ctx context.Context, archive string, p Profile) (int64, error) {
	if err := CheckBatch(archive, []Profile{p}); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.archives[archive][p.Device].Version != p.Version {
		return 0, fmt.Errorf("%s in %s: %w", p.Device, archive, ErrConflict)
	}
	return m.put(archive, p), nil
}

// Delete implements Store.
func (m *Memory) Delete(ctx context.Context, archive string, devices []string) (known int, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range devices {
		if _, ok := m.archives[archive][d]; ok {
			known++
			delete(m.archives[archive], d)
		}
	}
	return known, nil
}

// List implements Store.
func (m *Memory) List(ctx context.Context, archive, prefix, after string, limit int) (out []Profile, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range slices.Sorted(maps.Keys(m.archives[archive])) {
		if len(out) < limit && d > after && strings.HasPrefix(d, prefix) {
			p := m.archives[archive][d]
			p.Fields = bytes.Clone(p.Fields)
			out = append(out, p)
		}
	}
	return out, ctx.Err()
}

// Close implements Store.
func (m *Memory) Close() error { return nil }
