package write

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/document"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

var update = flag.Bool("update", false, "write the golden files")

// memory is a document store that is down for the first writes and refuses what it is told to.
type memory struct {
	document.Store
	down    int
	refuse  string // collection
	batches []int
	bodies  map[string]map[string]string
	version map[string]int64
}

func (m *memory) Write(_ context.Context, docs []document.Document) (refusals []document.Refusal, err error) {
	if m.down > 0 {
		m.down--
		return nil, errors.New("connection refused")
	}
	m.batches = append(m.batches, len(docs))
	for i, d := range docs {
		if d.Collection == m.refuse {
			refusals = append(refusals, document.Refusal{Index: i, Err: errors.New("too large")})
			continue
		}
		if m.bodies == nil {
			m.bodies, m.version = map[string]map[string]string{}, map[string]int64{}
		}
		if m.bodies[d.Collection] == nil {
			m.bodies[d.Collection] = map[string]string{}
		}
		if _, stored := m.bodies[d.Collection][d.ID]; stored && d.Version <= m.version[d.ID] {
			continue
		}
		m.bodies[d.Collection][d.ID], m.version[d.ID] = string(d.Body), d.Version
	}
	return refusals, nil
}

// all returns every document, "collection body", sorted.
func (m *memory) all() (lines []string) {
	for c, docs := range m.bodies {
		for id, body := range docs {
			var d struct {
				ID string `json:"_id"`
			}
			if json.Unmarshal([]byte(body), &d) != nil || d.ID != id {
				body = "BAD " + body
			}
			lines = append(lines, c+" "+body)
		}
	}
	slices.Sort(lines)
	return lines
}

var edges = []topology.Edge{
	{From: "source", To: topology.OutputNode, Stream: "default", Save: &topology.Save{Collection: "readings"}},
	{From: "hot", To: topology.OutputNode, Save: &topology.Save{Collection: "alarms"}},
}

func open(t testing.TB, m *memory, batch int) *Bolt {
	t.Helper()
	b, err := New(Options{Topology: "test", Output: topology.Output{Batch: batch}, Edges: edges, Store: m})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func id(n byte) tuple.ID { return tuple.ID{15: n} }

const (
	raise = `{"event":"raise","alarm":"hot","device":"m1","group":"m1","severity":"major","ts":1386122100000,"value":101.5,"readings":3,"notify":true,` +
		`"episode":{"id":"00112233445566778899aabbccddeeff","number":1,"version":1,"state":"open","raised_at":1386122100000,"raise_value":101.5}}`
	cleared = `{"event":"clear","alarm":"hot","device":"m1","group":"m1","severity":"major","ts":1386122400000,"value":99,"readings":4,"notify":true,` +
		`"episode":{"id":"00112233445566778899aabbccddeeff","number":1,"version":2,"state":"cleared","raised_at":1386122100000,"cleared_at":1386122400000,"raise_value":101.5,"clear_value":99}}`
	acknowledged = `{"event":"ack","alarm":"hot","device":"m2","group":"m2","severity":"critical","ts":1386122500000,"readings":4,"notify":true,"flapping":true,"by":"ann","note":"on my way",` +
		`"episode":{"id":"10112233445566778899aabbccddeeff","number":5,"version":40,"state":"acknowledged","raised_at":1386122100000,"acknowledged_at":1386122500000,"acknowledged_by":"ann",` +
		`"escalated":true,"flapping":true,"raise_value":101.5,"history":[{"what":"ack","at":1386122500000,"severity":"critical","by":"ann","note":"on my way"}],"omitted":39}}`
	escalated = `{"event":"escalate","episode":{"id":"10112233445566778899aabbccddeeff","number":5,"version":39,"state":"open","raised_at":1386122100000}}`
)

func TestDocuments(t *testing.T) {
	m := &memory{}
	h := bolttest.New(t, open(t, m, 0))
	for i, payload := range []string{
		`{"device":"m1","ts":1386122100000,"celsius":38.61}`,
		` { } `,
		`{"ts":null,"celsius":1}`,
		`{"ts":"2013-12-04T02:15:00Z","_id":7,"node":"x","time":1,"device":{"a":1},"note":"é\"","big":12345678901234567890}`,
		`{"device":"m1","group":"m1","window":{"kind":"tumbling","start":1386118800000,"end":1386122400000},"n":12,"mean":85.9}`,
		`{"event":"raise","note":"a reading of somebody's own"}`,
		`{"event":"raise","episode":{"id":"x","version":"1"}}`,
	} {
		h.Push("source", tuple.Tuple{ID: id(byte(i)), Stream: "default", Key: `m"1`, Time: 1386122100123, Payload: []byte(payload)})
	}
	h.Push("hot", tuple.Tuple{ID: id(100), Stream: "default", Key: "m1", Time: 1386122100000, Payload: []byte(raise)})
	h.Push("hot", tuple.Tuple{ID: id(101), Stream: "default", Key: "m1", Time: 1386122400000, Payload: []byte(cleared)})
	h.Push("hot", tuple.Tuple{ID: id(100), Stream: "default", Key: "m1", Time: 1386122100000, Payload: []byte(raise)}) // again, and late
	h.Push("hot", tuple.Tuple{ID: id(103), Stream: "default", Key: "m2", Time: 1386122500000, Payload: []byte(acknowledged)})
	h.Push("hot", tuple.Tuple{ID: id(102), Stream: "default", Key: "m2", Time: 1386122450000, Payload: []byte(escalated)}) // late
	h.Step()
	if len(h.Letters) > 0 {
		t.Fatalf("dead letter: %s", h.Letters[0].Error)
	}
	got := strings.Join(m.all(), "\n") + "\n"
	golden := filepath.Join("testdata", "documents.golden")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestRejected(t *testing.T) {
	for _, tt := range []struct {
		source string
		t      tuple.Tuple
		want   string
	}{
		{"source", tuple.Tuple{Payload: []byte(`[]`)}, "not a JSON object"},
		{"source", tuple.Tuple{Payload: []byte(`{}`), Stream: "side"}, "saves nothing of its stream side"},
		{"nobody", tuple.Tuple{Payload: []byte(`{}`)}, "node nobody saves nothing"},
		{"source", tuple.Tuple{Payload: []byte(`{}`), Time: 1 << 60}, "years 0 to 9999"},
	} {
		m := &memory{}
		h := bolttest.New(t, open(t, m, 0))
		if tt.t.Stream == "" {
			tt.t.Stream = "default"
		}
		tt.t.ID = id(1)
		h.Push(tt.source, tt.t)
		h.Step()
		if len(h.Letters) != 1 || !strings.Contains(h.Letters[0].Error, tt.want) || len(m.bodies) > 0 {
			t.Errorf("letters %+v, want %q", h.Letters, tt.want)
		}
	}
}

func TestBatchesWaitAndRefusals(t *testing.T) {
	m := &memory{down: 3, refuse: "alarms_episodes"}
	h := bolttest.New(t, open(t, m, 4))
	for i := range 5 {
		h.Push("source", tuple.Tuple{ID: id(byte(i)), Stream: "default", Key: "a", Payload: []byte(`{}`)})
	}
	h.Push("source", tuple.Tuple{ID: id(90), Stream: "default", Key: "a", Payload: []byte(`nonsense`)}) // no index among the executed
	h.Push("hot", tuple.Tuple{ID: id(100), Stream: "default", Key: "m1", Payload: []byte(raise)})
	h.Push("source", tuple.Tuple{ID: id(6), Stream: "default", Key: "a", Payload: []byte(`{}`)})
	h.Step()
	if fmt.Sprint(m.batches) != "[4 4]" || len(m.bodies["readings"]) != 6 {
		t.Errorf("batches %v, %d readings", m.batches, len(m.bodies["readings"]))
	}
	if len(h.Letters) != 2 || h.Letters[1].ID != id(100) || !strings.Contains(h.Letters[1].Error, "alarms_episodes was refused: too large") {
		t.Errorf("letters %+v", h.Letters)
	}
}

// A batch that was given up before Finish leaves nothing to the next one.
func TestGivenUp(t *testing.T) {
	m := &memory{}
	b := open(t, m, 0)
	h := bolttest.New(t, b)
	h.Push("source", tuple.Tuple{ID: id(1), Stream: "default", Payload: []byte(`{}`)})
	m.down = 1
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := h.Loop.Step(ctx); err == nil {
		t.Fatal("no error")
	}
	m.refuse = "alarms"
	h.Push("hot", tuple.Tuple{ID: id(2), Stream: "default", Payload: []byte(`{}`)})
	h.Step()
	h.Step()
	if len(m.bodies["readings"]) != 1 || len(h.Letters) != 1 || h.Letters[0].ID != id(2) {
		t.Errorf("%v, letters %+v", m.bodies, h.Letters)
	}
}

func TestFinishSaysUnavailable(t *testing.T) {
	m := &memory{down: 1}
	b := open(t, m, 0)
	b.add(document.Document{Collection: "readings", ID: "x", Body: []byte(`{"_id":"x"}`)})
	if _, err := b.Finish(context.Background(), nil); !bolt.IsUnavailable(err) {
		t.Fatal(err)
	}
	if f, err := b.Finish(context.Background(), nil); err != nil || len(f) > 0 || len(m.bodies["readings"]) != 1 || len(b.docs) != 0 {
		t.Fatal(f, err, m.bodies)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, es := range [][]topology.Edge{
		{{From: "a"}},
		{{From: "a", Save: &topology.Save{}}},
		{{From: "a", Save: &topology.Save{Collection: "x"}}, {From: "a", Stream: "default", Save: &topology.Save{Collection: "y"}}},
	} {
		if _, err := New(Options{Edges: es, Store: &memory{}}); err == nil {
			t.Errorf("%+v is accepted", es)
		}
	}
	if _, err := New(Options{}); err == nil {
		t.Error("no store is accepted")
	}
}

func BenchmarkBody(b *testing.B) {
	w := open(b, &memory{}, 0)
	t := tuple.Tuple{ID: id(1), Key: "m1", Time: 1386122100000, Payload: []byte(`{"device":"m1","ts":1386122100000,"temperature":101.5,"celsius":38.61}`)}
	b.ReportAllocs()
	for b.Loop() {
		w.doc.Reset(t.Payload)
		if _, err := w.body(&t, t.ID.String(), "clean"); err != nil {
			b.Fatal(err)
		}
	}
}
