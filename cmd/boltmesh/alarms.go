package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/user"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/document"
	"github.com/boltmesh/boltmesh/pkg/mongo"
	"github.com/boltmesh/boltmesh/pkg/service"
	"github.com/boltmesh/boltmesh/pkg/sqlite"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// alarmFlags say where stored episodes are.
type alarmFlags struct {
	*cli
	sqlite string
	uri    string
	db     string
}

func newAlarms(c *cli) *cobra.Command {
	f := &alarmFlags{cli: c}
	cmd := &cobra.Command{
		Use:   "alarms",
		Short: "Look at alarms, acknowledge them, clear them",
		Long: `An alarm has at most one open episode per group. It is raised by readings, or by their absence, may be acknowledged, and is cleared by readings or by hand.

ls and show read the stored episodes of alarms that have save:, from MongoDB or from the SQLite files of a mesh that has these. ack and clear go to the alarm
itself, through NATS, and take their place among its readings.`,
	}
	cmd.AddCommand(newAlarmsList(f), newAlarmsShow(f), newAlarmsAck(c), newAlarmsClear(c))
	return cmd
}

func (f *alarmFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.uri, "mongo", "", "MongoDB that holds the documents (default $BOLTMESH_MONGO_URI, else mongodb://127.0.0.1:27017)")
	fs.StringVar(&f.db, "mongo-database", "", "database of all topologies, if the output service has one for all (default $BOLTMESH_MONGO_DATABASE)")
	fs.StringVar(&f.sqlite, "sqlite", "", "SQLite file of the mesh's state, instead of MongoDB: documents are beside it (default $BOLTMESH_SQLITE)")
}

// stored runs do with the documents of a topology.
func (f *alarmFlags) stored(ctx context.Context, plan *topology.Plan, do func(document.Store) error) (err error) {
	for name, value := range map[string]*string{"SQLITE": &f.sqlite, "MONGO_URI": &f.uri, "MONGO_DATABASE": &f.db} {
		if *value == "" && (name != "SQLITE" || f.uri == "") {
			*value = os.Getenv("BOLTMESH_" + name)
		}
	}
	database := plan.Topology.Output.Database
	if database == "" {
		database = plan.Topology.Name
	}
	if f.sqlite != "" {
		file := service.SQLiteFile(f.sqlite, database)
		if _, err := os.Stat(file); err != nil { // opening it would create it
			return fmt.Errorf("the documents of %s: %w: name the SQLite file of the mesh's state with --sqlite", plan.Topology.Name, err)
		}
		db, err := sqlite.Open(file)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, db.Close()) }()
		return do(db.Documents())
	}
	if f.db != "" {
		database = f.db
	}
	if f.uri == "" {
		f.uri = "mongodb://127.0.0.1:27017"
	}
	s, err := mongo.Open(ctx, mongo.Options{URI: f.uri, Database: database, Timeout: f.timeout})
	if err != nil {
		return fmt.Errorf("%w: name the store with --mongo or --sqlite", err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return do(s)
}

// plans returns the applied topology of a name, or all that have alarms.
func (f *alarmFlags) plans(ctx context.Context, names []string) (out []*topology.Plan, err error) {
	err = f.connect(ctx, func(k *control.Control) error {
		list := []control.Named{}
		if len(names) == 0 {
			if list, err = k.List(ctx); err != nil {
				return err
			}
		} else {
			a, err := k.Get(ctx, names[0])
			if err != nil {
				return err
			}
			list = append(list, control.Named{Name: names[0], Applied: *a})
		}
		for i := range list {
			plan, err := list[i].Plan()
			if err != nil {
				return err
			}
			if len(plan.Alarms()) > 0 {
				out = append(out, plan)
			}
		}
		return nil
	})
	if err == nil && len(out) == 0 && len(names) > 0 {
		err = fmt.Errorf("%s has no alarms", names[0])
	}
	return out, err
}

// episodes reads what the filter chooses of a topology's episodes.
func (f *alarmFlags) episodes(ctx context.Context, plan *topology.Plan, filter control.EpisodeFilter) (out []control.Episode, err error) {
	collections := control.EpisodeCollections(plan)
	if filter.Alarm != "" {
		if _, known := collections[filter.Alarm]; !known {
			return nil, fmt.Errorf("%s has no alarm %s: its alarms are %s", plan.Topology.Name, filter.Alarm, strings.Join(slices.Sorted(maps.Keys(collections)), ", "))
		}
		collections = map[string][]string{filter.Alarm: collections[filter.Alarm]}
	}
	var unsaved []string
	for _, alarm := range slices.Sorted(maps.Keys(collections)) {
		if len(collections[alarm]) == 0 {
			unsaved = append(unsaved, alarm)
		}
	}
	if len(unsaved) == len(collections) {
		return nil, fmt.Errorf("nothing stores the episodes of %s: write save: alarms in the alarm, and apply %s again", strings.Join(unsaved, ", "), plan.Topology.Name)
	}
	err = f.stored(ctx, plan, func(s document.Store) (err error) {
		out, err = control.Episodes(ctx, plan, s, filter)
		return err
	})
	return out, err
}

// groupSeparator divides the values of a group of several fields.
const groupSeparator = "\x1f"

// groupText writes a group as the commands take it.
func groupText(group string) string { return strings.ReplaceAll(group, groupSeparator, " ") }

func newAlarmsAck(c *cli) *cobra.Command {
	return c.commanding(&cobra.Command{
		Use:   "ack TOPOLOGY ALARM GROUP...",
		Short: "Acknowledge the open episode of an alarm",
		Long: `Says that somebody has seen the alarm: its episode is acknowledged, is not escalated any more, and stays open until it is cleared. GROUP is what the alarm is
grouped by, the device unless the topology says otherwise; of several fields give each value; all is that of group: none.

It returns when the alarm has done it and what comes of it is stored. An episode can be acknowledged once.`,
		Example: `  boltmesh alarms ack machine-health overheated machine-1 --note "on my way"
  boltmesh alarms ack machine-health crowded north line-3 --by ann`,
	}, control.CommandAck, "acknowledged")
}

func newAlarmsClear(c *cli) *cobra.Command {
	return c.commanding(&cobra.Command{
		Use:   "clear TOPOLOGY ALARM GROUP...",
		Short: "Clear the open episode of an alarm by hand",
		Long: `Ends the episode whatever the readings say, as for a device that was taken away. Readings that still fulfil the condition raise the next one. GROUP is given as
for ack.`,
		Example: `  boltmesh alarms clear machine-health overheated machine-1 --note "sensor replaced"`,
	}, control.CommandClear, "cleared")
}

// commanding completes a command that tells an alarm to do something.
func (c *cli) commanding(cmd *cobra.Command, command, done string) *cobra.Command {
	q := control.CommandRequest{Command: command}
	cmd.Args = args(cobra.MinimumNArgs(3))
	fs := cmd.Flags()
	fs.StringVar(&q.Note, "note", "", "what to keep with it in the history of the episode")
	fs.StringVar(&q.By, "by", "", "who does it (default the name of the user)")
	fs.StringVar(&q.ID, "request", "", "id of the request: one that was made under it already is not made again, and its outcome told (default a new one)")
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		q := q
		q.Node, q.Group = given[1], strings.Join(given[2:], groupSeparator)
		if q.By == "" {
			if u, err := user.Current(); err == nil {
				q.By = u.Username
			}
		}
		return c.connect(cmd.Context(), func(k *control.Control) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), c.timeout)
			defer cancel()
			out, err := k.Command(ctx, given[0], q)
			if err != nil {
				return err
			}
			if out.Refused != "" {
				return fmt.Errorf("not %s: %s", done, out.Refused)
			}
			return c.print(cmd.OutOrStdout(), out, func(*tabwriter.Writer) {
				fmt.Fprintf(cmd.OutOrStdout(), "%s of %s %s\n", q.Node, groupText(q.Group), done)
			})
		})
	}
	return cmd
}
