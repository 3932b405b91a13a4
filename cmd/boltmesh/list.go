package main

import (
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/boltmesh/boltmesh/pkg/control"
)

func newList(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the applied topologies",
		Example: `  boltmesh list
  boltmesh list -o json | jq -r '.[].name'`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.connect(cmd.Context(), func(k *control.Control) error {
				all, err := k.List(cmd.Context())
				if err != nil {
					return err
				}
				out := make([]listed, 0, len(all))
				for i := range all {
					a := &all[i]
					l := listed{Name: a.Name, Revision: a.Revision, State: "running", AppliedAt: a.AppliedAt}
					if a.Paused {
						l.State = "paused"
					}
					if plan, err := a.Plan(); err == nil {
						l.Nodes = len(plan.Nodes)
					} else {
						l.State = "unreadable"
					}
					out = append(out, l)
				}
				return c.print(cmd.OutOrStdout(), out, func(t *tabwriter.Writer) {
					row(t, "NAME", "REVISION", "STATE", "NODES", "APPLIED")
					for _, l := range out {
						row(t, l.Name, l.Revision, l.State, l.Nodes, stamp(l.AppliedAt))
					}
				})
			})
		},
	}
}

// listed is one line of the list.
type listed struct {
	Name      string `json:"name"`
	Revision  uint32 `json:"revision"`
	State     string `json:"state"` // running, paused, or unreadable: applied by a version whose files mean something else
	Nodes     int    `json:"nodes"`
	AppliedAt int64  `json:"applied_at"` // ms
}
