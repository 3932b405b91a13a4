package window

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/script"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// span is the "window" of an output; scripts see group and device in it too.
type span struct {
	Kind   string `json:"kind"`
	Start  *int64 `json:"start,omitempty"` // ms; absent where there is no bound
	End    *int64 `json:"end,omitempty"`
	Group  string `json:"group,omitempty"`
	Device string `json:"device,omitempty"`
}

func (b *Bolt) span(p *pane) span {
	s := span{Kind: b.kind}
	if b.mode == lifetime {
		return s
	}
	s.Start, s.End = &p.Start, &p.End
	if b.mode == interval && p.Start == never {
		s.Start = nil // the group's first output
	}
	return s
}

// output emits what a closed window has to say, at event time at; a script may change p's state.
func (b *Bolt) output(c *bolt.Collector, p *pane, at int64) error {
	if b.script == nil {
		b.emit(c, p, at)
		return nil
	}
	w := b.span(p)
	w.Group = c.Group()
	if b.byDevice {
		w.Device = c.Group()
	}
	s := script.NewState(p.script)
	payloads, err := b.script.OutputOf(s, w)
	if err != nil {
		return fault(err)
	}
	raw, err := s.Bytes()
	if err != nil {
		return fault(err)
	}
	p.script = raw
	for _, payload := range payloads {
		c.Emit(bolt.Emission{Key: c.Group(), Time: at, Payload: payload})
	}
	return nil
}

// emit emits the aggregates of a window, unless all that have an argument have never seen a value: then the statistic has nothing to say about the group.
func (b *Bolt) emit(c *bolt.Collector, p *pane, at int64) {
	if !b.speaks(p) && !b.global {
		return
	}
	b.out.Reset([]byte("{}"))
	if b.byDevice {
		b.out.Set("device", c.Group())
	}
	b.out.Set("group", c.Group())
	b.out.Set("window", b.span(p))
	for _, o := range b.outs {
		if v, ok := p.cells[o.cell].result(b.layout.funcs[o.cell].Kind, o.param); ok {
			b.out.Set(o.name, v)
		}
	}
	stream := ""
	if b.corrects() {
		b.out.Set("version", p.version)
		if p.version > 1 {
			stream = topology.CorrectionStream
		}
	}
	payload, err := b.out.Bytes()
	if err != nil {
		panic(err) // every value is a finite number: countable saw to that
	}
	c.Emit(bolt.Emission{Stream: stream, Key: c.Group(), Time: at, Payload: payload})
}

// result is what an output says of a cell; param is a quantile's and a topk's. ok is false while there is nothing to say.
func (c *Cell) result(k Kind, param float64) (v any, ok bool) {
	switch {
	case k == Count:
		return c.N, true
	case k == Distinct && c.N == 0:
		return 0, true
	case c.N == 0:
		return nil, false
	case k == Distinct:
		return int64(c.Sketch.(*distinct).Estimate()), true
	case k == Quantile:
		return c.Sketch.(*quantile).value(param), true
	case k == TopK:
		return json.RawMessage(c.Sketch.(*topk).top(int(param))), true
	}
	return c.Value(k)
}

func (b *Bolt) speaks(p *pane) bool {
	bare := true
	for i, arg := range b.args {
		if arg >= 0 {
			bare = false
			if p.cells[i].N > 0 {
				return true
			}
		}
	}
	return bare && p.n > 0
}

// stamp is the processing time of a group's last output, ms.
type stamp struct{ at int64 }

// Append implements state.Value.
func (s *stamp) Append(b []byte) ([]byte, error) { return binary.AppendVarint(b, s.at), nil }

func decodeStamp(b []byte) (state.Value, error) {
	if b == nil {
		return &stamp{at: never}, nil
	}
	at, rest, err := varint(b)
	if err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("%w: the time of the last output", errCorrupt)
	}
	return &stamp{at: at}, nil
}
