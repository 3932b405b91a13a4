package casefile

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"github.com/boltmesh/boltmesh/pkg/rehearse"
	"github.com/boltmesh/boltmesh/pkg/service"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Options say what a file's cases run on.
type Options struct {
	Topology *topology.Topology
	Builds   map[string]service.Build // see rehearse.Options
	Only     *regexp.Regexp           // of the cases' names; nil: all
}

// Result is what came of one case.
type Result struct {
	Name     string        `json:"name"`
	Line     int           `json:"line"`
	Failures []Failure     `json:"failures"` // none: it passed
	Elapsed  time.Duration `json:"elapsed_ns"`
}

// Failure is one expectation that was not met.
type Failure struct {
	Line     int      `json:"line"`
	Column   int      `json:"column"`
	What     string   `json:"what"`
	Expected string   `json:"expected,omitempty"` // YAML, as are Nearest and Came
	Nearest  string   `json:"nearest,omitempty"`  // of what came, the most like it
	Differs  []string `json:"differs,omitempty"`  // in what
	Came     []string `json:"came,omitempty"`     // that was not expected
}

// Run rehearses the cases, each from an empty mesh. The error is an *Error where a file names what the topology does not have.
func (f *File) Run(ctx context.Context, o Options) ([]Result, error) {
	plan, err := o.Topology.Plan()
	if err != nil {
		return nil, err
	}
	for _, c := range f.cases {
		for _, s := range c.steps {
			if err := s.check(plan); err != nil {
				return nil, f.misread(err)
			}
		}
	}
	var out []Result
	for _, c := range f.cases {
		if o.Only != nil && !o.Only.MatchString(c.name) {
			continue
		}
		began := time.Now()
		r := &run{scene: c, plan: plan, alarms: map[string]map[string]*value{}}
		if err := r.play(ctx, o.Builds); err != nil {
			return nil, f.misread(err)
		}
		out = append(out, Result{Name: c.name, Line: c.line, Failures: r.failures, Elapsed: time.Since(began)})
	}
	return out, nil
}

// check refuses names that the topology does not have.
func (s *step) check(plan *topology.Plan) error {
	nodes, collections := []string{}, []string{}
	for _, n := range plan.Nodes {
		nodes = append(nodes, n.ID)
		if n.Bolt != nil && n.Bolt.Save != nil {
			collections = append(collections, n.Bolt.Save.Collection, n.Bolt.Save.Collection+"_episodes")
		}
	}
	names := func(f field, what string, known []string) error {
		name, _, _ := strings.Cut(f.name, ":")
		if !contains(known, name) {
			return fail(f.place, "the topology has no %s %q: it has %s", what, name, strings.Join(known, ", "))
		}
		return nil
	}
	for _, o := range []*value{s.emit, s.state} {
		if o == nil {
			continue
		}
		for _, f := range o.fields {
			if err := names(f, "node", nodes); err != nil {
				return err
			}
		}
	}
	for _, e := range s.entries {
		var err error
		switch e.section.name {
		case "errors":
		case "documents":
			err = names(e.field, "collection", collections)
		default:
			err = names(e.field, "node", nodes)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// run is one case on its way.
type run struct {
	*scene
	plan     *topology.Plan
	stage    *rehearse.Stage
	alarms   map[string]map[string]*value // node -> group -> its last episode
	failures []Failure
}

func (r *run) play(ctx context.Context, builds map[string]service.Build) error {
	stage, err := rehearse.New(ctx, rehearse.Options{Plan: r.plan, Builds: builds, Start: r.start})
	if err != nil {
		return err
	}
	defer stage.Close()
	r.stage = stage
	for i, s := range r.steps {
		if err := r.happen(ctx, s); err != nil {
			return err
		}
		if s.expect == nil && i < len(r.steps)-1 {
			continue // what it brings is for the step that expects something
		}
		if err := r.note(); err != nil {
			return err
		}
		if err := r.look(ctx, s); err != nil {
			return err
		}
		stage.Emitted, stage.Letters = nil, nil
	}
	return nil
}

// happen does what a step gives.
func (r *run) happen(ctx context.Context, s *step) error {
	if s.archive != nil {
		for _, f := range s.archive.fields {
			fields := f.json()
			if f.kind == null {
				fields = nil
			}
			if err := r.stage.Profile(ctx, f.name, fields); err != nil {
				return fail(f.place, "profile of %s: %v", f.name, err)
			}
		}
	}
	if s.state != nil {
		for _, node := range s.state.fields {
			for _, group := range node.fields {
				if err := r.stage.Seed(ctx, node.name, group.name, group.json()); err != nil {
					return fail(group.place, "%v", err)
				}
			}
		}
	}
	for _, g := range s.given {
		record := spout.Record{Value: g.json()}
		if g.kind == text {
			record.Value = []byte(g.text)
		}
		if err := r.stage.Feed(ctx, record); err != nil {
			return fail(g.place, "%v", err)
		}
	}
	if err := r.prompt(ctx, s.emit); err != nil {
		return err
	}
	if s.wait > 0 {
		if err := r.stage.Wait(ctx, s.wait); err != nil {
			return fail(r.place, "%v", err)
		}
	}
	if s.flush {
		if err := r.stage.Flush(ctx); err != nil {
			return err
		}
	}
	if s.restart {
		return r.stage.Restart(ctx)
	}
	return nil
}

// prompt emits tuples in the names of nodes.
func (r *run) prompt(ctx context.Context, emit *value) error {
	if emit == nil {
		return nil
	}
	for _, f := range emit.fields {
		node, stream, _ := strings.Cut(f.name, ":")
		if f.kind != list {
			return fail(f.place, "emit names nodes, each with a list of the tuples that it emits")
		}
		for _, item := range f.items {
			payload := item.json()
			key := gjson.GetBytes(payload, "device").String()
			t := tuple.Tuple{Stream: stream, Key: key, Group: key, Time: r.stage.Now().UnixMilli(), Payload: payload}
			if ts := gjson.GetBytes(payload, "ts"); ts.Type == gjson.Number {
				t.Time = ts.Int()
			}
			if err := r.stage.Play(ctx, node, t); err != nil {
				return fail(item.place, "%v", err)
			}
		}
	}
	return nil
}

// note keeps the episodes that alarms tell of.
func (r *run) note() error {
	for _, e := range r.stage.Emitted {
		i := slices.IndexFunc(r.plan.Nodes, func(n topology.Node) bool { return n.ID == e.Node })
		if r.plan.Nodes[i].Kind != topology.KindAlarm {
			continue
		}
		v, err := parseJSON(e.Payload)
		if err != nil {
			return fmt.Errorf("event of %s: %w", e.Node, err)
		}
		if group, episode := v.field("group"), v.field("episode"); group != nil && episode != nil {
			if r.alarms[e.Node] == nil {
				r.alarms[e.Node] = map[string]*value{}
			}
			r.alarms[e.Node][group.text] = episode
		}
	}
	return nil
}

// emitted returns what a node has emitted on a stream since the last look: the payloads, with device and time where these do not have them.
func (r *run) emitted(name string) (out []*value, err error) {
	node, stream, _ := strings.Cut(name, ":")
	if stream == "" {
		stream = tuple.DefaultStream
	}
	for _, e := range r.stage.Emitted {
		if e.Node != node || e.Stream != stream {
			continue
		}
		v, err := parseJSON(e.Payload)
		if err != nil {
			return nil, fmt.Errorf("tuple of %s: %w", node, err)
		}
		if v.field("device") == nil && e.Key != "" {
			v.set("device", texts(e.Key))
		}
		if v.field("time") == nil {
			v.set("time", texts(time.UnixMilli(e.Time).UTC().Format("2006-01-02T15:04:05.000Z")))
		}
		out = append(out, v)
	}
	return out, nil
}

func (r *run) documents(ctx context.Context, collection string) (out []*value, err error) {
	err = r.stage.Documents.Each(ctx, collection, func(body []byte) error {
		v, err := parseJSON(body)
		out = append(out, v)
		return err
	})
	return out, err
}

// errors lists the dead letters since the last look.
func (r *run) errors() (out []*value) {
	for _, l := range r.stage.Letters {
		v := &value{kind: object}
		v.set("node", texts(l.Node))
		if l.Key != "" {
			v.set("device", texts(l.Key))
		}
		v.set("error", texts(l.Error))
		v.set("tries", whole(int64(l.Tries)))
		out = append(out, v)
	}
	return out
}
