package main

import (
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/boltmesh/boltmesh/pkg/control"
)

func newLag(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "lag TOPOLOGY",
		Short: "Show how far a topology is behind Kafka, and where frames wait",
		Long: `For each Kafka partition: FLOOR, below which everything is fully processed; NEXT, what is emitted next; END, where the log ends; LAG = END - FLOOR.
Spouts tell once a second. Then, for each node, the frames that wait in its input.`,
		Example: `  boltmesh lag machine-health
  boltmesh lag machine-health -o json | jq '[.partitions[] | .end - .floor] | add'`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, names []string) error {
			return c.connect(cmd.Context(), func(k *control.Control) error {
				if _, err := k.Get(cmd.Context(), names[0]); err != nil {
					return err
				}
				p, err := k.Progress(cmd.Context(), names[0])
				if err != nil {
					return err
				}
				return c.print(cmd.OutOrStdout(), p, func(t *tabwriter.Writer) {
					row(t, "TOPIC", "PARTITION", "FLOOR", "NEXT", "END", "LAG", "WATERMARK")
					for _, m := range p.Partitions {
						row(t, m.Topic, m.Partition, m.Floor, m.Next, m.End, lag(m), stamp(m.Watermark))
					}
					if len(p.Partitions) == 0 {
						row(t, "no spout has told about a partition")
					}
					if p.Oldest > 0 {
						row(t, "oldest reading under way: "+age(p.Oldest, time.Now()))
					}
					_ = t.Flush() // the second table has widths of its own
					row(t)
					row(t, "NODE", "FRAMES")
					for _, n := range slices.Sorted(maps.Keys(p.Queued)) {
						row(t, n, p.Queued[n])
					}
				})
			})
		},
	}
}
