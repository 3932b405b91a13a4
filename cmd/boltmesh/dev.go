package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/boltmesh/boltmesh/examples"
	"github.com/boltmesh/boltmesh/pkg/feed"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// devFlags are what `boltmesh dev` is told.
type devFlags struct {
	topology string
	archives string
	feeds    []string
	rate     string
	once     bool
	export   string
	output   string
	dataDir  string
	otlp     string
	stdin    io.Reader
}

func newDev() *cobra.Command {
	f := &devFlags{}
	c := &cobra.Command{
		Use:   "dev [DIR]",
		Short: "Run a topology in this one process, with NATS, Kafka and the stores inside",
		Long: `Runs the five services, NATS with JetStream and a Kafka broker in one process, with SQLite for state and documents.
It applies a topology, feeds it data, prints what came of it and stays up until Ctrl-C.

A directory stands for --topology DIR/topology.yaml, --archives DIR/archives.csv (or .jsonl) and a --feed for each file in DIR/data, if they are there;
files such as a.truth.csv, with a further dot in their names, are left out. Without either it runs the machine-health example on its readings.`,
		Example: `  boltmesh dev
  boltmesh dev examples/air-quality --once
  boltmesh dev --once -o json
  boltmesh dev --topology my.yaml --feed readings.csv --feed more.jsonl.gz --export out
  cat readings.jsonl | boltmesh dev --topology my.yaml --feed - --once`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, dirs []string) error {
			if len(dirs) > 0 {
				if err := f.directory(dirs[0]); err != nil {
					return err
				}
			}
			f.stdin = cmd.InOrStdin()
			f.output, _ = cmd.Flags().GetString("output")
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
			cmd.SilenceUsage = true
			return dev(ctx, f, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	fs := c.Flags()
	fs.StringVar(&f.topology, "topology", "", "topology file (default: the machine-health example)")
	fs.StringVar(&f.archives, "archives", "", "file with the profiles of devices, as boltmesh archives import takes it")
	fs.StringArrayVar(&f.feeds, "feed", nil, "data file to feed: CSV with a header, or JSON lines; .gz too; - is stdin; repeatable")
	fs.StringVar(&f.rate, "rate", "", "readings to feed per second, such as 1000/s (default: as fast as they are taken)")
	fs.BoolVar(&f.once, "once", false, "exit when everything fed has been processed; non-zero if anything was dead-lettered or lost")
	fs.StringVar(&f.export, "export", "", "directory to write every collection to, as <collection>.jsonl")
	fs.StringVar(&f.dataDir, "data-dir", "", "where to keep everything (default: a temporary directory, removed at exit)")
	fs.StringVar(&f.otlp, "otlp", "", "send traces to this OTLP endpoint, such as http://localhost:4318")
	return c
}

// errNotClean is the answer of --once when something was dead-lettered or lost: the summary has said what.
var errNotClean = errors.New("not everything was processed")

func dev(ctx context.Context, f *devFlags, stdout, stderr io.Writer) (err error) {
	if _, err := parseRate(f.rate); err != nil {
		return usageError{err}
	}
	if f.dataDir == "" {
		if f.dataDir, err = os.MkdirTemp("", "boltmesh-dev-"); err != nil {
			return err
		}
		defer os.RemoveAll(f.dataDir)
	} else if err := os.MkdirAll(f.dataDir, 0o755); err != nil {
		return err
	}
	if f.topology == "" {
		if err := f.example(); err != nil {
			return err
		}
	}
	t, err := readTopology(f.topology)
	if err != nil {
		return err
	}
	m, err := startMesh(ctx, f, t, stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.stop()) }()
	if err := m.apply(ctx); err != nil {
		return err
	}
	if f.output != "json" {
		m.announce(stderr)
	}
	s, err := m.process(ctx, f, stderr)
	switch {
	case ctx.Err() != nil:
		return nil // Ctrl-C while feeding: drain, say nothing
	case err != nil:
		return err
	}
	if err := s.print(stdout, f.output); err != nil {
		return err
	}
	if f.export != "" {
		if err := m.export(ctx, f.export, stderr); err != nil {
			return err
		}
	}
	if f.once {
		if !s.clean() {
			return fmt.Errorf("%w: %s", errNotClean, s.unclean())
		}
		return nil
	}
	fmt.Fprintln(stderr, "Running until Ctrl-C.")
	<-ctx.Done()
	fmt.Fprintln(stderr, "Draining.")
	return nil
}

// example unpacks the example that comes with the program, and feeds its data.
func (f *devFlags) example() error {
	dir := filepath.Join(f.dataDir, "example")
	if err := os.CopyFS(dir, examples.MachineHealth); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("unpack the example: %w", err)
	}
	base := filepath.Join(dir, "machine-health")
	f.topology = filepath.Join(base, "topology.yaml")
	if len(f.feeds) == 0 {
		f.feeds = []string{filepath.Join(base, "data", "machine_temperature.csv"), filepath.Join(base, "data", "ec2_cpu.csv")}
	}
	return nil
}

// process feeds the files and waits until everything has gone through, open windows included.
func (m *devMesh) process(ctx context.Context, f *devFlags, stderr io.Writer) (*summary, error) {
	began := time.Now()
	spec := m.plan.Topology.Spout
	spec.Kafka = m.kafka(spec.Kafka)
	var result feed.Result
	if len(f.feeds) > 0 {
		rate, err := parseRate(f.rate)
		if err != nil {
			return nil, usageError{err}
		}
		bar := newBar(stderr, f.output == "json", m.counts)
		defer bar.close()
		result, err = feed.Run(ctx, feed.Options{
			Spout: spec, Files: f.feeds, Stdin: f.stdin, Rate: rate, Partitions: devPartitions, Progress: bar.fed,
		})
		if err != nil {
			return nil, err
		}
		if err := m.await(ctx, result.Ends); err != nil {
			return nil, err
		}
		if err := m.control.Flush(ctx, m.plan.Topology.Name); err != nil {
			return nil, err
		}
	}
	return m.summary(ctx, result, time.Since(began))
}

// await returns when every offset below ends is fully processed.
func (m *devMesh) await(ctx context.Context, ends map[string]int64) error {
	for at, end := range ends {
		i := strings.LastIndexByte(at, '/')
		origin := m.origin(at[:i], at[i+1:])
		if err := m.counts.await(ctx, origin, end); err != nil {
			return err
		}
	}
	return nil
}

// announce says what runs where.
func (m *devMesh) announce(w io.Writer) {
	fmt.Fprintf(w, "topology  %s (%d nodes)\n", m.plan.Topology.Name, len(m.plan.Nodes))
	fmt.Fprintf(w, "NATS      %s\n", m.stack.NATSURL())
	fmt.Fprintf(w, "Kafka     %s  topics %s\n", strings.Join(m.stack.KafkaBrokers(), ","), strings.Join(m.topics, ","))
	fmt.Fprintf(w, "documents %s\n", m.documentsFile)
	fmt.Fprintf(w, "archives  boltmesh archives ls --archive %s --sqlite %s --nats %s\n", m.plan.Topology.Archive.Name, filepath.Join(m.dir, "state.db"), m.stack.NATSURL())
	fmt.Fprintf(w, "metrics   http://%s/metrics\n", m.observer.Addr())
	if m.observer.Tracing() {
		fmt.Fprintln(w, "traces    on")
	}
}

// topicsOf lists the topics that a topology reads.
func topicsOf(p *topology.Plan) []string {
	topics := slices.Clone(p.Topology.Spout.Kafka.Topics)
	slices.Sort(topics)
	return slices.Compact(topics)
}
