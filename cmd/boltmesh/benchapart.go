package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/boltmesh/boltmesh/pkg/service"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// apartFlags are what a service in a process of its own is told.
type apartFlags struct {
	benchFlags
	kind, nats, dir, topology, name string
}

// newApart is one service of a bench in a process of its own, which then has the memory that this service needs and no other. It answers and ends as the
// brokers do.
func newApart() *cobra.Command {
	f := &apartFlags{}
	c := &cobra.Command{
		Use: "service", Hidden: true, Short: "One service for a bench, in a process of its own", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return f.serve(cmd) },
	}
	fs := c.Flags()
	fs.StringVar(&f.kind, "kind", "", "convert, stat, alarm or output")
	fs.StringVar(&f.nats, "at", "", "where NATS is")
	fs.StringVar(&f.dir, "dir", "", "where it keeps its SQLite files")
	fs.StringVar(&f.topology, "topology", "", "the file of its topology")
	fs.StringVar(&f.name, "database", "", "of its documents")
	f.storeFlags(fs)
	return c
}

func (f *apartFlags) serve(cmd *cobra.Command) (err error) {
	text, err := os.ReadFile(f.topology)
	if err != nil {
		return err
	}
	top, err := parseBench(string(text))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return err
	}
	s, err := f.openNamed(cmd.Context(), f.name, f.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.disconnect()) }()
	events := &meter{}
	m := &mesh{meshOptions: meshOptions{
		name: "bench", dir: f.dir, nats: f.nats, kinds: []string{f.kind}, sink: events.sink, log: os.Stderr, keep: s.keep(), store: s.documents(),
	}}
	service.BoundHeap(cmd.Context()) // as the services' own main does
	if err := m.open(top); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.stop()) }()
	if err := m.start(cmd.Context()); err != nil {
		return err
	}
	out := json.NewEncoder(cmd.OutOrStdout())
	if err := out.Encode(addresses{}); err != nil {
		return err
	}
	return answer(cmd.InOrStdin(), out, func(string) usage {
		u := processUsage()
		u.Bad = events.bad.Load()
		return u
	})
}

// startApart starts every service but the spout, which stays in this process.
func (t *trial) startApart(ctx context.Context, text string) error {
	file := filepath.Join(t.dir, "bench.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	for _, kind := range kinds {
		if kind == topology.KindSpout {
			continue
		}
		c, err := startChild(ctx, "service", "--kind", kind, "--at", t.brokers.NATS, "--dir", filepath.Join(t.dir, kind), "--topology", file,
			"--database", t.stores.name, "--redis", t.redis, "--mongo", t.mongo)
		if err != nil {
			return err
		}
		c.kind = kind
		t.others = append(t.others, c)
	}
	return nil
}
