package floors

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/boltmesh/boltmesh"

func TestImportPolicy(t *testing.T) {
	packages := list(t)
	if len(packages) == 0 {
		t.Fatal("go list names no package")
	}
	for _, p := range packages {
		for _, fault := range slices.Concat(check(p, policy), apart(p, distances), still(p), timeless(t, p)) {
			t.Error(fault)
		}
	}
}

// TestEveryRuleHasAReason keeps the table worth reading.
func TestEveryRuleHasAReason(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range policy {
		if strings.TrimSpace(r.why) == "" {
			t.Errorf("%s: no reason given", r.pkg)
		}
		if seen[r.pkg] {
			t.Errorf("%s: two rules", r.pkg)
		}
		seen[r.pkg] = true
	}
	for _, d := range slices.Concat(distances, clockAllowed) {
		if strings.TrimSpace(d.why) == "" {
			t.Errorf("%s, %s: no reason given", d.from, d.to)
		}
	}
}

// TestCheck shows that the check would find each kind of fault.
func TestCheck(t *testing.T) {
	rules := []rule{
		{"pkg/tuple", nothing, "bottom"},
		{"pkg/bolt", allow("pkg/tuple"), "engine"},
		{"pkg/redis", allow("pkg/tuple", "github.com/redis/go-redis/v9"), "adapter"},
		{"services/...", anything, "main"},
	}
	for name, tc := range map[string]struct {
		p    pkg
		want string // a part of the one fault; empty means none
	}{
		"standard library":     {pkg{ImportPath: "pkg/tuple", Imports: []string{"fmt", "encoding/json", "C"}}, ""},
		"allowed package":      {pkg{ImportPath: "pkg/bolt", Imports: []string{module + "/pkg/tuple"}}, ""},
		"allowed module":       {pkg{ImportPath: "pkg/redis", Imports: []string{"github.com/redis/go-redis/v9/internal"}}, ""},
		"similar module":       {pkg{ImportPath: "pkg/redis", Imports: []string{"github.com/redis/go-redis/v99"}}, "pkg/redis imports github.com/redis/go-redis/v99"},
		"upwards":              {pkg{ImportPath: "pkg/tuple", Imports: []string{module + "/pkg/bolt"}}, "pkg/tuple imports pkg/bolt"},
		"vendor in the engine": {pkg{ImportPath: "pkg/bolt", Imports: []string{"github.com/nats-io/nats.go"}}, "pkg/bolt imports github.com/nats-io/nats.go"},
		"unlisted":             {pkg{ImportPath: "pkg/util"}, "pkg/util is in no rule"},
		"below a listed one":   {pkg{ImportPath: "pkg/tuple/deep"}, "pkg/tuple/deep is in no rule"},
		"tree":                 {pkg{ImportPath: "services/stat/window", Imports: []string{"example.com/x"}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			tc.p.ImportPath = module + "/" + tc.p.ImportPath
			got := strings.Join(check(tc.p, rules), "\n")
			if (tc.want == "") != (got == "") || !strings.Contains(got, tc.want) {
				t.Errorf("check = %q, want %q", got, tc.want)
			}
		})
	}
}

func TestDistances(t *testing.T) {
	p := pkg{ImportPath: module + "/services/stat", Deps: []string{"fmt", module + "/pkg/devstack", module + "/pkg/bolt"}}
	got := strings.Join(apart(p, distances), "\n")
	if !strings.HasPrefix(got, "services/stat is built from pkg/devstack") {
		t.Errorf("apart = %q", got)
	}
	p.ImportPath = module + "/cmd/boltmesh"
	if got := apart(p, distances); len(got) != 0 {
		t.Errorf("apart = %q", got)
	}
}

func TestQuiet(t *testing.T) {
	dir := t.TempDir()
	source := "package p\n\nimport \"time\"\n\nvar _ = time.Now\n\nvar _ = time.Unix\n"
	if err := os.WriteFile(filepath.Join(dir, "p.go"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	p := pkg{ImportPath: module + "/pkg/bolt", Dir: dir, GoFiles: []string{"p.go"}, Imports: []string{"time", "log/slog", "context"}}
	if got := still(p); len(got) != 1 || !strings.Contains(got[0], "log/slog") {
		t.Errorf("still = %q", got)
	}
	if got := timeless(t, p); len(got) != 1 || !strings.Contains(got[0], "time.Now") {
		t.Errorf("timeless = %q", got)
	}
	p.ImportPath = module + "/pkg/jetstream"
	if got := slices.Concat(still(p), timeless(t, p)); len(got) != 0 {
		t.Errorf("an adapter is held to be quiet: %q", got)
	}
}

// pkg is what go list tells of a package. Imports are those of its non-test files.
type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
	Deps       []string // all that Imports lead to
}

func list(t *testing.T) []pkg {
	t.Helper()
	// -e: what does not compile still has imports; the compiler says the rest better.
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Dir,GoFiles,Imports,Deps", module+"/...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var packages []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

// check returns what a package does that its rule does not allow.
func check(p pkg, rules []rule) (faults []string) {
	name := local(p.ImportPath)
	i := slices.IndexFunc(rules, func(r rule) bool { return matches(r.pkg, name) })
	if i < 0 {
		return []string{name + " is in no rule: add it to tests/floors/policy.go, with a reason"}
	}
	r := rules[i]
	for _, imported := range p.Imports {
		if standard(imported) || r.may.allows(local(imported)) {
			continue
		}
		faults = append(faults, fmt.Sprintf("%s imports %s; it may import %s: %s", name, local(imported), r.may, r.why))
	}
	return faults
}

// apart returns which packages p is built from that it must keep away from.
func apart(p pkg, rules []distance) (faults []string) {
	name := local(p.ImportPath)
	for _, d := range rules {
		if !matches(d.from, name) {
			continue
		}
		for _, dep := range p.Deps {
			if matches(d.to, local(dep)) {
				faults = append(faults, fmt.Sprintf("%s is built from %s: %s", name, local(dep), d.why))
			}
		}
	}
	return faults
}

// still returns which noisy packages a quiet one imports.
func still(p pkg) (faults []string) {
	name := local(p.ImportPath)
	if !slices.Contains(quiet, name) {
		return nil
	}
	for _, imported := range p.Imports {
		if standard(imported) && noisy.allows(imported) {
			faults = append(faults, name+" imports "+imported+": a quiet package has no log, no files, no network, no chance")
		}
	}
	return faults
}

// timeless returns where a quiet package reads or follows the clock.
func timeless(t *testing.T, p pkg) (faults []string) {
	t.Helper()
	name := local(p.ImportPath)
	if !slices.Contains(quiet, name) {
		return nil
	}
	for _, file := range p.GoFiles {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, filepath.Join(p.Dir, file), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Error(err)
			continue
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			x, ok := call.X.(*ast.Ident)
			if !ok || x.Name != "time" || !slices.Contains(clock, call.Sel.Name) || excepted(name, call.Sel.Name) {
				return true
			}
			faults = append(faults, fmt.Sprintf("%s uses time.%s at %s: time comes to a quiet package as a value", name, call.Sel.Name, fset.Position(n.Pos())))
			return true
		})
	}
	return faults
}

func excepted(name, function string) bool {
	return slices.ContainsFunc(clockAllowed, func(d distance) bool { return d.from == name && d.to == function })
}

// local cuts the module's path off its own packages and leaves others as they are.
func local(path string) string { return strings.TrimPrefix(path, module+"/") }

// standard tells a package of the standard library by its first element, which has no dot.
func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}
