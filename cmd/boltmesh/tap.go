package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/tap"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// tapping is one run of `boltmesh tap`.
type tapping struct {
	*cli
	tap.Options
	topology  string
	count     int
	during    time.Duration
	clip      int
	out, errs io.Writer
}

func newTap(c *cli) *cobra.Command {
	t := &tapping{cli: c}
	cmd := &cobra.Command{
		Use:   "tap TOPOLOGY/NODE[:STREAM]",
		Short: "Show tuples while they pass from node to node",
		Long: `Shows what a node emits, or with --in what comes to it, from now on: a line for each delivery, so a tuple that goes to two nodes has two. It listens to the
frames as they are published and takes none away: no bolt is slower or gets less for it. A reader that is too slow for what passes misses some; how many,
is said on standard error, as are --where's failures.

TIME is when the frame passed, EDGE who emitted it to which node and task, ROOT the place of the reading (or tick) that it came of, TRY how often that had
been emitted before: a replay shows all its deliveries again. Ticks are shown when the stream $tick is asked for. What a worker hands to a node of its own
along a local_or_shuffle edge passes nobody, and is not seen.`,
		Example: `  boltmesh tap machine-health/clean
  boltmesh tap machine-health/clean --device machine-1 --where 'temperature > 100' --count 10
  boltmesh tap machine-health/output --in --sample 0.01 --for 1m
  boltmesh tap 'machine-health/readings:$tick' -o json | jq .payload.nodes`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, names []string) error {
			if err := t.read(names[0]); err != nil {
				return usageError{err}
			}
			t.out, t.errs = cmd.OutOrStdout(), cmd.ErrOrStderr()
			return c.dial(cmd.Context(), func(conn *jetstream.Conn) error { return t.run(cmd.Context(), conn) })
		},
	}
	fs := cmd.Flags()
	fs.BoolVar(&t.In, "in", false, "show what comes to the node instead of what it emits")
	fs.StringVar(&t.To, "to", "", "only what goes to this node")
	fs.StringVar(&t.Device, "device", "", "only tuples of this device")
	fs.StringVar(&t.Where, "where", "", "only tuples for which this expression holds, as in a topology's where")
	fs.Float64Var(&t.Sample, "sample", 1, "share of the tuples to show, chosen by their ids")
	fs.IntVar(&t.count, "count", 0, "end after so many; 0: never")
	fs.DurationVar(&t.during, "for", 0, "end after this time; 0: never")
	fs.IntVar(&t.clip, "clip", 120, "letters of a payload to show at most; 0: all")
	return cmd
}

// read takes the argument apart and checks the flags.
func (t *tapping) read(edge string) error {
	name, node, found := strings.Cut(edge, "/")
	t.topology = name
	t.Node, t.Stream, _ = strings.Cut(node, ":")
	switch {
	case !found || t.topology == "" || t.Node == "":
		return fmt.Errorf("%q is no edge: write TOPOLOGY/NODE or TOPOLOGY/NODE:STREAM", edge)
	case t.Sample <= 0 || t.Sample > 1:
		return fmt.Errorf("--sample: %v is no share: write one such as 0.1", t.Sample)
	case t.count < 0 || t.during < 0 || t.clip < 0:
		return errors.New("--count, --for and --clip are not below 0")
	case t.In && t.To != "":
		return errors.New("--to chooses among what the node emits, which --in does not show")
	}
	return nil
}

func (t *tapping) run(ctx context.Context, conn *jetstream.Conn) error {
	plan, origins, err := t.lookUp(ctx, conn)
	if err != nil {
		return err
	}
	open, err := tap.Open(ctx, conn, plan, t.Options)
	if err != nil {
		return err
	}
	defer open.Close()
	for _, n := range t.Unseen(plan) {
		fmt.Fprintf(t.errs, "note: workers that run both %s and %s hand tuples on in memory: those are not seen\n", t.Node, n)
	}
	if t.during > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t.during)
		defer cancel()
	}
	return t.show(ctx, open, &seenWriter{out: t.out, origins: origins, clip: t.clip, json: t.output == "json"})
}

// lookUp learns what is tapped.
func (t *tapping) lookUp(ctx context.Context, conn *jetstream.Conn) (plan *topology.Plan, origins control.Origins, err error) {
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	k, err := control.New(ctx, conn)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: does the server run with JetStream?", err)
	}
	if plan, err = planned(ctx, k, t.topology); err != nil {
		return nil, nil, err
	}
	origins, err = k.Origins(ctx, t.topology)
	return plan, origins, err
}

// planned is the plan of an applied topology; the error about one that is not suggests another.
func planned(ctx context.Context, k *control.Control, name string) (*topology.Plan, error) {
	a, err := k.Get(ctx, name)
	if errors.Is(err, control.ErrUnknown) {
		all, _ := k.List(ctx) // only for the message
		var names []string
		for _, a := range all {
			names = append(names, a.Name)
		}
		if said := topology.Suggest(name, names); said != "" {
			return nil, fmt.Errorf("%w: %s", err, said)
		}
	}
	if err != nil {
		return nil, err
	}
	return a.Plan()
}

// show prints until ctx ends or there were enough. That somebody interrupts it is its usual end.
func (t *tapping) show(ctx context.Context, from *tap.Tap, w *seenWriter) error {
	said, told := tap.Lost{}, time.Now()
	for n := 0; t.count == 0 || n < t.count; n++ {
		s, err := from.Next(ctx)
		if err != nil {
			break
		}
		if err := w.write(&s); err != nil {
			return err
		}
		if time.Since(told) > time.Second {
			told = time.Now()
			t.tell(&said, from.Lost())
		}
	}
	t.tell(&said, from.Lost())
	return nil
}

// tell says on standard error what has been lost since it said so last.
func (t *tapping) tell(said *tap.Lost, now tap.Lost) {
	if n := now.Tuples - said.Tuples; n > 0 {
		fmt.Fprintf(t.errs, "missed: %s passed faster than they were read here\n", plural(int(n), "tuple"))
	}
	if n := now.Frames - said.Frames; n > 0 {
		fmt.Fprintf(t.errs, "missed: %s of up to %d tuples, for more passed than this process can look into\n", plural(int(n), "frame"), tuple.MaxTuples)
	}
	if n := now.Unreadable - said.Unreadable; n > 0 {
		fmt.Fprintf(t.errs, "missed: %s of a newer version of boltmesh, or damaged\n", plural(int(n), "frame"))
	}
	if n := now.Faults - said.Faults; n > 0 {
		fmt.Fprintf(t.errs, "--where failed on %s, the first time on %s\n", plural(int(n), "tuple"), printable(now.Fault.Error()))
	}
	*said = now
}
