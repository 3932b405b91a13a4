package main

import (
	"encoding/hex"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/boltmesh/boltmesh/pkg/control"
)

func newDLQ(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dlq",
		Short: "Look at dead letters, replay or drop them",
		Long: `A tuple or record that cannot be handled becomes a dead letter, and what came with it goes on. A letter stays until it is dropped.

Find the cause with ls and show, mend it (a script, the archive, the topology), and replay: each letter enters again at the node where it failed.`,
	}
	cmd.AddCommand(newDLQList(c), newDLQShow(c), newDLQReplay(c), newDLQDrop(c))
	return cmd
}

// letterFlags are the flags that choose letters.
type letterFlags struct {
	filter       control.LetterFilter
	since, until string
}

func (f *letterFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.filter.Node, "node", "", "only those that failed at this node")
	fs.StringVar(&f.filter.Device, "device", "", "only those of this device")
	fs.StringVar(&f.filter.Error, "error", "", "only those with this text in their error")
	fs.StringVar(&f.since, "since", "", "only those that failed from then on: a time such as 2026-01-31T12:00:00Z, or how long ago, such as 2h")
	fs.StringVar(&f.until, "until", "", "only those that failed before then")
}

// choose makes a filter of the flags and of the beginnings of ids.
func (f *letterFlags) choose(ids []string, now time.Time) (control.LetterFilter, error) {
	out := f.filter
	for _, id := range ids {
		if _, err := hex.DecodeString(id + strings.Repeat("0", len(id)%2)); err != nil || len(id) < 4 || len(id) > 32 {
			return out, usageError{fmt.Errorf("%q is not the beginning of an id: give 4 to 32 hexadecimal digits", id)}
		}
	}
	out.IDs = ids
	var err error
	if out.Since, err = instant(f.since, now); err != nil {
		return out, err
	}
	out.Until, err = instant(f.until, now)
	return out, err
}

// instant reads a time, or how long ago it was; "" is the zero time.
func instant(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil && s != "" {
		return t, usageError{fmt.Errorf("%q is neither a time such as 2026-01-31T12:00:00Z nor how long ago, such as 2h", s)}
	}
	return t, nil
}

func newDLQList(c *cli) *cobra.Command {
	f := &letterFlags{}
	cmd := &cobra.Command{
		Use:   "ls TOPOLOGY",
		Short: "List the dead letters of a topology, oldest first",
		Example: `  boltmesh dlq ls machine-health
  boltmesh dlq ls machine-health --node clean --since 2h --error "not a number"
  boltmesh dlq ls machine-health -o json | jq -r '.[] | select(.dealt | not) | .error' | sort | uniq -c`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, names []string) error {
			filter, err := f.choose(nil, time.Now())
			if err != nil {
				return err
			}
			return c.letters(cmd, names[0], filter, func(t *tabwriter.Writer, letters []control.Letter) {
				row(t, "ID", "FAILED", "NODE", "DEVICE", "TRIES", "STATE", "ERROR")
				for i := range letters {
					l := &letters[i]
					row(t, l.ID.String()[:12], stamp(l.FailedAt), l.Node, l.Key, l.Tries, dealt(l), brief(l.Error))
				}
			})
		},
	}
	f.add(cmd)
	return cmd
}

func newDLQShow(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "show TOPOLOGY ID...",
		Short: "Show everything about dead letters",
		Long:  `An id may be shortened to its beginning.`,
		Example: `  boltmesh dlq show machine-health 3f9a12c0
  boltmesh dlq show machine-health 3f9a12c0 -o json | jq -r '.[0].payload | @base64d'`,
		Args: args(cobra.MinimumNArgs(2)),
		RunE: func(cmd *cobra.Command, names []string) error {
			filter, err := (&letterFlags{}).choose(names[1:], time.Now())
			if err != nil {
				return err
			}
			return c.letters(cmd, names[0], filter, func(t *tabwriter.Writer, letters []control.Letter) {
				for i := range letters {
					if i > 0 {
						row(t)
					}
					show(t, &letters[i])
				}
			})
		},
	}
}

// letters prints the letters that a filter chooses; ids that match none are an error.
func (c *cli) letters(cmd *cobra.Command, name string, f control.LetterFilter, table func(*tabwriter.Writer, []control.Letter)) error {
	return c.connect(cmd.Context(), func(k *control.Control) error {
		letters, err := k.Letters(cmd.Context(), name, f)
		if err != nil {
			return err
		}
		if len(letters) == 0 {
			letters = []control.Letter{}
			if err := missing(name, f); err != nil {
				return err
			}
		}
		return c.print(cmd.OutOrStdout(), letters, func(t *tabwriter.Writer) { table(t, letters) })
	})
}

// missing is the error that no letter matches the ids of f, if f has any.
func missing(name string, f control.LetterFilter) error {
	if len(f.IDs) == 0 {
		return nil
	}
	return fmt.Errorf("%s has no dead letter %s: see boltmesh dlq ls %s", name, strings.Join(f.IDs, " or "), name)
}

// show writes one letter.
func show(t *tabwriter.Writer, l *control.Letter) {
	row(t, "id", l.ID.String())
	row(t, "error", l.Error)
	row(t, "state", dealt(l))
	row(t, "failed", stamp(l.FailedAt))
	row(t, "node", fmt.Sprintf("%s, task %d, worker %s, revision %d", l.Node, l.Task, l.Worker, l.Revision))
	row(t, "path", l.Path)
	if k := l.ReplayOf; k != nil {
		row(t, "replay of", k.ID.String()+" of "+k.Node)
	}
	row(t, "tries", l.Tries)
	row(t, "attempt", fmt.Sprintf("%d of generation %d", l.Count, l.Generation))
	row(t, "device", l.Key)
	row(t, "time", stamp(l.Time))
	row(t, "group", l.Group)
	row(t, "origin", fmt.Sprintf("%016x, offset %d", uint64(l.Origin), l.Offset))
	if l.Topic != "" {
		row(t, "record", fmt.Sprintf("%s, partition %d, offset %d", l.Topic, l.Partition, l.Offset))
	}
	row(t, "trace", l.TraceID)
	payload := string(l.Payload)
	if l.Size > len(l.Payload) {
		payload += fmt.Sprintf("... (%d bytes)", l.Size)
	}
	row(t, "payload", payload)
}

// dealt says what was done with a letter; "" when nothing was.
func dealt(l *control.Letter) string {
	switch {
	case l.Dealt == nil:
		return ""
	case l.Dealt.Dropped:
		return "dropped"
	default:
		return "replayed " + stamp(l.Dealt.At)
	}
}

// brief is the beginning of an error's first line.
func brief(s string) string {
	s, _, more := strings.Cut(s, "\n")
	if r := []rune(s); len(r) > 100 {
		s, more = string(r[:100]), true
	}
	if more {
		s += "..."
	}
	return s
}
