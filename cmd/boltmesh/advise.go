package main

import (
	"fmt"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/service"
)

func newAdvise(c *cli) *cobra.Command {
	o := control.AdviseOptions{Key: service.KeyOf}
	cmd := &cobra.Command{
		Use:   "advise TOPOLOGY",
		Short: "Say how many replicas and tasks each node needs for what arrives now",
		Long: `Measures for a while how many tuples each node and each task handles, and for how long their loops are busy with a tuple (executing, committing,
publishing); then computes what the arriving tuples need. U = lambda * S / m: where lambda tuples a second each keep a loop busy for S seconds, m loops are
busy for U of their time (utilisation law), and m is to be large enough for --target. Where the topology does not keep up, more arrives than its nodes
are shown: lambda is then raised by how much faster Kafka grows than is processed (forced flow law).

A loop that is busy is taken to need a processor of its replica, which is cautious where it merely waits for a store. A node whose tasks have owners has
as many loops as tasks, whoever owns them: replicas add processors, tasks add loops. Workers that compete run up to four loops each.

Where one task has much more to do than its part, or too much, the frames that wait for it are looked at, for up to a second, for the key that most of its
tuples have. So a hot key is found only while tuples wait: a task that keeps up is named, and its key is not. UTIL above 100 % means that the node
cannot keep up.

The spout's row has the records that come into Kafka and those fully processed, and by how many a second its lag grows. It needs more replicas where that grows
though no bolt is busy, and at most as many as the topics have partitions.`,
		Example: `  boltmesh advise machine-health
  boltmesh advise machine-health --window 1m --target 0.5
  boltmesh advise machine-health -o json | jq '.nodes[] | select(.need_replicas > .replicas) | {node, need_replicas}'`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, names []string) error {
			switch {
			case o.Window <= 0:
				return usageError{fmt.Errorf("--window: %s is no time to measure", o.Window)}
			case o.Target <= 0 || o.Target > 1:
				return usageError{fmt.Errorf("--target: %v is no utilisation: write a share such as 0.7", o.Target)}
			}
			return c.connect(cmd.Context(), func(k *control.Control) error {
				a, err := k.Advise(cmd.Context(), names[0], o)
				if err != nil {
					return err
				}
				if err := c.print(cmd.OutOrStdout(), a, func(t *tabwriter.Writer) { advised(t, a) }); err != nil || c.output == "json" {
					return err
				}
				for _, n := range a.Nodes {
					for _, s := range n.Do {
						fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", n.Node, s)
					}
				}
				for _, s := range a.Notes {
					fmt.Fprintln(cmd.OutOrStdout(), s)
				}
				return nil
			})
		},
	}
	cmd.Flags().DurationVar(&o.Window, "window", control.DefaultAdviseWindow, "how long to measure")
	cmd.Flags().Float64Var(&o.Target, "target", control.DefaultTarget, "utilisation that loops are to have at most")
	return cmd
}

// advised writes the table; what is to be done follows it in words.
func advised(t *tabwriter.Writer, a *control.Advice) {
	row(t, "NODE", "TUPLES/S", "ARRIVING", "US/TUPLE", "UTIL", "REPLICAS", "NEEDS", "TASKS", "NEEDS", "HOTTEST", "KEY")
	count := func(n int) string {
		if n == 0 {
			return ""
		}
		return strconv.Itoa(n)
	}
	for i := range a.Nodes {
		n := &a.Nodes[i]
		if n.Partitions > 0 { // the spout: it has no loops to be busy
			row(t, n.Node, fmt.Sprintf("%.0f", n.Handled), fmt.Sprintf("%.0f", n.Arrival), "", "", n.Replicas, count(n.NeedReplicas), "", "",
				fmt.Sprintf("lag %+.0f/s, %s", n.Growth, plural(n.Partitions, "partition")), "")
			continue
		}
		hottest, key := "", ""
		if h := n.Hottest; h != nil {
			hottest = fmt.Sprintf("%d: %.0f%% of tuples", h.Task, 100*h.Share)
			if h.Looked > 0 {
				key = fmt.Sprintf("%s: %.0f%% of the task's", h.Key, 100*h.KeyShare)
			}
		}
		row(t, n.Node, fmt.Sprintf("%.0f", n.Handled), fmt.Sprintf("%.0f", n.Arrival), fmt.Sprintf("%.0f", n.Service), fmt.Sprintf("%.0f%%", 100*n.Busy),
			n.Replicas, count(n.NeedReplicas), count(n.Tasks), count(n.NeedTasks), hottest, key)
	}
	row(t)
}
