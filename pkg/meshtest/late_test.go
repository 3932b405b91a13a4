package meshtest

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/archive"
	"github.com/boltmesh/boltmesh/pkg/document"
	"github.com/boltmesh/boltmesh/pkg/spout"
)

const tardy = `
topology: tardy
spout:
  id: in
  kafka: {brokers: nowhere, topics: [in]}
  fields: {x: number}
  key: device
  time: {field: ts, unit: ms, lag: 2s}
bolts:
  - {id: clean, kind: convert, from: in, where: x != nil, tasks: 2}
  - {id: plain, kind: stat, from: clean, window: {tumbling: 1m, time: event}, aggregates: {n: count, sum: sum(x)}, save: plain, tasks: 2}
  - {id: plain-late, kind: convert, from: {node: plain, stream: late}, where: x != nil, save: plain_late, tasks: 2}
  - {id: calm, kind: stat, from: clean, window: {session: 20s}, aggregates: {n: count, sum: sum(x)}, save: calm, tasks: 2}
  - {id: calm-late, kind: convert, from: {node: calm, stream: late}, where: x != nil, save: calm_late, tasks: 2}
  - {id: sites, kind: stat, from: clean, group: archive.site, window: {tumbling: 1m, time: event}, aggregates: {n: count, sum: sum(x)}, save: sites, tasks: 2}
  - {id: sites-late, kind: convert, from: {node: sites, stream: late}, where: x != nil, save: sites_late, tasks: 2}
  - {id: mended, kind: stat, from: clean, window: {tumbling: 1m, time: event, corrections: 5m}, aggregates: {n: count, sum: sum(x)}, save: mended, tasks: 2}
  - {id: mended-late, kind: convert, from: {node: mended, stream: late}, where: x != nil, save: mended_late, tasks: 2}
  - {id: firsts, kind: stat, from: mended, every: 1s, aggregates: {n: count, sum: sum(n)}, save: firsts, tasks: 2}
  - {id: again, kind: stat, from: {node: mended, stream: corrections}, every: 1s, aggregates: {n: count, sum: sum(n)}, save: again, tasks: 2}
output: {database: tardy}
`

// tardyRun makes a run of windows whose readings come late now and then: by seconds, in time to correct a window, or too late for that.
func tardyRun(t *testing.T, seed uint64, docs *document.Memory) Options {
	t.Helper()
	o := servicesOf(t, seed, 12_000, tardy, outside{docs: docs, profiles: archive.NewCache(&moody{}, archive.CacheOptions{})})
	o.Span, o.PerRoot, o.Begins = 8, 2, seed/2%2 == 1 // few readings between two ticks, so that many windows have closed
	for p := range 2 {
		var log []spout.Record
		for i := range 50 {
			ts := 1_000_000 + i*9000
			if (i+int(seed))%4 == 3 {
				ts -= []int{5, 45, 130, 250, 600}[(i/4+int(seed/4))%5] * 1000
			}
			b := fmt.Appendf(nil, `{"device":"m%d%d","ts":%d,"x":%d}`, p, (i/3)%2, ts, i)
			log = append(log, spout.Record{Offset: int64(i), Value: b, Time: int64(1_000_000 + i*9000)})
		}
		o.Partitions = append(o.Partitions, log)
	}
	return o
}

// figure is a document of a statistic, or a late reading.
type figure struct {
	Device, Group string
	N, Sum, X     float64
	Version       int64
	Window        struct{ Start, End int64 }
}

// conserved checks that every reading is either in a window's figures or late, once, whenever its window has closed, and returns how many were late and how
// often figures were corrected.
func conserved(docs *document.Memory, readings int) (late, corrected int64, err error) {
	sum := float64(readings * (readings - 1) / 2) // of a partition's x: 0, 1, 2, ...
	of := map[string][]figure{}
	for _, name := range []string{"plain", "calm", "sites", "mended", "plain_late", "calm_late", "sites_late", "mended_late", "firsts", "again"} {
		if of[name], err = all[figure](docs, name); err != nil {
			return 0, 0, err
		}
	}
	for _, name := range []string{"plain", "calm", "sites", "mended"} {
		n, x, windows := 0.0, 0.0, map[string]bool{}
		for _, f := range of[name] {
			n, x = n+f.N, x+f.Sum
			at := fmt.Sprint(f.Group, " ", f.Window.Start, " to ", f.Window.End)
			if windows[at] && name != "sites" { // one in two stages may have two outputs
				return 0, 0, fmt.Errorf("%s: %s is there twice", name, at)
			}
			windows[at] = true
		}
		for _, f := range of[name+"_late"] {
			n, x = n+1, x+f.X
		}
		if n != float64(2*readings) || x != 2*sum {
			return 0, 0, fmt.Errorf("%s: %v readings with a sum of %v, of %d with %v; %d were late", name, n, x, 2*readings, 2*sum, len(of[name+"_late"]))
		}
		late += int64(len(of[name+"_late"]))
	}
	var firsts, again float64
	for _, f := range of["firsts"] {
		firsts += f.N
	}
	for _, f := range of["again"] {
		again += f.N
	}
	for _, f := range of["mended"] {
		corrected += f.Version - 1
	}
	if int(firsts) != len(of["mended"]) || int64(again) != corrected {
		return 0, 0, fmt.Errorf("%d windows were corrected %d times; below %v figures were the first, %v corrected ones", len(of["mended"]), corrected, firsts, again)
	}
	return late, corrected, nil
}

// TestLateReadings has readings come late while everything dies now and then. Which of them find their window closed depends on what dies when; but each is
// counted in one window or goes to the stream late, and what was told below of corrected figures is what was stored.
func TestLateReadings(t *testing.T) {
	var late, corrected atomic.Int64
	n := max(*seeds/10, 1)
	check := func(seed uint64, x Window, calm bool) (*Result, error) {
		docs := document.NewMemory()
		o := tardyRun(t, seed, docs)
		o.Window = x
		if calm {
			o.Faults, o.Steps = Faults{}, 0
		}
		r, err := Run(o)
		if err != nil {
			return r, err
		}
		if len(r.Letters) > 0 {
			return r, fmt.Errorf("%d dead letters: %s", len(r.Letters), r.Letters[0].Error)
		}
		l, c, err := conserved(docs, len(o.Partitions[0]))
		late.Add(l)
		corrected.Add(c)
		return r, err
	}
	for seed := range uint64(20) {
		if r, err := check(seed, Window{}, true); err != nil {
			t.Fatalf("without faults: %v\n%s", err, strings.Join(r.History, "\n"))
		}
	}
	t.Logf("without faults: %d late, %d corrected", late.Load(), corrected.Load())
	if late.Load() == 0 || corrected.Load() == 0 {
		t.Errorf("without faults %d readings were late and %d figures corrected: the test has nothing to say about them", late.Load(), corrected.Load())
	}
	simulate(t, n, func(seed uint64, x Window) (*Result, error) { return check(seed, x, false) })
	t.Logf("%d readings were late, %d figures corrected", late.Load(), corrected.Load())
}
