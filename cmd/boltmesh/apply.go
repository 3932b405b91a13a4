package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

func newApply(c *cli) *cobra.Command {
	var drain bool
	cmd := &cobra.Command{
		Use:   "apply FILE...",
		Short: "Make topologies what the services run",
		Long: `Validates the files, creates the streams between the nodes and hands the topologies to the services. It returns when every live worker reports the
new revision, or says which does not.

A topology that runs already is changed without loss: emission stops, what is under way is processed, the workers switch, emission goes on; the pause is
printed. A file that means the same as what is applied changes nothing. If any file has a problem, none is applied.

A build of a service that behaves otherwise than the one before is a change, too: name the version with build: on its bolts, and start its workers
beside the old ones before you apply the file.`,
		Example: `  boltmesh apply topology.yaml
  boltmesh apply topology.yaml --drain      # a node is gone from the file
  boltmesh apply topologies/*.yaml -o json`,
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, files []string) error {
			return c.apply(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), files, drain)
		},
	}
	cmd.Flags().BoolVar(&drain, "drain", false, "remove nodes that are gone from the file, when what waits for them is processed")
	return cmd
}

// nobodyWait is how long apply waits for a node to be run by somebody: services take up a new topology at once, if there are any.
const nobodyWait = 3 * time.Second

func (c *cli) apply(ctx context.Context, out, errOut io.Writer, files []string, drain bool) error {
	var all []*topology.Topology
	var problems []string
	for _, f := range files {
		t, err := readTopology(f)
		if err != nil {
			problems = append(problems, err.Error())
			continue
		}
		for _, w := range t.Warnings {
			fmt.Fprintln(errOut, "warning: "+w.String())
		}
		all = append(all, t)
	}
	if len(problems) > 0 {
		return fmt.Errorf("%s\nnothing was applied", strings.Join(problems, "\n"))
	}
	return c.connect(ctx, func(k *control.Control) error {
		var reports []control.Report
		silent := 0
		for _, t := range all {
			r, err := k.Apply(ctx, t.Document, control.ApplyOptions{Drain: drain, Timeout: c.timeout, Patience: min(c.timeout, nobodyWait)})
			if err != nil {
				return fmt.Errorf("apply %s: %w", t.Name, err)
			}
			silent += len(r.Silent)
			reports = append(reports, r)
		}
		if err := c.print(out, reports, func(t *tabwriter.Writer) {
			for i := range reports {
				describe(t, &reports[i])
			}
		}); err != nil {
			return err
		}
		if silent > 0 {
			return fmt.Errorf("applied, but %s after %s: see `boltmesh ps`", plural(silent, "worker")+" did not report it", c.timeout)
		}
		return nil
	})
}

// describe says in sentences what apply has done.
func describe(w io.Writer, r *control.Report) {
	switch {
	case r.Unchanged:
		fmt.Fprintf(w, "%s: unchanged, revision %d\n", r.Topology, r.Revision)
	case r.Revision == 1:
		fmt.Fprintf(w, "%s: applied, revision 1\n", r.Topology)
	default:
		fmt.Fprintf(w, "%s: changed to revision %d\n", r.Topology, r.Revision)
	}
	if r.Pause > 0 {
		fmt.Fprintf(w, "  emission paused for %s\n", r.Pause.Round(time.Millisecond))
	}
	for _, d := range r.Divided {
		fmt.Fprintf(w, "  %s has %d tasks instead of %d: %d values of its state moved\n", d.Node, d.To, d.From, d.Keys)
	}
	if len(r.Removed) > 0 {
		fmt.Fprintf(w, "  removed %s\n", strings.Join(r.Removed, ", "))
	}
	if len(r.Workers) > 0 {
		fmt.Fprintf(w, "  reported by %s\n", strings.Join(r.Workers, ", "))
	}
	if len(r.Silent) > 0 {
		fmt.Fprintf(w, "  not reported by %s\n", strings.Join(r.Silent, ", "))
	}
	if len(r.Idle) > 0 && len(r.Silent) == 0 {
		fmt.Fprintf(w, "  no worker runs %s: start the services of these nodes, of the build that the file names if it does\n", strings.Join(r.Idle, ", "))
	}
	if r.Paused {
		fmt.Fprintf(w, "  it is paused: boltmesh resume %s\n", r.Topology)
	}
	if r.Warning != "" {
		fmt.Fprintf(w, "  warning: %s\n", r.Warning)
	}
}
