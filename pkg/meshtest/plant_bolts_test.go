package meshtest

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strings"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// clean passes readings on.
type clean struct {
	plant    *plant
	revision uint32
}

func (b clean) Execute(_ context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	payload := t.Payload
	if b.plant.changes {
		var r reading
		if err := json.Unmarshal(payload, &r); err != nil {
			return bolt.Reject(err)
		}
		r.Rev = b.revision
		payload, _ = json.Marshal(r)
	}
	if b.revision == 1 && strings.Contains(string(payload), `"v":-1`) {
		return bolt.Reject(fmt.Errorf("poison"))
	}
	c.Emit(bolt.Emission{Key: t.Key, Time: t.Time, Payload: payload})
	return nil
}

// sums is the state of a group.
type sums struct {
	N, Sum     int // lifetime
	Open, Part int // of the interval
	Out        int // outputs
	Order      string
}

func (s *sums) Append(b []byte) ([]byte, error) {
	return fmt.Appendf(b, "%d %d %d %d %d %s", s.N, s.Sum, s.Open, s.Part, s.Out, s.Order), nil
}

func decodeSums(b []byte) (state.Value, error) {
	s := &sums{}
	if b == nil {
		return s, nil
	}
	f := strings.SplitN(string(b), " ", 6)
	s.Order = f[5]
	_, err := fmt.Sscan(strings.Join(f[:5], " "), &s.N, &s.Sum, &s.Open, &s.Part, &s.Out)
	return s, err
}

func edit(ctx context.Context, c *bolt.Collector) (*sums, error) {
	v, err := c.State().Edit(ctx, c.Group(), decodeSums)
	if err != nil {
		return nil, err
	}
	return v.(*sums), nil
}

// adding adds readings up per group; it emits its interval at every fifth reading and at ticks. stat and fleet are two of it.
type adding struct {
	Env
	plant *plant
	group func(t *tuple.Tuple) (string, bool)
	late  func(group string, tick bolt.Tick, s *sums) // looks at what a tick finds

	poisoned bool // it rejects what is poison for stat, in the first revision
}

func (b adding) Group(t *tuple.Tuple) (string, bool) { return b.group(t) }
func (adding) Keys(g string, add func(string))       { add(g) }
func (adding) GroupOf(key string) (string, bool)     { return key, true }
func (adding) Due(bolt.Tick) (int64, bool)           { return math.MaxInt64, true }

func (b adding) Execute(ctx context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	var r reading
	if err := json.Unmarshal(t.Payload, &r); err != nil {
		return bolt.Reject(err)
	}
	if b.poisoned && r.V == forStat && b.Revision == 1 {
		return bolt.Reject(fmt.Errorf("poison"))
	}
	s, err := edit(ctx, c)
	if err != nil {
		return err
	}
	s.Order += r.mark() + " "
	s.N, s.Sum = s.N+1, s.Sum+r.V
	s.Open, s.Part = s.Open+1, s.Part+r.V
	c.Wake(0)
	if s.Open == 5 {
		emitInterval(s, c)
	}
	return nil
}

func (b adding) Tick(ctx context.Context, tick bolt.Tick, group string, c *bolt.Collector) error {
	s, err := edit(ctx, c)
	if err != nil {
		return err
	}
	if b.late != nil {
		b.late(group, tick, s)
	}
	if s.Open > 0 {
		emitInterval(s, c)
	}
	return nil
}

func emitInterval(s *sums, c *bolt.Collector) {
	s.Out++
	c.Emit(bolt.Emission{Key: c.Group(), Payload: fmt.Appendf(nil, `{"out":%d,"n":%d,"sum":%d}`, s.Out, s.Open, s.Part)})
	s.Open, s.Part = 0, 0
}

// noting takes outputs of stateful nodes in and notes their order; it emits an event whenever the sum's parity changes, and its count at the flush.
// alarm and trend are two of it.
type noting struct {
	group func(t *tuple.Tuple) (string, bool)
}

func (b noting) Group(t *tuple.Tuple) (string, bool) { return b.group(t) }
func (noting) Keys(g string, add func(string))       { add(g) }
func (noting) GroupOf(key string) (string, bool)     { return key, true }
func (noting) Due(t bolt.Tick) (int64, bool)         { return 0, t.Flush }

func (b noting) Execute(ctx context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	var in struct{ Out, N, Sum int }
	if err := json.Unmarshal(t.Payload, &in); err != nil {
		return bolt.Reject(err)
	}
	s, err := edit(ctx, c)
	if err != nil {
		return err
	}
	s.N++
	s.Order += fmt.Sprintf("%s/%s:%d ", c.Source(), t.Key, in.Out)
	if in.Sum%2 != s.Part {
		s.Part = in.Sum % 2
		s.Out++
		c.Emit(bolt.Emission{Key: c.Group(), Payload: fmt.Appendf(nil, `{"event":%d,"parity":%d}`, s.Out, s.Part)})
	}
	c.Wake(0)
	return nil
}

func (noting) Tick(ctx context.Context, _ bolt.Tick, group string, c *bolt.Collector) error {
	s, err := edit(ctx, c)
	if err != nil {
		return err
	}
	s.Out++
	c.Emit(bolt.Emission{Key: group, Payload: fmt.Appendf(nil, `{"final":%d}`, s.N)})
	return nil
}

// out stores.
type out struct {
	Env
	name func(t *tuple.Tuple, source string) string
}

func (o out) Execute(_ context.Context, t *tuple.Tuple, c *bolt.Collector) error {
	if o.Away() {
		return bolt.Unavailable(errUnknown)
	}
	o.Document(o.name(t, c.Source()), c.Source()+" "+t.Key+" "+string(t.Payload))
	return nil
}

func byKey(t *tuple.Tuple) (string, bool) { return t.Key, true }

// byModel is what fleet groups by: the last digit of the device, which devices of both partitions share.
func byModel(t *tuple.Tuple) (string, bool) { return "g" + t.Key[len(t.Key)-1:], true }

func byNothing(*tuple.Tuple) (string, bool) { return "all", true }
