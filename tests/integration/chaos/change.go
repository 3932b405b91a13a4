package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/tests/integration/mesh"
)

// divided are the nodes that get other numbers of tasks.
var divided = []string{"totals", "intervals", "windows", "sites", "site-intervals", "high", "busy", "crowded", "grades"}

// revised is the topology in which clean notes n in every reading that it handles. What is stored of a reading, and what is counted of it, must name the same.
func revised(n int) string {
	return strings.Replace(string(source), "set: {revision: 1}", fmt.Sprintf("set: {revision: %d}", n), 1)
}

// changes draws revisions: the same seed gives the same ones, however the run goes.
type changes struct {
	random *rand.Rand
	n      int
	tasks  map[string]int
}

func newChanges(seed uint64) *changes {
	return &changes{rand.New(rand.NewPCG(seed, 3)), 1, map[string]int{}}
}

// next is the next revision's document. Two of three give one node or two another number of tasks.
func (c *changes) next() (string, error) {
	c.n++
	for range c.random.IntN(3) {
		c.tasks[divided[c.random.IntN(len(divided))]] = 1 + c.random.IntN(8)
	}
	d := topology.Document{Name: "topology.yaml", Source: revised(c.n)}
	for node, tasks := range c.tasks {
		var err error
		if d, err = d.WithTasks(node, tasks); err != nil {
			return "", fmt.Errorf("revision %d: %w", c.n, err)
		}
	}
	return d.Source, nil
}

// change applies one revision after the other while faults happen, as an operator would, who may have to give up; and one when they are over, which must succeed.
func (w *world) change(faulty, ctx context.Context) error {
	c := newChanges(w.seed)
	for {
		select {
		case <-time.After(2*time.Second + time.Duration(c.random.ExpFloat64()*float64(2*w.every))):
		case <-faulty.Done():
			last, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			document, err := c.next()
			if err != nil {
				return err
			}
			if err := mesh.Until(last, func(context.Context) error { return w.revise(ctx, c.n, document) }); err != nil {
				return fmt.Errorf("revision %d could not be applied after the faults: %w", c.n, err)
			}
			return nil
		}
		document, err := c.next()
		if err != nil {
			return err
		}
		if err := w.revise(ctx, c.n, document); err != nil {
			said := strings.Split(strings.TrimSpace(err.Error()), "\n")
			w.say("revision %d: %.300s", c.n, said[len(said)-1])
		}
	}
}

func (w *world) revise(ctx context.Context, n int, document string) error {
	file := filepath.Join(w.dir, fmt.Sprintf("topology-%d.yaml", n))
	if err := os.WriteFile(file, []byte(document), 0o600); err != nil {
		return err
	}
	began := time.Now()
	out, err := w.CLI(ctx, "apply", "--timeout", "15s", file)
	if err == nil {
		w.say("revision %d is applied after %v", n, time.Since(began).Round(100*time.Millisecond))
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, "instead of") || strings.Contains(line, "warning") {
				w.say("%s", strings.TrimSpace(line))
			}
		}
	}
	return err
}
