package observe

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Jaeger asks a Jaeger for traces, by the HTTP API that its own page uses.
type Jaeger struct {
	URL    string // http://host:port
	Client *http.Client
}

// ErrNoTrace says that Jaeger has no such trace: it was not sampled, has not been exported yet, or is forgotten.
var ErrNoTrace = errors.New("no such trace")

// answerMost bounds an answer of Jaeger, in bytes.
const answerMost = 64 << 20

// found is how many traces a search returns at most, the latest ones.
const found = 20

// Look says which traces are looked for; what is empty is not looked at.
type Look struct {
	Topology, Device, Tuple string
	Since                   time.Time
}

// Trace returns the trace of an id.
func (j Jaeger) Trace(ctx context.Context, id string) (*Journey, error) {
	traces, err := j.ask(ctx, "/api/traces/"+url.PathEscape(id))
	if err != nil {
		return nil, err
	}
	if len(traces) == 0 {
		return nil, ErrNoTrace
	}
	return traces[0].journey(j.URL), nil
}

// Latest returns the trace that began last among those with a span as looked for.
func (j Jaeger) Latest(ctx context.Context, l Look) (*Journey, error) {
	services, err := j.services(ctx)
	if err != nil {
		return nil, err
	}
	tags := map[string]string{}
	for k, v := range map[string]string{"boltmesh.topology": l.Topology, "boltmesh.device": l.Device, "boltmesh.tuple": l.Tuple} {
		if v != "" {
			tags[k] = v
		}
	}
	wanted, err := json.Marshal(tags)
	if err != nil {
		return nil, err
	}
	var last *jaegerTrace
	for _, s := range services {
		q := url.Values{"service": {s}, "tags": {string(wanted)}, "limit": {strconv.Itoa(found)}}
		q.Set("start", strconv.FormatInt(l.Since.UnixMicro(), 10))
		q.Set("end", strconv.FormatInt(time.Now().Add(time.Minute).UnixMicro(), 10)) // clocks differ
		traces, err := j.ask(ctx, "/api/traces?"+q.Encode())
		if err != nil {
			return nil, err
		}
		for i := range traces {
			if t := &traces[i]; last == nil || t.begun() > last.begun() {
				last = t
			}
		}
		if last != nil && strings.Contains(s, spoutKind) {
			break // every trace has a spout's span
		}
	}
	if last == nil {
		return nil, ErrNoTrace
	}
	return j.Trace(ctx, last.TraceID) // all of it: what was found may lack spans
}

// services lists the services that Jaeger knows, spouts first.
func (j Jaeger) services(ctx context.Context) ([]string, error) {
	var answer struct{ Data []string }
	if err := j.get(ctx, "/api/services", &answer); err != nil {
		return nil, err
	}
	slices.SortFunc(answer.Data, func(a, b string) int {
		rank := func(s string) int {
			if strings.Contains(s, spoutKind) {
				return 0
			}
			return 1
		}
		return cmp.Or(rank(a)-rank(b), strings.Compare(a, b))
	})
	return answer.Data, nil
}

func (j Jaeger) ask(ctx context.Context, path string) ([]jaegerTrace, error) {
	var answer struct{ Data []jaegerTrace }
	if err := j.get(ctx, path, &answer); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(answer.Data, func(t jaegerTrace) bool { return len(t.Spans) == 0 }), nil
}

func (j Jaeger) get(ctx context.Context, path string, to any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(j.URL, "/")+path, nil)
	if err != nil {
		return fmt.Errorf("ask Jaeger: %w", err)
	}
	client := j.Client
	if client == nil {
		client = http.DefaultClient
	}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask Jaeger: %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, answerMost))
	switch {
	case err != nil:
		return fmt.Errorf("ask Jaeger: %w", err)
	case res.StatusCode == http.StatusNotFound && strings.HasPrefix(path, "/api/traces/"):
		return ErrNoTrace
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("ask Jaeger: %s: %.200s", res.Status, body)
	}
	if err := json.Unmarshal(body, to); err != nil {
		return fmt.Errorf("ask Jaeger: %s does not answer as Jaeger does: %w", j.URL, err)
	}
	return nil
}

// jaegerTrace is a trace as Jaeger tells it.
type jaegerTrace struct {
	TraceID   string
	Spans     []jaegerSpan
	Processes map[string]struct {
		ServiceName string
		Tags        []jaegerTag
	}
}

type jaegerSpan struct {
	SpanID        string
	OperationName string
	ProcessID     string
	StartTime     int64 // microseconds
	Duration      int64
	References    []struct{ RefType, SpanID string }
	Tags          []jaegerTag
}

type jaegerTag struct {
	Key   string
	Value any
}

func tagOf(tags []jaegerTag, key string) string {
	for _, t := range tags {
		if t.Key == key {
			if f, ok := t.Value.(float64); ok {
				return strconv.FormatFloat(f, 'f', -1, 64)
			}
			return fmt.Sprint(t.Value)
		}
	}
	return ""
}

func numberOf(tags []jaegerTag, key string) int64 {
	n, _ := strconv.ParseInt(tagOf(tags, key), 10, 64) // 0 where it is absent
	return n
}

func (t *jaegerTrace) begun() (at int64) {
	for i := range t.Spans {
		if s := t.Spans[i].StartTime; at == 0 || s < at {
			at = s
		}
	}
	return at
}

func (s *jaegerSpan) parent() string {
	for _, r := range s.References {
		if r.RefType == "CHILD_OF" {
			return r.SpanID
		}
	}
	return ""
}

// hop reads a span of a spout or of a delivery; nil when it is neither.
func (t *jaegerTrace) hop(s *jaegerSpan) *Hop {
	tag := func(key string) string { return tagOf(s.Tags, key) }
	if tag("boltmesh.tuple") == "" {
		return nil
	}
	p := t.Processes[s.ProcessID]
	h := &Hop{
		Node: tag("boltmesh.node"), Kind: strings.TrimPrefix(p.ServiceName, "boltmesh-"), Task: tag("boltmesh.task"), Worker: tagOf(p.Tags, "service.instance.id"),
		From: tag("boltmesh.source"), Stream: tag("boltmesh.stream"), Tuple: tag("boltmesh.tuple"), Device: tag("boltmesh.device"),
		Generation: numberOf(s.Tags, "boltmesh.generation"), Attempt: numberOf(s.Tags, "boltmesh.attempt"), Tries: int(numberOf(s.Tags, "boltmesh.tries")),
		Outcome: tag("boltmesh.outcome"), Emitted: int(numberOf(s.Tags, "boltmesh.emitted")),
		At: time.UnixMicro(s.StartTime).UTC(), Took: Micros(s.Duration),
	}
	if h.Task == "shared" {
		h.Task = "any"
	}
	if tag("error") == "true" {
		h.Error = tag("otel.status_description")
	}
	if strings.HasPrefix(s.OperationName, "receive ") {
		h.Outcome, h.Topic, h.Offset = "emitted", tag("messaging.destination.name"), numberOf(s.Tags, "messaging.kafka.offset")
	}
	return h
}

// journey makes a tree of the spans. A reading that was emitted again has several spans of one id, one for each attempt: what follows hangs on its own.
func (t *jaegerTrace) journey(base string) *Journey {
	slices.SortStableFunc(t.Spans, func(a, b jaegerSpan) int { return cmp.Compare(a.StartTime, b.StartTime) })
	hops, of := map[string][]*Hop{}, map[*jaegerSpan]*Hop{}
	for i := range t.Spans {
		s := &t.Spans[i]
		if h := t.hop(s); h != nil {
			hops[s.SpanID] = append(hops[s.SpanID], h)
			of[s] = h
		}
	}
	j := &Journey{Trace: t.TraceID, Link: strings.TrimSuffix(base, "/") + "/trace/" + t.TraceID, Hops: []*Hop{}}
	for i := range t.Spans {
		s := &t.Spans[i]
		above, h := hops[s.parent()], of[s]
		switch {
		case h == nil && len(above) > 0:
			above[0].Stages = append(above[0].Stages, Stage{Name: s.OperationName, Took: Micros(s.Duration)})
		case h == nil: // of whoever produced the record
		case len(above) == 0:
			j.Hops = append(j.Hops, h)
		default:
			up := above[0]
			for _, a := range above {
				if a.Attempt == h.Attempt && a.Generation == h.Generation {
					up = a
				}
			}
			up.Below = append(up.Below, h)
		}
	}
	return j
}
