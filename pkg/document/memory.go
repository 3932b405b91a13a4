package document

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Memory is a Store in memory, for tests and simulations; it keeps the order of insertion. The zero value is empty and ready; it is safe for
// concurrent use.
type Memory struct {
	mu          sync.Mutex
	collections map[string]*collection
	indexes     []Index
}

type collection struct {
	order []string
	byID  map[string]Document
}

// NewMemory returns an empty Memory.
func NewMemory() *Memory { return &Memory{} }

// Write implements Store.
func (m *Memory) Write(ctx context.Context, docs []Document) (refused []Refusal, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for i := range docs {
		d := docs[i]
		if err := d.Check(); err != nil {
			refused = append(refused, Refusal{i, err})
			continue
		}
		c := m.collections[d.Collection]
		if c == nil {
			c = &collection{byID: map[string]Document{}}
		}
		old, known := c.byID[d.ID]
		if known && d.Version <= old.Version {
			continue
		}
		if err := m.unique(c, &d); err != nil {
			refused = append(refused, Refusal{i, err})
			continue
		}
		if !known {
			c.order = append(c.order, d.ID)
		}
		d.Body = bytes.Clone(d.Body)
		c.byID[d.ID] = d
		if m.collections == nil {
			m.collections = map[string]*collection{}
		}
		m.collections[d.Collection] = c
	}
	return refused, nil
}

// unique returns an error when another document has the same value in the fields of a unique index.
func (m *Memory) unique(c *collection, d *Document) error {
	for _, x := range m.indexes {
		if !x.Unique || x.Collection != d.Collection {
			continue
		}
		for _, other := range c.byID {
			if other.ID != d.ID && fields(other.Body, x.Fields) == fields(d.Body, x.Fields) {
				return fmt.Errorf("document %s has the same %s", other.ID, strings.Join(x.Fields, ", "))
			}
		}
	}
	return nil
}

// fields returns the values of top-level fields as one comparable string.
func fields(body []byte, names []string) string {
	var object map[string]json.RawMessage
	_ = json.Unmarshal(body, &object) // checked when it was written
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, "%q,", object[strings.TrimPrefix(name, "-")])
	}
	return b.String()
}

// Ensure implements Store. A Memory has no TTL.
func (m *Memory) Ensure(_ context.Context, indexes []Index) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, x := range indexes {
		if x.TTL != 0 {
			return fmt.Errorf("documents in memory: %w", ErrNoTTL)
		}
		if !slices.ContainsFunc(m.indexes, func(y Index) bool { return y.Collection == x.Collection && slices.Equal(y.Fields, x.Fields) }) {
			m.indexes = append(m.indexes, x)
		}
	}
	return nil
}

// Collections implements Store.
func (m *Memory) Collections(context.Context) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for name := range m.collections {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// Count implements Store.
func (m *Memory) Count(_ context.Context, collection string) (int64, error) {
	return int64(len(m.bodies(collection))), nil
}

// Each implements Store.
func (m *Memory) Each(_ context.Context, collection string, f func(body []byte) error) error {
	for _, body := range m.bodies(collection) {
		if err := f(bytes.Clone(body)); err != nil {
			return err
		}
	}
	return nil
}

func (m *Memory) bodies(name string) (bodies [][]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.collections[name]; c != nil {
		for _, id := range c.order {
			bodies = append(bodies, c.byID[id].Body)
		}
	}
	return bodies
}

// Drop implements Store.
func (m *Memory) Drop(_ context.Context, collection string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.collections, collection)
	m.indexes = slices.DeleteFunc(m.indexes, func(x Index) bool { return x.Collection == collection })
	return nil
}

// Close implements Store. A Memory keeps its contents and can be used on.
func (m *Memory) Close() error { return nil }
