package write

import (
	"fmt"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

func TestFields(t *testing.T) {
	m := &memory{}
	save := func(collection string, fields ...topology.StoredField) *topology.Save {
		return &topology.Save{Collection: collection, Fields: fields}
	}
	b, err := New(Options{Topology: "test", Store: m, Edges: []topology.Edge{
		{From: "clean", Save: save("readings", topology.StoredField{Name: "temp", From: "celsius"}, topology.StoredField{Name: "type", From: "motor.type"}, topology.StoredField{Name: "big", From: "big"})},
		{From: "hot", Save: save("alarms", topology.StoredField{Name: "event", From: "event"}, topology.StoredField{Name: "at", From: "ts"})},
		{From: "hourly", Save: save("hourly", topology.StoredField{Name: "readings", From: "n"}), Revised: true},
	}})
	if err != nil {
		t.Fatal(err)
	}
	h := bolttest.New(t, b)
	push := func(n byte, from, payload string) {
		h.Push(from, tuple.Tuple{ID: id(n), Stream: "default", Key: "m1", Time: 1386122100000, Payload: []byte(payload)})
	}
	push(1, "clean", `{"device":"m1","celsius":38.610,"motor":{"type":"a\"b"},"big":12345678901234567890,"secret":1}`)
	push(2, "clean", `{"celsius":null,"motor.type":{"x":[1]},"motor":{"type":2}}`)
	push(3, "clean", `[1]`)
	push(4, "hot", raise)
	push(5, "hourly", `{"group":"m1","window":{"kind":"tumbling","start":0,"end":10},"n":7,"version":2}`)
	h.Step()
	const head = `,"node":%q,"device":"m1","time":"2013-12-04T01:55:00.000Z","ts":1386122100000`
	for _, want := range []struct{ collection, id, node, rest string }{
		{"readings", id(1).String(), "clean", `,"temp":38.610,"type":"a\"b","big":12345678901234567890}`},
		{"readings", id(2).String(), "clean", `,"type":{"x":[1]}}`},
		{"alarms", id(4).String(), "hot", `,"event":"raise","at":1386122100000}`},
	} {
		if got := m.bodies[want.collection][want.id]; got != `{"_id":"`+want.id+`"`+fmt.Sprintf(head, want.node)+want.rest {
			t.Errorf("stored %s", got)
		}
	}
	for _, body := range m.bodies["hourly"] {
		if want := `,"readings":7,"version":2}`; body[len(body)-len(want):] != want {
			t.Errorf("stored %s", body)
		}
	}
	if len(m.bodies["hourly"]) != 1 || len(m.bodies["alarms_episodes"]) != 1 {
		t.Errorf("stored %v: an episode is stored whole", m.bodies)
	}
	if len(h.Letters) != 1 || h.Letters[0].ID != id(3) {
		t.Errorf("letters %v", h.Letters)
	}
}
