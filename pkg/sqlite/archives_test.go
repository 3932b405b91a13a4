package sqlite_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/archive"
	"github.com/boltmesh/boltmesh/pkg/archive/archivetest"
	"github.com/boltmesh/boltmesh/pkg/sqlite"
)

func archives(t testing.TB, file string) *sqlite.Archives {
	t.Helper()
	s, err := open(t, file, sqlite.Options{Relaxed: true}).Archives(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestArchives(t *testing.T) {
	archivetest.Run(t, archivetest.Traits{}, func(t *testing.T) archive.Store { return archives(t, filepath.Join(t.TempDir(), "archives.db")) })
}

// TestArchivesOfTwoProcesses: the tools write the file that a mesh reads.
func TestArchivesOfTwoProcesses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "archives.db")
	one, two := archives(t, file), archives(t, file)
	if err := one.Write(ctx, "m", []archive.Profile{{Device: "a", Fields: []byte(`{"n":1}`)}}); err != nil {
		t.Fatal(err)
	}
	got, err := two.Read(ctx, "m", []string{"a"})
	if err != nil || got[0] == nil || string(got[0].Fields) != `{"n":1}` {
		t.Errorf("%v, %v", got, err)
	}
}

// BenchmarkArchiveRead is one load of a batch of devices that are not cached.
func BenchmarkArchiveRead(b *testing.B) {
	s := archives(b, filepath.Join(b.TempDir(), "archives.db"))
	devices := make([]string, 256)
	for i := range devices {
		devices[i] = fmt.Sprintf("device-%03d", i)
		if err := s.Write(ctx, "m", []archive.Profile{{Device: devices[i], Fields: []byte(`{"site":"north","model":"x","limit":80,"gain":1.02}`)}}); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if _, err := s.Read(ctx, "m", devices); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*len(devices))/b.Elapsed().Seconds(), "profiles/s")
}
