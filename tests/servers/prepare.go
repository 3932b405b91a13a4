package servers

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// prepare makes the directory of a server and chooses its ports.
func prepare(name string, o Options, ports int) (*Process, []int, error) {
	p := &Process{Name: name, dir: o.Dir}
	if o.Dir == "" {
		dir, err := os.MkdirTemp("", "boltmesh-"+name+"-")
		if err != nil {
			return nil, nil, fmt.Errorf("start %s: %w", name, err)
		}
		p.dir, p.ownDir = dir, true
	}
	dir, err := filepath.Abs(p.dir)
	if err != nil {
		return nil, nil, fmt.Errorf("start %s: %w", name, err)
	}
	p.dir = dir
	if err := os.MkdirAll(p.data(), 0o755); err != nil {
		return nil, nil, fmt.Errorf("start %s: %w", name, err)
	}
	free, err := freePorts(ports)
	if err != nil {
		return nil, nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, free, nil
}

// data is where the server's own files are, apart from its log and its configuration.
func (p *Process) data() string { return filepath.Join(p.dir, "data") }

// writeConfig writes a configuration file of our lines, then the caller's, which win where the last one does.
func (p *Process) writeConfig(file string, ours, callers []string) (path string, err error) {
	path = filepath.Join(p.dir, file)
	text := strings.Join(slices.Concat(ours, callers), "\n") + "\n"
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return "", fmt.Errorf("start %s: %w", p.Name, err)
	}
	return path, nil
}
