package topology_test

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/topology"
)

// TestGraph draws plans in all three ways; look at testdata/graphs/*.svg with a browser.
func TestGraph(t *testing.T) {
	for name, file := range map[string]string{
		"machine-health": "../../examples/machine-health/topology.yaml", "custom-bolt": "../../examples/custom-bolt/topology.yaml",
		"diamond": "testdata/graphs/diamond.yaml", "stages": "testdata/graphs/stages.yaml",
	} {
		t.Run(name, func(t *testing.T) {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			top, problems := topology.Parse(file, source, topology.Options{})
			if err := problems.Err(); err != nil {
				t.Fatal(err)
			}
			p, err := top.Plan()
			if err != nil {
				t.Fatal(err)
			}
			drawn := p.SVG()
			for d := xml.NewDecoder(strings.NewReader(drawn)); ; {
				if _, err := d.Token(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatalf("not XML: %v", err)
				}
			}
			for suffix, got := range map[string]string{".txt": p.Text(), ".mmd": p.Mermaid(), ".svg": drawn} {
				path := filepath.Join("testdata/graphs", name+suffix)
				if *update {
					if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				if want, err := os.ReadFile(path); err != nil || string(want) != got {
					t.Errorf("%s: got (%v)\n%s", path, err, got)
				}
			}
		})
	}
}
