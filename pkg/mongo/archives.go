package mongo

import (
	"context"
	"errors"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/boltmesh/boltmesh/pkg/archive"
)

// Archives is archive.Store on one database: a collection archive_<name> each, of documents {_id: device, version, fields}.
type Archives struct{ *Store }

var _ archive.Store = Archives{}

// OpenArchives connects, like Open.
func OpenArchives(ctx context.Context, o Options) (Archives, error) {
	s, err := Open(ctx, o)
	return Archives{s}, err
}

func (s Archives) collection(name string) *mongo.Collection {
	return s.db.Collection("archive_" + name)
}

// Read implements archive.Store.
func (s Archives) Read(ctx context.Context, name string, devices []string) ([]*archive.Profile, error) {
	out := make([]*archive.Profile, len(devices))
	if len(devices) == 0 {
		return out, ctx.Err()
	}
	found := make(map[string]*archive.Profile, len(devices))
	filter := bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: devices}}}}
	err := s.find(ctx, name, filter, options.Find().SetBatchSize(int32(len(devices)+1)), func(p archive.Profile) { found[p.Device] = &p })
	if err != nil {
		return nil, fmt.Errorf("read archive %s: %w", name, err)
	}
	for i, d := range devices {
		out[i] = found[d]
	}
	return out, nil
}

// find calls f with every profile that a query finds.
func (s Archives) find(ctx context.Context, name string, filter bson.D, o *options.FindOptionsBuilder, f func(archive.Profile)) (err error) {
	cursor, err := s.collection(name).Find(ctx, filter, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cursor.Close(context.WithoutCancel(ctx))) }()
	for cursor.Next(ctx) {
		var p archive.Profile
		if p.Device, _ = cursor.Current.Lookup("_id").StringValueOK(); p.Device == "" {
			return fmt.Errorf("a document of %s has no text for _id", s.collection(name).Name())
		}
		p.Version, _ = cursor.Current.Lookup("version").AsInt64OK()
		fields, ok := cursor.Current.Lookup("fields").DocumentOK()
		if !ok {
			return fmt.Errorf("the document of %q in %s has no fields", p.Device, s.collection(name).Name())
		}
		if p.Fields, err = appendJSON(nil, fields); err != nil {
			return fmt.Errorf("the document of %q in %s: %w", p.Device, s.collection(name).Name(), err)
		}
		f(p)
	}
	return cursor.Err()
}

// change is the update that puts p where another version was, or none.
func change(p archive.Profile) (bson.D, error) {
	// One level down, since at the top of a document "time" becomes a date.
	set, err := appendBSON(nil, append(append([]byte(`{"fields":`), p.Fields...), '}'))
	if err != nil {
		return nil, fmt.Errorf("profile of %q: %w", p.Device, err)
	}
	return bson.D{{Key: "$set", Value: bson.Raw(set)}, {Key: "$inc", Value: bson.D{{Key: "version", Value: int64(1)}}}}, nil
}

// Write implements archive.Store.
func (s Archives) Write(ctx context.Context, name string, profiles []archive.Profile) error {
	if err := archive.CheckBatch(name, profiles); err != nil || len(profiles) == 0 {
		return err
	}
	models := make([]mongo.WriteModel, len(profiles))
	for i, p := range profiles {
		update, err := change(p)
		if err != nil {
			return err
		}
		models[i] = mongo.NewUpdateOneModel().SetFilter(bson.D{{Key: "_id", Value: p.Device}}).SetUpdate(update).SetUpsert(true)
	}
	if _, err := s.collection(name).BulkWrite(ctx, models, options.BulkWrite().SetOrdered(false)); err != nil {
		return fmt.Errorf("write %d profiles to archive %s: %w", len(profiles), name, err)
	}
	return nil
}

// Replace implements archive.Store.
func (s Archives) Replace(ctx context.Context, name string, p archive.Profile) (int64, error) {
	if err := archive.CheckBatch(name, []archive.Profile{p}); err != nil {
		return 0, err
	}
	if err := s.replaceOne(ctx, name, p); err != nil {
		return 0, fmt.Errorf("replace the profile of %s in archive %s: %w", p.Device, name, err)
	}
	return p.Version + 1, nil
}

func (s Archives) replaceOne(ctx context.Context, name string, p archive.Profile) error {
	if p.Version == 0 {
		document := append([]byte(`{"_id":`), appendString(nil, p.Device)...)
		document = append(append(append(document, `,"version":1,"fields":`...), p.Fields...), '}')
		body, err := appendBSON(nil, document)
		if err != nil {
			return err
		}
		if _, err = s.collection(name).InsertOne(ctx, bson.Raw(body)); mongo.IsDuplicateKeyError(err) {
			return archive.ErrConflict
		}
		return err
	}
	update, err := change(p)
	if err != nil {
		return err
	}
	result, err := s.collection(name).UpdateOne(ctx, bson.D{{Key: "_id", Value: p.Device}, {Key: "version", Value: p.Version}}, update)
	if err == nil && result.MatchedCount == 0 {
		err = archive.ErrConflict
	}
	return err
}

// Delete implements archive.Store.
func (s Archives) Delete(ctx context.Context, name string, devices []string) (known int, err error) {
	if len(devices) == 0 {
		return 0, ctx.Err()
	}
	result, err := s.collection(name).DeleteMany(ctx, bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: devices}}}})
	if err != nil {
		return 0, fmt.Errorf("delete from archive %s: %w", name, err)
	}
	return int(result.DeletedCount), nil
}

// List implements archive.Store.
func (s Archives) List(ctx context.Context, name, prefix, after string, limit int) (out []archive.Profile, err error) {
	if limit <= 0 {
		return nil, ctx.Err()
	}
	order := options.Find().SetSort(bson.D{{Key: "_id", Value: 1}}).SetLimit(int64(limit))
	from := bson.D{{Key: "$gte", Value: prefix}, {Key: "$gt", Value: after}}
	if end := archive.Prefixed(prefix); end != "" {
		from = append(from, bson.E{Key: "$lt", Value: end})
	}
	err = s.find(ctx, name, bson.D{{Key: "_id", Value: from}}, order, func(p archive.Profile) { out = append(out, p) })
	if err != nil {
		return nil, fmt.Errorf("list archive %s: %w", name, err)
	}
	return out, nil
}
