package meshtest

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/partition"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

var (
	seeds = flag.Int("seeds", 300, "number of seeds to simulate")
	first = flag.Uint64("seed", 1, "first seed")
)

// The topology: spout -> clean -> stat -> alarm, and everything is stored: clean -> out, stat -> out, alarm -> out.
const tasks = 3

type reading struct {
	Device string `json:"device"`
	Seq    int    `json:"seq"` // per device, from 1
	V      int    `json:"v"`
}

// clean passes readings on.
type clean struct{}

func (clean) Execute(_ context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	if strings.Contains(string(t.Payload), `"v":-1`) {
		return bolt.Reject(fmt.Errorf("poison"))
	}
	c.Emit(bolt.Emission{Key: t.Key, Time: t.Time, Payload: t.Payload})
	return nil
}

// sums is stat's and alarm's state of a device.
type sums struct {
	N, Sum     int // lifetime
	Open, Part int // of the interval
	Last       int // sequence number
	Out        int // outputs
	Order      string
}

func (s *sums) Clone() state.Value { d := *s; return &d }
func (s *sums) Append(b []byte) ([]byte, error) {
	j, err := json.Marshal(s)
	return append(b, j...), err
}

func decodeSums(b []byte) (state.Value, error) {
	s := &sums{}
	if b == nil {
		return s, nil
	}
	return s, json.Unmarshal(b, s)
}

// keyed is what stat and alarm have in common.
type keyed struct{}

func (keyed) Group(t *tuple.Tuple) (string, bool) { return t.Key, true }
func (keyed) Keys(g string, add func(string))     { add(g) }
func (keyed) Due(bolt.Tick) (int64, bool)         { return math.MaxInt64, true }
func edit(ctx context.Context, c *bolt.Collector) (*sums, error) {
	v, err := c.State().Edit(ctx, c.Group(), decodeSums)
	if err != nil {
		return nil, err
	}
	return v.(*sums), nil
}

// stat adds readings up; it emits its interval at every fifth reading of a device and at ticks.
type stat struct{ keyed }

func (stat) Execute(ctx context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	var r reading
	if err := json.Unmarshal(t.Payload, &r); err != nil {
		return bolt.Reject(err)
	}
	s, err := edit(ctx, c)
	if err != nil {
		return err
	}
	s.Order += fmt.Sprintf("%d ", r.Seq)
	s.N, s.Sum = s.N+1, s.Sum+r.V
	s.Open, s.Part = s.Open+1, s.Part+r.V
	c.Wake(0)
	if s.Open == 5 {
		emitInterval(s, c)
	}
	return nil
}

func (stat) Tick(ctx context.Context, _ bolt.Tick, _ string, c *bolt.Collector) error {
	s, err := edit(ctx, c)
	if err == nil && s.Open > 0 {
		emitInterval(s, c)
	}
	return err
}

func emitInterval(s *sums, c *bolt.Collector) {
	s.Out++
	c.Emit(bolt.Emission{Key: c.Group(), Payload: fmt.Appendf(nil, `{"out":%d,"n":%d,"sum":%d}`, s.Out, s.Open, s.Part)})
	s.Open, s.Part = 0, 0
}

// alarm takes stat's outputs in and notes their order; it emits an event whenever the sum's parity changes.
type alarm struct{ keyed }

func (alarm) Execute(ctx context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	var in struct{ Out, N, Sum int }
	if err := json.Unmarshal(t.Payload, &in); err != nil {
		return bolt.Reject(err)
	}
	s, err := edit(ctx, c)
	if err != nil {
		return err
	}
	s.N++
	s.Order += fmt.Sprintf("%d ", in.Out)
	if in.Sum%2 != s.Part {
		s.Part = in.Sum % 2
		s.Out++
		c.Emit(bolt.Emission{Key: c.Group(), Payload: fmt.Appendf(nil, `{"event":%d,"parity":%d}`, s.Out, s.Part)})
	}
	return nil
}

func (alarm) Tick(context.Context, bolt.Tick, string, *bolt.Collector) error { return nil }

// out stores.
type out struct{ document func(id, body string) }

func (o out) Execute(_ context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	o.document(t.ID.String(), c.Source()+" "+t.Key+" "+string(t.Payload))
	return nil
}

func byKey(t *tuple.Tuple) (string, bool) { return t.Key, true }

func nodes() []Node {
	to := func(id string, gated bool) bolt.Edge {
		return bolt.Edge{To: id, Stream: tuple.DefaultStream, Tasks: tasks, Key: byKey, Gated: gated}
	}
	store := bolt.Edge{To: "out", Stream: tuple.DefaultStream, Shared: true}
	return []Node{
		{ID: "clean", Tasks: tasks, Edges: []bolt.Edge{to("stat", false), store}, Build: func(func(id, body string)) bolt.Bolt { return clean{} }},
		{ID: "stat", Tasks: tasks, Ticks: true, Level: 2, Edges: []bolt.Edge{to("alarm", true), store}, Build: func(func(id, body string)) bolt.Bolt { return stat{} }},
		{ID: "alarm", Tasks: tasks, Edges: []bolt.Edge{store}, Build: func(func(id, body string)) bolt.Bolt { return alarm{} }},
		{ID: "out", Shared: true, Build: func(d func(id, body string)) bolt.Bolt { return out{d} }},
	}
}

// world1 returns a run's options and the readings in it.
func world1(seed uint64) (Options, []reading) {
	const partitions, devices, perPartition = 2, 3, 40
	o := Options{
		Seed: seed, Nodes: nodes(), Edges: []bolt.Edge{{To: "clean", Stream: tuple.DefaultStream, Tasks: tasks, Key: byKey}},
		Faults: Usual(), Steps: 12_000, Span: 12, Spec: topology.Spout{Key: "device"},
	}
	var all []reading
	for p := range partitions {
		var log []spout.Record
		seq := map[string]int{}
		for i := range perPartition {
			r := reading{Device: fmt.Sprintf("d%d%d", p, (i*7+int(seed))%devices), V: 1 + (i*i+int(seed))%9}
			if (uint64(i)+seed)%37 == 0 {
				r.V = -1 // poison: a dead letter
			} else {
				seq[r.Device]++
				r.Seq = seq[r.Device]
				all = append(all, r)
			}
			b, _ := json.Marshal(r)
			log = append(log, spout.Record{Offset: int64(i), Value: b})
		}
		o.Partitions = append(o.Partitions, log)
	}
	o.Completed = func(k Peek, p int, first, next int64) error {
		if p < 0 {
			return nil
		}
		for i := first; i < next; i++ {
			var r reading
			_ = json.Unmarshal(o.Partitions[p][i].Value, &r)
			if r.V < 0 {
				continue
			}
			id := tuple.ChildID(tuple.RootID(tuple.Position{Origin: Origin(p), Offset: i}), tuple.Emitter{Node: tuple.NameOf("clean")}, tuple.NameOf("default"), 0)
			if _, stored := k.Documents[id.String()]; !stored {
				return fmt.Errorf("reading %+v is not stored", r)
			}
			if s := stored(k, "stat", r.Device); !strings.Contains(" "+s.Order, fmt.Sprintf(" %d ", r.Seq)) {
				return fmt.Errorf("reading %+v is not applied: %+v", r, s)
			}
		}
		return nil
	}
	return o, all
}

func stored(k Peek, node, device string) *sums {
	b, err := k.State.Load(context.Background(), Task(node, partition.Task(device, tasks)), []string{device})
	if err != nil {
		panic(err)
	}
	v, err := decodeSums(b[0])
	if err != nil {
		panic(err)
	}
	return v.(*sums)
}

// check compares what a run left behind with what the readings alone say.
func check(o Options, readings []reading, r *Result, ordered bool) error {
	want := map[string]*sums{}
	for _, x := range readings {
		w := want[x.Device]
		if w == nil {
			w = &sums{}
			want[x.Device] = w
		}
		w.N, w.Sum = w.N+1, w.Sum+x.V
		w.Order += fmt.Sprintf("%d ", x.Seq)
	}
	docs := map[string]int{}
	intervals := map[string][2]int{}
	for _, body := range r.Documents {
		f := strings.SplitN(body, " ", 3)
		docs[f[0]+" "+f[1]]++
		if f[0] == "stat" {
			var x struct{ N, Sum int }
			_ = json.Unmarshal([]byte(f[2]), &x)
			i := intervals[f[1]]
			intervals[f[1]] = [2]int{i[0] + x.N, i[1] + x.Sum}
		}
	}
	poison := 0
	for _, log := range o.Partitions {
		for _, rec := range log {
			if strings.Contains(string(rec.Value), `"v":-1`) {
				poison++
			}
		}
	}
	if len(r.Letters) != poison {
		return fmt.Errorf("%d dead letters, want %d", len(r.Letters), poison)
	}
	for device, w := range want {
		s, a := stored(r.Peek, "stat", device), stored(r.Peek, "alarm", device)
		switch {
		case s.N != w.N || s.Sum != w.Sum:
			return fmt.Errorf("%s: counted %d readings with the sum %d, want %d and %d", device, s.N, s.Sum, w.N, w.Sum)
		case ordered && s.Order != w.Order:
			return fmt.Errorf("%s: applied in the order %s", device, s.Order)
		case intervals[device] != [2]int{w.N, w.Sum}:
			return fmt.Errorf("%s: the stored intervals add up to %v, want %d and %d", device, intervals[device], w.N, w.Sum)
		case docs["clean "+device] != w.N:
			return fmt.Errorf("%s: %d readings stored, want %d", device, docs["clean "+device], w.N)
		case docs["stat "+device] != s.Out:
			return fmt.Errorf("%s: %d intervals stored, %d emitted", device, docs["stat "+device], s.Out)
		case docs["alarm "+device] != a.Out:
			return fmt.Errorf("%s: %d events stored, %d emitted", device, docs["alarm "+device], a.Out)
		}
		var order strings.Builder
		for i := range s.Out {
			fmt.Fprintf(&order, "%d ", i+1)
		}
		if a.Order != order.String() {
			return fmt.Errorf("%s: alarm saw stat's outputs in the order %s, there are %d", device, a.Order, s.Out)
		}
	}
	return nil
}

// TestSimulation runs many seeds of the topology with faults. To see one again: go test ./pkg/meshtest -run Simulation -seeds 1 -seed N
func TestSimulation(t *testing.T) {
	simulate(t, *seeds, func(seed uint64) error {
		o, readings := world1(seed)
		ordered := true
		if seed%2 == 0 {
			o.Faults.StreamLoss, ordered = 3000, false
		}
		r, err := Run(o)
		if err != nil {
			return err
		}
		if err := check(o, readings, r, ordered); err != nil {
			return fmt.Errorf("seed %d: %w\n%s", seed, err, strings.Join(r.History[max(0, len(r.History)-40):], "\n"))
		}
		return nil
	})
}

// simulate runs seeds on all processors and reports the first failures.
func simulate(t *testing.T, n int, run func(seed uint64) error) {
	t.Helper()
	var next atomic.Uint64
	var failures atomic.Int64
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for {
				i := next.Add(1) - 1
				if i >= uint64(n) || failures.Load() >= 3 {
					return
				}
				if err := run(*first + i); err != nil {
					failures.Add(1)
					t.Errorf("%v\nto see it again: go test ./pkg/meshtest -run '%s' -seeds 1 -seed %d", err, t.Name(), *first+i)
				}
			}
		})
	}
	workers.Wait()
}
