package rehearse_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/rehearse"
	"github.com/boltmesh/boltmesh/pkg/script"
	"github.com/boltmesh/boltmesh/pkg/service"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/services"
)

const lagging = `
topology: lagging
spout:
  id: in
  kafka: {brokers: nowhere, topics: [in]}
  key: device
  time: {field: ts, unit: ms, lag: 5ms}
bolts:
  - {id: windows, kind: stat, from: in, window: {sliding: 20ms, slide: 10ms, late: behind}, aggregates: {members: sum(x)}, save: windows}
  - {id: missed, kind: convert, from: {node: windows, stream: behind}, save: missed}
`

// TestLag takes the readings of Storm's sliding-window tests through a whole topology, whose watermark follows them five milliseconds behind: what comes late
// within the lag is in its window, what comes later is on the late stream. Each reading's value is a power of two, so that a sum names its members.
func TestLag(t *testing.T) {
	for _, tt := range []struct {
		name  string
		times []int64
		want  string // the windows, by when they closed
		late  int
	}{
		{"in order", []int64{603, 605, 607, 618, 626, 636, 825, 826, 827, 839}, "610{1,2,3} 620{1,2,3,4} 630{4,5} 640{5,6} 650{6} 830{7,8,9}", 0},
		{"one late within the lag", []int64{603, 605, 607, 618, 626, 632, 629, 636}, "610{1,2,3} 620{1,2,3,4} 630{4,5,7}", 0},
		{"one later than that", []int64{603, 605, 607, 618, 626, 636, 629, 607}, "610{1,2,3} 620{1,2,3,4} 630{4,5}", 1}, // [620, 640) takes 629
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := play(t, lagging)
			for i, ts := range tt.times {
				feed(t, s, fmt.Sprintf(`{"device":"a","ts":%d,"x":%d}`, ts, 1<<(i+1)))
			}
			var got []string
			missed := 0
			for _, e := range s.Emitted {
				switch {
				case e.Node == "missed":
					missed++
				case e.Node == "windows" && e.Stream == "default":
					got = append(got, membersOf(t, e.Payload))
				}
			}
			if w := strings.Join(got, " "); w != tt.want || missed != tt.late {
				t.Errorf("got  %s, %d late\nwant %s, %d late", w, missed, tt.want, tt.late)
			}
		})
	}
}

// play sets a stage for a topology.
func play(t *testing.T, source string) *rehearse.Stage {
	t.Helper()
	top, problems := topology.Parse("t.yaml", []byte(source), topology.Options{Checker: script.Check{}})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	plan, err := top.Plan()
	if err != nil {
		t.Fatal(err)
	}
	s, err := rehearse.New(t.Context(), rehearse.Options{Plan: plan, Builds: map[string]service.Build{
		"convert": services.Convert, "stat": services.Stat, "alarm": services.Alarm, "output": services.Output,
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// membersOf writes an output as the end of its window and the numbers of the readings in it.
func membersOf(t *testing.T, payload []byte) string {
	t.Helper()
	var p struct {
		Window  struct{ End int64 }
		Members int
	}
	if err := json.Unmarshal(payload, &p); err != nil {
		t.Fatal(err)
	}
	var members []string
	for i := range 20 {
		if p.Members&(1<<i) != 0 {
			members = append(members, fmt.Sprint(i))
		}
	}
	return fmt.Sprintf("%d{%s}", p.Window.End, strings.Join(members, ","))
}
