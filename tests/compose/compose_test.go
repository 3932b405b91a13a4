//go:build compose

package compose

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/boltmesh/boltmesh/tests/integration/mesh"
)

// TestAsWritten does what the compose file says at its top: up, all services at once in their order of start, and then the feed with its own command.
func TestAsWritten(t *testing.T) {
	s := fresh(t, 1)
	args := []string{"-d", "--no-build", "--pull", "never"}
	if !hasImage(t, "grafana") {
		args = append(args, "--scale", "grafana=0")
		s.say("grafana is left out: its image is not here")
	}
	s.must("up", args...)
	s.say("up -d has returned")
	s.connect()
	began := time.Now()
	fed := make(chan error, 1)
	fed <- func() error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err := s.compose(ctx, nil, "run", "--rm", "-T", "feed")
		return err
	}()
	s.say("the feed has ended, after %v", time.Since(began).Round(time.Second))
	s.exact(fed)
}

// TestScale feeds the example, makes three of stat while readings come in, and finds every figure exact, a trace of all five services, and the metrics of
// every replica.
func TestScale(t *testing.T) {
	s := up(t, 1)
	feed := s.feed(1500)
	s.fed(0.3)
	s.must("up", "-d", "--no-deps", "--no-build", "--no-recreate", "--pull", "never", "--wait", "--scale", "stat=3", "stat")
	s.loaded(feed)
	if n := len(s.containers("stat")); n != 3 {
		t.Errorf("%d containers of stat, want 3", n)
	}
	s.until(func(ctx context.Context) error { return s.owners(ctx, "temperature-totals", 3) })
	s.say("three replicas of stat share the tasks")
	s.loaded(feed)
	s.exact(feed)
	s.traced()
	s.scraped(7)
}

// TestUpgrade replaces convert by an image of another version while readings come in.
func TestUpgrade(t *testing.T) {
	s := up(t, 1)
	before := s.containers()
	feed := s.feed(1500)
	s.fed(0.3)
	if _, err := s.compose(t.Context(), []string{"BOLTMESH_VERSION=upgraded"}, "up", "-d", "--no-deps", "--no-build", "--pull", "never", "--wait", "convert"); err != nil {
		t.Fatal(err)
	}
	s.loaded(feed)
	s.say("convert is another image")
	for _, c := range s.containers() {
		same := slices.ContainsFunc(before, func(b container) bool { return b.ID == c.ID })
		switch {
		case c.Service == "convert" && (same || !strings.HasSuffix(c.Image, ":upgraded")):
			t.Errorf("convert runs %s", c.Image)
		case c.Service != "convert" && c.Service != "feed" && !same:
			t.Errorf("%s was replaced too", c.Service)
		}
	}
	s.until(func(ctx context.Context) error { return s.versions(ctx) })
	s.exact(feed)
}

// TestCluster kills the NATS server that leads a stream while readings come in, and does everything else without it.
func TestCluster(t *testing.T) {
	s := up(t, 3, "compose.cluster.yaml")
	feed := s.feed(1500)
	s.fed(0.3)
	leader := s.leader()
	s.must("kill", "--signal", "KILL", leader)
	s.loaded(feed)
	s.say("killed %s, the leader of convert's input", leader)
	s.exact(feed)
	if s.leader() == leader {
		t.Errorf("%s leads although it is dead", leader)
	}
	s.must("up", "-d", "--no-deps", "--no-build", "--no-recreate", "--pull", "never", "--wait", leader) // start has no --wait in compose 2.40
	s.say("%s is back and healthy", leader)
}

// owners wants a node's tasks to be divided among n workers.
func (s *stack) owners(ctx context.Context, node string, n int) error {
	members, err := s.control.Members(ctx, name)
	if err != nil {
		return err
	}
	owners := 0
	for _, m := range members {
		if m.Node == node && len(m.Tasks) > 0 {
			owners++
		}
	}
	if owners != n {
		return fmt.Errorf("%d workers own tasks of %s, want %d", owners, node, n)
	}
	return nil
}

// versions wants workers of convert to be of the new version, and all others of the old one.
func (s *stack) versions(ctx context.Context) error {
	members, err := s.control.Members(ctx, name)
	if err != nil {
		return err
	}
	for _, m := range members {
		want := "test"
		if m.Node == "clean" {
			want = "upgraded"
		}
		if m.Version != want {
			return fmt.Errorf("%s of node %s has version %q, want %q", m.Worker, m.Node, m.Version, want)
		}
	}
	return nil
}

// leader names the server that leads the input of the convert node, which is the name of its service too.
func (s *stack) leader() (server string) {
	s.t.Helper()
	s.until(func(ctx context.Context) error {
		nc, err := nats.Connect("nats://" + strings.Join([]string{s.at("NATS_PORT"), s.at("NATS_2_PORT"), s.at("NATS_3_PORT")}, ",nats://"))
		if err != nil {
			return err
		}
		defer nc.Close()
		js, err := natsjs.New(nc)
		if err != nil {
			return err
		}
		stream, err := js.Stream(ctx, "BM_"+name+"_clean_any")
		if err != nil {
			return err
		}
		info := stream.CachedInfo()
		if info.Config.Replicas != 3 || info.Cluster == nil || info.Cluster.Leader == "" {
			return fmt.Errorf("stream %s has %d copies, led by %+v", info.Config.Name, info.Config.Replicas, info.Cluster)
		}
		server = info.Cluster.Leader
		return nil
	})
	return server
}

// traced wants Jaeger to have a trace that runs through all five services.
func (s *stack) traced() {
	s.t.Helper()
	s.until(func(ctx context.Context) error {
		var answer struct {
			Data []struct {
				TraceID   string
				Processes map[string]struct{ ServiceName string }
			}
		}
		if err := fetch(ctx, "http://"+s.at("JAEGER_PORT")+"/api/traces?limit=100&lookback=1h&service=boltmesh-output", &answer); err != nil {
			return err
		}
		for _, trace := range answer.Data {
			through := map[string]bool{}
			for _, p := range trace.Processes {
				through[strings.TrimPrefix(p.ServiceName, "boltmesh-")] = true
			}
			if !slices.ContainsFunc(mesh.Kinds[:], func(kind string) bool { return !through[kind] }) {
				s.say("trace %s runs through all five services", trace.TraceID)
				return nil
			}
		}
		return fmt.Errorf("none of %d traces runs through all five services", len(answer.Data))
	})
}

// scraped wants Prometheus to reach n processes and to have the numbers of what they did.
func (s *stack) scraped(n float64) {
	s.t.Helper()
	for query, least := range map[string]float64{"count(boltmesh_build_info)": n, "sum(boltmesh_tuples_total)": 54_951, "sum(boltmesh_completed_total)": 1} {
		s.until(func(ctx context.Context) error {
			var answer struct {
				Data struct{ Result []struct{ Value [2]any } }
			}
			if err := fetch(ctx, "http://"+s.at("PROMETHEUS_PORT")+"/api/v1/query?query="+url.QueryEscape(query), &answer); err != nil {
				return err
			}
			var got float64
			if len(answer.Data.Result) == 1 {
				if _, err := fmt.Sscan(fmt.Sprint(answer.Data.Result[0].Value[1]), &got); err != nil {
					return err
				}
			}
			if got < least {
				return fmt.Errorf("%s is %v, want %v", query, got, least)
			}
			return nil
		})
	}
	s.say("Prometheus reaches %v processes", n)
}

func fetch(ctx context.Context, from string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", from, res.Status)
	}
	return json.NewDecoder(res.Body).Decode(into)
}
