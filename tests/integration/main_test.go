// Package integration shows boltmesh as it is deployed: five services as processes of their own on real servers, fed, broken and looked at from outside.
// CI and contributors run it. It never looks into a service: what it knows comes from MongoDB, Jaeger, the dead letters and /metrics.
package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/tests/integration/figures"
	"github.com/boltmesh/boltmesh/tests/integration/mesh"
	"github.com/boltmesh/boltmesh/tests/servers"
)

// binaries is where TestMain has built the services.
var binaries string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "boltmesh-integration-")
		if err == nil {
			defer os.RemoveAll(dir)
			binaries = dir
			err = mesh.Build(context.Background(), dir)
		}
		for _, worker := range []string{"a", "b"} {
			if err == nil {
				err = buildExample(dir, "foreman-"+worker, "foreman/"+worker)
			}
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// buildExample compiles an example's program.
func buildExample(dir, name, example string) error {
	out, err := exec.Command("go", "build", "-o", filepath.Join(dir, name), "../../examples/"+example).CombinedOutput()
	if err != nil {
		return fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	return nil
}

// patience bounds what a test waits for; a loaded machine with two cores needs a part of it.
const patience = 5 * time.Minute

// start runs a mesh for the length of a test. A failed test is shown the end of every log, and a process that has ended by itself fails it.
func start(t *testing.T, o mesh.Options) *mesh.Mesh {
	t.Helper()
	o.Bin, o.Dir = binaries, t.TempDir()
	began := time.Now()
	m, err := mesh.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("servers and services are up after %v", time.Since(began).Round(time.Millisecond))
	t.Cleanup(func() {
		if dead := m.Dead(); len(dead) > 0 {
			t.Errorf("ended by themselves: %s", strings.Join(dead, ", "))
		}
		if t.Failed() {
			tails := &strings.Builder{}
			m.Tails(tails, 12)
			t.Log(tails)
		}
		m.Close()
	})
	return m
}

func apply(t *testing.T, m *mesh.Mesh, file string) *topology.Topology {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	top, err := m.Apply(ctx, file)
	if err != nil {
		t.Fatal(err)
	}
	return top
}

func settle(t *testing.T, m *mesh.Mesh, top *topology.Topology) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	began := time.Now()
	if err := m.Settle(ctx, top); err != nil {
		t.Fatal(err)
	}
	t.Logf("settled after %v", time.Since(began).Round(time.Millisecond))
}

// database opens what a topology's output has stored.
func database(t *testing.T, m *mesh.Mesh, name string) *mongo.Database {
	t.Helper()
	client, err := mongo.Connect(options.Client().ApplyURI(m.Mongo.URL))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Disconnect(context.WithoutCancel(t.Context())) })
	return client.Database(name)
}

// stored reads a whole collection.
func stored[T any](t *testing.T, db *mongo.Database, collection string) []T {
	t.Helper()
	out, err := figures.Stored[T](t.Context(), db, collection)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// noLetters fails the test if anything was dead-lettered.
func noLetters(t *testing.T, m *mesh.Mesh, topology string) {
	t.Helper()
	for _, l := range letters(t, m, topology) {
		t.Errorf("dead letter of %s: %s: %s", l.Node, l.Error, l.Payload)
	}
}

// exitsClean stops a process by SIGTERM and wants exit code 0.
func exitsClean(t *testing.T, p *servers.Process) {
	t.Helper()
	began := time.Now()
	if err := p.Stop(); err != nil {
		t.Error(err)
		return
	}
	code, err := p.ExitCode()
	if err != nil || code != 0 {
		t.Errorf("%s: exit code %d, %v", p.Name, code, err)
	}
	t.Logf("%s drained in %v", p.Name, time.Since(began).Round(time.Millisecond))
}

func example(name string) string {
	return filepath.Join("..", "..", "examples", "machine-health", name)
}
