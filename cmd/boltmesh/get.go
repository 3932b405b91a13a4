package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/boltmesh/boltmesh/pkg/control"
)

func newGet(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "get TOPOLOGY",
		Short: "Print an applied topology as it was written",
		Example: `  boltmesh get machine-health > topology.yaml
  boltmesh get machine-health -o json      # with its revision, scripts and variables`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, names []string) error {
			return c.connect(cmd.Context(), func(k *control.Control) error {
				a, err := k.Get(cmd.Context(), names[0])
				if err != nil {
					return err
				}
				return c.print(cmd.OutOrStdout(), a, func(*tabwriter.Writer) {
					fmt.Fprintln(cmd.OutOrStdout(), strings.TrimRight(a.Topology.Source, "\n"))
				})
			})
		},
	}
}
