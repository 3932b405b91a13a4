package observe

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// tuples and ids of the trace that the fake Jaeger knows.
const (
	traceOfTest   = "5f0c2a1be34d92417f0c6d8a52b19e03"
	readingOfTest = "5f0c2a1be34d92417f0c6d8a52b19e03"
)

// spanText writes a span as Jaeger does.
func spanText(id, parent, operation, process string, start, duration int64, tags string) string {
	references := "[]"
	if parent != "" {
		references = fmt.Sprintf(`[{"refType":"CHILD_OF","traceID":%q,"spanID":%q}]`, traceOfTest, parent)
	}
	return fmt.Sprintf(`{"traceID":%q,"spanID":%q,"operationName":%q,"references":%s,"startTime":%d,"duration":%d,"processID":%q,"logs":[],"warnings":null,"tags":[%s]}`,
		traceOfTest, id, operation, references, start, duration, process, tags)
}

func tagText(node, outcome, source string, attempt int) string {
	return fmt.Sprintf(`{"key":"boltmesh.node","type":"string","value":%q},{"key":"boltmesh.outcome","type":"string","value":%q},{"key":"boltmesh.source","type":"string","value":%q},
{"key":"boltmesh.attempt","type":"int64","value":%d},{"key":"boltmesh.generation","type":"int64","value":3},{"key":"boltmesh.tuple","type":"string","value":%q},
{"key":"boltmesh.task","type":"string","value":"2"},{"key":"boltmesh.tries","type":"int64","value":1},{"key":"boltmesh.device","type":"string","value":"m1"}`,
		node, outcome, source, attempt, readingOfTest)
}

// jaegerText is a trace of a reading that was emitted twice: a replay has the same receive span, and deliveries of its own.
func jaegerText() string {
	spans := []string{
		spanText("0a", "", "produce", "p0", 900_000, 10, ""),
		spanText("01", "0a", "receive readings", "p1", 1_000_000, 500, tagText("readings", "", "", 0)+
			`,{"key":"messaging.destination.name","type":"string","value":"readings"},{"key":"messaging.kafka.offset","type":"int64","value":1234}`),
		spanText("01", "0a", "receive readings", "p1", 31_000_000, 600, tagText("readings", "", "", 1)),
		spanText("13", "01", "process clean", "p2", 31_002_000, 700, tagText("clean", "acked", "readings", 1)),
		spanText("11", "01", "process clean", "p2", 1_002_000, 30_000_000, tagText("clean", "held", "readings", 0)+
			`,{"key":"error","type":"bool","value":true},{"key":"otel.status_description","type":"string","value":"no store"}`),
		spanText("12", "11", "execute", "p2", 1_003_000, 44, ""),
	}
	return `{"data":[{"traceID":"` + traceOfTest + `","spans":[` + strings.Join(spans, ",") + `],"processes":{"p0":{"serviceName":"gateway","tags":[]},
"p1":{"serviceName":"boltmesh-spout","tags":[{"key":"service.instance.id","type":"string","value":"spout-1"}]},
"p2":{"serviceName":"boltmesh-convert","tags":[{"key":"service.instance.id","type":"string","value":"convert-1"}]}}}],"errors":null}`
}

// fakeJaeger answers as Jaeger's HTTP API does and notes what it was asked.
func fakeJaeger(t *testing.T) (j Jaeger, asked *[]url.URL) {
	t.Helper()
	asked = &[]url.URL{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked = append(*asked, *r.URL)
		switch {
		case r.URL.Path == "/base/api/services":
			fmt.Fprint(w, `{"data":["jaeger","boltmesh-convert","boltmesh-spout"]}`)
		case r.URL.Path == "/base/api/traces/"+traceOfTest, r.URL.Path == "/base/api/traces" && r.URL.Query().Get("service") == "boltmesh-spout":
			fmt.Fprint(w, jaegerText())
		case r.URL.Path == "/base/api/traces":
			fmt.Fprint(w, `{"data":[]}`)
		case r.URL.Path == "/base/api/traces/broken":
			fmt.Fprint(w, `<html>`)
		case r.URL.Path == "/base/api/traces/sick":
			http.Error(w, "no storage", http.StatusInternalServerError)
		default:
			http.Error(w, `{"errors":[{"code":404,"msg":"trace not found"}]}`, http.StatusNotFound)
		}
	}))
	t.Cleanup(s.Close)
	return Jaeger{URL: s.URL + "/base/", Client: s.Client()}, asked
}

func describe(hops []*Hop) (out string) {
	for _, h := range hops {
		out += fmt.Sprintf("%s#%d %s of %s at %d took %d", h.Node, h.Attempt, h.Outcome, h.Worker, h.At.UnixMicro(), h.Took)
		for _, s := range h.Stages {
			out += fmt.Sprintf(", %s %d", s.Name, s.Took)
		}
		if h.Error != "" {
			out += ", " + h.Error
		}
		if len(h.Below) > 0 {
			out += " (" + describe(h.Below) + ")"
		}
		out += "; "
	}
	return out
}

func TestJaegerTrace(t *testing.T) {
	j, _ := fakeJaeger(t)
	got, err := j.Trace(t.Context(), traceOfTest)
	if err != nil {
		t.Fatal(err)
	}
	want := "readings#0 emitted of spout-1 at 1000000 took 500 (clean#0 held of convert-1 at 1002000 took 30000000, execute 44, no store; ); " +
		"readings#1 emitted of spout-1 at 31000000 took 600 (clean#1 acked of convert-1 at 31002000 took 700; ); "
	if d := describe(got.Hops); d != want {
		t.Errorf("got  %s\nwant %s", d, want)
	}
	if h := got.Hops[0]; h.Topic != "readings" || h.Offset != 1234 || h.Generation != 3 || !h.Has(readingOfTest) || h.Has("x") {
		t.Errorf("%+v", h)
	}
	if got.Link != strings.TrimSuffix(j.URL, "/")+"/trace/"+traceOfTest {
		t.Error(got.Link)
	}
	for id, want := range map[string]string{"broken": "does not answer as Jaeger does", "sick": "no storage", "unknown": ErrNoTrace.Error()} {
		if _, err := j.Trace(t.Context(), id); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", id, err)
		}
	}
}

func TestJaegerLatest(t *testing.T) {
	j, asked := fakeJaeger(t)
	since := time.UnixMilli(5)
	got, err := j.Latest(t.Context(), Look{Topology: "machines", Device: "m1", Since: since})
	if err != nil || got.Trace != traceOfTest {
		t.Fatalf("%+v, %v", got, err)
	}
	if len(*asked) != 3 { // services, the spout's traces, the whole trace
		t.Fatalf("asked %v", *asked)
	}
	q := (*asked)[1].Query()
	if q.Get("tags") != `{"boltmesh.device":"m1","boltmesh.topology":"machines"}` || q.Get("start") != "5000" || q.Get("service") != "boltmesh-spout" {
		t.Errorf("%v", q)
	}
	empty, _ := fakeJaeger(t)
	empty.URL += "nowhere"
	if _, err := empty.Latest(t.Context(), Look{}); err == nil || errors.Is(err, ErrNoTrace) {
		t.Errorf("what is no Jaeger has no traces: %v", err)
	}
}
