package mongo_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/archive"
	"github.com/boltmesh/boltmesh/pkg/archive/archivetest"
	"github.com/boltmesh/boltmesh/pkg/mongo"
	"github.com/boltmesh/boltmesh/tests/servers"
)

func TestArchives(t *testing.T) {
	uri := server(t)
	archivetest.Run(t, archivetest.Traits{Racy: traitsOf(t, uri).Limited}, func(t *testing.T) archive.Store {
		s, _ := open(t, uri)
		return mongo.Archives{Store: s}
	})
}

// TestArchiveOutage: a server that does not answer is an error, never an unknown device.
func TestArchiveOutage(t *testing.T) {
	if os.Getenv("BOLTMESH_TEST_MONGO_URI") != "" {
		return // this stops a server of its own
	}
	p := servers.Run(t, servers.Mongo, servers.Options{})
	s, err := mongo.OpenArchives(ctx, mongo.Options{URI: p.URL, Database: "d", Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p.Kill()
	if got, err := s.Read(ctx, "m", []string{"a"}); err == nil {
		t.Errorf("read %v from a server that is down", got)
	}
}

// BenchmarkArchiveRead is one load of devices that are not cached, and for comparison of one only.
func BenchmarkArchiveRead(b *testing.B) {
	store, _ := open(b, server(b))
	s := mongo.Archives{Store: store}
	devices := make([]string, 256)
	profiles := make([]archive.Profile, len(devices))
	for i := range devices {
		devices[i] = fmt.Sprintf("device-%03d", i)
		profiles[i] = archive.Profile{Device: devices[i], Fields: []byte(`{"site":"north","model":"x","limit":80,"gain":1.02}`)}
	}
	if err := s.Write(ctx, "m", profiles); err != nil {
		b.Fatal(err)
	}
	for _, n := range []int{1, 256} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				if _, err := s.Read(ctx, "m", devices[:n]); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "profiles/s")
		})
	}
}
