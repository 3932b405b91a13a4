// Package servers starts the real servers that boltmesh talks to (NATS, Kafka, Redis, a MongoDB speaker, Jaeger) as
// child processes on free loopback ports, and kills, pauses and restarts them.
// Integration tests and the chaos program use it; both speak to the servers with the product's own clients.
// It never installs anything and never leaves a server behind: on Linux a child dies with its parent, however that dies.
package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// ErrMissing is wrapped by the error of a start whose program is not on this machine; the message says what installs it.
var ErrMissing = errors.New("not installed")

// Options says where a server keeps its data. The zero value gives it a temporary directory.
type Options struct {
	// Dir holds the server's data and its log, and outlives the server. Empty means a temporary directory that Close
	// removes. Two servers never share one.
	Dir string

	// Config is added to the server's configuration, one line an element, in the server's own language: settings of
	// nats-server ("jetstream {...}" excepted), properties of Kafka, directives of Redis ("maxmemory 10mb"), flags of
	// Jaeger ("--log-level=debug"). It is ignored by Mongo.
	Config []string

	// Tools is the directory that `make tools` fills. Empty means $BOLTMESH_TOOLS, or .cache/tools of the repository.
	Tools string

	// StartTimeout bounds one start or restart, on top of its context; zero means one minute.
	StartTimeout time.Duration
}

// Starter is any of NATS, Kafka, Redis, Mongo and Jaeger. The context bounds the start only.
type Starter func(ctx context.Context, o Options) (*Process, error)

// TB is what Run needs of a *testing.T.
type TB interface {
	Helper()
	Context() context.Context
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
	Failed() bool
	Cleanup(func())
}

// Run starts a server for a test and closes it at the test's end, when a failed test is also shown the end of its log.
// A server that does not start, or is not installed, fails the test.
func Run(tb TB, start Starter, o Options) *Process {
	tb.Helper()
	p, err := start(tb.Context(), o)
	if err != nil {
		tb.Fatalf("%v", err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("end of %s:\n%s", p.LogFile(), tail(p.LogFile(), 20))
		}
		p.Close()
	})
	return p
}

// tool finds a program or directory that `make tools` provides.
func (o Options) tool(name string) (string, error) {
	dir := o.Tools
	if dir == "" {
		dir = os.Getenv("BOLTMESH_TOOLS")
	}
	if dir == "" {
		root, err := repository()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(root, ".cache", "tools")
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s: %w: %s does not exist; run `make tools`", name, ErrMissing, path)
	}
	return path, nil
}

// program finds a program of the system that a Debian package provides.
func program(name, pkg string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s: %w: run `apt-get install %s`", name, ErrMissing, pkg)
	}
	return path, nil
}

// repository is the directory of boltmesh's go.mod, searched upwards from the working directory.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(mod), "module github.com/boltmesh/boltmesh\n") {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("not inside the boltmesh repository: set BOLTMESH_TOOLS to the directory that `make tools` fills")
		}
		dir = up
	}
}
