package topology_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/boltmesh/boltmesh/pkg/script"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// options are what `boltmesh validate` would use in the directory of a document.
func options(dir string) topology.Options {
	return topology.Options{
		Vars: func(name string) (string, bool) {
			v, ok := map[string]string{"LIMIT": "7", "SITE": "hall"}[name]
			return v, ok
		},
		Script: func(file string) (string, error) {
			b, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil {
				return "", errors.New("no such file")
			}
			return string(b), nil
		},
		Checker: script.Check{},
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got), run with -update if it should:\n%s", file, diff)
	}
}

func TestProblems(t *testing.T) {
	files, err := filepath.Glob("testdata/problems/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no documents", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			parsed, problems := topology.Parse(filepath.Base(file), source, options(filepath.Dir(file)))
			out := problems.Error()
			if parsed != nil {
				out = "valid\n" + parsed.Warnings.Error()
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".problems", strings.TrimRight(out, "\n")+"\n")
		})
	}
}

func examples(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../../examples/*/topology.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no examples", err)
	}
	more, _ := filepath.Glob("testdata/plans/*.yaml")
	return append(files, more...)
}

func parse(t *testing.T, file string) *topology.Topology {
	t.Helper()
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	out, problems := topology.Parse(file, source, options(filepath.Dir(file)))
	if problems != nil {
		t.Fatal(problems)
	}
	if len(out.Warnings) > 0 && !strings.Contains(file, "warn") {
		t.Error(out.Warnings)
	}
	return out
}

func TestPlans(t *testing.T) {
	for _, file := range examples(t) {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		if name == "topology" {
			name = filepath.Base(filepath.Dir(file))
		}
		t.Run(name, func(t *testing.T) {
			plan, err := parse(t, file).Plan()
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "testdata/plans/"+name+".plan", describe(plan))
		})
	}
}

// describe draws a plan for a reader: one line per node, one per incoming edge.
func describe(p *topology.Plan) string {
	var b strings.Builder
	for _, n := range p.Nodes {
		fmt.Fprintf(&b, "%d %s: %s, %d tasks", n.Level, n.ID, n.Service, n.Tasks)
		for _, f := range []struct {
			on   bool
			word string
		}{{n.Shared, "shared"}, {n.Stateful, "stateful"}, {n.Gated, "gated"}, {n.Ticks, "ticks"}} {
			if f.on {
				b.WriteString(", " + f.word)
			}
		}
		if n.Every > 0 {
			fmt.Fprintf(&b, " every %v", n.Every)
		}
		b.WriteByte('\n')
		for _, e := range n.In {
			fmt.Fprintf(&b, "    <- %s.%s %s", e.From, e.Stream, e.Grouping)
			if e.Custom != "" {
				fmt.Fprintf(&b, " %s", e.Custom)
			}
			if len(e.By) > 0 {
				fmt.Fprintf(&b, " by %s", strings.Join(e.By, ", "))
			}
			if e.Gated {
				b.WriteString(" gated")
			}
			if e.Local {
				b.WriteString(" local")
			}
			if e.Save != nil {
				fmt.Fprintf(&b, " into %s", e.Save.Collection)
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// What was applied is parsed again to the same, where neither variables nor files are what they were.
func TestStored(t *testing.T) {
	for _, file := range examples(t) {
		before := parse(t, file)
		data, err := before.Encode()
		if err != nil {
			t.Fatal(err)
		}
		after, err := topology.ParseStored(data, nil)
		if err != nil {
			t.Fatal(file, err)
		}
		after.Warnings = before.Warnings
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("%s:\n%s", file, diff)
		}
		if before.Fingerprint() != after.Fingerprint() {
			t.Errorf("%s: fingerprints differ", file)
		}
	}
	if _, err := topology.ParseStored([]byte("{"), nil); err == nil {
		t.Error("a broken document was accepted")
	}
	if _, err := topology.ParseStored([]byte(`{"source": "a: 1"}`), nil); !errors.As(err, new(topology.Problems)) {
		t.Errorf("%v is not a list of problems", err)
	}
}

const small = `topology: t
spout: {id: s, kafka: {brokers: "${B:x}", topics: [t]}}
bolts:
  - {id: a, kind: convert, from: s, save: x}
`

func TestFingerprint(t *testing.T) {
	of := func(source string) string {
		p, problems := topology.Parse("t", []byte(source), topology.Options{})
		if problems != nil {
			t.Fatal(problems)
		}
		return p.Fingerprint()
	}
	if of(small) != of("# a comment\n\n"+strings.Replace(small, "id: a, kind: convert", "kind: convert, id: a", 1)) {
		t.Error("comments and order of keys change the fingerprint")
	}
	if of(small) == of(strings.Replace(small, "save: x", "save: y", 1)) {
		t.Error("what differs has the same fingerprint")
	}
	if of(small) == of(strings.Replace(small, "save: x", "save: x, build: v2", 1)) {
		t.Error("another build has the same fingerprint")
	}
}

func TestBuild(t *testing.T) {
	parsed, problems := topology.Parse("t", []byte(strings.Replace(small, "save: x", "save: x, build: v2", 1)), topology.Options{})
	if problems != nil {
		t.Fatal(problems)
	}
	p, err := parsed.Plan()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range p.Nodes { // the spout and the output are any build's
		if !n.RunBy(n.Service, "v2") || n.RunBy("other", "v2") || n.RunBy(n.Service, "v1") == (n.ID == "a") {
			t.Errorf("%s: build %q", n.ID, n.Build)
		}
	}
}

func TestDiff(t *testing.T) {
	plan := func(source string) *topology.Plan {
		parsed, problems := topology.Parse("t", []byte(source), topology.Options{})
		if problems != nil {
			t.Fatal(problems)
		}
		p, err := parsed.Plan()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	before := plan(small)
	for _, c := range []struct {
		name, source string
		want         topology.Changes
	}{
		{"same", "# c\n" + small, topology.Changes{}},
		{"added", small + "  - {id: b, kind: convert, from: s, save: x}\n", topology.Changes{Added: []string{"b"}, Changed: []string{"output", "s"}}},
		{"renamed", strings.Replace(small, "id: a", "id: b", 1), topology.Changes{Added: []string{"b"}, Removed: []string{"a"}, Changed: []string{"output", "s"}}},
		{"changed", strings.Replace(small, "id: a", "tasks: 3, id: a", 1), topology.Changes{Changed: []string{"a"}}},
	} {
		if diff := cmp.Diff(c.want, topology.Diff(before, plan(c.source))); diff != "" {
			t.Errorf("%s:\n%s", c.name, diff)
		}
	}
	if got := topology.Diff(nil, before); len(got.Added) != 3 {
		t.Errorf("against nothing: %v", got)
	}
}

func TestResolve(t *testing.T) {
	parsed, problems := topology.Parse("t", []byte(strings.Replace(small, "topics: [t]",
		`topics: [t, "${T}"], sasl: {mechanism: plain, username: u, password: "${P}"}`, 1)), topology.Options{})
	if problems != nil {
		t.Fatal(problems)
	}
	k := parsed.Spout.Kafka
	got, err := k.Resolve(func(n string) (string, bool) { return "<" + n + ">", n != "B" })
	if err != nil {
		t.Fatal(err)
	}
	if got.Brokers != "x" || got.Topics[1] != "<T>" || got.SASL.Password != "<P>" || k.SASL.Password != "${P}" {
		t.Errorf("%+v of %+v", got, k)
	}
	if _, err := k.Resolve(nil); err == nil || !strings.Contains(err.Error(), "topics") {
		t.Errorf("an unset variable: %v", err)
	}
	data, err := parsed.Encode()
	if err != nil || !bytes.Contains(data, []byte("${P}")) {
		t.Errorf("%s %v", data, err)
	}
}

func TestSubstitution(t *testing.T) {
	source, _, _ := strings.Cut(small, "bolts:")
	source += `
bolts:
  - id: a
    kind: convert
    from: s
    where: x > ${LIMIT:3} && y != "$${}"
    tasks: "${N:4}"
    save: x
`
	parsed, problems := topology.Parse("t", []byte(source), options("."))
	if problems != nil {
		t.Fatal(problems)
	}
	b := parsed.Bolts[0]
	if b.Where.Source != `x > 7 && y != "${}"` || b.Tasks != 4 {
		t.Errorf("%+v", b)
	}
	if diff := cmp.Diff(map[string]string{"LIMIT": "7"}, parsed.Document.Vars); diff != "" {
		t.Error(diff)
	}
}

func TestParseDuration(t *testing.T) {
	for in, want := range map[string]string{
		"500ms": "500ms", "5s": "5s", "1m": "1m0s", "1h": "1h0m0s", "2d": "48h0m0s", "1h30m": "1h30m0s", "0s": "0s", "1.5h": "1h30m0s",
		"": "", "5": "", "-5s": "", "5 s": "", "s": "", "5w": "", "5us": "", "1e3s": "", "99999999d": "", "1..2s": "",
	} {
		d, ok := topology.ParseDuration(in)
		if ok != (want != "") || ok && d.String() != want {
			t.Errorf("%q: %v %v, want %q", in, d, ok, want)
		}
	}
}

// FuzzParse: no document makes the parser panic, and what it accepts can be planned, stored and read again.
func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/*/*.yaml")
	more, _ := filepath.Glob("../../examples/*/topology.yaml")
	for _, file := range append(files, more...) {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, source []byte) {
		o := topology.Options{Checker: script.Check{}, Script: func(string) (string, error) { return "function convert(t) { return t }", nil }}
		parsed, problems := topology.Parse("fuzz.yaml", source, o)
		if (parsed == nil) == (len(problems) == 0) {
			t.Fatal("neither a topology nor problems, or both")
		}
		for _, p := range problems {
			if p.Place.Line < 1 || p.Place.Column < 1 || p.What == "" {
				t.Fatalf("a problem without its place: %+v", p)
			}
		}
		if parsed == nil {
			return
		}
		plan, err := parsed.Plan()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := json.Marshal(plan); err != nil {
			t.Fatal(err)
		}
		data, err := parsed.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := topology.ParseStored(data, nil)
		if err != nil {
			t.Fatal(err)
		}
		if again.Fingerprint() != parsed.Fingerprint() {
			t.Fatal("what was stored behaves differently")
		}
	})
}

// TestRejectedWithPlace has the cases of Apache Storm's topology integration tests: rejected at validation, with the place.
func TestRejectedWithPlace(t *testing.T) {
	for _, c := range []struct{ what, bolts, want string }{
		{"unknown node", "  - {id: a, kind: convert, from: x, save: c}", `t.yaml:4:34: unknown node "x"`},
		{"unknown field in a grouping", "  - {id: a, kind: convert, from: {node: s, by: [c]}, save: c}", `t.yaml:4:49: unknown field "c" in by`},
		{"unknown stream", "  - {id: a, kind: convert, from: {node: s, stream: x}, save: c}", `t.yaml:4:52: unknown stream "x"`},
		{"a cycle", "  - {id: a, kind: convert, from: [s, b], save: c}\n  - {id: b, kind: convert, from: a, save: c}", "t.yaml:4:38: cycle: a -> b -> a"},
		{"two spouts", "  - {id: a, kind: convert, from: s, save: c}\nspout: {}", "t.yaml:5:1: the key \"spout\" is given twice"},
		{"an unreachable node", "  - {id: a, kind: convert, from: s, save: c}\n  - {id: b, kind: convert, from: b, save: c}", `t.yaml:5:34: the node "b" is unreachable`},
		{"a duplicate name", "  - {id: a, kind: convert, from: s, save: c}\n  - {id: a, kind: convert, from: s, save: c}", `t.yaml:5:10: the id "a" is already taken at line 4`},
	} {
		source := "topology: t\nspout: {id: s, kafka: {brokers: b, topics: [t]}, fields: {a: number, b: number}}\nbolts:\n" + c.bolts
		_, problems := topology.Parse("t.yaml", []byte(source), topology.Options{})
		if !strings.Contains(problems.Error(), c.want) {
			t.Errorf("%s: got %v", c.what, problems)
		}
	}
}

// Bytes that would cost a parser much are refused before they do.
func TestLimits(t *testing.T) {
	bolts := "bolts:\n"
	for i := range topology.MaxBolts + 1 {
		bolts += fmt.Sprintf("  - {id: b%d, kind: convert, from: s, save: c}\n", i)
	}
	for name, c := range map[string]struct{ source, want string }{
		"long":      {"#" + strings.Repeat(" ", 1<<20), "at most 1048576"},
		"bolts":     {strings.Split(small, "bolts:")[0] + bolts, "at most 256"},
		"brackets":  {strings.Repeat("[", 500_000), "nested"},
		"braces":    {strings.Repeat("{a: ", 200_000), "nested"},
		"dashes":    {strings.Repeat("- ", 500_000), "nested"},
		"anchors":   {strings.Repeat("&a ", 300_000), "tokens"},
		"tags":      {strings.Repeat("! ", 500_000), "nested"},
		"questions": {strings.Repeat("? ", 500_000), "not allowed"},
		"items":     {"a: [" + strings.Repeat("a,", 300_000) + "]", "tokens"},
		"keys":      {strings.Repeat("a: b\n", 200_000), "tokens"},
		"few keys":  {strings.Repeat("a: b\n", 16_000), "unknown key"},
		"few items": {"a: [" + strings.Repeat("a,", 24_000) + "]", "unknown key"},
		"itself":    {"a: &a [*a]", "contains itself"},
		"no anchor": {"a: *a", "no anchor"},
		"tagged":    {"a: !!binary aGk=", "tags"},
		"latin 1":   {"a: \xe4", "UTF-8"},
		"NUL":       {"a\x00b: c", "t.yaml"},
		"tabs":      {"topology:\n\t- a\n", "t.yaml"},
	} {
		began := time.Now()
		parsed, problems := topology.Parse("t.yaml", []byte(c.source), topology.Options{})
		if parsed != nil || !strings.Contains(problems.Error(), c.want) {
			t.Errorf("%s: %.200s", name, problems.Error())
		}
		if d := time.Since(began); d > time.Minute {
			t.Errorf("%s took %v", name, d)
		} else if testing.Verbose() {
			t.Logf("%s: %v", name, d)
		}
	}
	for _, source := range []string{"\ufeff" + small, strings.ReplaceAll(small, "\n", "\r\n")} {
		if _, problems := topology.Parse("t.yaml", []byte(source), topology.Options{}); problems != nil {
			t.Error(problems)
		}
	}
}
