package jetstream_test

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// TestKnownMissesNoKeyThatIsBeingWritten lists keys that are written all the time, as leases are.
func TestKnownMissesNoKeyThatIsBeingWritten(t *testing.T) {
	c := connect(t)
	b, err := c.Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const keys, looks = 12, 50
	stop := make(chan struct{})
	var writing sync.WaitGroup
	defer writing.Wait()
	defer close(stop)
	var begun sync.WaitGroup
	for i := range keys {
		begun.Add(1)
		writing.Go(func() {
			last := uint64(0)
			for first := true; ; first = false {
				var err error
				last, err = b.Store(t.Context(), fmt.Sprintf("halls.member.w%d", i), []byte("x"), last, time.Minute)
				if first {
					begun.Done()
				}
				if err != nil {
					t.Error(err)
					return
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	begun.Wait()
	byWatch := 0
	for range looks {
		known, err := b.Known(t.Context(), "halls.member.>")
		if err != nil || len(known) != keys {
			t.Fatalf("%d of %d keys: %v", len(known), keys, err)
		}
		watched, err := b.Keys(t.Context(), "halls.member.>")
		if err != nil {
			t.Fatal(err)
		}
		if len(watched) < keys {
			byWatch++
		}
	}
	t.Logf("a watch missed some in %d of %d looks", byWatch, looks)
}
