package window

import (
	"fmt"
	"strings"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/script"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// document is a topology with one statistic, keys being its lines after from.
func document(keys ...string) []byte {
	return []byte(`
topology: t
spout:
  id: readings
  kafka: {brokers: "localhost:9092", topics: [readings]}
  key: device
  time: {field: ts, unit: ms}
  fields: {x: number, site: string}
bolts:
  - id: s
    kind: stat
    from: readings
    ` + strings.Join(keys, "\n    ") + "\n")
}

// Whatever a topology accepts of windows and aggregates, New takes; what New could not keep, a topology refuses.
func TestWhatIsAcceptedRuns(t *testing.T) {
	var windows []string
	for _, size := range []string{
		"tumbling: 1h", "tumbling: 1ms", "sliding: 1h, slide: 1h", "sliding: 1h, slide: 10m", "sliding: 1000s, slide: 1s", "sliding: 1001s, slide: 1s",
		"sliding: 1s, slide: 2s", "sliding: 1h", "session: 1ms", "session: 1h", "session: 1h, slide: 1m", "count: 1", "count: 10000", "count: 10001", "count: 0", "count: 5, slide: 2", "count: 5, slide: 6",
	} {
		for _, more := range []string{"", ", time: processing"} {
			windows = append(windows, "window: {"+size+more+"}")
		}
	}
	windows = append(windows, "", "window: lifetime", "window: {tumbling: 1m, late: behind, time: event}")
	what := []string{
		"script: |\n      function compute(t, state) {}\n      function output(state) {}",
		"aggregates: {n: count, m: count(site), same: count(site), a: sum(x), b: mean(x), c: min(x), d: max(x), e: stddev(x), f: first(x), g: last(x), h: delta(x), i: rate(x)}",
		"aggregates: {f: first(site)}", "aggregates: {f: last(site)}", "aggregates: {n: count(x, 1)}", "aggregates: {n: sum}", "aggregates: {n: distinct}",
		"aggregates: {device: count}", "aggregates: {n: median(x)}",
	}
	for _, call := range []string{
		"distinct(x)", "distinct(site)", "distinct(site, 1)", "quantile(x, 0)", "quantile(x, 1)", "quantile(x, 0.95)", "quantile(x, 2)", "quantile(x)", "quantile(x, 0.1, 0.2)", "quantile(site, 0.1)",
		"topk(site, 1)", "topk(x, 100)", "topk(x, 101)", "topk(x, 0)", "topk(x, 1.5)", "topk(x)", "ewma(x, 0)", "ewma(x, 1)", "ewma(x, 0.3)", "ewma(x, -1)", "ewma(x)", "ewma(site, 0.5)",
	} {
		what = append(what, fmt.Sprintf("aggregates: {a: %q, n: count}", call))
	}
	accepted, refused := 0, 0
	for _, w := range windows {
		for _, every := range []string{"", "every: 100ms"} {
			for _, a := range what {
				source := document(w, every, a)
				top, problems := topology.Parse("t.yaml", source, topology.Options{Checker: script.Check{}})
				if len(problems) > 0 {
					refused++
					continue
				}
				accepted++
				if _, err := New(top.Bolts[0], byDevice, nil); err != nil {
					t.Errorf("accepted, but %v:\n%s", err, source)
				}
			}
		}
	}
	if accepted < 150 || refused < 500 {
		t.Errorf("%d accepted, %d refused", accepted, refused)
	}
	t.Logf("%d accepted, %d refused", accepted, refused)
}
