package main

import (
	"os"
	"path/filepath"

	"github.com/boltmesh/boltmesh/pkg/script"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// readTopology parses a file; scripts are found beside it.
func readTopology(file string) (*topology.Topology, error) {
	source, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	t, problems := topology.Parse(file, source, topology.Options{
		Vars: os.LookupEnv,
		Script: func(name string) (string, error) {
			b, err := os.ReadFile(filepath.Join(filepath.Dir(file), name))
			return string(b), err
		},
		Checker: script.Check{},
	})
	return t, problems.Err()
}
