package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/boltmesh/boltmesh/tests/integration/mesh"
)

// revised is the topology in which clean notes n in every reading that it handles. What is stored of a reading, and what is counted of it, must name the same.
func revised(n int) []byte {
	return bytes.Replace(source, []byte("set: {revision: 1}"), fmt.Appendf(nil, "set: {revision: %d}", n), 1)
}

// change applies one revision after the other while faults happen, as an operator would, who may have to give up; and one when they are over, which must succeed.
func (w *world) change(faulty, ctx context.Context) error {
	random := rand.New(rand.NewPCG(w.seed, 3))
	n := 1
	for {
		select {
		case <-time.After(2*time.Second + time.Duration(random.ExpFloat64()*float64(2*w.every))):
		case <-faulty.Done():
			last, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			n++
			if err := mesh.Until(last, func(context.Context) error { return w.revise(ctx, n) }); err != nil {
				return fmt.Errorf("revision %d could not be applied after the faults: %w", n, err)
			}
			return nil
		}
		n++
		if err := w.revise(ctx, n); err != nil {
			said := strings.Split(strings.TrimSpace(err.Error()), "\n")
			w.say("revision %d: %.300s", n, said[len(said)-1])
		}
	}
}

func (w *world) revise(ctx context.Context, n int) error {
	file := filepath.Join(w.dir, fmt.Sprintf("topology-%d.yaml", n))
	if err := os.WriteFile(file, revised(n), 0o600); err != nil {
		return err
	}
	began := time.Now()
	_, err := w.CLI(ctx, "apply", "--timeout", "15s", file)
	if err == nil {
		w.say("revision %d is applied after %v", n, time.Since(began).Round(100*time.Millisecond))
	}
	return err
}
