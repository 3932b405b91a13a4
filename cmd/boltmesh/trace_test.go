package main

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/observe"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
	"github.com/boltmesh/boltmesh/tests/servers"
)

func TestTraceUsage(t *testing.T) {
	for line, want := range map[string]string{
		"trace rooms":                          "say which",
		"trace rooms x --device y":             "say which",
		"trace rooms rooms/0@1 --last":         "--last is of a --device",
		"trace rooms 0123":                     "32 hexadecimal digits",
		"trace rooms rooms/0@x":                "write TOPIC/PARTITION@OFFSET",
		"trace rooms @5":                       "write TOPIC/PARTITION@OFFSET",
		"trace rooms --device x --wait 0s":     "times above 0",
		"trace rooms rooms/0@1 --since -1s":    "times above 0",
		"trace":                                "it is written boltmesh trace",
		"trace rooms a b":                      "it is written boltmesh trace",
		"trace rooms --device x --device-last": "unknown flag",
	} {
		if code, out, errs := call(t, strings.Fields(line)...); code != exitUsage || !strings.Contains(errs, want) {
			t.Errorf("%s: exit %d, want 2 and %q: %s%s", line, code, want, out, errs)
		}
	}
}

func TestTold(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	hop := func(node string, after time.Duration, below ...*observe.Hop) *observe.Hop {
		return &observe.Hop{
			Node: node, Task: "any", Worker: node + "-1", Stream: "default", From: "x", Tuple: strings.Repeat("ab", 16), Outcome: "acked", At: at.Add(after),
			Took: 1234, Below: below,
		}
	}
	totals := hop("totals", 12*time.Millisecond, hop("output", 30*time.Millisecond))
	totals.Task, totals.Stages = "3", []observe.Stage{{Name: "consume", Took: 100}, {Name: "execute", Took: 34}, {Name: "commit", Took: 1100}}
	hot := hop("hot", 13*time.Millisecond)
	hot.Tuple, hot.Tries, hot.Outcome, hot.Error, hot.Took = strings.Repeat("cd", 16), 5, "dead-lettered", "script: \x1b[1mboom", 12_000_000
	late := hop("late", 14*time.Millisecond)
	late.Stream, late.From, late.At, late.Took, late.Outcome, late.Worker = "late", "totals", time.Time{}, 0, "waiting", ""
	readings := hop("readings", 0, hop("clean", 5*time.Millisecond, totals, hot, late, hop("output", 1500*time.Millisecond)))
	readings.Task, readings.Outcome = "2", "emitted"
	again := hop("readings", 30*time.Second)
	again.Task, again.Outcome, again.Attempt = "2", "emitted", 1
	d := told{
		Topology: "rooms", Tuple: hot.Tuple, Position: "rooms/2@44", State: control.UnderWay, Source: "jaeger",
		Journey: &observe.Journey{Trace: "t", Link: "http://127.0.0.1:16686/trace/t", Hops: []*observe.Hop{readings, again}},
		Holders: []trace.Holder{{Node: "late", Task: 4, Worker: "stat-1", Since: at}, {Node: "output", Task: tuple.Shared, Worker: "output-1", Since: at}},
		Letters: []control.Letter{{Letter: tuple.Letter{ID: tuple.ID{0xcd}, Node: "hot", Tries: 5, Error: "script: \x1b[1mboom", FailedAt: at.UnixMilli()}}},
		Notes:   []string{"something is missing"},
	}
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	d.draw(w)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	golden(t, "trace.txt", b.String())
}

// nodes lists the nodes of a journey in its order.
func nodes(j *observe.Journey) (out []string) {
	if j != nil {
		j.Each(func(h *observe.Hop) bool {
			out = append(out, h.Node)
			return true
		})
	}
	slices.Sort(out)
	return out
}

// until asks again until the answer is as wanted.
func (l *live) until(wanted func(d *told) bool, args ...string) (d told) {
	l.Helper()
	for end := time.Now().Add(time.Minute); ; {
		d = decode[told](l.T, ok(l.T, append(args, "-o", "json")...))
		if wanted(&d) {
			return d
		}
		if time.Now().After(end) {
			l.Fatalf("%v: %+v", args, d)
		}
	}
}

// way is that of a reading that raises an alarm: stored when cleaned, counted, judged, and the alarm stored.
var way = []string{"clean", "hot", "output", "output", "readings", "totals"}

// TestTraceInJaeger asks for one reading in each way.
func TestTraceInJaeger(t *testing.T) {
	jaeger := servers.Run(t, servers.Jaeger, servers.Options{})
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
	l := goLive(t, jaeger.URLs["otlp-http"])
	t.Setenv("BOLTMESH_JAEGER", jaeger.URL)
	l.feed(9, 50)
	all := func(d *told) bool { return d.State == control.Processed && slices.Equal(nodes(d.Journey), way) }
	d := l.until(all, "trace", "rooms", "--device", "room-3", "--last", "--wait", "10ms")
	if d.Source != "jaeger" || d.Journey.Link != jaeger.URL+"/trace/"+d.Tuple || d.Position == "" {
		t.Errorf("%+v", d)
	}
	d.Journey.Each(func(h *observe.Hop) bool {
		if h.Worker != "dev" || h.Device != "room-3" || h.Took <= 0 || h.At.IsZero() || h.Outcome != map[bool]string{true: "emitted", false: "acked"}[h.Node == "readings"] {
			t.Errorf("%+v", h)
		}
		if h.Node == "totals" && len(h.Stages) != 3 {
			t.Errorf("stages %+v", h.Stages)
		}
		return true
	})
	alarm := ""
	d.Journey.Each(func(h *observe.Hop) bool {
		if h.From == "hot" {
			alarm = h.Tuple
		}
		return true
	})
	for _, which := range []string{d.Tuple, alarm, d.Position} {
		same := l.until(all, "trace", "rooms", which, "--wait", "10ms")
		if same.Journey.Trace != d.Journey.Trace || same.Position != d.Position {
			t.Errorf("%s: %+v", which, same)
		}
	}
	out := ok(t, "trace", "rooms", alarm)
	t.Log("\n" + out)
	if !strings.Contains(out, "output *") || !strings.Contains(out, jaeger.URL+"/trace/") || !strings.Contains(out, ": processed\n") {
		t.Error(out)
	}
	none := decode[told](t, ok(t, "trace", "rooms", strings.Repeat("9", 32), "--wait", "10ms", "-o", "json"))
	if none.Journey != nil || none.State != control.Unknown || len(none.Notes) != 2 {
		t.Errorf("%+v", none)
	}
	if code, _, errs := call(t, "trace", "rooms", alarm, "--jaeger", "http://127.0.0.1:1"); code != exitFailed || !strings.Contains(errs, "ask Jaeger") {
		t.Errorf("exit %d: %s", code, errs)
	}
}

// TestTraceByTaps follows a reading without any backend.
func TestTraceByTaps(t *testing.T) {
	l := goLive(t, "")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	wait := l.background("trace", "rooms", "--device", "room-3", "--last", "--wait", "50s", "-o", "json")
	var stdout, errs string
	go func() {
		defer stop()
		stdout, errs = wait()
	}()
	for ctx.Err() == nil {
		l.feed(9, 50)
	}
	if errs != "" {
		t.Fatal(errs)
	}
	d := decode[told](t, stdout)
	// The alarm is raised by the first reading of the room, which may have been before.
	if got := nodes(d.Journey); d.Source != "tap" || d.State != control.Processed || len(got) < 5 || got[0] != "clean" || len(d.Notes) > 0 {
		t.Fatalf("%v %+v", got, d)
	}
	d.Journey.Each(func(h *observe.Hop) bool {
		if !strings.HasPrefix(h.Worker, "dev-") || h.Device != "room-3" || h.Outcome != map[bool]string{true: "emitted", false: "handled"}[h.Node == "readings"] {
			t.Errorf("%+v", h)
		}
		return true
	})
	if h := d.Journey.Hops[0]; h.Node != "readings" || len(h.Below) != 1 || h.Below[0].Node != "clean" || len(h.Below[0].Below) < 3 {
		t.Errorf("%+v", h)
	}
	for _, which := range []string{d.Tuple, d.Position} {
		past := l.until(func(d *told) bool { return d.State == control.Processed }, "trace", "rooms", which, "--wait", "200ms")
		if past.Position != d.Position || past.Tuple != d.Tuple {
			t.Errorf("%s: %+v", which, past)
		}
	}
	if code, _, errs := call(t, "trace", "rooms", "elsewhere/0@1"); code != exitFailed || !strings.Contains(errs, "reads nothing that is called elsewhere/0") {
		t.Errorf("exit %d: %s", code, errs)
	}
}
