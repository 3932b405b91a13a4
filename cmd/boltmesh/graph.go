package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

func newGraph(c *cli) *cobra.Command {
	format := "text"
	cmd := &cobra.Command{
		Use:   "graph FILE|TOPOLOGY",
		Short: "Draw a topology: nodes, edges, groupings",
		Long: `Draws the graph of a topology file or, where there is no such file, of an applied topology: as a tree in text, for Mermaid, or as an SVG picture that
needs nothing else. Behind <- stands what a node receives: the grouping that divides tuples among its tasks, and by what.`,
		Example: `  boltmesh graph topology.yaml
  boltmesh graph machine-health --format svg > machine-health.svg
  boltmesh graph topology.yaml --format mermaid`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, names []string) error {
			if format != "text" && format != "mermaid" && format != "svg" {
				return usageError{fmt.Errorf("--format: %q is none of text, mermaid, svg", format)}
			}
			plan, err := c.planOf(cmd, names[0])
			if err != nil {
				return err
			}
			return c.print(cmd.OutOrStdout(), plan.Nodes, func(*tabwriter.Writer) { draw(cmd.OutOrStdout(), plan, format) })
		},
	}
	cmd.Flags().StringVar(&format, "format", format, "text, mermaid or svg; with -o json the nodes and edges are printed as planned")
	return cmd
}

func draw(w io.Writer, plan *topology.Plan, format string) {
	picture := plan.Text()
	switch format {
	case "mermaid":
		picture = plan.Mermaid()
	case "svg":
		picture = plan.SVG()
	}
	fmt.Fprint(w, picture)
}

// planOf plans a file, or an applied topology of that name.
func (c *cli) planOf(cmd *cobra.Command, name string) (plan *topology.Plan, err error) {
	t, err := readTopology(name)
	if !errors.Is(err, os.ErrNotExist) {
		if err != nil {
			return nil, err
		}
		return t.Plan()
	}
	err = c.connect(cmd.Context(), func(k *control.Control) error {
		a, err := k.Get(cmd.Context(), name)
		if err != nil {
			return fmt.Errorf("%w, and no file is called so", err)
		}
		plan, err = a.Plan()
		return err
	})
	return plan, err
}
