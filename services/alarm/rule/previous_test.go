package rule

import (
	"fmt"
	"strings"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/script"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// TestPrevious: the script sees the group's reading before this one under every owner of the task; none that the filter left out or that is larger than what
// is kept.
func TestPrevious(t *testing.T) {
	h := bolttest.New(t, open(t, topology.Bolt{
		ID: "jump", Where: expr("x != 0"),
		Script: &topology.Script{File: "when.js", Text: "function when(t, ctx) { if (ctx.previous) return t.x - ctx.previous.x > 5 }"},
	}))
	var got []string
	for i, payload := range []string{
		`{"x":1}`, `{"x":2}`, `{"x":9}`, // jumps by 7
		`{"x":0}`, `{"x":10}`, // by 1, the one without effect left aside
		`{"x":20,"pad":"` + strings.Repeat("-", script.MaxPrevious) + `"}`, // by 10
		`{"x":21}`,             // nobody knows by how much: nothing changes
		`{"x":22}`, `{"x":40}`, // by 1 and 18
	} {
		got = append(got, happened(t, h.Feed(reading("b", int64(i), fmt.Sprintf(`{"x":%d}`, 100*(20-i))), reading("a", int64(i), payload))))
		h.Restart()
	}
	if s := strings.Join(got, ","); s != ",,R2,,C4,R5,,C7,R8" || len(h.Letters) > 0 {
		t.Errorf("%s; %d dead letters", s, len(h.Letters))
	}
}

// TestRecordWithPrevious: the last reading is part of the record as long as the script asks for it.
func TestRecordWithPrevious(t *testing.T) {
	r := &record{previous: []byte(`{"x":1}`), Episode: Episode{Number: 3, RaiseValue: []byte("7")}}
	raw, err := r.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	v, err := decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	back := v.(*record)
	if string(back.previous) != `{"x":1}` || string(back.RaiseValue) != "7" || back.Number != 3 {
		t.Errorf("%+v", back)
	}
	asked := reading("a", 1, `{"x":2}`)
	if changed := open(t, topology.Bolt{When: expr("x > 1")}).remember(back, &asked); !changed || back.previous != nil {
		t.Errorf("%v, %s", changed, back.previous)
	}
	if raw, _ = back.Append(nil); raw[0] != version {
		t.Errorf("version %d", raw[0])
	}
}
