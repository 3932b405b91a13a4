package main

import (
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/boltmesh/boltmesh/pkg/control"
)

func newDelete(c *cli) *cobra.Command {
	var drain bool
	cmd := &cobra.Command{
		Use:   "delete TOPOLOGY",
		Short: "Stop a topology and remove its streams",
		Long: `Takes a topology away from the services and removes its streams and leases. Stored documents, statistics, dead letters and the offsets of its consumer
group stay: applied again, it goes on where it was. What was under way is emitted again then.`,
		Example: `  boltmesh delete machine-health
  boltmesh delete machine-health --drain    # first process what is under way`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, names []string) error {
			return c.connect(cmd.Context(), func(k *control.Control) error {
				if err := k.Delete(cmd.Context(), names[0], control.DeleteOptions{Drain: drain, Timeout: c.timeout}); err != nil {
					return err
				}
				done := map[string]any{"topology": names[0], "deleted": true}
				return c.print(cmd.OutOrStdout(), done, func(t *tabwriter.Writer) { row(t, names[0]+": deleted") })
			})
		},
	}
	cmd.Flags().BoolVar(&drain, "drain", false, "first stop emission and process what is under way")
	return cmd
}
