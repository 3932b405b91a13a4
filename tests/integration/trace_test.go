package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/segmentio/kafka-go"

	"github.com/boltmesh/boltmesh/pkg/tuple"
	"github.com/boltmesh/boltmesh/tests/integration/mesh"
)

// span is what Jaeger says of one.
type span struct {
	SpanID        string
	OperationName string
	ProcessID     string
	References    []struct{ RefType, TraceID, SpanID string }
	Tags          []struct {
		Key   string
		Value any
	}
}

// journey is a trace: its spans and the names of their services by process.
type journey struct {
	TraceID   string
	Spans     []span
	Processes map[string]struct{ ServiceName string }
}

// TestTrace asks Jaeger for the way of two readings: one whose trace begins here, and one whose producer has begun it.
func TestTrace(t *testing.T) {
	m := start(t, mesh.Options{Jaeger: true})
	top := apply(t, m, loadTopology)
	const producer, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	var first int64
	// Three high values raise the alarm, so that the third reading reaches the output by way of the alarm too.
	for i := range 3 {
		r := kafka.Record{Value: kafka.NewBytes(fmt.Appendf(nil, `{"device":"d","ts":%d,"value":90,"seq":%d}`, 1000+i, i))}
		if i == 2 {
			r.Headers = []kafka.Header{{Key: "traceparent", Value: []byte("00-" + producer + "-" + parent + "-01")}}
		}
		offset, err := m.Produce(t.Context(), "load", 1, r)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = offset
		}
	}
	settle(t, m, top)
	id := func(offset int64) string {
		return tuple.RootID(tuple.Position{Origin: tuple.OriginOf("load", "readings", "load", "", "1"), Offset: offset}).String()
	}
	t.Run("begins here", func(t *testing.T) {
		j := ask(t, m, id(first), "spout", "convert", "stat", "alarm", "output")
		j.check(t, id(first), "")
	})
	t.Run("goes on", func(t *testing.T) {
		j := ask(t, m, producer, "spout", "convert", "stat", "alarm", "output")
		j.check(t, id(first+2), parent)
		if !slices.ContainsFunc(j.Spans, func(s span) bool { return j.service(s) == "output" && s.tag("boltmesh.source") == "high" }) {
			t.Error("no span of the output tells of the alarm's event")
		}
	})
	tools(t, m, top, first)
}

// ask waits until Jaeger has the spans of all services in one trace.
func ask(t *testing.T, m *mesh.Mesh, trace string, services ...string) (j journey) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := mesh.Until(ctx, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.Jaeger.URL+"/api/traces/"+trace, nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		var answer struct{ Data []journey }
		if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
			return err
		}
		if len(answer.Data) != 1 {
			return fmt.Errorf("%d traces %s", len(answer.Data), trace)
		}
		j = answer.Data[0]
		for _, name := range services {
			if !slices.ContainsFunc(j.Spans, func(s span) bool { return j.service(s) == name }) {
				return fmt.Errorf("no span of %s among %d", name, len(j.Spans))
			}
		}
		return j.whole()
	})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func (j *journey) service(s span) string {
	return strings.TrimPrefix(j.Processes[s.ProcessID].ServiceName, "boltmesh-")
}

func (s span) parent() string {
	for _, r := range s.References {
		if r.RefType == "CHILD_OF" {
			return r.SpanID
		}
	}
	return ""
}

func (s span) tag(key string) string {
	for _, t := range s.Tags {
		if t.Key == key {
			return fmt.Sprint(t.Value)
		}
	}
	return ""
}

// whole wants every span but one to hang on another of the trace; until the collector has all of them it is not so.
func (j *journey) whole() error {
	var roots []string
	for _, s := range j.Spans {
		if !slices.ContainsFunc(j.Spans, func(p span) bool { return p.SpanID == s.parent() }) {
			roots = append(roots, j.service(s)+": "+s.OperationName)
		}
	}
	if len(roots) != 1 {
		return fmt.Errorf("%d spans hang on none of the trace: %s", len(roots), strings.Join(roots, ", "))
	}
	return nil
}

// check wants the spout's receive span at the root, under the producer's span if there is one, and the attributes on the span of every delivery.
func (j *journey) check(t *testing.T, id, parent string) {
	t.Helper()
	for _, s := range j.Spans {
		received, processed := strings.HasPrefix(s.OperationName, "receive "), strings.HasPrefix(s.OperationName, "process ")
		if received && (j.service(s) != "spout" || s.parent() != parent || s.tag("boltmesh.tuple") != id) {
			t.Errorf("%s: %s of tuple %s under %q, want %s under %q", j.service(s), s.OperationName, s.tag("boltmesh.tuple"), s.parent(), id, parent)
		}
		if !received && !processed {
			continue // a stage of a delivery
		}
		for key, want := range map[string]string{"boltmesh.topology": "load", "boltmesh.device": "d", "boltmesh.attempt": "0"} {
			if s.tag(key) != want {
				t.Errorf("%s: %s has %s %q, want %q", j.service(s), s.OperationName, key, s.tag(key), want)
			}
		}
		for _, key := range []string{"boltmesh.node", "boltmesh.task", "boltmesh.tuple"} {
			if s.tag(key) == "" {
				t.Errorf("%s: %s has no %s", j.service(s), s.OperationName, key)
			}
		}
	}
}
