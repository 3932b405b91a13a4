package integration

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/segmentio/kafka-go"

	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
	"github.com/boltmesh/boltmesh/tests/integration/mesh"
)

// letters returns the dead letters of a topology.
func letters(t *testing.T, m *mesh.Mesh, topology string) (all []tuple.Letter) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := m.Letters.Each(ctx, topology, func(_ uint64, l *tuple.Letter) error {
		all = append(all, *l)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// bad is a record and what must be said of it; nothing: it is a good one.
type bad struct {
	name, value string
	says        string // in the dead letter's error
	node        string // that buries it; the spout if empty, which alone knows the topic
	null        bool   // the record has no value: processed, and nobody's business
}

// TestBadInput mixes records that nobody can handle with good ones: each becomes a dead letter that says where it is, and the good ones are processed.
func TestBadInput(t *testing.T) {
	m := start(t, mesh.Options{Kafka: []string{"message.max.bytes=20971520", "replica.fetch.max.bytes=20971520"}})
	json, csv := apply(t, m, loadTopology), apply(t, m, "testdata/rows.yaml")
	t.Run("json", func(t *testing.T) {
		buried(t, m, json, []bad{
			{name: "not JSON", value: `{"device":"d","ts":`, says: "not JSON"},
			{name: "a list", value: `[1,2]`, says: "object"},
			{name: "nothing", value: ``, says: "not JSON"},
			{name: "bytes", value: "\x00\xff\xfe", says: "not JSON"},
			{name: "NaN", value: `{"device":"d","ts":5,"value":NaN}`, says: "not JSON"},
			{name: "10 MB", value: `{"device":"d","ts":5,"note":"` + strings.Repeat("x", 10<<20) + `"}`, says: "bytes"},
			{name: "an empty key", value: `{"device":"","ts":5,"value":1}`, says: "device"},
			{name: "no key", value: `{"ts":5,"value":1}`, says: "device"},
			{name: "null", null: true},
			{name: "no time", value: `{"device":"d","value":1}`, says: "absent"},
			{name: "a time in words", value: `{"device":"d","ts":"noon","value":1}`, says: "not a time"},
			{name: "deep", node: "output", says: "deeper", value: `{"device":"deep","ts":5,"value":1,"deep":` + strings.Repeat("[", 500) + strings.Repeat("]", 500) + `}`},
		}, func(i int) string { return fmt.Sprintf(`{"device":"d","ts":5,"value":%d,"seq":%d}`, i, i) }) // all at one time
	})
	t.Run("csv", func(t *testing.T) {
		buried(t, m, csv, []bad{
			{name: "too few", value: "d,5", says: "CSV"},
			{name: "too many", value: "d,5,1,2", says: "CSV"},
			{name: "a quote", value: `d,"5,1`, says: "CSV"},
			{name: "garbage", value: "\x00\x01\x02\xff", says: "CSV"},
			{name: "no time", value: "d,,1", says: "absent"},
			{name: "no key", value: ",5,1", says: "device"},
		}, func(i int) string { return fmt.Sprintf("d,5,%d", i) })
	})
}

// buried writes a good record, then each bad one followed by a good one, and wants the letters and the good ones' documents.
func buried(t *testing.T, m *mesh.Mesh, top *topology.Topology, records []bad, good func(i int) string) {
	t.Helper()
	topic := top.Spout.Kafka.Topics[0]
	const partition = 2
	write := func(r kafka.Record) int64 {
		offset, err := m.Produce(t.Context(), topic, partition, r)
		if err != nil {
			t.Fatal(err)
		}
		return offset
	}
	write(kafka.Record{Value: kafka.NewBytes([]byte(good(0)))})
	want := map[int64]bad{}
	for i, b := range records {
		r := kafka.Record{Key: kafka.NewBytes([]byte("k")), Value: kafka.NewBytes([]byte(b.value))}
		if b.null {
			r.Value = nil
		}
		if at := write(r); !b.null {
			want[at] = b
		}
		write(kafka.Record{Value: kafka.NewBytes([]byte(good(i + 1)))})
	}
	settle(t, m, top)
	for _, l := range letters(t, m, top.Name) {
		b, ok := want[l.Offset]
		placed := l.Node == cmp.Or(b.node, top.Spout.ID) && (b.node != "" || l.Topic == topic && l.Partition == partition)
		if !ok || !placed || !strings.Contains(l.Error, b.says) {
			t.Errorf("letter of %s at %s/%d/%d (%s): %.200s", l.Node, l.Topic, l.Partition, l.Offset, b.name, l.Error)
		}
		delete(want, l.Offset)
	}
	for at, b := range want {
		t.Errorf("%s at offset %d: no dead letter", b.name, at)
	}
	values := map[float64]int{}
	for _, r := range stored[reading](t, database(t, m, top.Name), "readings") {
		values[r.Value]++
	}
	for i := range len(records) + 1 {
		if values[float64(i)] != 1 {
			t.Errorf("good reading %d is stored %d times", i, values[float64(i)])
		}
	}
	if len(values) != len(records)+1 {
		t.Errorf("%d readings are stored, want %d", len(values), len(records)+1)
	}
	if top.Name == "load" { // duplicate timestamps are readings like any other
		if got := latest(t, database(t, m, top.Name), "totals")["d"]; got.Count != float64(len(records)+1) {
			t.Errorf("the totals count %v readings, want %d", got.Count, len(records)+1)
		}
	}
}
