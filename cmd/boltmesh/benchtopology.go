package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/boltmesh/boltmesh/pkg/script"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// benchService is the service of the bolts that only a bench has.
const benchService = "bench"

// transport carries opaque tuples through bolts that hand them on to one that drops them, each partitioned by device like a bolt with state: as many
// streams are passed as there are hops.
func transport(hops int) string {
	var b strings.Builder
	b.WriteString(`
topology: bench
spout: {id: generated, kafka: {brokers: none, topics: [readings]}, decode: json}
bolts:
`)
	from := "generated"
	for i := 1; i < hops; i++ {
		id := fmt.Sprint("pass", i)
		if i == hops-1 {
			id = "last"
		}
		fmt.Fprintf(&b, "  - {id: %s, kind: custom, service: bench, from: {node: %s, grouping: fields, by: [device]}}\n", id, from)
		from = id
	}
	fmt.Fprintf(&b, "  - {id: sink, kind: custom, service: bench, from: {node: %s, grouping: fields, by: [device]}}\n", from)
	return b.String()
}

// chainTopology carries opaque tuples through two bolts that hand them on to one that drops them; the grouping decides how they reach the second.
const chainTopology = `
topology: bench
spout: {id: generated, kafka: {brokers: none, topics: [readings]}, decode: json}
bolts:
  - {id: first, kind: custom, service: bench, from: {node: generated, grouping: shuffle}}
  - {id: second, kind: custom, service: bench, from: {node: first, grouping: %s}}
  - {id: sink, kind: custom, service: bench, from: {node: second, grouping: shuffle}}
`

// twelveFields are those of the device scenarios' readings.
const twelveFields = `{device: string, ts: number, site: string, line: number, temperature: number, humidity: number, pressure: number, voltage: number,
     current: number, rpm: number, status: string, seq: number}`

// deviceSpout reads the readings of the device scenarios.
const deviceSpout = `
topology: bench
spout:
  id: readings
  kafka: {brokers: none, topics: [readings]}
  fields:
    ` + twelveFields + `
  key: device
  time: {field: ts, unit: ms}
bolts:
`

// The device job in expressions. Every reading passes convert, stat and alarm; what stat and alarm emit is stored.
const exprBolts = `
  - id: clean
    kind: convert
    from: readings
    where: status == "running"
    set: {celsius: (temperature - 32) / 1.8, power: voltage * current, dew: (temperature - 32) / 1.8 - (100 - humidity) / 5}
  - id: totals
    kind: stat
    from: clean
    every: 1s
    aggregates: {n: count, mean: mean(celsius), low: min(celsius), high: max(celsius), energy: sum(power)}
    save: totals
  - {id: hot, kind: alarm, from: clean, when: celsius > 90, severity: major, save: alarms}
`

// The same in JavaScript.
const jsBolts = `
  - id: clean
    kind: convert
    from: readings
    script: |
      function convert(t, ctx) {
        if (t.status !== "running") return null;
        t.celsius = (t.temperature - 32) / 1.8;
        t.power = t.voltage * t.current;
        t.dew = t.celsius - (100 - t.humidity) / 5;
        return t;
      }
  - id: totals
    kind: stat
    from: clean
    every: 1s
    script: |
      function compute(t, s) {
        s.n = (s.n || 0) + 1;
        s.sum = (s.sum || 0) + t.celsius;
        s.low = s.n === 1 ? t.celsius : Math.min(s.low, t.celsius);
        s.high = s.n === 1 ? t.celsius : Math.max(s.high, t.celsius);
        s.energy = (s.energy || 0) + t.power;
      }
      function output(s, w) { return {n: s.n, mean: s.sum / s.n, low: s.low, high: s.high, energy: s.energy}; }
    save: totals
  - id: hot
    kind: alarm
    from: clean
    script: |
      function when(t, ctx) { return t.celsius > 90; }
    severity: major
    save: alarms
`

// leanJob is the device job of readings with n fields, most of which nothing looks at.
func leanJob(n int) string {
	return strings.NewReplacer(
		twelveFields, declared(n),
		"power: voltage * current", "power: temperature * 2",
		"dew: (temperature - 32) / 1.8 - (100 - humidity) / 5", "dew: (temperature - 32) / 1.8 - temperature / 50",
	).Replace(deviceSpout + exprBolts)
}

// saved is a device job whose readings are stored too.
func saved(bolts string) string {
	return strings.Replace(bolts, "    set:", "    save: readings\n    set:", 1)
}

// parseBench parses one of the texts above.
func parseBench(text string) (*topology.Topology, error) {
	t, problems := topology.Parse("bench.yaml", []byte(text), topology.Options{Checker: script.Check{}})
	if err := problems.Err(); err != nil {
		return nil, errors.Join(errors.New("the bench's own topology"), err)
	}
	return t, nil
}
