// Package examples holds the example topologies with their data, so that `boltmesh dev` can run one wherever it is installed.
// It never does anything else.
package examples

import "embed"

// MachineHealth is the directory machine-health.
//
//go:embed machine-health
var MachineHealth embed.FS
