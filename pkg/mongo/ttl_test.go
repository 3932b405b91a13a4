package mongo

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/drivertest"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/xoptions"

	"github.com/boltmesh/boltmesh/pkg/document"
)

// MongoDB refuses to make an index that it has with other options: then its TTL is changed, or the error says what to do. FerretDB has no TTL, so that replies here are
// those which MongoDB's manual describes.
func TestTTLOfAnIndexThatIsThere(t *testing.T) {
	done := bson.D{{Key: "ok", Value: 1}}
	refused := func(code int32, name string) bson.D {
		return bson.D{{Key: "ok", Value: 0}, {Key: "code", Value: code}, {Key: "codeName", Value: name}, {Key: "errmsg", Value: name}}
	}
	conflict := refused(85, "IndexOptionsConflict")
	time := document.Index{Collection: "hourly", Fields: []string{"time"}, TTL: 3600}
	plain := time
	plain.TTL = 0
	long := time
	long.TTL = math.MaxInt32 + 1
	for _, c := range []struct {
		name    string
		index   document.Index
		replies []bson.D
		sent    string
		err     string // "": none
	}{
		{"new", time, []bson.D{done}, "createIndexes 3600", ""},
		{"another TTL", time, []bson.D{conflict, done}, "createIndexes 3600, collMod hourly 3600", ""},
		{"another name", time, []bson.D{refused(86, "IndexKeySpecsConflict"), done}, "createIndexes 3600, collMod hourly 3600", ""},
		{"cannot be changed", time, []bson.D{conflict, refused(72, "InvalidOptions")}, "createIndexes 3600, collMod hourly 3600", "drop that index of d.hourly"},
		{"a TTL where none is asked for", plain, []bson.D{conflict}, "createIndexes none", "drop that index of d.hourly"},
		{"no right to", time, []bson.D{refused(13, "Unauthorized")}, "createIndexes 3600", "Unauthorized"},
		{"too long", long, nil, "", "at most 2147483647"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var sent []string
			o := options.Client().SetMonitor(&event.CommandMonitor{Started: func(_ context.Context, e *event.CommandStartedEvent) { sent = append(sent, said(e)) }})
			if err := xoptions.SetInternalClientOptions(o, "deployment", drivertest.NewMockDeployment(c.replies...)); err != nil {
				t.Fatal(err)
			}
			client, err := mongo.Connect(o)
			if err != nil {
				t.Fatal(err)
			}
			err = (&Store{client, client.Database("d")}).Ensure(t.Context(), []document.Index{c.index})
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("error %v, want %q", err, c.err)
			}
			if got := strings.Join(sent, ", "); got != c.sent {
				t.Errorf("sent %s, want %s", got, c.sent)
			}
		})
	}
}

// said is a command with the TTL that it asks for.
func said(e *event.CommandStartedEvent) string {
	if e.CommandName == "collMod" {
		return fmt.Sprint("collMod ", e.Command.Lookup("collMod").StringValue(), " ", e.Command.Lookup("index", "expireAfterSeconds").AsInt64())
	}
	ttl, err := e.Command.LookupErr("indexes", "0", "expireAfterSeconds")
	if err != nil {
		return e.CommandName + " none"
	}
	return fmt.Sprint(e.CommandName, " ", ttl.AsInt64())
}
