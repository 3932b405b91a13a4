// Chaos runs boltmesh as it is deployed, five services of three replicas each on real servers, breaks it from a seed while readings with a known answer
// flow, and compares everything that was stored. Contributors run it by `make chaos`, and a short run of it by `make chaos-short`.
// It never looks into a service, and it draws the same faults from the same seed, though no two runs go the same way.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/boltmesh/boltmesh/tests/integration/mesh"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := all(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

// all runs one seed after the other.
func all(ctx context.Context) error {
	s := settings{}
	runs := flag.Int("runs", 20, "how many seeds, from -seed on")
	flag.Uint64Var(&s.seed, "seed", 1, "the first seed")
	flag.IntVar(&s.readings, "readings", 200_000, "readings fed in each run")
	flag.IntVar(&s.devices, "devices", 1000, "devices that they are of")
	flag.IntVar(&s.replicas, "replicas", 3, "of each service")
	flag.IntVar(&s.rate, "rate", 2000, "readings fed per second")
	flag.DurationVar(&s.every, "every", 5*time.Second, "mean time between two faults")
	flag.DurationVar(&s.patience, "patience", 5*time.Minute, "after the last fault")
	dir := flag.String("dir", "", "where data and logs go; those of right runs are removed (default: a temporary directory)")
	bin := flag.String("bin", "", "programs to run instead of building them")
	flag.Parse()
	var err error
	if *dir == "" {
		if *dir, err = os.MkdirTemp("", "boltmesh-chaos-"); err != nil {
			return err
		}
	}
	if s.bin = *bin; s.bin == "" {
		s.bin = filepath.Join(*dir, "bin")
		if err := mesh.Build(ctx, s.bin); err != nil {
			return err
		}
	}
	wrong, first := 0, s.seed
	for s.seed = first; s.seed < first+uint64(*runs) && ctx.Err() == nil; s.seed++ {
		s.dir = filepath.Join(*dir, fmt.Sprintf("seed-%d", s.seed))
		r, err := run(ctx, s, os.Stderr)
		if err != nil {
			return fmt.Errorf("seed %d: %w", s.seed, err)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("seed %d: %w", s.seed, ctx.Err())
		}
		fmt.Println(r)
		if len(r.problems) > 0 {
			wrong++
			r.explain(os.Stdout)
			continue
		}
		_ = os.RemoveAll(s.dir)
	}
	if wrong > 0 {
		return fmt.Errorf("%d of %d runs went wrong; data and logs are in %s", wrong, *runs, *dir)
	}
	return ctx.Err()
}
