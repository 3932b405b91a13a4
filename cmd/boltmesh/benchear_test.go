package main

import (
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/devstack"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// TestOnlyAlarmsAreTimed checks that what other nodes send to the output is not counted, nor are alarms of readings that were due too early.
func TestOnlyAlarmsAreTimed(t *testing.T) {
	stack, err := devstack.Start(t.Context(), devstack.Options{Dir: t.TempDir(), NoKafka: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stack.Close() })
	conn, err := jetstream.Connect(t.Context(), jetstream.Options{URL: stack.NATSURL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	top, err := parseBench(deviceSpout + exprBolts)
	if err != nil {
		t.Fatal(err)
	}
	from := time.Now().Add(-time.Second).Truncate(time.Millisecond)
	e, err := listen(t.Context(), stack.NATSURL(), &topology.Plan{Topology: top}, from)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct {
		source string
		due    []time.Duration
	}{{alarmNode, []time.Duration{-time.Millisecond, 0, time.Millisecond}}, {"totals", []time.Duration{0, 0}}, {alarmNode, []time.Duration{0}}} {
		frame := tuple.Frame{Revision: 1, Source: f.source}
		for _, d := range f.due {
			frame.Tuples = append(frame.Tuples, tuple.Tuple{Stream: tuple.DefaultStream, Key: "d", Time: from.Add(d).UnixMilli(), Payload: []byte("{}")})
		}
		b, err := frame.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.Tell(jetstream.Subject("bench", topology.KindOutput, tuple.Shared), b); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(500 * time.Millisecond) // they have no stream, and nobody says that they have arrived
	ages, err := e.close()
	if err != nil {
		t.Fatal(err)
	}
	if youngest := ages.quantile(0.01); ages.n != 3 || youngest < 900*time.Millisecond {
		t.Errorf("%d alarms, the youngest %v old: want 3, of about a second", ages.n, youngest)
	}
}
