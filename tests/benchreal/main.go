// Benchreal runs `boltmesh bench` with the state of the device scenarios in a real redis-server and their documents in FerretDB, a MongoDB speaker.
// Contributors run it by `make bench-real`; flags after -- are those of `boltmesh bench`.
// It never measures anything itself, and never keeps what the servers stored.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/boltmesh/boltmesh/tests/integration/mesh"
	"github.com/boltmesh/boltmesh/tests/servers"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	bin := flag.String("bin", "", "directory with a boltmesh program to run instead of building one")
	flag.Parse()
	if err := run(ctx, *bin, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "benchreal:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, bin string, flags []string) (err error) {
	if bin == "" {
		if bin, err = os.MkdirTemp("", "boltmesh-benchreal-"); err != nil {
			return err
		}
		defer os.RemoveAll(bin)
		if err := mesh.Build(ctx, bin); err != nil {
			return err
		}
	}
	redis, err := servers.Redis(ctx, servers.Options{})
	if err != nil {
		return err
	}
	defer redis.Close()
	mongo, err := servers.Mongo(ctx, servers.Options{})
	if err != nil {
		return err
	}
	defer mongo.Close()
	all := append([]string{"bench", "--redis", redis.URL, "--mongo", mongo.URL}, flags...)
	for _, p := range []*servers.Process{redis, mongo} {
		all = append(all, "--store-pid", strconv.Itoa(p.PID()))
	}
	c := exec.CommandContext(ctx, filepath.Join(bin, "boltmesh"), all...)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	return c.Run()
}
