package main

import (
	"context"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/boltmesh/boltmesh/pkg/control"
)

func newPause(c *cli) *cobra.Command {
	return c.switched(&cobra.Command{
		Use:   "pause TOPOLOGY",
		Short: "Stop emitting readings into a topology",
		Long: `Makes the spouts of a topology emit nothing new, and its clock stand still. What is under way is processed; what arrives meanwhile waits in Kafka.
Doing it twice is no error.`,
		Example: `  boltmesh pause machine-health`,
	}, "paused", (*control.Control).Pause)
}

func newResume(c *cli) *cobra.Command {
	return c.switched(&cobra.Command{
		Use:     "resume TOPOLOGY",
		Short:   "Go on after a pause",
		Long:    `Ends a pause: the spouts go on where they stopped. Doing it twice is no error.`,
		Example: `  boltmesh resume machine-health`,
	}, "running", (*control.Control).Resume)
}

// switched completes a command that brings a topology into a state.
func (c *cli) switched(cmd *cobra.Command, state string, f func(*control.Control, context.Context, string) (bool, error)) *cobra.Command {
	cmd.Args = args(cobra.ExactArgs(1))
	cmd.RunE = func(cmd *cobra.Command, names []string) error {
		return c.connect(cmd.Context(), func(k *control.Control) error {
			changed, err := f(k, cmd.Context(), names[0])
			if err != nil {
				return err
			}
			done := map[string]any{"topology": names[0], "state": state, "changed": changed}
			return c.print(cmd.OutOrStdout(), done, func(t *tabwriter.Writer) {
				if changed {
					row(t, names[0]+": "+state)
				} else {
					row(t, names[0]+": "+state+" already")
				}
			})
		})
	}
	return cmd
}
