package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/boltmesh/boltmesh/pkg/archive"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/mongo"
	"github.com/boltmesh/boltmesh/pkg/service"
)

// archiveFlags say where the archive is.
type archiveFlags struct {
	*cli
	archive string
	sqlite  string
	uri     string
	db      string
	offline bool
}

func newArchives(c *cli) *cobra.Command {
	f := &archiveFlags{cli: c}
	cmd := &cobra.Command{
		Use:   "archives",
		Short: "Look at and change what is known of devices",
		Long: `The archive holds a profile of each device: fields such as site, model or limits, which expressions read as archive.site and scripts as
ctx.archive.site. It is in MongoDB, or beside the SQLite file of a mesh that has one. Topologies name theirs with archive: <name>; the name is devices
where nothing else is said.

A change is told to all workers and counts from then on. A worker that misses it sees it within a minute.`,
	}
	fs := cmd.PersistentFlags()
	fs.StringVar(&f.archive, "archive", archive.DefaultName, "name of the archive")
	fs.StringVar(&f.uri, "mongo", "", "MongoDB that holds it (default $BOLTMESH_MONGO_URI, else mongodb://127.0.0.1:27017)")
	fs.StringVar(&f.db, "mongo-database", "", "its database (default $BOLTMESH_MONGO_DATABASE, else "+service.ArchiveDatabase+")")
	fs.StringVar(&f.sqlite, "sqlite", "", "SQLite file of the mesh's state, instead of MongoDB: the archive is beside it (default $BOLTMESH_SQLITE)")
	fs.BoolVar(&f.offline, "offline", false, "do not tell the workers: NATS is not needed, and they see the change within a minute")
	cmd.AddCommand(newArchivesImport(f), newArchivesGet(f), newArchivesSet(f), newArchivesDelete(f), newArchivesList(f))
	return cmd
}

// open runs do with the archive's store.
func (f *archiveFlags) open(ctx context.Context, do func(archive.Store) error) (err error) {
	if err := archive.CheckName(f.archive); err != nil {
		return usageError{fmt.Errorf("--archive %q: %w", f.archive, err)}
	}
	for name, value := range map[string]*string{"SQLITE": &f.sqlite, "MONGO_URI": &f.uri, "MONGO_DATABASE": &f.db} {
		if *value == "" && (name != "SQLITE" || f.uri == "") {
			*value = os.Getenv("BOLTMESH_" + name)
		}
	}
	var s archive.Store
	if f.sqlite != "" {
		s, err = service.OpenArchivesFile(ctx, service.ArchivesFile(f.sqlite))
	} else {
		if f.uri == "" {
			f.uri = "mongodb://127.0.0.1:27017"
		}
		if f.db == "" {
			f.db = service.ArchiveDatabase
		}
		s, err = mongo.OpenArchives(ctx, mongo.Options{URI: f.uri, Database: f.db, Timeout: f.timeout})
	}
	if err != nil {
		return fmt.Errorf("%w: name the store with --mongo or --sqlite", err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return do(s)
}

// change runs do with the store, and with what tells the workers which devices have changed.
func (f *archiveFlags) change(ctx context.Context, do func(s archive.Store, tell func(devices ...string) error) error) error {
	tell := func(...string) error { return nil }
	if !f.offline { // before anything is changed: nothing is to be changed that nobody is told of
		dial, cancel := context.WithTimeout(ctx, min(connectWait, f.timeout))
		defer cancel()
		o := f.nats
		o.Name = "boltmesh-cli"
		conn, err := jetstream.Connect(dial, o)
		if err != nil {
			return fmt.Errorf("%w: name another with --nats or BOLTMESH_NATS_URL, or give --offline", err)
		}
		defer conn.Close()
		tell = func(devices ...string) error {
			if len(devices) == 0 {
				return nil
			}
			if err := conn.ArchiveChanged(ctx, f.archive, devices); err != nil {
				return fmt.Errorf("it is stored, but %w: workers see it within a minute", err)
			}
			return nil
		}
	}
	return f.open(ctx, func(s archive.Store) error { return do(s, tell) })
}

// profile is how a profile is shown.
type profile struct {
	Archive string          `json:"archive"`
	Device  string          `json:"device"`
	Version int64           `json:"version"`
	Fields  json.RawMessage `json:"fields"`
}

func (f *archiveFlags) shown(p *archive.Profile) profile {
	return profile{f.archive, p.Device, p.Version, p.Fields}
}

func newArchivesGet(f *archiveFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "get DEVICE...",
		Short: "Show the profiles of devices",
		Example: `  boltmesh archives get m1
  boltmesh archives get m1 m2 -o json | jq '.[].fields.limit'`,
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, devices []string) error {
			return f.open(cmd.Context(), func(s archive.Store) error {
				found, err := s.Read(cmd.Context(), f.archive, devices)
				if err != nil {
					return err
				}
				out := []profile{}
				var missing []string
				for i, p := range found {
					if p == nil {
						missing = append(missing, devices[i])
						continue
					}
					out = append(out, f.shown(p))
				}
				err = f.print(cmd.OutOrStdout(), out, func(t *tabwriter.Writer) {
					for i := range out {
						if i > 0 {
							row(t)
						}
						showProfile(t, &out[i])
					}
				})
				if err == nil && len(missing) > 0 {
					err = fmt.Errorf("%s has no device %s: see boltmesh archives ls", f.archive, strings.Join(missing, " or "))
				}
				return err
			})
		},
	}
}

// showProfile writes one profile, a field a row.
func showProfile(t *tabwriter.Writer, p *profile) {
	row(t, "device", p.Device)
	row(t, "version", p.Version)
	var fields map[string]json.RawMessage
	if json.Unmarshal(p.Fields, &fields) != nil {
		row(t, "fields", string(p.Fields))
		return
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		row(t, name, string(fields[name]))
	}
}

func newArchivesList(f *archiveFlags) *cobra.Command {
	after, limit := "", 1000
	cmd := &cobra.Command{
		Use:   "ls [PREFIX]",
		Short: "List the devices of an archive, or those whose ids begin alike",
		Example: `  boltmesh archives ls
  boltmesh archives ls press- --limit 20
  boltmesh archives ls --after press-0999 -o json | jq -r '.[] | select(.fields.site == null) | .device'`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, prefix []string) error {
			if limit <= 0 {
				return usageError{fmt.Errorf("--limit: %d is not a number of devices", limit)}
			}
			return f.open(cmd.Context(), func(s archive.Store) error {
				found, err := s.List(cmd.Context(), f.archive, strings.Join(prefix, ""), after, limit)
				if err != nil {
					return err
				}
				out := make([]profile, len(found))
				for i := range found {
					out[i] = f.shown(&found[i])
				}
				if len(out) == limit {
					fmt.Fprintf(cmd.ErrOrStderr(), "There may be more: go on with --after %q.\n", out[limit-1].Device)
				}
				return f.print(cmd.OutOrStdout(), out, func(t *tabwriter.Writer) {
					row(t, "DEVICE", "VERSION", "FIELDS")
					for _, p := range out {
						row(t, p.Device, p.Version, brief(string(p.Fields)))
					}
				})
			})
		},
	}
	cmd.Flags().StringVar(&after, "after", "", "only those behind this one")
	cmd.Flags().IntVar(&limit, "limit", limit, "the most to list")
	return cmd
}

func newArchivesDelete(f *archiveFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "delete DEVICE...",
		Short: "Forget devices",
		Example: `  boltmesh archives delete m1
  boltmesh archives ls old- -o json | jq -r '.[].device' | xargs boltmesh archives delete`,
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, devices []string) error {
			return f.change(cmd.Context(), func(s archive.Store, tell func(...string) error) error {
				known, err := s.Delete(cmd.Context(), f.archive, devices)
				if err != nil {
					return err
				}
				if err := tell(devices...); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s deleted from %s\n", plural(known, "device"), f.archive)
				if known == 0 {
					return fmt.Errorf("%s has no device %s", f.archive, strings.Join(devices, " or "))
				}
				return nil
			})
		},
	}
}

func newArchivesSet(f *archiveFlags) *cobra.Command {
	var unset []string
	cmd := &cobra.Command{
		Use:   "set DEVICE FIELD=VALUE...",
		Short: "Change fields of one device, which is added if it is unknown",
		Long: `A value is a number, true, false, null, an object or a list where it is one in JSON, else a text; write '"5"' for the text 5. Other fields stay as
they are.`,
		Example: `  boltmesh archives set m1 site=north limit=85.5
  boltmesh archives set m1 'limits={"low": 10, "high": 80}' --unset limit`,
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			device := given[0]
			if err := archive.CheckDevice(device); err != nil {
				return usageError{err}
			}
			changes, err := assignments(given[1:], unset)
			if err != nil {
				return err
			}
			return f.change(cmd.Context(), func(s archive.Store, tell func(...string) error) error {
				p, err := assign(cmd.Context(), s, f.archive, device, changes)
				if err != nil {
					return err
				}
				if err := tell(device); err != nil {
					return err
				}
				out := f.shown(&p)
				return f.print(cmd.OutOrStdout(), []profile{out}, func(t *tabwriter.Writer) { showProfile(t, &out) })
			})
		},
	}
	cmd.Flags().StringArrayVar(&unset, "unset", nil, "field to remove; repeatable")
	return cmd
}

// assignments reads field=value; a field that is to go has no value.
func assignments(given, unset []string) (map[string]json.RawMessage, error) {
	out := map[string]json.RawMessage{}
	for _, s := range given {
		name, text, ok := strings.Cut(s, "=")
		if !ok {
			return nil, usageError{fmt.Errorf("%q is no assignment: write field=value", s)}
		}
		value := json.RawMessage(text)
		if !json.Valid(value) {
			value, _ = json.Marshal(text) // a string cannot fail
		}
		if err := add(out, name, value); err != nil {
			return nil, err
		}
	}
	for _, name := range unset {
		if err := add(out, name, nil); err != nil {
			return nil, err
		}
	}
	if len(out) == 0 {
		return nil, usageError{errors.New("nothing is to change: write field=value, or --unset field")}
	}
	return out, nil
}

func add(to map[string]json.RawMessage, name string, value json.RawMessage) error {
	if err := archive.CheckField(name); err != nil {
		return usageError{err}
	}
	if _, twice := to[name]; twice {
		return usageError{fmt.Errorf("the field %q is given twice", name)}
	}
	to[name] = value
	return nil
}

// assign changes fields of a device and returns its profile. Whatever somebody else changes at the same time stays.
func assign(ctx context.Context, s archive.Store, name, device string, changes map[string]json.RawMessage) (archive.Profile, error) {
	for {
		found, err := s.Read(ctx, name, []string{device})
		if err != nil {
			return archive.Profile{}, err
		}
		old := archive.Profile{Device: device, Fields: []byte("{}")}
		if found[0] != nil {
			old = *found[0]
		}
		fields := map[string]json.RawMessage{}
		if err := json.Unmarshal(old.Fields, &fields); err != nil {
			return archive.Profile{}, fmt.Errorf("the profile of %s: %w", device, err)
		}
		maps.Copy(fields, changes)
		maps.DeleteFunc(fields, func(_ string, v json.RawMessage) bool { return v == nil })
		p, err := archive.Of(device, fields)
		if err != nil {
			return p, err
		}
		p.Version = old.Version
		p.Version, err = s.Replace(ctx, name, p)
		if !errors.Is(err, archive.ErrConflict) {
			return p, err
		}
	}
}
