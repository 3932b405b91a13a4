package bolt_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// A bolt in the basic style: what it returns decides. Its service is service.Main("doubler", ...) with this bolt.
func ExampleFunc() {
	double := bolt.Func(func(_ context.Context, t *tuple.Tuple, c *bolt.Collector) error {
		var v struct{ N int }
		if err := json.Unmarshal(t.Payload, &v); err != nil {
			return bolt.Reject(err) // it will never be a number: a dead letter, at once
		}
		return c.EmitJSON(t, "", map[string]int{"n": 2 * v.N})
	})
	h := bolttest.New(&testing.B{}, double) // the real loop, in memory
	for _, out := range h.Feed(tuple.Tuple{Key: "m1", Payload: []byte(`{"n": 21}`)}, tuple.Tuple{Key: "m1", Payload: []byte(`{"n": "?"}`)}) {
		fmt.Printf("%s: %s\n", out.Key, out.Payload)
	}
	for _, l := range h.Letters {
		fmt.Println("dead letter:", l.Error)
	}
	// Output:
	// m1: {"n":42}
	// dead letter: json: cannot unmarshal string into Go struct field .N of type int
}

// A bolt with state, which outlives its owner, and with ticks.
func ExampleKeyed() {
	count := &bolt.Keyed[int]{
		GroupBy: func(t *tuple.Tuple) (string, bool) { return t.Key, t.Key != "" },
		Update:  func(_ context.Context, _ *tuple.Tuple, n *int, _ *bolt.Collector) error { *n++; return nil },
		Output: func(_ context.Context, tick bolt.Tick, group string, n *int, c *bolt.Collector) error {
			return c.EmitJSON(&tuple.Tuple{Key: group, Time: tick.Time}, "", map[string]int{"count": *n})
		},
	}
	h := bolttest.New(&testing.B{}, count)
	h.Feed(tuple.Tuple{Key: "m1", Payload: []byte(`{}`)}, tuple.Tuple{Key: "m2", Payload: []byte(`{}`)})
	h.Restart() // another worker takes over
	h.Feed(tuple.Tuple{Key: "m1", Payload: []byte(`{}`)})
	for _, out := range h.Tick(bolt.Tick{Time: 60_000}) {
		fmt.Printf("%s: %s\n", out.Key, out.Payload)
	}
	fmt.Println("nothing new:", len(h.Tick(bolt.Tick{Time: 120_000})))
	// Output:
	// m1: {"count":2}
	// m2: {"count":1}
	// nothing new: 0
}

// bulk is a bolt in the rich style: it decides about a whole batch, after it has seen all of it.
type bulk struct {
	rows [][]byte
	send func(rows [][]byte) (refused int, err error)
}

func (b *bulk) Execute(_ context.Context, t *tuple.Tuple, _ *bolt.Collector) error {
	b.rows = append(b.rows, append([]byte(nil), t.Payload...)) // the payload is only valid during the call
	return nil                                                 // not handled yet: Finish decides
}

func (b *bulk) Finish(context.Context, *bolt.Collector) (failures []bolt.Failure, err error) {
	refused, err := b.send(b.rows)
	if err != nil {
		return nil, bolt.Unavailable(err) // an outage: Finish is called again, with the same rows
	}
	b.rows = nil
	if refused >= 0 {
		failures = append(failures, bolt.Failure{Index: refused, Err: fmt.Errorf("row %d was refused", refused)})
	}
	return failures, nil
}

// A bolt in the rich style. None of a batch counts as handled before Finish has succeeded; what it names becomes a dead letter, the others are done.
func ExampleFinisher() {
	tries := 0
	h := bolttest.New(&testing.B{}, &bulk{send: func(rows [][]byte) (int, error) {
		if tries++; tries == 1 {
			return -1, fmt.Errorf("no answer")
		}
		fmt.Printf("%d rows at once\n", len(rows))
		return 1, nil
	}})
	h.Feed(tuple.Tuple{Payload: []byte(`{}`)}, tuple.Tuple{Payload: []byte(`{"bad": true}`)}, tuple.Tuple{Payload: []byte(`{}`)})
	for _, l := range h.Letters {
		fmt.Printf("dead letter: %s: %s\n", l.Payload, l.Error)
	}
	// Output:
	// 3 rows at once
	// dead letter: {"bad": true}: row 1 was refused
}

// A bolt that knows when another try is worth it, and when none is.
func ExampleRetry() {
	tries := 0
	h := bolttest.New(&testing.B{}, bolt.Func(func(_ context.Context, t *tuple.Tuple, c *bolt.Collector) error {
		if tries++; tries < 3 {
			return bolt.Retry(fmt.Errorf("busy"), 2*time.Second) // not before two seconds have passed
		}
		return c.EmitJSON(t, "", map[string]int{"tries": tries})
	}))
	for _, out := range h.Feed(tuple.Tuple{Payload: []byte(`{}`)}) {
		fmt.Printf("%s\n", out.Payload)
	}
	// Output:
	// {"tries":3}
}
