// Package compose tests deploy/compose: the files as they are written, and (with the build tag compose, by `make compose-test`) what they deploy, end to
// end. Contributors run it. It never looks into a container: what it knows comes from published ports and docker compose itself.
package compose

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
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

func readCompose(t *testing.T, name string) composeFile {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../deploy/compose", name))
	if err != nil {
		t.Fatal(err)
	}
	var f composeFile
	if err := yaml.UnmarshalWithOptions(text, &f, yaml.AllowDuplicateMapKey()); err != nil { // what follows a merge may say otherwise
		t.Fatalf("%s: %v", name, err)
	}
	return f
}

// TestHardened holds every container of the compose file to the same rules.
func TestHardened(t *testing.T) {
	pinned := regexp.MustCompile(`:v?\d+\.\d+\.\d+(-[a-z]+)?$`)
	secret := regexp.MustCompile(`(?i)password|secret|token`)
	kinds := []string{"spout", "convert", "stat", "alarm", "output"}
	once := []string{"apply", "feed", "nats-volume"}
	f := readCompose(t, "compose.yaml")
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
