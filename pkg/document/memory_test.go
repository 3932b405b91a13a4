package document_test

import (
	"testing"

	"github.com/boltmesh/boltmesh/pkg/document"
	"github.com/boltmesh/boltmesh/pkg/document/documenttest"
)

func TestMemory(t *testing.T) {
	documenttest.Run(t, documenttest.Traits{Ordered: true}, func(*testing.T) document.Store { return document.NewMemory() })
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
