package bolt_test

import (
	"context"
	"strings"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// where emits each tuple on the stream that its payload names.
func where(_ context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	stream := strings.Trim(string(t.Payload), `{}"`)
	c.Emit(bolt.Emission{Stream: stream, Key: t.Key, Payload: []byte("{}")})
	return nil
}

// TestEmissionsOnDeclaredStreamsOnly: what a bolt emits on a stream that its node does not declare would reach nobody; its tuple is a dead letter
// instead. A declared stream that nobody reads is allowed, and so is any where nothing is declared.
func TestEmissionsOnDeclaredStreamsOnly(t *testing.T) {
	counts := &bolt.Keyed[int]{
		GroupBy: func(t *tuple.Tuple) (string, bool) { return t.Key, true },
		Update: func(ctx context.Context, t *tuple.Tuple, n *int, c *bolt.Collector) error {
			*n++
			return where(ctx, t, c)
		},
	}
	for name, b := range map[string]bolt.Bolt{"stateless": bolt.Func(where), "stateful": counts} {
		h := bolttest.New(t, b)
		h.Streams("default", "due")
		feed := func(stream string) { h.Feed(tuple.Tuple{Key: "a", Payload: []byte(`{"` + stream + `"}`)}) }
		for _, stream := range []string{"", "default", "due"} {
			feed(stream)
		}
		if len(h.Letters) != 0 {
			t.Errorf("%s: dead letters %v", name, h.Letters)
		}
		feed("deu")
		if len(h.Letters) != 1 || !strings.Contains(h.Letters[0].Error, `stream "deu", which the node does not declare: it has default, due`) {
			t.Errorf("%s: dead letters %v", name, h.Letters)
		}
		h.Streams()
		feed("deu")
		if len(h.Letters) != 1 {
			t.Errorf("%s, nothing declared: dead letters %v", name, h.Letters)
		}
	}
}

// TestRejectedEmissionChangesNoValue: a Keyed whose emission is rejected has not counted the tuple, which may come again when the stream is declared.
func TestRejectedEmissionChangesNoValue(t *testing.T) {
	var last int
	h := bolttest.New(t, &bolt.Keyed[int]{
		GroupBy: func(t *tuple.Tuple) (string, bool) { return t.Key, true },
		Update: func(ctx context.Context, t *tuple.Tuple, n *int, c *bolt.Collector) error {
			*n++
			last = *n
			return where(ctx, t, c)
		},
	})
	h.Streams("default")
	for _, stream := range []string{"default", "deu", "default"} {
		h.Feed(tuple.Tuple{Key: "a", Payload: []byte(`{"` + stream + `"}`)})
	}
	if last != 2 {
		t.Errorf("%d tuples counted, want the 2 that were not rejected", last)
	}
}

// TestInnerStreams: a bolt that runs in another's loop has streams of its own.
func TestInnerStreams(t *testing.T) {
	h := bolttest.New(t, bolt.Func(func(_ context.Context, t *tuple.Tuple, c *bolt.Collector) error {
		c.Emit(bolt.Emission{Key: t.Key, Payload: t.Payload})
		return nil
	}))
	h.Streams("default")
	h.Edges(bolt.Edge{To: "inner", Stream: "default", Shared: true, Local: true})
	in := bolt.Inner{Bolt: bolt.Func(where), Streams: []string{"default", "due"}, Sink: h.Sink}
	in.Where.Node = "inner"
	h.Inner(in)
	h.Feed(tuple.Tuple{Key: "a", Payload: []byte(`{"due"}`)}, tuple.Tuple{Key: "a", Payload: []byte(`{"deu"}`)})
	if len(h.Letters) != 1 || h.Letters[0].Node != "inner" {
		t.Errorf("dead letters %v", h.Letters)
	}
}
