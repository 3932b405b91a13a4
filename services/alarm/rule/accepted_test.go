package rule

import (
	"strings"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/script"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// Whatever a topology accepts of an alarm's keys, New takes.
func TestWhatIsAcceptedRuns(t *testing.T) {
	keys := [][]string{
		{"", "when: x > 100", "when: x", "script: |\n      function when(t, ctx) { return t.x > 100 }", "script: |\n      function compute(t) {}", "levels: [{severity: a, when: x > 1}, {severity: b, when: x > 2, clear: x < 1}]", "levels: [{severity: a}]"},
		{"", "clear: x < 80", "clear: x"},
		{"", "raise_after: 3", "raise_for: 1m", "raise_after: 3\n    raise_for: 1m"},
		{"", "clear_after: 3", "clear_for: 1m"},
		{"", "no_data: 1s", "no_data: 10m"},
		{"", "where: x != 99\n    suppress: 1h\n    severity: major"},
		{"", "escalate: {after: 30m, to: b}", "flapping: {raises: 5, within: 1h}"},
	}
	const head = `
topology: t
spout:
  id: readings
  kafka: {brokers: "localhost:9092", topics: [readings]}
  key: device
  time: {field: ts, unit: ms}
  fields: {x: number, site: string}
bolts:
  - id: a
    kind: alarm
    from: readings
`
	accepted, refused := 0, 0
	var combine func(source string, rest [][]string)
	combine = func(source string, rest [][]string) {
		if len(rest) > 0 {
			for _, k := range rest[0] {
				combine(source+strings.TrimRight("    "+k, " ")+"\n", rest[1:])
			}
			return
		}
		top, problems := topology.Parse("t.yaml", []byte(source), topology.Options{Checker: script.Check{}})
		if len(problems) > 0 {
			refused++
			return
		}
		accepted++
		if _, err := New(top.Bolts[0], byDevice, nil); err != nil {
			t.Errorf("accepted, but %v:\n%s", err, source)
		}
	}
	combine(head, keys)
	if accepted < 200 || refused < 500 {
		t.Errorf("%d accepted, %d refused", accepted, refused)
	}
	t.Logf("%d accepted, %d refused", accepted, refused)
}
