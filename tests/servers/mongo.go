package servers

import (
	"context"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// Mongo starts FerretDB, which speaks MongoDB's protocol over SQLite files. URL is mongodb://127.0.0.1:port/. Killed and
// restarted it has every document that it acknowledged.
//
// It is not MongoDB: about 100 updates that match in one command deadlock it, a look-up by _id scans the collection,
// $group with two accumulators answers wrongly, and there are no TTL indexes.
func Mongo(ctx context.Context, o Options) (*Process, error) {
	bin, err := o.tool("ferretdb")
	if err != nil {
		return nil, err
	}
	p, ports, err := prepare("mongo", o, 1)
	if err != nil {
		return nil, err
	}
	addr := loopback(ports[0])
	p.URL = "mongodb://" + addr + "/"
	p.ready = func(ctx context.Context) error { return askMongo(ctx, addr, p.URL) }
	p.argv = []string{bin, "-listen", addr, "-dir", p.data()}
	return p.launch(ctx, o)
}

func askMongo(ctx context.Context, addr, url string) error {
	if err := listening(ctx, addr); err != nil { // the driver itself looks again only every half second
		return err
	}
	client, err := mongo.Connect(options.Client().ApplyURI(url).SetServerSelectionTimeout(pollLimit))
	if err != nil {
		return err
	}
	err = client.Ping(ctx, nil)
	_ = client.Disconnect(context.WithoutCancel(ctx))
	return err
}
