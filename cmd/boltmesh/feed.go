package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/feed"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// feedFlags are what feed is told.
type feedFlags struct {
	file       string // of the topology
	topic      string
	rate       string
	again      bool
	partitions int
}

func newFeed(c *cli) *cobra.Command {
	f := &feedFlags{}
	cmd := &cobra.Command{
		Use:   "feed TOPOLOGY FILE...",
		Short: "Write the rows of data files into a topology's Kafka topic",
		Long: `Files are CSV with a header, or JSON lines, also compressed by gzip; - is standard input. Each row becomes one record whose key is the device, in the
partition that Java's producers would choose (murmur2). Several files are merged by event time. The topic is created if it is missing.

A file that was fed before is not fed twice: rows that the topic holds are found by their headers (feed-file, feed-row), and only the missing ones are
written. So a feed that was interrupted is simply started again. Rows that cannot be read are written as they are, and become dead letters.

The topology must be applied, unless it is given as a file: then NATS is not asked. Where Kafka is follows from the topology; its ${VAR} are read here.`,
		Example: `  boltmesh feed machine-health readings.csv
  boltmesh feed machine-health jan.csv.gz feb.csv.gz --rate 5000/s
  boltmesh feed --topology topology.yaml readings.jsonl
  zcat *.gz | boltmesh feed machine-health -`,
		RunE: func(cmd *cobra.Command, given []string) error {
			return c.feed(cmd.Context(), f, given, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Args = args(func(cmd *cobra.Command, given []string) error {
		if f.file != "" {
			return cobra.MinimumNArgs(1)(cmd, given)
		}
		return cobra.MinimumNArgs(2)(cmd, given)
	})
	fs := cmd.Flags()
	fs.StringVar(&f.file, "topology", "", "topology file, instead of the name of an applied one")
	fs.StringVar(&f.topic, "topic", "", "topic to write to (default: the spout's first)")
	fs.StringVar(&f.rate, "rate", "", "rows a second, as 500 or 500/s, or a minute, as 500/m (default: as fast as they are taken)")
	fs.BoolVar(&f.again, "again", false, "write every row, also those that the topic holds")
	fs.IntVar(&f.partitions, "partitions", feed.DefaultPartitions, "partitions of the topic, if it has to be created")
	return cmd
}

func (c *cli) feed(ctx context.Context, f *feedFlags, given []string, stdin io.Reader, out, errOut io.Writer) error {
	rate, err := parseRate(f.rate)
	if err != nil {
		return usageError{err}
	}
	spec, files, err := c.feedTarget(ctx, f, given)
	if err != nil {
		return err
	}
	if spec.Kafka, err = spec.Kafka.Resolve(os.LookupEnv); err != nil {
		return err
	}
	bar := newFeedBar(errOut)
	began := time.Now()
	r, err := feed.Run(ctx, feed.Options{
		Spout: spec, Topic: f.topic, Files: files, Stdin: stdin, Partitions: f.partitions, Rate: rate, Again: f.again, Patience: c.timeout, Progress: bar.show,
	})
	bar.finish()
	if err != nil {
		if r.Sent() > 0 && !f.again {
			err = fmt.Errorf("%w\n%d rows were written; the same command writes the others", err, r.Sent())
		}
		return err
	}
	if err := c.print(out, r, func(t *tabwriter.Writer) { fed(t, &r, time.Since(began)) }); err != nil {
		return err
	}
	for _, f := range r.Files {
		if f.Bad > 0 {
			fmt.Fprintf(errOut, "%s: %d rows will be dead letters; the first: %s\n", f.File, f.Bad, f.FirstBad)
		}
		if f.Refused > 0 {
			fmt.Fprintf(errOut, "%s: %d rows are too large for the broker and were left out (raise the topic's max.message.bytes, or shorten them); the first: %s\n",
				f.File, f.Refused, f.FirstRefused)
			err = errSaid
		}
	}
	return err
}

// feedTarget finds the spout to feed and the files to feed it with.
func (c *cli) feedTarget(ctx context.Context, f *feedFlags, given []string) (spec topology.Spout, files []string, err error) {
	if f.file != "" {
		t, err := readTopology(f.file)
		if err != nil {
			return spec, nil, err
		}
		return t.Spout, given, nil
	}
	err = c.connect(ctx, func(k *control.Control) error {
		a, err := k.Get(ctx, given[0])
		if err != nil {
			if _, e := os.Stat(given[0]); errors.Is(err, control.ErrUnknown) && e == nil {
				return fmt.Errorf("%w; to feed by a topology file, write --topology FILE", err)
			}
			return err
		}
		plan, err := a.Plan()
		if err != nil {
			return err
		}
		spec = plan.Topology.Spout
		return nil
	})
	return spec, given[1:], err
}

// parseRate reads rows per second.
func parseRate(s string) (float64, error) {
	if s == "" {
		return 0, nil
	}
	number, unit, _ := strings.Cut(s, "/")
	per, known := map[string]float64{"": 1, "s": 1, "m": 60, "h": 3600}[unit]
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || !known || n <= 0 || n > 1e9 {
		return 0, fmt.Errorf("--rate: %q is no rate: write 500/s", s)
	}
	return n / per, nil
}

func fed(t *tabwriter.Writer, r *feed.Result, took time.Duration) {
	row(t, "FILE", "ROWS", "FOUND", "SENT", "BAD", "REFUSED")
	for _, f := range r.Files {
		row(t, f.File, f.Rows, f.Found, f.Sent, f.Bad, f.Refused)
	}
	_ = t.Flush() // the line below has no columns
	if n := r.Sent(); n > 0 {
		fmt.Fprintf(t, "%d rows to topic %s in %s, %.0f/s\n", n, r.Topic, took.Round(time.Millisecond), float64(n)/took.Seconds())
	} else {
		fmt.Fprintf(t, "topic %s holds all of them: --again would write them once more\n", r.Topic)
	}
}

// feedBar shows progress to a human; to others it shows nothing.
type feedBar struct {
	out   io.Writer
	doing string
	bar   *progressbar.ProgressBar
}

func newFeedBar(w io.Writer) *feedBar {
	if f, ok := w.(*os.File); ok && terminal(f) {
		return &feedBar{out: w}
	}
	return &feedBar{}
}

func (b *feedBar) show(p feed.Progress) {
	if b.out == nil {
		return
	}
	if p.Doing != b.doing {
		b.finish()
		total := p.Total
		if total == 0 {
			total = -1
		}
		what := map[string]string{"read": "reading", "look for": "looking for rows in the topic", "send": "sending"}[p.Doing]
		b.doing = p.Doing
		b.bar = progressbar.NewOptions64(total, progressbar.OptionSetWriter(b.out), progressbar.OptionSetDescription(what),
			progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
	}
	_ = b.bar.Set64(p.Done)
}

func (b *feedBar) finish() {
	if b.bar != nil {
		_ = b.bar.Finish()
	}
}
