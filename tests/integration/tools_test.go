package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/observe"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/tests/integration/mesh"
)

// traced is what `boltmesh trace` tells.
type traced struct {
	Tuple, Position, Source string
	State                   control.State
	Journey                 *observe.Journey
}

// tools asks the command line about a mesh of processes, whose Jaeger has the reading at an offset of partition 1.
func tools(t *testing.T, m *mesh.Mesh, top *topology.Topology, offset int64) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	place := fmt.Sprint("load/1@", offset)
	t.Run("trace in Jaeger", func(t *testing.T) {
		d := tell[traced](t, ctx, m, "trace", "load", place, "--jaeger", m.Jaeger.URL)
		workers := map[string]bool{}
		d.Journey.Each(func(h *observe.Hop) bool {
			workers[h.Worker] = h.Worker != ""
			return true
		})
		if d.Source != "jaeger" || d.State != control.Processed || len(workers) != 5 || d.Journey.Link != m.Jaeger.URL+"/trace/"+d.Journey.Trace {
			t.Errorf("%+v, workers %v", d, workers)
		}
	})
	t.Run("trace what waits", func(t *testing.T) {
		output := m.Services["output"][0]
		output.Pause()
		defer output.Resume()
		stuck := produce(t, m, `{"device":"stuck","ts":5000,"value":1,"seq":1}`)
		var d traced
		err := mesh.Until(ctx, func(context.Context) error {
			d = tell[traced](t, ctx, m, "trace", "load", stuck, "--wait", "500ms")
			if d.Journey == nil {
				return fmt.Errorf("%s: %s, nothing seen", stuck, d.State)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		waits := false
		d.Journey.Each(func(h *observe.Hop) bool {
			waits = waits || h.Node == "output" && h.From == "clean" && h.Outcome == "waiting" && strings.HasPrefix(h.Worker, "output-")
			return true
		})
		if d.State != control.UnderWay || d.Source != "tap" || !waits {
			t.Errorf("%+v", d)
		}
		output.Resume()
		settle(t, m, top)
		if d := tell[traced](t, ctx, m, "trace", "load", stuck); d.State != control.Processed || d.Journey != nil {
			t.Errorf("%+v", d)
		}
	})
	t.Run("tap and top", func(t *testing.T) {
		tapped := make(chan string, 1)
		go func() {
			out, err := m.CLI(ctx, "tap", "load/clean", "--to", "totals", "--where", "value == 7", "--count", "1", "-o", "json")
			if err != nil {
				out = []byte(err.Error())
			}
			tapped <- string(out)
		}()
		seen := ""
		for n := 0; seen == ""; n++ {
			produce(t, m, fmt.Sprintf(`{"device":"seen","ts":%d,"value":7,"seq":%d}`, 6000+n, n))
			select {
			case seen = <-tapped:
			case <-time.After(200 * time.Millisecond):
			}
		}
		if !strings.Contains(seen, `"device":"seen"`) || !strings.Contains(seen, `"to":"totals"`) || strings.Count(seen, "\n") != 1 {
			t.Error(seen)
		}
		rates := tell[[]control.Rates](t, ctx, m, "top", "load")
		if len(rates) != 1 || rates[0].Workers != 5 || len(rates[0].Nodes) != 6 || slices.ContainsFunc(rates[0].Nodes, func(n control.NodeRates) bool { return n.Workers != 1 }) {
			t.Errorf("%+v", rates)
		}
	})
}

// produce writes one reading into partition 1 and returns its place.
func produce(t *testing.T, m *mesh.Mesh, reading string) string {
	t.Helper()
	offset, err := m.Produce(t.Context(), "load", 1, kafka.Record{Value: kafka.NewBytes([]byte(reading))})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint("load/1@", offset)
}

// tell runs a command that tells something as JSON.
func tell[T any](t *testing.T, ctx context.Context, m *mesh.Mesh, args ...string) (v T) {
	t.Helper()
	out, err := m.CLI(ctx, append(args, "-o", "json")...)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &v); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return v
}
