// Package compose tests deploy/compose: the files as they are written, and (with the build tag compose, by `make compose-test`) what they deploy, end to
// end. Contributors run it. It never looks into a container: what it knows comes from published ports and docker compose itself.
package compose

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"go/version"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/boltmesh/boltmesh/pkg/observe"
	"github.com/boltmesh/boltmesh/pkg/trace"
)

// service is what these tests look at of an entry in a compose file.
type service struct {
	Image         string
	Build         any
	User          string
	ReadOnly      bool     `yaml:"read_only"`
	CapDrop       []string `yaml:"cap_drop"`
	SecurityOpt   []string `yaml:"security_opt"`
	ContainerName string   `yaml:"container_name"`
	Restart       string
	Ports         []string
	Environment   map[string]string
	Healthcheck   any
	Deploy        struct {
		Resources struct{ Limits map[string]any }
	}
}

type composeFile struct{ Services map[string]service }

func readCompose(t *testing.T, name string) (f composeFile) {
	t.Helper()
	decode(t, name, &f)
	return f
}

func decode(t *testing.T, name string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../deploy/compose", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalWithOptions(text, into, yaml.AllowDuplicateMapKey()); err != nil { // what follows a merge may say otherwise
		t.Fatalf("%s: %v", name, err)
	}
}

// layered is what the first file comes to with the second on top of it, as with two -f. What the second overrides is kept beside it: both are to be right.
func layered(t *testing.T, below, above string) (f composeFile) {
	t.Helper()
	var all, more struct{ Services map[string]map[string]any }
	decode(t, below, &all)
	decode(t, above, &more)
	for name, s := range more.Services {
		if from, _ := s["extends"].(map[string]any); from != nil && from["file"] == below {
			s = lay(all.Services[from["service"].(string)], s)
		}
		more.Services[name] = lay(all.Services[name], s)
	}
	maps.Copy(all.Services, more.Services)
	text, err := yaml.Marshal(all)
	if err == nil {
		err = yaml.Unmarshal(text, &f)
	}
	if err != nil {
		t.Fatalf("%s on top of %s: %v", above, below, err)
	}
	return f
}

// lay returns what is below with what is above on it: mappings key by key, lists one after the other.
func lay(below, above map[string]any) map[string]any {
	out := maps.Clone(below)
	if out == nil {
		out = map[string]any{}
	}
	for key, value := range above {
		switch v := value.(type) {
		case map[string]any:
			if b, ok := out[key].(map[string]any); ok {
				value = lay(b, v)
			}
		case []any:
			if b, ok := out[key].([]any); ok {
				value = slices.Concat(b, v)
			}
		}
		out[key] = value
	}
	return out
}

// TestHardened holds every container to the same rules, those of the cluster too.
func TestHardened(t *testing.T) {
	alone, cluster := readCompose(t, "compose.yaml"), layered(t, "compose.yaml", "compose.cluster.yaml")
	if len(cluster.Services) != len(alone.Services)+2 {
		t.Errorf("the cluster has %d services, want two more than %d", len(cluster.Services), len(alone.Services))
	}
	for name, f := range map[string]composeFile{"compose.yaml": alone, "compose.cluster.yaml": cluster} {
		t.Run(name, func(t *testing.T) { hardened(t, f) })
	}
}

func hardened(t *testing.T, f composeFile) {
	t.Helper()
	pinned := regexp.MustCompile(`:v?\d+\.\d+\.\d+(-[a-z]+)?$`)
	secret := regexp.MustCompile(`(?i)password|secret|token`)
	kinds := []string{"spout", "convert", "stat", "alarm", "output"}
	once := []string{"apply", "feed", "nats-volume"}
	for name, s := range f.Services {
		own := s.Build != nil
		if !own && !pinned.MatchString(s.Image) {
			t.Errorf("%s: image %q has no exact version", name, s.Image)
		}
		if uid, _, _ := strings.Cut(s.User, ":"); (uid == "" || uid == "0" || uid == "root") && name != "nats-volume" {
			t.Errorf("%s: user %q", name, s.User)
		}
		if !s.ReadOnly || !slices.Contains(s.CapDrop, "ALL") || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s may write to its image, or has rights that it does not need", name)
		}
		for _, limit := range []string{"cpus", "memory", "pids"} {
			if s.Deploy.Resources.Limits[limit] == nil {
				t.Errorf("%s: no limit of %s", name, limit)
			}
		}
		for _, p := range s.Ports {
			if !strings.HasPrefix(p, "127.0.0.1:") {
				t.Errorf("%s: port %s is not on loopback only", name, p)
			}
		}
		for variable, value := range s.Environment {
			if secret.MatchString(variable) && value != "" {
				t.Errorf("%s: %s is a secret in the file", name, variable)
			}
		}
		if s.Restart == "" {
			t.Errorf("%s: no restart policy", name)
		}
		if !own && s.Healthcheck == nil && !slices.Contains(once, name) {
			t.Errorf("%s: no health check", name)
		}
		if slices.Contains(kinds, name) && (s.ContainerName != "" || len(s.Ports) > 0) {
			t.Errorf("%s has a name or a port of its own, so it cannot be scaled", name)
		}
	}
	for _, kind := range kinds {
		if _, there := f.Services[kind]; !there {
			t.Errorf("no service %s", kind)
		}
	}
}

// TestGoIsPinned: whoever builds the images gets the same compiler, in every file that names it and not below go.mod's.
func TestGoIsPinned(t *testing.T) {
	named := regexp.MustCompile(`golang:([\w.-]+)`)
	pinned := regexp.MustCompile(`^1\.\d+\.\d+$`)
	seen := map[string]string{}
	for _, file := range []string{"../../deploy/compose/Dockerfile", "../../deploy/compose/compose.yaml", "forge.sh"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		m := named.FindSubmatch(text)
		if m == nil || !pinned.Match(m[1]) {
			t.Fatalf("%s: %s is no exact version of Go", file, m)
		}
		seen[string(m[1])] = file
	}
	if len(seen) != 1 {
		t.Errorf("several versions of Go: %v", seen)
	}
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	least := regexp.MustCompile(`(?m)^go (\S+)$`).FindSubmatch(mod)
	for v := range seen {
		if version.Compare("go"+v, "go"+string(least[1])) < 0 {
			t.Errorf("golang:%s is older than go.mod wants, %s", v, least[1])
		}
	}
}

// TestHowItIsStarted: --wait takes a container that has ended, as apply and nats-volume do, for one that failed, so nobody is told to use it.
func TestHowItIsStarted(t *testing.T) {
	for _, file := range []string{"../../deploy/compose/compose.yaml", "../../deploy/compose/compose.cluster.yaml", "../../docs/deploy.md", "../../README.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, "docker compose") && strings.Contains(line, "--wait") {
				t.Errorf("%s: %s", file, line)
			}
		}
	}
}

// TestDashboard wants every metric that the dashboard asks for to be one that the services export.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("../../deploy/compose/grafana/dashboards/boltmesh.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	known := exported(t)
	word := regexp.MustCompile(`\b(boltmesh|process)_[a-z_]+`)
	asked := 0
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			for _, name := range word.FindAllString(target.Expr, -1) {
				asked++
				if !slices.Contains(known, strings.TrimSuffix(name, "_bucket")) {
					t.Errorf("panel %q asks for %s, which nobody exports", p.Title, name)
				}
			}
		}
	}
	if asked < 20 {
		t.Errorf("%d metrics were found in the dashboard", asked)
	}
}

// exported are the names of all metrics of a service: it is told one event of each kind that has numbers, as a bolt and as a spout.
func exported(t *testing.T) (names []string) {
	t.Helper()
	o, err := observe.New(observe.Options{Service: "test", HTTPAddr: "127.0.0.1:0", LogWriter: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close(context.WithoutCancel(t.Context())) })
	bolt := trace.Where{Topology: "t", Node: "n", Kind: "stat"}
	spout := trace.Where{Topology: "t", Node: "s", Kind: "spout"}
	tell := o.Sink()
	tell.Emit(trace.Stepped{Where: bolt, Commit: time.Second})
	tell.Emit(trace.Cached{Where: bolt, Cache: "stateCache"})
	tell.Emit(trace.Completed{Where: spout})
	tell.Emit(trace.Overdue{Where: spout})
	tell.Emit(trace.Progress{Where: spout, Watermark: 1})
	res, err := http.Get("http://" + o.Addr() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if name, ok := strings.CutPrefix(lines.Text(), "# TYPE "); ok {
			name, _, _ = strings.Cut(name, " ")
			names = append(names, name)
		}
	}
	return names
}

// installed says what to install where programs of Docker are missing.
func installed(programs ...string) error {
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			return fmt.Errorf("%w: install Docker (Debian: sudo apt-get install docker.io)", err)
		}
	}
	return nil
}

// TestWithoutDocker: who has no Docker is told where it comes from.
func TestWithoutDocker(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if err := installed("docker", "dockerd"); err == nil || !strings.Contains(err.Error(), "apt-get install docker.io") {
		t.Errorf("told %v", err)
	}
}
