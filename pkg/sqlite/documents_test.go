package sqlite_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/document"
	"github.com/boltmesh/boltmesh/pkg/document/documenttest"
	"github.com/boltmesh/boltmesh/pkg/sqlite"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

func TestDocuments(t *testing.T) {
	documenttest.Run(t, documenttest.Traits{Ordered: true}, func(t *testing.T) document.Store {
		return open(t, filepath.Join(t.TempDir(), "mesh.db"), sqlite.Options{Relaxed: true}).Documents()
	})
}

// BenchmarkWrite measures batches of 256 readings, each on disk before the next.
func BenchmarkWrite(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "mesh.db"), sqlite.Options{}).Documents()
	docs := make([]document.Document, 256)
	for n := 0; b.Loop(); n++ {
		for i := range docs {
			id := tuple.RootID(tuple.Position{Origin: 1, Offset: int64(n*len(docs) + i)}).String()
			docs[i] = document.Document{Collection: "readings", ID: id, Body: fmt.Appendf(nil,
				`{"_id":%q,"time":"2026-11-21T09:32:52.123Z","device":"m1","site":"north","temperature":85.92649821,"n":%d}`, id, i)}
		}
		if refused, err := s.Write(ctx, docs); err != nil || len(refused) > 0 {
			b.Fatal(err, refused)
		}
	}
	b.ReportMetric(float64(b.N*len(docs))/b.Elapsed().Seconds(), "docs/s")
}
