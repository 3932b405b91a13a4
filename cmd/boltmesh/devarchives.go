package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/boltmesh/boltmesh/pkg/service"
)

// directory takes a topology with what lies beside it: topology.yaml, the profiles in archives.csv or archives.jsonl, and the readings in data/. Files in
// data/ whose names hold a further dot, such as a.truth.csv, are about the data and not fed.
func (f *devFlags) directory(dir string) error {
	if f.topology == "" {
		f.topology = filepath.Join(dir, "topology.yaml")
	}
	for _, name := range []string{"archives.csv", "archives.jsonl"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil && f.archives == "" {
			f.archives = filepath.Join(dir, name)
		}
	}
	if len(f.feeds) > 0 {
		return nil
	}
	files, err := os.ReadDir(filepath.Join(dir, "data"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, file := range files {
		base, ending, _ := strings.Cut(strings.TrimSuffix(file.Name(), ".gz"), ".")
		if base != "" && slices.Contains([]string{"csv", "jsonl", "ndjson"}, ending) {
			f.feeds = append(f.feeds, filepath.Join(dir, "data", file.Name()))
		}
	}
	return nil
}

// profiles imports the file of profiles that dev was given, before anything runs.
func (m *devMesh) profiles(ctx context.Context, file string, stderr io.Writer) (err error) {
	if file == "" {
		return nil
	}
	i := &importing{file: file, key: "device", stderr: stderr}
	in, err := i.input(nil)
	if err != nil {
		return err
	}
	defer in.Close()
	s, err := service.OpenArchivesFile(ctx, m.archives)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	done, err := i.run(ctx, in, s, m.plan.Topology.Archive.Name, func(...string) error { return nil })
	if err == nil && done.Refused > 0 {
		err = fmt.Errorf("%s of %s refused: correct them", plural(done.Refused, "line"), file)
	}
	return err
}
