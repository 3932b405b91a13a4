package observe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// buffer is a writer for several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// lines decodes what was logged.
func (b *buffer) lines(t *testing.T) (all []map[string]any) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range strings.Split(strings.TrimSpace(b.b.String()), "\n") {
		if l == "" {
			continue
		}
		var m map[string]any
		if err := json.Unmarshal([]byte(l), &m); err != nil {
			t.Fatalf("not a JSON line: %q: %v", l, err)
		}
		all = append(all, m)
	}
	return all
}

func start(t *testing.T, o Options) *Observer {
	t.Helper()
	if o.LogWriter == nil {
		o.LogWriter = io.Discard
	}
	ob, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { finish(t, ob) })
	return ob
}

func finish(t *testing.T, o *Observer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := o.Close(ctx); err != nil {
		t.Error(err)
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

func at(node, kind string, task int32) trace.Where {
	return trace.Where{Topology: "machine-health", Node: node, Kind: kind, Worker: "w1", Task: task}
}

func TestMetrics(t *testing.T) {
	o := start(t, Options{Service: "dev", Version: "1.2", Worker: "w1", HTTPAddr: "127.0.0.1:0"})
	sink := o.Sink()
	sink(trace.Stepped{
		Where: at("hourly", "stat", 3), Frames: 2, Tuples: 100, Emitted: 7, Acked: 95, Dropped: 2, Held: 1, DeadLettered: 2, Failed: 9,
		Execute: 3 * time.Millisecond, Commit: 2 * time.Millisecond, Publish: time.Millisecond,
	})
	sink(trace.Stepped{Where: at("hourly", "stat", 3), Frames: 1, Tuples: 1, Acked: 1})
	sink(trace.Stepped{Where: at("clean", "convert", tuple.Shared), Frames: 5, Execute: time.Millisecond})
	spout := at("readings", spoutKind, 0)
	sink(trace.Emitted{Where: spout, Records: 10, Accepted: 7, Skipped: 2, Rejected: 1})
	sink(trace.Emitted{Where: spout, Root: tuple.Root{Attempt: tuple.Attempt{Count: 1}}, Records: 10, Accepted: 7, Skipped: 2, Rejected: 1})
	sink(trace.Completed{Where: spout, Latency: 40 * time.Millisecond})
	sink(trace.Overdue{Where: spout, Holders: []trace.Holder{{Node: "hourly"}, {Node: "alarms"}}})
	sink(trace.Overdue{Where: spout})
	sink(trace.Progress{Where: spout, Origin: 0xabc, Floor: 100, Next: 130, Lag: 70, Open: 3, Watermark: 1_500_000_000_500})
	sink(trace.Progress{Where: spout, Origin: 0xdef, Floor: 1, Next: 4, Lag: -1, Watermark: math.MinInt64})
	sink(trace.Failed{Where: spout, Err: errors.New("x")})
	sink(trace.Cached{Where: at("hourly", "stat", 3), Cache: "midStatCache", Hits: 9, Misses: 2, Loads: 1, Entries: -1})
	sink(trace.Cached{Where: at("hourly", "stat", 3), Cache: "stateCache", Entries: 11})

	depth := 5.0
	o.Gauge("boltmesh_queue_depth", "Messages waiting.", map[string]string{"node": "hourly", "task": "3"}, func() float64 { return depth })
	remove := o.Gauge("boltmesh_queue_depth", "Another help.", map[string]string{"node": "hourly", "task": "4"}, func() float64 { return 8 })
	o.Counter("boltmesh_queue_hits_total", "Hits.", nil, func() float64 { return 12 })
	o.Gauge("boltmesh_unknown", "Not known.", nil, math.NaN)

	code, page := get(t, "http://"+o.Addr()+"/metrics")
	if code != http.StatusOK {
		t.Fatalf("status %d: %s", code, page)
	}
	const stat, source = `{node="hourly",task="3",topology="machine-health"}`, `{node="readings",task="0",topology="machine-health"}`
	for _, want := range []string{
		`boltmesh_frames_total` + stat + ` 3`, `boltmesh_tuples_total` + stat + ` 101`, `boltmesh_emitted_total` + stat + ` 7`,
		`boltmesh_acked_total` + stat + ` 96`, `boltmesh_dropped_total` + stat + ` 2`, `boltmesh_held_total` + stat + ` 1`,
		`boltmesh_dead_lettered_total` + stat + ` 2`, `boltmesh_failed_total` + stat + ` 9`,
		`boltmesh_execute_seconds_count` + stat + ` 2`, `boltmesh_execute_seconds_sum` + stat + ` 0.003`,
		`boltmesh_commit_seconds_count` + stat + ` 1`, `boltmesh_publish_seconds_count` + stat + ` 2`,
		`boltmesh_frames_total{node="clean",task="shared",topology="machine-health"} 5`,
		`boltmesh_emitted_total` + source + ` 14`, `boltmesh_records_total` + source + ` 20`, `boltmesh_skipped_total` + source + ` 2`,
		`boltmesh_dead_lettered_total` + source + ` 1`, `boltmesh_replayed_total` + source + ` 2`, `boltmesh_completed_total` + source + ` 1`,
		`boltmesh_errors_total` + source + ` 1`, `boltmesh_complete_latency_seconds_sum` + source + ` 0.04`,
		`boltmesh_overdue_total{holder_node="alarms",node="readings",task="0",topology="machine-health"} 1`,
		`boltmesh_overdue_total{holder_node="(unknown)",node="readings",task="0",topology="machine-health"} 1`,
		`boltmesh_floor_lag{node="readings",origin="0000000000000abc",task="0",topology="machine-health"} 100`,
		`boltmesh_spout_pending{node="readings",origin="0000000000000def",task="0",topology="machine-health"} 3`,
		`boltmesh_spout_open_roots{node="readings",origin="0000000000000abc",task="0",topology="machine-health"} 3`,
		`boltmesh_watermark_seconds{node="readings",origin="0000000000000abc",task="0",topology="machine-health"} 1.5000000005e+09`,
		`boltmesh_queue_depth{node="hourly",task="3"} 5`, `boltmesh_queue_depth{node="hourly",task="4"} 8`, `boltmesh_queue_hits_total 12`,
		`boltmesh_cache_hits_total{cache="midStatCache"} 9`, `boltmesh_cache_misses_total{cache="midStatCache"} 2`, `boltmesh_cache_loads_total{cache="midStatCache"} 1`,
		`boltmesh_cache_entries{cache="stateCache"} 11`, `boltmesh_flush_lag_seconds_count` + stat + ` 1`, `boltmesh_flush_lag_seconds_sum` + stat + ` 0.005`,
		`boltmesh_observer_dropped_total{signal="span"} 0`, `boltmesh_build_info{service="dev",version="1.2",worker="w1"} 1`,
	} {
		if !strings.Contains(page, "\n"+want+"\n") {
			t.Errorf("missing: %s", want)
		}
	}
	for _, not := range []string{`boltmesh_floor_lag{node="readings",origin="0000000000000def"`, `boltmesh_watermark_seconds{node="readings",origin="0000000000000def"`, `boltmesh_unknown 0`, `boltmesh_unknown NaN`} {
		if strings.Contains(page, not) {
			t.Errorf("unknown number exported: %s", not)
		}
	}
	if t.Failed() {
		t.Log(page)
	}

	remove()
	remove()
	depth = 6
	_, page = get(t, "http://"+o.Addr()+"/metrics")
	if strings.Contains(page, `boltmesh_queue_depth{node="hourly",task="4"}`) || !strings.Contains(page, `boltmesh_queue_depth{node="hourly",task="3"} 6`) {
		t.Error("a removed gauge is still there, or a kept one was not read again")
	}
}

func TestSilentSourcesLeaveTheScrape(t *testing.T) {
	o := start(t, Options{HTTPAddr: "127.0.0.1:0"})
	p := trace.Progress{Where: at("readings", spoutKind, 0), Origin: 1}
	o.metrics.progress[source{place{p.Topology, p.Node, p.Task}, p.Origin}] = progress{p, time.Now().Add(-2 * silence)}
	if _, page := get(t, "http://"+o.Addr()+"/metrics"); strings.Contains(page, "boltmesh_spout_pending{") {
		t.Error("the numbers of a source that another worker has taken over are still exported")
	}
}

func TestGaugePanicsOnAnInvalidName(t *testing.T) {
	o := start(t, Options{})
	for _, c := range []struct {
		name   string
		labels map[string]string
	}{{"queue_depth", nil}, {"boltmesh_Queue", nil}, {"boltmesh_queue depth", nil}, {"boltmesh_queue", map[string]string{"__reserved": "x"}}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s %v is accepted", c.name, c.labels)
				}
			}()
			o.Gauge(c.name, "", c.labels, func() float64 { return 0 })
		}()
	}
}

func TestHealth(t *testing.T) {
	o := start(t, Options{HTTPAddr: "127.0.0.1:0", PprofAddr: "127.0.0.1:0"})
	base := "http://" + o.Addr()
	check := func(url string, code int, body string) {
		t.Helper()
		if c, b := get(t, url); c != code || !strings.Contains(b, body) {
			t.Errorf("%s: %d %q, want %d with %q", url, c, b, code, body)
		}
	}
	check(base+"/healthz", 200, "ok")
	check(base+"/readyz", 503, "starting")
	o.Ready(true, "ignored")
	check(base+"/readyz", 200, "ready")
	o.Ready(false, "NATS is away")
	check(base+"/readyz", 503, "NATS is away")
	check(base+"/debug/pprof/", 404, "")
	check("http://"+o.PprofAddr()+"/debug/pprof/", 200, "goroutine")
}

func TestAddresses(t *testing.T) {
	for _, c := range []struct {
		name    string
		options Options
		problem string
	}{
		{"profiles on every interface", Options{PprofAddr: ":6060"}, "not a loopback address"},
		{"profiles on a public address", Options{PprofAddr: "192.0.2.1:6060", HTTPAddr: "127.0.0.1:0"}, "not a loopback address"},
		{"profiles without a port", Options{PprofAddr: "localhost"}, "missing port"},
		{"metrics on nonsense", Options{HTTPAddr: "127.0.0.1:notaport"}, "serve metrics"},
		{"a bad exporter releases the listener", Options{HTTPAddr: "127.0.0.1:0", OTLP: "ftp://x"}, "scheme"},
		{"a bad endpoint is not repeated", Options{OTLP: "http://user:pa ss@%zz"}, "not a URL"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := New(c.options)
			if err == nil || !strings.Contains(err.Error(), c.problem) {
				t.Errorf("error %v, want %q", err, c.problem)
			}
		})
	}
}

func TestAutoAddressSkipsWhatIsTaken(t *testing.T) {
	first, second := start(t, Options{HTTPAddr: Auto}), start(t, Options{HTTPAddr: Auto})
	if first.Addr() == second.Addr() {
		t.Fatalf("both serve on %s", first.Addr())
	}
	for _, o := range []*Observer{first, second} {
		host, _, err := net.SplitHostPort(o.Addr())
		if err != nil || host != "127.0.0.1" {
			t.Errorf("serves on %s", o.Addr())
		}
	}
}

func TestLogs(t *testing.T) {
	var out buffer
	o, err := New(Options{Service: "alarm", Version: "1", Worker: "w1", LogWriter: &out, every: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	sink := o.Sink()
	id := tuple.RootID(tuple.Position{Origin: 7, Offset: 8})
	failure := trace.Handled{
		Where: at("overheated", "alarm", 2), Tuple: id, Key: "m-1", Offset: 8, Tries: 3, Outcome: trace.DeadLettered, Span: 0xff, Err: errors.New("rule.js:3:7: no"),
		Parent: tuple.Trace{TraceID: [16]byte{0xaa}, SpanID: [8]byte{1}}, Root: tuple.Root{Origin: 7, Attempt: tuple.Attempt{Generation: 4, Count: 1}},
	}
	sink(failure)
	sink(trace.Handled{Where: failure.Where, Parent: failure.Parent, Outcome: trace.Acked}) // nothing to say
	sink(trace.Overdue{Where: at("readings", spoutKind, 1), Age: 1500 * time.Millisecond, Holders: []trace.Holder{{Node: "clean", Task: tuple.Shared, Worker: "w9"}}})
	sink(trace.Failed{Doing: "connect", Err: errors.New("refused"), Fatal: true})
	sink(trace.Changed{Where: at("overheated", "alarm", 2), What: "task claimed", Revision: 3, Epoch: 9})
	sink(trace.Stepped{Where: at("overheated", "alarm", 2), Frames: 1, Tuples: 4, Acked: 4})
	sink(trace.Stepped{Where: at("overheated", "alarm", 5), Frames: 1, Tuples: 3, Acked: 3})
	finish(t, o)
	sink(failure) // a late event is no crash
	finish(t, o)  // nor is closing again

	want := []map[string]any{
		{
			"level": "ERROR", "msg": "tuple dead-lettered", "service": "alarm", "worker": "w1", "topology": "machine-health", "node": "overheated", "task": "2",
			"trace_id": "aa000000000000000000000000000000", "span_id": "00000000000000ff", "tuple": id.String(), "device": "m-1", "error": "rule.js:3:7: no",
			"tries": 3.0, "attempt": 1.0, "generation": 4.0,
		},
		{"level": "WARN", "msg": "root overdue", "age_s": 1.5, "node": "readings"},
		{"level": "ERROR", "msg": "failed", "doing": "connect", "error": "refused", "fatal": true},
		{"level": "INFO", "msg": "task claimed", "revision": 3.0, "epoch": 9.0},
		{"level": "INFO", "msg": "counts", "node": "overheated", "frames": 2.0, "tuples": 7.0, "acked": 7.0},
		{"level": "INFO", "msg": "counts", "node": "readings", "replayed": 1.0},
	}
	got := out.lines(t)
	var plain []map[string]any // errors without a node are counted without one
	for _, l := range got {
		if l["msg"] != "counts" || l["node"] != "" {
			plain = append(plain, l)
		}
	}
	if len(plain) != len(want) {
		t.Fatalf("%d lines, want %d: %v", len(plain), len(want), plain)
	}
	for i, w := range want {
		for k, v := range w {
			if plain[i][k] != v {
				t.Errorf("line %d: %s is %v, want %v", i, k, plain[i][k], v)
			}
		}
	}
	holders, _ := plain[1]["holders"].([]any)
	if len(holders) != 1 || holders[0].(map[string]any)["node"] != "clean" || holders[0].(map[string]any)["task"] != "shared" {
		t.Errorf("holders: %v", plain[1]["holders"])
	}
}

func TestLinesAreBounded(t *testing.T) {
	var out buffer
	o, err := New(Options{LogWriter: &out, LogLevel: slog.LevelWarn, every: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	const n = linesPerNode + 30
	for range n {
		o.Sink()(trace.Failed{Where: at("clean", "convert", 0), Doing: "publish", Err: errors.New("no")})
	}
	finish(t, o)
	got := out.lines(t)
	if len(got) != linesPerNode+1 || got[linesPerNode]["lines"] != 30.0 {
		t.Errorf("%d lines, the last: %v", len(got), got[len(got)-1])
	}
}

// stuck is a writer that waits until it is let go.
type stuck chan struct{}

func (s stuck) Write(p []byte) (int, error) { <-s; return len(p), nil }

func TestSinkDoesNotWaitForLines(t *testing.T) {
	release := make(stuck)
	o := start(t, Options{LogWriter: release, HTTPAddr: "127.0.0.1:0", every: time.Hour})
	for range logQueue + 10 {
		o.Sink()(trace.Changed{Where: at("clean", "convert", 0), What: "x"})
	}
	if _, page := get(t, "http://"+o.Addr()+"/metrics"); !strings.Contains(page, `boltmesh_observer_dropped_total{signal="log"} `) ||
		strings.Contains(page, `boltmesh_observer_dropped_total{signal="log"} 0`) {
		t.Error("dropped lines are not counted")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := o.logs.close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("closing while the writer is stuck: %v", err)
	}
	close(release)
}
