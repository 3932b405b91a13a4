package mongo_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"
	drv "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.uber.org/goleak"

	"github.com/boltmesh/boltmesh/pkg/document"
	"github.com/boltmesh/boltmesh/pkg/document/documenttest"
	"github.com/boltmesh/boltmesh/pkg/mongo"
	"github.com/boltmesh/boltmesh/pkg/tuple"
	"github.com/boltmesh/boltmesh/tests/servers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var ctx = context.Background()

// server returns the URI of the MongoDB that BOLTMESH_TEST_MONGO_URI names, otherwise of a FerretDB started for this test.
func server(t testing.TB) string {
	if uri := os.Getenv("BOLTMESH_TEST_MONGO_URI"); uri != "" {
		return uri
	}
	return servers.Run(t, servers.Mongo, servers.Options{}).URL
}

var databases atomic.Int64

func open(t testing.TB, uri string) (*mongo.Store, string) {
	t.Helper()
	name := fmt.Sprintf("boltmesh_test_%d_%d", os.Getpid(), databases.Add(1))
	s, err := mongo.Open(ctx, mongo.Options{URI: uri, Database: name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		names, _ := s.Collections(ctx)
		for _, c := range names {
			_ = s.Drop(ctx, c)
		}
		_ = s.Close()
	})
	return s, name
}

func TestConformance(t *testing.T) {
	uri := server(t)
	traits := traitsOf(t, uri)
	t.Logf("traits of this server: %+v", traits)
	documenttest.Run(t, traits, func(t *testing.T) document.Store {
		s, _ := open(t, uri)
		return s
	})
}

// traitsOf asks the server itself, not the adapter: FerretDB stands in for MongoDB where there is none.
func traitsOf(t *testing.T, uri string) (traits documenttest.Traits) {
	client, err := drv.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Disconnect(ctx)
	db := client.Database(fmt.Sprintf("boltmesh_test_traits_%d", os.Getpid()))
	defer db.Drop(ctx)
	_, err = db.Collection("c").Indexes().CreateOne(ctx, drv.IndexModel{
		Keys: bson.D{{Key: "time", Value: 1}}, Options: options.Index().SetExpireAfterSeconds(1),
	})
	traits.TTL = err == nil
	info, err := db.RunCommand(ctx, bson.D{{Key: "buildInfo", Value: 1}}).Raw()
	if err != nil {
		t.Fatal(err)
	}
	_, err = info.LookupErr("ferretdbVersion")
	traits.Limited = err == nil
	return traits
}

func TestTypesInTheDatabase(t *testing.T) {
	uri := server(t)
	s, database := open(t, uri)
	body := `{"_id":"a","time":"2026-11-21T10:32:52.123456+01:00","n":7,"big":9007199254740993,"f":2.0,"beyond":18446744073709551616,"inner":{"time":"2026-11-21T10:32:52Z"}}`
	if refused, err := s.Write(ctx, []document.Document{{Collection: "c", ID: "a", Body: []byte(body)}}); err != nil || len(refused) > 0 {
		t.Fatal(err, refused)
	}
	client, err := drv.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Disconnect(ctx)
	raw, err := client.Database(database).Collection("c").FindOne(ctx, bson.D{}).Raw()
	if err != nil {
		t.Fatal(err)
	}
	var types []string
	elements, _ := raw.Elements()
	for _, e := range elements {
		types = append(types, e.Key()+" "+e.Value().Type.String())
	}
	want := []string{"_id string", "time UTC datetime", "n 64-bit integer", "big 64-bit integer", "f double", "beyond double", "inner embedded document"}
	if d := cmp.Diff(want, types); d != "" {
		t.Errorf("types (-want +got):\n%s", d)
	}
	out := `{"_id":"a","time":"2026-11-21T09:32:52.123Z","n":7,"big":9007199254740993,"f":2.0,"beyond":1.8446744073709552e+19,"inner":{"time":"2026-11-21T10:32:52Z"}}`
	err = s.Each(ctx, "c", func(b []byte) error {
		if d := cmp.Diff(out, string(b)); d != "" {
			t.Errorf("read (-want +got):\n%s", d)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestWhatBSONCannotHoldIsRefused(t *testing.T) {
	s, _ := open(t, server(t))
	deep := ""
	for range 200 {
		deep += `{"x":`
	}
	deep += "1"
	for range 200 {
		deep += "}"
	}
	for _, field := range []string{`"n":9223372036854775809`, `"n":1e400`, `"a\u0000b":1`, `"deep":` + deep} {
		d := document.Document{Collection: "c", ID: "a", Body: []byte(`{"_id":"a",` + field + `}`)}
		if refused, err := s.Write(ctx, []document.Document{d}); err != nil || len(refused) != 1 {
			t.Errorf("%.40s: %v, %d refused, want 1", field, err, len(refused))
		}
	}
}

func TestOutageIsNoRefusal(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	uri := "mongodb://" + l.Addr().String()
	_ = l.Close()
	if s, err := mongo.Open(ctx, mongo.Options{URI: uri, Database: "d", Timeout: 100 * time.Millisecond}); err == nil {
		_ = s.Close()
		t.Error("opened a server that is not there")
	}
	if os.Getenv("BOLTMESH_TEST_MONGO_URI") != "" {
		return // the rest stops a server of its own
	}
	p := servers.Run(t, servers.Mongo, servers.Options{})
	s, err := mongo.Open(ctx, mongo.Options{URI: p.URL, Database: "d", Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p.Kill()
	for _, version := range []int64{0, 1} {
		d := document.Document{Collection: "c", ID: "a", Version: version, Body: []byte(`{"_id":"a","version":1}`)}
		if refused, err := s.Write(ctx, []document.Document{d}); err == nil || len(refused) > 0 {
			t.Errorf("version %d: %v, %d refused while the server was down, want an error", version, err, len(refused))
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	s, _ := open(b, server(b))
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
