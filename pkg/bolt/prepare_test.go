package bolt_test

import (
	"context"
	"errors"
	"iter"
	"slices"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// prepared notes what it was shown and what it executed.
type prepared struct {
	fail     int // the first so many calls
	shown    [][]string
	executed []string
}

func (p *prepared) Prepare(_ context.Context, batch iter.Seq[*tuple.Tuple]) error {
	var keys []string
	for t := range batch {
		keys = append(keys, t.Key)
	}
	p.shown = append(p.shown, keys)
	if len(p.shown) <= p.fail {
		return errors.New("not now")
	}
	return nil
}

func (p *prepared) Execute(_ context.Context, t *tuple.Tuple, _ *bolt.Collector) error {
	p.executed = append(p.executed, t.Key)
	return nil
}

// TestPrepareSeesTheBatchFirst: a bolt is shown its batch, again after an outage, which loses and buries nothing.
func TestPrepareSeesTheBatchFirst(t *testing.T) {
	p := &prepared{fail: 7} // more than any node's attempts
	h := bolttest.New(t, p)
	h.Feed(tuple.Tuple{Key: "a", Payload: []byte("{}")}, tuple.Tuple{Key: "b", Payload: []byte("{}")}, tuple.Tuple{Key: "a", Payload: []byte("{}")})
	want := []string{"a", "b", "a"}
	if len(p.shown) != 8 || len(h.Letters) != 0 || !slices.Equal(p.executed, want) {
		t.Fatalf("shown %d times, %d letters, executed %v", len(p.shown), len(h.Letters), p.executed)
	}
	for _, keys := range p.shown {
		if !slices.Equal(keys, want) {
			t.Errorf("shown %v, want %v", keys, want)
		}
	}
}
