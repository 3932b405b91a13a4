package control

import (
	"encoding/json"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/topology"
)

// TestOutline: the plan as a service in another language reads it.
func TestOutline(t *testing.T) {
	const yaml = `
topology: t
spout: {id: ask, calls: true}
bolts:
  - {id: a, kind: custom, service: x, from: {node: ask, stream: call}, config: {n: 1}}
  - {id: b, kind: custom, service: y, from: {node: a, grouping: all}, tasks: 2, streams: {reply: [msg]}}
`
	top, problems := topology.Parse("t.yaml", []byte(yaml), topology.Options{})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	plan, err := top.Plan()
	if err != nil {
		t.Fatal(err)
	}
	const call, hop = `{"from":"ask","to":"a","stream":"call","grouping":"shuffle","tasks":8,"shared":true}`, `{"from":"a","to":"b","stream":"default","grouping":"all","tasks":2}`
	const want = `[{"id":"ask","kind":"spout","service":"spout","tasks":0,"out":[` + call + `]},` +
		`{"id":"a","kind":"custom","service":"x","tasks":8,"shared":true,"config":{"n":1},"in":[` + call + `],"out":[` + hop + `]},` +
		`{"id":"b","kind":"custom","service":"y","tasks":2,"in":[` + hop + `],"out":[{"from":"b","to":"reply","stream":"reply","grouping":"global","tasks":1}]}]`
	if got, err := json.Marshal(outline(plan)); err != nil || string(got) != want {
		t.Errorf("%s, %v; want\n%s", got, err, want)
	}
}
