package window

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/boltmesh/boltmesh/pkg/script"
)

// Show returns as JSON what is kept for a group: `readings`, the aggregates as they would be output now, or a script's `state`; of windows that go by event
// time and may be several a list `windows` of these with `start` and `end`. read returns what is stored under one of the keys of Keys; nil: nothing is kept.
func (b *Bolt) Show(group string, read func(key string) []byte) ([]byte, error) {
	raw := read(b.key(group))
	if raw == nil {
		return nil, nil
	}
	v, err := b.decoder(raw)
	if err != nil {
		return nil, err
	}
	r := v.(*record)
	switch b.mode {
	case counted:
		p := r.fold(len(r.rows))
		return b.show(&p, false)
	case sliding, session:
		windows := []json.RawMessage{}
		for i := range r.open {
			w, err := b.show(&r.open[i], true)
			if err != nil {
				return nil, err
			}
			windows = append(windows, w)
		}
		if b.corrects() {
			if windows, err = b.showKept(group, read, windows); err != nil {
				return nil, err
			}
		}
		return json.Marshal(map[string]any{"windows": windows})
	}
	if len(r.open) == 0 {
		return nil, nil
	}
	return b.show(&r.open[0], false)
}

// showKept puts the closed windows that are kept before the open ones.
func (b *Bolt) showKept(group string, read func(key string) []byte, open []json.RawMessage) ([]json.RawMessage, error) {
	k, err := recordOf(b.keptLayout.decode(read(b.keptKey(group))))
	if err != nil {
		return nil, err
	}
	out := []json.RawMessage{}
	for i := range k.open {
		w, err := b.show(&k.open[i], true)
		if err != nil {
			return nil, err
		}
		out = append(out, w)
	}
	return append(out, open...), nil
}

func (b *Bolt) show(p *pane, bounds bool) ([]byte, error) {
	var d script.Doc
	d.Reset([]byte("{}"))
	if bounds {
		d.Set("start", p.Start)
		d.Set("end", p.End)
	}
	d.Set("readings", p.n)
	if p.version > 0 {
		d.Set("version", p.version)
	}
	for _, o := range b.outs {
		if v, ok := p.cells[o.cell].result(b.layout.funcs[o.cell].Kind, o.param); ok {
			d.Set(o.name, v)
		}
	}
	if p.script != nil {
		d.Set("state", json.RawMessage(p.script))
	}
	return d.Bytes()
}

// Seed returns what is stored for a group that begins with a script's state, as Show shows it. Aggregates cannot be made of what they show, and windows
// have bounds: these begin with readings.
func (b *Bolt) Seed(group string, shown []byte) (values map[string][]byte, due int64, err error) {
	if b.script == nil || b.mode == sliding {
		return nil, 0, errors.New("only a script's state that is no window of event time can be given: give it readings instead")
	}
	var s struct {
		Readings int64           `json:"readings"`
		Last     int64           `json:"last"`
		State    json.RawMessage `json:"state"`
	}
	if err := json.Unmarshal(shown, &s); err != nil || len(s.State) == 0 {
		return nil, 0, fmt.Errorf("write {state: {...}}, the script's state of the group %q", group)
	}
	r := &record{layout: &b.layout, closed: never}
	p := r.pane(Bounds{})
	p.n, p.last, p.script = max(s.Readings, 1), s.Last, s.State
	raw, err := r.Append(nil)
	return map[string][]byte{b.key(group): raw}, 0, err
}
