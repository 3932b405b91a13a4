//go:build compose

package compose

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/tests/integration/figures"
	"github.com/boltmesh/boltmesh/tests/integration/mesh"
	"github.com/boltmesh/boltmesh/tests/servers"
)

const (
	patience = 4 * time.Minute // for anything that is waited for, on a machine that does other things too
	project  = "boltmesh-test" // so that a deployment of somebody's own on this machine is not touched
	data     = "../../examples/machine-health/data"
	// name is that of the example's topology.
	name = "machine-health"
)

// published are the variables of the compose files that move a port of 127.0.0.1.
var published = []string{"NATS_PORT", "NATS_2_PORT", "NATS_3_PORT", "KAFKA_PORT", "REDIS_PORT", "MONGO_PORT", "JAEGER_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT"}

// stack is one deployment of the compose files.
type stack struct {
	t        *testing.T
	began    time.Time
	files    []string
	ports    map[string]int
	replicas int // of streams
	control  *control.Control
	mesh     *mesh.Mesh // asks the deployment from the host
}

// up starts a deployment from nothing and waits until all of it is healthy and the example is applied. It is taken down with the test.
func up(t *testing.T, replicas int, files ...string) *stack {
	t.Helper()
	s := fresh(t, replicas, files...)
	// What runs once is run by itself: --wait takes a container that has ended for one that failed.
	wait := append([]string{"-d", "--wait", "--wait-timeout", "200", "--no-build", "--pull", "never"}, s.lasting()...)
	s.must("up", wait...)
	s.say("everything is healthy")
	s.must("up", "--no-build", "--pull", "never", "--no-log-prefix", "--exit-code-from", "apply", "apply")
	s.say("the example is applied")
	s.connect()
	return s
}

// fresh is a deployment that is not there yet, and that is taken down with the test.
func fresh(t *testing.T, replicas int, files ...string) *stack {
	t.Helper()
	s := &stack{t: t, began: time.Now(), files: append([]string{"compose.yaml"}, files...), ports: freePorts(t), replicas: replicas}
	s.down()
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := s.compose(context.Background(), nil, "logs", "--no-color", "--tail", "15")
			t.Logf("%s", out)
			out, _ = s.compose(context.Background(), nil, "ps", "-a")
			t.Logf("%s", out)
		}
		s.down()
	})
	return s
}

// say prints what has come to pass, and how long after the beginning.
func (s *stack) say(format string, args ...any) {
	fmt.Printf("%7.1fs %s: %s\n", time.Since(s.began).Seconds(), s.t.Name(), fmt.Sprintf(format, args...))
}

// lasting are the services that are there to stay, without those whose image cannot be had.
func (s *stack) lasting() (names []string) {
	for _, n := range strings.Fields(string(s.must("config", "--services"))) {
		if n == "apply" || n == "feed" || n == "nats-volume" {
			continue
		}
		if n == "grafana" && !hasImage(s.t, "grafana") {
			s.say("grafana is left out: its image is not here")
			continue
		}
		names = append(names, n)
	}
	return names
}

func (s *stack) environment() []string {
	env := append(os.Environ(), "DOCKER_BUILDKIT=0", "COMPOSE_BAKE=false", "BOLTMESH_IMAGES="+project, "BOLTMESH_VERSION=test")
	for variable, port := range s.ports {
		env = append(env, variable+"="+strconv.Itoa(port))
	}
	return env
}

// compose runs docker compose on the deployment and returns what it has printed.
func (s *stack) compose(ctx context.Context, env []string, command string, args ...string) ([]byte, error) {
	argv := []string{"--project-name", project, "--ansi", "never", "--progress", "quiet"}
	for _, f := range s.files {
		argv = append(argv, "--file", "../../deploy/compose/"+f)
	}
	cmd := exec.CommandContext(ctx, composeProgram(), append(append(argv, command), args...)...)
	cmd.Env = append(s.environment(), env...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("docker compose %s %s: %w\n%s%s", command, strings.Join(args, " "), err, out.Bytes(), said.Bytes())
	}
	return out.Bytes(), nil
}

func (s *stack) must(command string, args ...string) []byte {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	out, err := s.compose(ctx, nil, command, args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// down removes the deployment with its volumes. It works when the test is over.
func (s *stack) down() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := s.compose(ctx, nil, "--profile", "feed", "down", "--volumes", "--remove-orphans", "--timeout", "10"); err != nil {
		s.t.Error(err)
	}
}

// connect makes the deployment answer questions from the host, by its published ports.
func (s *stack) connect() {
	s.t.Helper()
	url := "nats://" + s.at("NATS_PORT")
	if s.replicas > 1 {
		url += ",nats://" + s.at("NATS_2_PORT") + ",nats://" + s.at("NATS_3_PORT")
	}
	conn, err := jetstream.Connect(s.t.Context(), jetstream.Options{URL: url, Name: project, Replicas: s.replicas})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(conn.Close)
	if s.control, err = control.New(s.t.Context(), conn); err != nil {
		s.t.Fatal(err)
	}
	s.mesh = &mesh.Mesh{Kafka: &servers.Process{Name: "kafka", URL: s.at("KAFKA_PORT")}, Control: s.control}
	if s.mesh.Letters, err = conn.Letters(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

// at is where a port is published.
func (s *stack) at(variable string) string { return "127.0.0.1:" + strconv.Itoa(s.ports[variable]) }

// feed runs the profile of that name in the background; the channel tells how it ended.
func (s *stack) feed(rate int) <-chan error {
	ended := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(s.t.Context(), patience)
		defer cancel()
		out, err := s.compose(ctx, nil, "run", "--rm", "--no-deps", "-T", "feed", "feed", name, "--rate", strconv.Itoa(rate),
			"/examples/machine-health/data/machine_temperature.csv", "/examples/machine-health/data/ec2_cpu.csv")
		if err == nil {
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			s.say("fed: %s", lines[len(lines)-1])
		} else {
			s.say("the feed failed: %v", err)
		}
		ended <- err
	}()
	return ended
}

// fed waits until a share of the readings is in Kafka.
func (s *stack) fed(share float64) {
	s.t.Helper()
	all, err := figures.Rows(data)
	if err != nil {
		s.t.Fatal(err)
	}
	s.until(func(ctx context.Context) error {
		ends, err := s.mesh.Ends(ctx, "readings")
		if err != nil {
			return err
		}
		sum := int64(0)
		for _, end := range ends {
			sum += end
		}
		if float64(sum) < share*float64(all) {
			return fmt.Errorf("%d of %d readings are fed", sum, all)
		}
		return nil
	})
	s.say("%.0f %% of the readings are in Kafka", share*100)
}

// loaded fails the test if the feed has ended already: then what was just done was not done under load.
func (s *stack) loaded(feed <-chan error) {
	s.t.Helper()
	if len(feed) > 0 {
		s.t.Fatal("the feed was over before this was done")
	}
}

func (s *stack) until(ask func(context.Context) error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	if err := mesh.Until(ctx, ask); err != nil {
		s.t.Fatal(err)
	}
}

// exact waits for the end of the feed and until everything is processed, and compares all that is stored with the known figures.
func (s *stack) exact(feed <-chan error) {
	s.t.Helper()
	if err := <-feed; err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	top := &topology.Topology{Name: name}
	top.Spout.Kafka.Topics = []string{"readings"}
	if err := s.mesh.Settle(ctx, top); err != nil {
		s.t.Fatal(err)
	}
	s.say("everything is processed")
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://" + s.at("MONGO_PORT")))
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = client.Disconnect(context.WithoutCancel(ctx)) }()
	if err := figures.Check(ctx, client.Database("machines"), data); err != nil {
		s.t.Fatal(err)
	}
	letters, err := s.control.Letters(ctx, name, control.LetterFilter{})
	if err != nil || len(letters) > 0 {
		s.t.Fatalf("%d dead letters, %v", len(letters), err)
	}
	s.say("all figures are exact")
}

// container is what docker compose ps says of one.
type container struct{ ID, Service, Image, State string }

// containers are those of some services, of all when none is named.
func (s *stack) containers(services ...string) (all []container) {
	s.t.Helper()
	lines := bytes.TrimSpace(s.must("ps", append([]string{"--format", "json"}, services...)...))
	for line := range bytes.Lines(lines) {
		var c container
		if err := json.Unmarshal(line, &c); err != nil {
			s.t.Fatalf("%s: %v", line, err)
		}
		all = append(all, c)
	}
	return all
}

func freePorts(t *testing.T) map[string]int {
	t.Helper()
	ports := map[string]int{}
	for _, variable := range published {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // held until all are found, so that they differ
		ports[variable] = l.Addr().(*net.TCPAddr).Port
	}
	return ports
}
