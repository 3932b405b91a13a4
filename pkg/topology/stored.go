package topology

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
)

// Document is a topology as it is stored once applied: all that parsing it again needs. Logins in spout.kafka, and addresses and secrets in notify, stay as ${VAR}.
type Document struct {
	Name    string            `json:"name"`              // of the source, for places
	Source  string            `json:"source"`            // YAML
	Scripts map[string]string `json:"scripts,omitempty"` // file name as written -> text
	Vars    map[string]string `json:"vars,omitempty"`    // variables that were set and used
}

// Encode returns the topology's Document as JSON.
func (t *Topology) Encode() ([]byte, error) {
	b, err := json.Marshal(t.Document)
	if err != nil {
		return nil, fmt.Errorf("encode topology %s: %w", t.Name, err)
	}
	return b, nil
}

// ParseStored parses what Encode returned: the same topology that was validated, whatever the variables and files are here. checker may be nil, since
// the code has been checked. The error is a Problems or says that data is no Document.
func ParseStored(data []byte, checker Checker) (*Topology, error) {
	var d Document
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, fmt.Errorf("stored topology: %w", err)
	}
	t, problems := d.Parse(checker)
	return t, problems.Err()
}

// Parse parses the document with the scripts and variables that it holds.
func (d Document) Parse(checker Checker) (*Topology, Problems) {
	return Parse(d.Name, []byte(d.Source), Options{
		Vars: func(name string) (string, bool) { v, ok := d.Vars[name]; return v, ok },
		Script: func(file string) (string, error) {
			text, ok := d.Scripts[file]
			if !ok {
				return "", fmt.Errorf("it was not stored")
			}
			return text, nil
		},
		Checker: checker,
	})
}

// Fingerprint is a SHA-256, in hexadecimal, over all that determines how the topology behaves: comments, order of keys and places do not.
func (t *Topology) Fingerprint() string {
	b, err := json.Marshal(t)
	if err != nil { // only values that Parse never makes, such as NaN among the parameters
		b = fmt.Appendf(nil, "%#v", t)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Changes are what differs between two plans, by node ids, sorted.
type Changes struct {
	Added, Removed []string
	Changed        []string // in their declaration, their edges or their number of tasks
}

// None reports whether nothing differs.
func (c Changes) None() bool { return len(c.Added)+len(c.Removed)+len(c.Changed) == 0 }

// Diff compares two plans of one topology; before may be nil.
func Diff(before, after *Plan) Changes {
	var c Changes
	was, is := described(before), described(after)
	for id, a := range is {
		if b, ok := was[id]; !ok {
			c.Added = append(c.Added, id)
		} else if a != b {
			c.Changed = append(c.Changed, id)
		}
	}
	for id := range was {
		if _, ok := is[id]; !ok {
			c.Removed = append(c.Removed, id)
		}
	}
	slices.Sort(c.Added)
	slices.Sort(c.Removed)
	slices.Sort(c.Changed)
	return c
}

// described returns what each node does, as text that is equal exactly when the nodes are.
func described(p *Plan) map[string]string {
	out := map[string]string{}
	if p == nil {
		return out
	}
	for _, n := range p.Nodes {
		parts := []any{n}
		switch n.Kind {
		case KindSpout:
			parts = append(parts, p.Topology.Spout)
		case KindOutput:
			parts = append(parts, p.Topology.Output)
		default:
			parts = append(parts, p.Topology.Params, p.Topology.Archive)
		}
		b, err := json.Marshal(parts)
		if err != nil {
			b = fmt.Appendf(nil, "%#v", parts)
		}
		out[n.ID] = string(b)
	}
	return out
}
