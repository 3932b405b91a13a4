package meshtest

import (
	"errors"
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	seeds   = flag.Int("seeds", defaultSeeds, "number of seeds to simulate")
	first   = flag.Uint64("seed", 1, "first seed")
	only0   = flag.String("faults", "", "from:to, the ordinals of the faults that happen")
	salt    = flag.Uint64("salt", 0, "another schedule of the same seed")
	without = flag.String("without", "", "kinds of faults that do not happen, separated by commas")
)

// TestSimulation runs many seeds of the plant with faults.
func TestSimulation(t *testing.T) {
	simulate(t, *seeds, func(seed uint64, x Window) (*Result, error) {
		p := newPlant(seed)
		p.options.Window, p.options.Begins, p.options.Holds = x, seed%13 > 6, seed%19 > 8
		return p.run()
	})
}

// simulate runs seeds on all processors, and reports the first failures: shortened, and with the command that shows them again.
func simulate(t *testing.T, n int, run func(seed uint64, x Window) (*Result, error)) {
	t.Helper()
	given, err := ParseWindow(*only0, *without, *salt)
	if err != nil {
		t.Fatal(err)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // many small worlds, none of which lives long
	var next, done, failures atomic.Int64
	var workers sync.WaitGroup
	begun := time.Now()
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for {
				i := next.Add(1) - 1
				if i >= int64(n) || failures.Load() >= 3 {
					return
				}
				seed := *first + uint64(i)
				r, err := run(seed, given)
				if err != nil {
					failures.Add(1)
					t.Error(explain(t, seed, given, r, err, run))
				}
				if d := done.Add(1); d%5000 == 0 {
					fmt.Printf("%s: %d of %d seeds, %.0f a second\n", t.Name(), d, n, float64(d)/time.Since(begun).Seconds())
				}
			}
		})
	}
	workers.Wait()
	t.Logf("%d seeds, %.0f a second", done.Load(), float64(done.Load())/time.Since(begun).Seconds())
}

// explain shortens a failure, unless it was shortened already.
func explain(t *testing.T, seed uint64, given Window, r *Result, err error, run func(uint64, Window) (*Result, error)) string {
	command := fmt.Sprintf("go test ./pkg/meshtest -run '^%s$' -seeds 1 -seed %d", t.Name(), seed)
	if given.String() != "" {
		return Shrunk{given, err, r.History}.Report(command)
	}
	return Shrink(func(x Window) (*Result, error) { return run(seed, x) }).Report(command)
}

// TestSeedDecidesAll runs seeds twice: a failure can only be seen again if nothing but the seed decides.
func TestSeedDecidesAll(t *testing.T) {
	for seed := range uint64(20) {
		a, errA := newPlant(seed).run()
		b, errB := newPlant(seed).run()
		if errA != nil || errB != nil {
			t.Fatal(errors.Join(errA, errB))
		}
		if a.Steps != b.Steps || a.Hits != b.Hits || a.Now != b.Now || len(a.Documents) != len(b.Documents) {
			t.Errorf("seed %d: %d steps with %d faults until %d, then %d with %d until %d", seed, a.Steps, a.Hits, a.Now, b.Steps, b.Hits, b.Now)
		}
	}
}
