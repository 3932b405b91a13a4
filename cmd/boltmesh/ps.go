package main

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

func newPS(c *cli) *cobra.Command {
	var kind string
	cmd := &cobra.Command{
		Use:   "ps [TOPOLOGY]",
		Short: "Show the live workers and what they do",
		Long: `One line for each node that a live worker runs. HEARTBEAT is how long ago it has last said that it lives; after three seconds it is dead, and not shown. WATERMARK is how far event time has come, OLDEST the age of the oldest reading under way, LAG the number
of records that Kafka holds and that are not fully processed; these three are a spout's. WORK is how many of a bolt's loops hold frames, of how many it
runs, and for how long if that is a second or more. IN, OUT and FAILED count tuples since the worker started.

For one topology, a second table says who has what: each task that has one owner, with its EPOCH, which grows with every owner, and for how long it has
been his (SINCE); each partition with the spout that reads it. Advice, where more replicas run than can have work, goes to standard error.`,
		Example: `  boltmesh ps
  boltmesh ps machine-health
  boltmesh ps --kind stat
  boltmesh ps -o json | jq '.[] | select(.last_error)'
  boltmesh ps machine-health -o json | jq '.[] | {node, worker} + .owned[]?'`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, names []string) error {
			name := ""
			if len(names) > 0 {
				name = names[0]
			}
			return c.connect(cmd.Context(), func(k *control.Control) error {
				var plan *topology.Plan
				if name != "" {
					applied, err := k.Get(cmd.Context(), name)
					if err != nil {
						return err
					}
					if plan, err = applied.Plan(); err != nil {
						return err
					}
				}
				members, err := k.Members(cmd.Context(), name)
				if err != nil {
					return err
				}
				if members == nil {
					members = []member.Member{}
				}
				if kind != "" {
					if members, err = ofKind(members, plan, kind); err != nil {
						return err
					}
				}
				now := time.Now()
				for _, s := range control.Spare(members) {
					fmt.Fprintln(cmd.ErrOrStderr(), "advice: "+s)
				}
				return c.print(cmd.OutOrStdout(), members, func(t *tabwriter.Writer) {
					processes(t, members, now)
					if plan != nil {
						_ = t.Flush() // the second table has widths of its own
						row(t)
						owners(t, control.Owners(plan, members), now)
					}
				})
			})
		},
	}
	cmd.Flags().StringVar(&kind, "kind", "", "only workers of this kind of service: spout, convert, stat, alarm, output or one of yours")
	return cmd
}

// ofKind chooses the workers of a kind, and takes the nodes of other kinds out of the plan, if there is one.
func ofKind(members []member.Member, plan *topology.Plan, kind string) ([]member.Member, error) {
	there := map[string]bool{}
	for _, m := range members {
		there[m.Kind] = true
	}
	if plan != nil {
		for _, n := range plan.Nodes {
			there[n.Service] = true
		}
		plan.Nodes = slices.DeleteFunc(plan.Nodes, func(n topology.Node) bool { return n.Service != kind })
	}
	if len(there) > 0 && !there[kind] {
		return nil, fmt.Errorf("no worker is of kind %q: there are %s", kind, strings.Join(slices.Sorted(maps.Keys(there)), ", "))
	}
	return slices.DeleteFunc(members, func(m member.Member) bool { return m.Kind != kind }), nil
}

// processes writes the table of workers.
func processes(t *tabwriter.Writer, members []member.Member, now time.Time) {
	row(t, "TOPOLOGY", "NODE", "KIND", "WORKER", "TASKS", "REV", "VERSION", "SINCE", "HEARTBEAT", "WATERMARK", "OLDEST", "LAG", "WORK", "IN", "OUT", "FAILED", "LAST ERROR")
	for i := range members {
		m := &members[i]
		tasks := runs(m.Tasks)
		switch {
		case slices.Contains(m.Tasks, tuple.Shared):
			tasks = "any"
		case m.Leaving:
			tasks = "leaving"
		}
		if m.Partitions > 0 && !m.Leaving {
			tasks = strings.TrimSpace(tasks + " of " + plural(m.Partitions, "partition"))
		}
		watermark, behind := spoutMarks(m)
		row(t, m.Topology, m.Node, m.Kind, m.Worker, tasks, m.Revision, m.Version, age(m.Since, now), age(m.At, now), watermark, age(m.Oldest, now), behind, work(m, now),
			m.In, m.Out, m.Failed, lastError(m, now))
	}
}

// work says how many of a node's loops are working, and for how long if that is long.
func work(m *member.Member, now time.Time) string {
	if m.Capacity == 0 { // a spout, or nothing yet
		return ""
	}
	s := fmt.Sprintf("%d/%d", m.Working, m.Capacity)
	if m.Working > 0 && now.UnixMilli()-m.Held >= 1000 {
		s += " (" + age(m.Held, now) + ")"
	}
	return s
}

// owners writes the table of who has what.
func owners(t *tabwriter.Writer, all []control.Ownership, now time.Time) {
	row(t, "NODE", "TASK", "WORKER", "EPOCH", "SINCE", "IN")
	for _, o := range all {
		switch {
		case o.Worker == "":
			row(t, o.Node, o.Task, "nobody", "", "", "")
		case o.Epoch == 0: // a partition
			row(t, o.Node, o.Task, o.Worker, "", "", "")
		default:
			row(t, o.Node, o.Task, o.Worker, o.Epoch, age(o.Since, now), o.In)
		}
	}
}

// spoutMarks sums up a spout's partitions; both are empty for others.
func spoutMarks(m *member.Member) (watermark, behind string) {
	if len(m.Marks) == 0 {
		return "", ""
	}
	low, sum := int64(math.MaxInt64), int64(0)
	for _, k := range m.Marks {
		if !k.Idle { // an idle partition holds nobody back
			low = min(low, k.Watermark)
		}
		sum += lag(k)
	}
	if low == math.MaxInt64 {
		for _, k := range m.Marks {
			if low == math.MaxInt64 || k.Watermark > low {
				low = k.Watermark
			}
		}
	}
	return stamp(low), fmt.Sprint(sum)
}

// lag is how many records a partition holds that are not fully processed.
func lag(k member.Mark) int64 { return max(0, k.End-k.Floor) }

func lastError(m *member.Member, now time.Time) string {
	if m.LastError == "" {
		return ""
	}
	return fmt.Sprintf("%s (%s ago)", m.LastError, age(m.ErrorAt, now))
}
