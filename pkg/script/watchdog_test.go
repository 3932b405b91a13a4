package script

import (
	"errors"
	"fmt"
	goruntime "runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestBusyMachine calls a script that takes an eighth of its deadline while so many goroutines want the one processor that it waits for several deadlines: it is not the
// script that ran too long. One that never ends is interrupted all the same.
func TestBusyMachine(t *testing.T) {
	defer goruntime.GOMAXPROCS(goruntime.GOMAXPROCS(1))
	const deadline = 100 * time.Millisecond
	load := func(source string) *Runtime {
		t.Helper()
		p, err := CompileJS("busy.js", source)
		if err != nil {
			t.Fatal(err)
		}
		rt, err := NewRuntime(p, RuntimeOptions{Deadline: deadline})
		if err != nil {
			t.Fatal(err)
		}
		return rt
	}
	busy := load(`function convert(t, ctx) { let n = 0; while (n < t.n) n++; return {n: n} }`)
	call := func(rt *Runtime, n int) (time.Duration, error) {
		began := time.Now()
		_, err := rt.Convert(&Input{Doc: NewDoc(fmt.Appendf(nil, `{"n":%d}`, n))})
		return time.Since(began), err
	}
	n := 1000
	for took := time.Duration(0); took < deadline/8; n *= 2 { // longer than a goroutine may run before it is the turn of another
		var err error
		if took, err = call(busy, n); err != nil {
			t.Fatal(err)
		}
	}
	var stop atomic.Bool
	var others sync.WaitGroup
	defer others.Wait()
	defer stop.Store(true)
	for range 30 {
		others.Go(func() {
			for !stop.Load() {
			}
		})
	}
	for range 3 {
		if took, err := call(busy, n/2); err != nil {
			t.Errorf("after %v: %v", took, err)
		}
	}
	endless := load(`function convert(t, ctx) { for (;;); }`)
	if _, err := call(endless, 1); !errors.Is(err, ErrDeadline) {
		t.Errorf("a script without end: %v", err)
	}
}
