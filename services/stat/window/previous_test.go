package window

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/script"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// It sums the steps from one reading to the next, and notes in how many calls there was a reading before.
const steps = `
function compute(t, state, ctx) {
	state.n = (state.n || 0) + 1
	if (!ctx.previous) return
	state.steps = (state.steps || "") + " " + (t.x - ctx.previous.x)
	ctx.previous.x = 1000 // what it does to it goes nowhere
}
function output(state) { return {steps: state.steps, n: state.n} }
`

// TestPrevious: the script sees the group's reading before this one under every owner of the task, also when the windows in which that was counted are closed;
// none that the filter left out, that came late, or that is larger than what is kept.
func TestPrevious(t *testing.T) {
	large := fmt.Sprintf(`{"x":50,"pad":%q}`, strings.Repeat("-", script.MaxPrevious))
	tumbling := topology.Window{Kind: topology.WindowTumbling, Size: time.Minute, Time: "processing"}
	for _, tt := range []struct {
		name   string
		window topology.Window
		tick   bolt.Tick // after the second reading
		want   string
	}{
		{"lifetime", topology.Window{Kind: topology.WindowLifetime}, bolt.Tick{Time: 60_000, Watermark: math.MinInt64}, ` 2 4 43 1, 6`},
		{"interval", topology.Window{}, bolt.Tick{Time: 60_000, Watermark: math.MinInt64}, ` 4 43 1, 4`},
		{"processing time", tumbling, bolt.Tick{Last: 50_000, Time: 130_000, Watermark: math.MinInt64}, ` 4 43 1, 4`},
		{"event time", topology.Window{Kind: topology.WindowTumbling, Size: 10 * ms}, watermark(10), ` 4 43 1, 4`},
		{"overlapping", topology.Window{Kind: topology.WindowSliding, Size: 20 * ms, Slide: 10 * ms}, watermark(20), ` 4 43 1, 4; 4 43 1, 4`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			spec := topology.Bolt{ID: "s", Window: tt.window, Where: &topology.Expr{Source: "x != 0"}, Script: &topology.Script{File: "steps.js", Text: steps}}
			if tt.window.Kind == topology.WindowNone {
				spec.Every = time.Minute
			}
			b := open(t, spec)
			h := bolttest.New(t, b)
			h.Feed(at("a", 1, 1), at("b", 1, 900))
			takeover(h, b)
			h.Feed(at("a", 2, 3), at("a", 3, 0))
			h.Tick(tt.tick)
			takeover(h, b)
			if b.mode == sliding {
				b.watermark = tt.tick.Watermark // the next tick would bring it
				h.Feed(at("a", 4, 500))         // late
			}
			h.Feed(at("a", 25, 7))
			takeover(h, b)
			h.Feed(tuple.Tuple{Key: "a", Time: 25, Payload: []byte(large)}, at("a", 25, 60))
			takeover(h, b)
			h.Feed(at("a", 25, 61))
			var got []string
			for _, o := range h.Tick(bolt.Tick{Last: 130_000, Time: 140_000, Watermark: math.MinInt64, Flush: true}) {
				var said struct {
					Steps string
					N     int
				}
				if err := json.Unmarshal(o.Payload, &said); err != nil {
					t.Fatal(err)
				}
				if o.Key == "a" {
					got = append(got, fmt.Sprintf("%s, %d", said.Steps, said.N))
				}
			}
			if s := strings.Join(got, ";"); s != tt.want || len(h.Letters) > 0 {
				t.Errorf("%q, want %q; %d dead letters", s, tt.want, len(h.Letters))
			}
		})
	}
}

// TestPreviousIsKeptOnDemand: what nobody looks at is not kept, and what was kept goes when the script no longer asks.
func TestPreviousIsKeptOnDemand(t *testing.T) {
	spec := topology.Bolt{ID: "s", Window: topology.Window{Kind: topology.WindowLifetime}, Script: &topology.Script{File: "steps.js", Text: steps}}
	asking := open(t, spec)
	spec.Script = &topology.Script{File: "n.js", Text: `function compute(t, state) { state.n = (state.n || 0) + 1 }; function output(state) { return {n: state.n} }`}
	silent := open(t, spec)
	h := bolttest.New(t, asking)
	h.Feed(at("a", 1, 1))
	kept := func() *record {
		t.Helper()
		raw, err := h.Store.Load(t.Context(), state.Task{Topology: "test", Node: "node"}, []string{asking.key("a")})
		if err != nil {
			t.Fatal(err)
		}
		v, err := asking.decoder(raw[0])
		if err != nil {
			t.Fatal(err)
		}
		return v.(*record)
	}
	if r := kept(); string(r.previous) != `{"x":1}` {
		t.Errorf("kept: %q", r.previous)
	}
	later := bolttest.New(t, silent)
	later.Store = h.Store
	later.Restart()
	second := at("a", 2, 2)
	second.ID, second.Offset = tuple.RootID(tuple.Position{Origin: bolttest.Origin, Offset: 7}), 7
	later.Feed(second)
	if r := kept(); r.previous != nil || string(r.open[0].script) != `{"n":2}` {
		t.Errorf("kept: %q, %s", r.previous, r.open[0].script)
	}
}
