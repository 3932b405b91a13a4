package main

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/boltmesh/boltmesh/pkg/archive"
)

// importBatch is how many profiles are written at once.
const importBatch = 500

// badLines is how many lines that cannot be used are told one by one.
const badLines = 100

// imported is what became of a file.
type imported struct {
	Archive  string `json:"archive"`
	Imported int    `json:"imported"` // devices stored
	Refused  int    `json:"refused"`  // lines that cannot be used
	DryRun   bool   `json:"dry_run,omitempty"`
}

func newArchivesImport(f *archiveFlags) *cobra.Command {
	i := &importing{}
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Store the profiles of a file: CSV with a header, or JSON lines",
		Long: `Each line is one device, and replaces all that the archive knew of it. In CSV an empty cell is an absent field, and a cell is a number, true or false
where it is one in JSON, else a text. A line that cannot be used is told with its place and what to do, the others are stored, and the exit code is 1. To
import a file again does no harm.

The name's ending tells CSV from JSON lines, also before .gz; - is stdin.`,
		Example: `  boltmesh archives import machines.csv --key machine_id
  boltmesh archives import machines.jsonl.gz --archive machines
  export-machines | boltmesh archives import - --format jsonl --dry-run`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, files []string) error {
			i.file, i.stderr = files[0], cmd.ErrOrStderr()
			in, err := i.input(cmd.InOrStdin())
			if err != nil {
				return err
			}
			defer in.Close()
			var done imported
			store := func(s archive.Store, tell func(...string) error) error {
				done, err = i.run(cmd.Context(), in, s, f.archive, tell)
				return err
			}
			if i.dry {
				err = store(nil, nil)
			} else {
				err = f.change(cmd.Context(), store)
			}
			if err != nil {
				return err
			}
			err = f.print(cmd.OutOrStdout(), done, func(t *tabwriter.Writer) {
				what := "imported into " + f.archive
				if i.dry {
					what = "would be imported into " + f.archive
				}
				fmt.Fprintf(t, "%s %s, %s refused\n", plural(done.Imported, "device"), what, plural(done.Refused, "line"))
			})
			if err == nil && done.Refused > 0 {
				err = fmt.Errorf("%s refused: correct and import again", plural(done.Refused, "line"))
			}
			return err
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&i.key, "key", "device", "the column or field that names the device")
	fs.StringVar(&i.format, "format", "", "csv or jsonl (default: as the name's ending says)")
	fs.BoolVar(&i.dry, "dry-run", false, "only look whether the file can be used")
	return cmd
}

// importing is one import.
type importing struct {
	file, key, format string
	dry               bool
	stderr            io.Writer
	said              time.Time
}

// input opens the file and finds out its format.
func (i *importing) input(stdin io.Reader) (io.ReadCloser, error) {
	name := strings.TrimSuffix(i.file, ".gz")
	if i.format == "" {
		switch {
		case strings.HasSuffix(name, ".csv"):
			i.format = archive.CSV
		case strings.HasSuffix(name, ".jsonl"), strings.HasSuffix(name, ".ndjson"):
			i.format = archive.JSONL
		}
	}
	if i.format != archive.CSV && i.format != archive.JSONL {
		return nil, usageError{fmt.Errorf("%s: is it CSV or JSON lines? Give --format csv or --format jsonl", i.file)}
	}
	if i.file == "-" {
		return io.NopCloser(stdin), nil
	}
	file, err := os.Open(i.file)
	if err != nil || name == i.file {
		return file, err
	}
	z, err := gzip.NewReader(file)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", i.file, err), file.Close())
	}
	return struct {
		io.Reader
		io.Closer
	}{z, file}, nil
}

// run reads the whole file and stores what can be used, batch by batch; tell is called after each. With --dry-run s and tell are nil.
func (i *importing) run(ctx context.Context, in io.Reader, s archive.Store, name string, tell func(...string) error) (done imported, err error) {
	done = imported{Archive: name, DryRun: i.dry}
	d, err := archive.NewDecoder(in, i.format, i.key)
	if err != nil {
		return done, i.place(err)
	}
	var batch []archive.Profile
	seed, seen := maphash.MakeSeed(), map[uint64]int{} // hashes of devices -> lines: 16 bytes a device, however long its id
	flush := func() error {
		if err := i.store(ctx, s, name, batch, tell); err != nil {
			return fmt.Errorf("%w; %s of %s stored before: import it again", err, plural(done.Imported, "device"), i.file)
		}
		done.Imported += len(batch)
		batch = batch[:0]
		i.progress(done)
		return nil
	}
	for {
		p, line, err := d.Next()
		var bad *archive.LineError
		switch {
		case errors.Is(err, io.EOF):
			return done, flush()
		case errors.As(err, &bad):
		case err != nil:
			return done, errors.Join(fmt.Errorf("%s: line %d: %w", i.file, line, err), flush())
		default:
			h := maphash.String(seed, p.Device)
			if first, twice := seen[h]; twice {
				bad = &archive.LineError{Line: line, What: fmt.Sprintf("the device %q is on line %d already", p.Device, first), Remedy: "remove one"}
				break
			}
			seen[h] = line
			if batch = append(batch, p); len(batch) == importBatch {
				if err := flush(); err != nil {
					return done, err
				}
			}
		}
		if bad != nil {
			if done.Refused++; done.Refused <= badLines {
				fmt.Fprintln(i.stderr, i.place(bad))
			} else if done.Refused == badLines+1 {
				fmt.Fprintln(i.stderr, "More lines cannot be used; they are counted.")
			}
		}
	}
}

// place writes a fault of a line with the file's name.
func (i *importing) place(err error) error {
	var bad *archive.LineError
	if errors.As(err, &bad) {
		return fmt.Errorf("%s:%d: %s: %s", i.file, bad.Line, bad.What, bad.Remedy)
	}
	return err
}

func (i *importing) store(ctx context.Context, s archive.Store, name string, batch []archive.Profile, tell func(...string) error) error {
	if s == nil || len(batch) == 0 {
		return ctx.Err()
	}
	if err := s.Write(ctx, name, batch); err != nil {
		return err
	}
	devices := make([]string, len(batch))
	for k := range batch {
		devices[k] = batch[k].Device
	}
	return tell(devices...)
}

// progress says how far the import is, once a second at most, where somebody looks.
func (i *importing) progress(done imported) {
	file, ok := i.stderr.(*os.File)
	if !ok || !terminal(file) || time.Since(i.said) < time.Second {
		return
	}
	i.said = time.Now()
	fmt.Fprintf(i.stderr, "%d devices, %d lines refused\n", done.Imported, done.Refused)
}
