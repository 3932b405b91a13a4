package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/rehearse/casefile"
)

// TestExampleCases runs the tests that stand beside the examples.
func TestExampleCases(t *testing.T) {
	code, out, errs := call(t, "test", "../../examples")
	if code != exitOK {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	topologies, err := filepath.Glob("../../examples/*/topology.yaml")
	if err != nil || len(topologies) < 2 {
		t.Fatalf("%d topologies (%v)", len(topologies), err)
	}
	for _, file := range topologies {
		if _, err := os.Stat(strings.TrimSuffix(file, ".yaml") + casefile.Suffix); err != nil {
			t.Errorf("%s has no tests", file)
		}
	}
	all, err := filepath.Glob("../../examples/*/*.yaml") // some examples have a second topology, of workers of one's own, which cases cannot run
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all {
		if strings.HasSuffix(file, casefile.Suffix) {
			continue
		}
		if code, out, errs := call(t, "validate", file); code != exitOK {
			t.Errorf("%s: %s%s", file, out, errs)
		}
	}
}

func TestFailingCases(t *testing.T) {
	code, out, errs := call(t, "test", "testdata/test/machines.yaml")
	if code != exitFailed || errs != "" {
		t.Errorf("exit %d: %s", code, errs)
	}
	golden(t, "test/failing.txt", out)

	code, out, _ = call(t, "test", "-o", "json", "--run", "^right$", "testdata/test")
	reports := decode[[]casefile.Report](t, out)
	if code != exitOK || len(reports) != 1 || len(reports[0].Results) != 1 || reports[0].Results[0].Name != "right" {
		t.Errorf("exit %d: %s", code, out)
	}
	code, out, _ = call(t, "test", "-o", "json", "testdata/test")
	var failed int
	for _, r := range decode[[]casefile.Report](t, out)[0].Results {
		failed += len(r.Failures)
	}
	if code != exitFailed || failed < 8 {
		t.Errorf("exit %d, %d failures", code, failed)
	}
	if _, out, _ := call(t, "test", "-v", "--run", "right", "testdata/test"); !strings.Contains(out, "ok    testdata/test/machines.test.yaml:4: right (") {
		t.Error(out)
	}
}

// TestUpdateCases writes what came into a file; then all pass, and what had been right stays as it was.
func TestUpdateCases(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"machines.yaml", "machines.test.yaml"} {
		b, err := os.ReadFile(filepath.Join("testdata/test", name))
		if err != nil {
			t.Fatal(err)
		}
		text := string(b)
		if strings.HasSuffix(name, casefile.Suffix) { // this one stands in one line: it is a test of its own below
			text = strings.ReplaceAll(text, "          alarms: {hot: {m1: {state: cleared}}}", "          alarms:\n            hot: {m1: {state: cleared}}")
			text = strings.ReplaceAll(text, "given: [\"no reading\"]\n\n", "given: [\"no reading\"]\n    expect:\n      errors:\n\n")
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if code, out, errs := call(t, "test", "--update", dir); code != exitOK || !strings.Contains(out, "read the difference") {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}
	got, err := os.ReadFile(filepath.Join(dir, "machines.test.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "test/updated.yaml", string(got))
	if code, out, errs := call(t, "test", dir); code != exitOK {
		t.Errorf("exit %d after an update: %s%s", code, out, errs)
	}
}

func TestBrokenCases(t *testing.T) {
	dir := t.TempDir()
	topology, err := os.ReadFile("testdata/test/machines.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "t.yaml"), topology, 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "t.test.yaml")
	for text, want := range map[string]string{
		"cases: [":                       "not YAML",
		"":                               "one document",
		"cases: []":                      "at least one case",
		"tests: []":                      `t.test.yaml:1:1: the file has no "tests"`,
		"cases: [{given: []}]":           "the case has no name",
		"cases: [{name: a, gives: []}]":  `:1:19: a case has no "gives"`,
		"cases: [{name: a, wait: soon}]": "wait is a duration",
		"cases: [{name: a, steps: [{given: {}}]}]":             "given is a list",
		"cases: [{name: a, expect: {emitted: {hto: []}}}]":     `no node "hto": it has in, clean, often, hot`,
		"cases: [{name: a, expect: {documents: {hot: []}}}]":   `no collection "hot"`,
		"cases: [{name: a, state: {often: {m1: {n: 1}}}}]":     "give it readings instead",
		"cases: [{name: a, archive: {m1: 5}}]":                 "profile of m1",
		"cases: [{name: a, name: b}]":                          "already defined",
		"topology: gone.yaml\ncases: [{name: a}]":              "gone.yaml",
		"cases: [{name: a, expect: {state: {clean: {a: b}}}}]": "clean keeps no state",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, out, errs := call(t, "test", file); code != exitUsage || !strings.Contains(errs, want) {
			t.Errorf("%s: exit %d, want 2 and %q: %s%s", text, code, want, out, errs)
		}
	}
	for args, want := range map[string]string{
		"test --run ( .": "--run", "test nowhere": "nowhere", "test testdata/help": "no file below", "test testdata/good.yaml": "has no tests",
		"test --run nothing testdata/test": "no case has such a name",
	} {
		if code, _, errs := call(t, strings.Fields(args)...); code != exitUsage || !strings.Contains(errs, want) {
			t.Errorf("%s: exit %d: %s", args, code, errs)
		}
	}
}

func TestHelpOfTools(t *testing.T) {
	for _, verb := range []string{"graph", "test", "try"} {
		help, _, _ := strings.Cut(ok(t, verb, "--help"), "Global Flags:")
		if !strings.Contains(help, "Examples:") {
			t.Errorf("%s: without an example", verb)
		}
		golden(t, "help/"+verb+".txt", help)
	}
}
