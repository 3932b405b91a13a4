package document_test

import (
	"strings"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/document"
	"github.com/boltmesh/boltmesh/pkg/document/documenttest"
)

func TestMemory(t *testing.T) {
	documenttest.Run(t, documenttest.Traits{Ordered: true}, func(*testing.T) document.Store { return document.NewMemory() })
}

// TestDepth checks that no body, however deep, takes more stack than there is.
func TestDepth(t *testing.T) {
	for open, closed := range map[string]string{"[": "]", `{"a":`: "}"} {
		const head = `{"_id":"x","n":`
		depth := (document.MaxBody - len(head) - 2) / (len(open) + len(closed))
		d := document.Document{Collection: "c", ID: "x", Body: []byte(head + strings.Repeat(open, depth) + "1" + strings.Repeat(closed, depth) + "}")}
		if err := d.Check(); err != nil {
			t.Errorf("%d times %s: %v", depth, open, err)
		}
		d.Body = []byte(head + strings.Repeat(open, document.MaxBody/len(open)-len(head)))
		if err := d.Check(); err == nil {
			t.Errorf("accepted %s without end", open)
		}
		if d.Body = append(d.Body, make([]byte, document.MaxBody)...); d.Check() == nil {
			t.Errorf("accepted %d bytes", len(d.Body))
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	d := document.Document{Collection: "readings", ID: "0123456789abcdef0123456789abcdef", Body: []byte(
		`{"_id":"0123456789abcdef0123456789abcdef","time":"2026-11-21T09:32:52.123Z","device":"m1","site":"north","temperature":85.92649821,"n":22695}`)}
	for b.Loop() {
		if err := d.Check(); err != nil {
			b.Fatal(err)
		}
	}
}
