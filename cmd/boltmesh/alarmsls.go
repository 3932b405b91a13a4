package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/boltmesh/boltmesh/pkg/control"
)

func newAlarmsList(f *alarmFlags) *cobra.Command {
	filter, limit := control.EpisodeFilter{}, 100
	cmd := &cobra.Command{
		Use:   "ls [TOPOLOGY]",
		Short: "List episodes of alarms, of one topology or of all, the newest first",
		Example: `  boltmesh alarms ls machine-health --open
  boltmesh alarms ls --open --severity critical
  boltmesh alarms ls machine-health --node overheated -o json | jq '.[] | select(.acknowledged_by == null) | .group'`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, names []string) error {
			if limit <= 0 {
				return usageError{fmt.Errorf("--limit: %d is not a number of episodes", limit)}
			}
			filter.Most = limit + 1 // to know whether there are more
			plans, err := f.plans(cmd.Context(), names)
			if err != nil {
				return err
			}
			out := []control.Episode{}
			for _, plan := range plans {
				found, err := f.episodes(cmd.Context(), plan, filter)
				if err != nil && len(names) > 0 {
					return err
				}
				if err != nil { // the others' are worth seeing
					fmt.Fprintf(cmd.ErrOrStderr(), "%s: %v\n", plan.Topology.Name, err)
				}
				out = append(out, found...)
			}
			if len(out) > limit {
				out = out[:limit]
				fmt.Fprintln(cmd.ErrOrStderr(), "There are more: see --limit, --open, --severity and --node.")
			}
			return f.print(cmd.OutOrStdout(), out, func(t *tabwriter.Writer) {
				row(t, "TOPOLOGY", "ALARM", "GROUP", "SEVERITY", "STATE", "RAISED", "CLEARED", "ACKNOWLEDGED BY", "LAST NOTE")
				for _, e := range out {
					row(t, e.Topology, e.Alarm, groupText(e.Group), e.Severity, stateText(&e), stamp(e.RaisedAt), stamp(e.ClearedAt), e.AcknowledgedBy, brief(lastNote(&e)))
				}
			})
		},
	}
	fs := cmd.Flags()
	fs.BoolVar(&filter.Open, "open", false, "only episodes that are not cleared")
	fs.StringVar(&filter.Severity, "severity", "", "only those of this severity")
	fs.StringVar(&filter.Alarm, "node", "", "only those of this alarm")
	fs.IntVar(&limit, "limit", limit, "the most to list")
	f.add(cmd)
	return cmd
}

// stateText is an episode's state with what an operator would ask next.
func stateText(e *control.Episode) string {
	var more []string
	if e.Escalated {
		more = append(more, "escalated")
	}
	if e.Flapping {
		more = append(more, "flapping")
	}
	if len(more) == 0 {
		return e.State
	}
	return e.State + ", " + strings.Join(more, ", ")
}

func lastNote(e *control.Episode) (note string) {
	for _, h := range e.History {
		if h.Note != "" {
			note = h.Note
		}
	}
	return note
}

func newAlarmsShow(f *alarmFlags) *cobra.Command {
	number := int64(0)
	cmd := &cobra.Command{
		Use:   "show TOPOLOGY ALARM GROUP...",
		Short: "Show the last episode of an alarm with its history",
		Example: `  boltmesh alarms show machine-health overheated machine-1
  boltmesh alarms show machine-health crowded north line-3
  boltmesh alarms show machine-health overheated machine-1 --number 7 -o json | jq .history`,
		Args: args(cobra.MinimumNArgs(3)),
		RunE: func(cmd *cobra.Command, given []string) error {
			plans, err := f.plans(cmd.Context(), given[:1])
			if err != nil {
				return err
			}
			group := strings.Join(given[2:], groupSeparator)
			found, err := f.episodes(cmd.Context(), plans[0], control.EpisodeFilter{Alarm: given[1], Group: group})
			if err != nil {
				return err
			}
			var e *control.Episode
			for i := range found {
				if n := found[i].Number; n == number || number == 0 && (e == nil || n > e.Number) {
					e = &found[i]
				}
			}
			switch {
			case len(found) == 0:
				return fmt.Errorf("no episode of %s for %s is stored: see boltmesh alarms ls %s --node %s", given[1], groupText(group), given[0], given[1])
			case e == nil:
				return fmt.Errorf("no episode %d of %s for %s is stored", number, given[1], groupText(group))
			}
			return f.print(cmd.OutOrStdout(), e, func(t *tabwriter.Writer) { showEpisode(t, e) })
		},
	}
	cmd.Flags().Int64Var(&number, "number", 0, "number of the episode, counted from 1 (default the last)")
	f.add(cmd)
	return cmd
}

// showEpisode writes an episode, a line a field, then its history, a line an event.
func showEpisode(t *tabwriter.Writer, e *control.Episode) {
	row(t, "alarm", e.Alarm)
	row(t, "group", groupText(e.Group))
	row(t, "episode", fmt.Sprintf("%d (%s)", e.Number, e.ID))
	row(t, "state", stateText(e))
	row(t, "severity", e.Severity)
	for _, x := range [][2]string{
		{"reason", e.Reason},
		{"raised", stamp(e.RaisedAt)},
		{"raise value", string(e.RaiseValue)},
		{"acknowledged", stamp(e.AcknowledgedAt)},
		{"acknowledged by", e.AcknowledgedBy},
		{"cleared", stamp(e.ClearedAt)},
		{"clear value", string(e.ClearValue)},
	} {
		if x[1] != "" {
			row(t, x[0], x[1])
		}
	}
	row(t)
	row(t, "AT", "EVENT", "SEVERITY", "BY", "NOTE")
	if e.Omitted > 0 {
		row(t, fmt.Sprintf("(%s before)", plural(int(e.Omitted), "event")))
	}
	for _, h := range e.History {
		row(t, stamp(h.At), h.What, h.Severity, h.By, h.Note)
	}
}
