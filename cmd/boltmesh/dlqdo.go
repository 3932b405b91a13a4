package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
)

func newDLQReplay(c *cli) *cobra.Command {
	return c.dealing(&cobra.Command{
		Use:   "replay TOPOLOGY [ID...]",
		Short: "Have dead letters enter again at the nodes where they failed",
		Long: `Each letter enters once, however often it is replayed. If it fails again, that is a new letter.
It returns when a spout has taken the letters over; a paused topology processes them when it is resumed.`,
		Example: `  boltmesh dlq replay machine-health 3f9a12c0
  boltmesh dlq replay machine-health --node clean --since 2h
  boltmesh dlq replay machine-health --all`,
	}, func(ctx context.Context, k *control.Control, name string, f control.LetterFilter) (any, []outcome, error) {
		done, err := k.Replay(ctx, name, f)
		out := make([]outcome, len(done))
		for i, r := range done {
			out[i] = outcome{r.LetterKey, "had been replayed before", r.Error != ""}
			switch {
			case r.Error != "":
				out[i].what = "not replayed: " + r.Error
			case r.New:
				out[i].what = "replayed"
			}
		}
		return done, out, err
	})
}

func newDLQDrop(c *cli) *cobra.Command {
	return c.dealing(&cobra.Command{
		Use:   "drop TOPOLOGY [ID...]",
		Short: "Remove dead letters for good",
		Long:  `A letter is kept, and the reason told, while its tuple may still come again or its replay is under way. What is dropped cannot be replayed any more.`,
		Example: `  boltmesh dlq drop machine-health 3f9a12c0
  boltmesh dlq drop machine-health --until 720h`,
	}, func(ctx context.Context, k *control.Control, name string, f control.LetterFilter) (any, []outcome, error) {
		done, err := k.Drop(ctx, name, f)
		out := make([]outcome, len(done))
		for i, d := range done {
			out[i] = outcome{d.LetterKey, "dropped", d.Kept != ""}
			if d.Kept != "" {
				out[i].what = "kept: " + d.Kept
			}
		}
		return done, out, err
	})
}

// outcome is what became of one letter.
type outcome struct {
	jetstream.LetterKey
	what   string
	failed bool
}

// dealing completes a command that does something with letters; f also returns what is printed as JSON.
func (c *cli) dealing(cmd *cobra.Command, f func(context.Context, *control.Control, string, control.LetterFilter) (any, []outcome, error)) *cobra.Command {
	flags, all := &letterFlags{}, false
	flags.add(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "all letters of the topology")
	cmd.Args = args(cobra.MinimumNArgs(1))
	cmd.RunE = func(cmd *cobra.Command, names []string) error {
		filter, err := flags.choose(names[1:], time.Now())
		if err != nil {
			return err
		}
		if all == chooses(filter) {
			return usageError{errors.New("name ids, or choose letters by --node, --device, --error, --since and --until, or else give --all")}
		}
		return c.connect(cmd.Context(), func(k *control.Control) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), c.timeout)
			defer cancel()
			done, out, err := f(ctx, k, names[0], filter)
			if err != nil {
				return err
			}
			if len(out) == 0 {
				if err := missing(names[0], filter); err != nil {
					return err
				}
			}
			failed := 0
			if err := c.print(cmd.OutOrStdout(), done, func(t *tabwriter.Writer) {
				for _, o := range out {
					row(t, o.ID.String()[:12], o.Node, o.what)
				}
			}); err != nil {
				return err
			}
			for _, o := range out {
				if o.failed {
					failed++
				}
			}
			if failed > 0 {
				return fmt.Errorf("not done for %d of %s", failed, plural(len(out), "letter"))
			}
			return nil
		})
	}
	return cmd
}

// chooses reports whether a filter leaves any letter out.
func chooses(f control.LetterFilter) bool {
	return len(f.IDs) > 0 || f.Node != "" || f.Device != "" || f.Error != "" || !f.Since.IsZero() || !f.Until.IsZero()
}
