package mongo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/boltmesh/boltmesh/pkg/document"
)

// Bounds of one command, well below the server's own (100,000 operations, 48 MB).
const (
	maxInserts     = 1000
	maxInsertBytes = 16 << 20
	maxReplaces    = 40 // FerretDB, which tests use, deadlocks at about 100
)

// item is a document on its way: where it stands in the caller's slice, and its BSON.
type item struct {
	index   int
	id      string
	version int64
	body    bson.Raw
}

// Write implements document.Store: one bulk per collection and kind of write.
func (s *Store) Write(ctx context.Context, docs []document.Document) ([]document.Refusal, error) {
	var refused []document.Refusal
	var order []string
	byCollection := map[string][]item{}
	for i := range docs {
		d := &docs[i]
		body, err := encode(d)
		if err != nil {
			refused = append(refused, document.Refusal{Index: i, Err: err})
			continue
		}
		if byCollection[d.Collection] == nil {
			order = append(order, d.Collection)
		}
		byCollection[d.Collection] = append(byCollection[d.Collection], item{i, d.ID, d.Version, body})
	}
	for _, name := range order {
		r, err := s.writeCollection(ctx, s.db.Collection(name), byCollection[name])
		if err != nil {
			return nil, fmt.Errorf("write %d documents to %s: %w", len(byCollection[name]), name, err)
		}
		refused = append(refused, r...)
	}
	return refused, ctx.Err()
}

func encode(d *document.Document) (bson.Raw, error) {
	if err := d.Check(); err != nil {
		return nil, err
	}
	return appendBSON(nil, d.Body)
}

func (s *Store) writeCollection(ctx context.Context, c *mongo.Collection, items []item) (refused []document.Refusal, err error) {
	var once, versioned []item
	for _, x := range items {
		if x.version > 0 {
			versioned = append(versioned, x)
		} else {
			once = append(once, x)
		}
	}
	if refused, err = s.insert(ctx, c, once); err != nil {
		return nil, err
	}
	for len(versioned) > 0 {
		round, lower := highest(versioned)
		first, later := firsts(round)
		failed, err := s.insert(ctx, c, first)
		if err != nil {
			return nil, err
		}
		for some := range slices.Chunk(later, maxReplaces) {
			r, err := s.replace(ctx, c, some)
			if err != nil {
				return nil, err
			}
			failed = append(failed, r...)
		}
		refused, versioned = append(refused, failed...), below(failed, round, lower)
	}
	return refused, nil
}

// highest splits items into the highest version of each id and the rest, which need not be written where that one is: it would replace them.
func highest(items []item) (round, lower []item) {
	at := map[string]int{}
	for _, x := range items {
		i, there := at[x.id]
		switch {
		case !there:
			at[x.id] = len(round)
			round = append(round, x)
		case x.version > round[i].version:
			lower, round[i] = append(lower, round[i]), x
		default:
			lower = append(lower, x)
		}
	}
	return round, lower
}

// below returns the lower versions of those that were refused.
func below(refused []document.Refusal, round, lower []item) (left []item) {
	if len(refused) == 0 {
		return nil
	}
	ids := map[string]bool{}
	for _, x := range round {
		ids[x.id] = slices.ContainsFunc(refused, func(r document.Refusal) bool { return r.Index == x.index })
	}
	return slices.DeleteFunc(lower, func(x item) bool { return !ids[x.id] })
}

// firsts separates the first versions from the later ones. A first version is like a document that never changes: whatever is stored under its id is no lower.
func firsts(round []item) (first, later []item) {
	for _, x := range round {
		if x.version == 1 {
			first = append(first, x)
		} else {
			later = append(later, x)
		}
	}
	return first, later
}

// insert writes documents of which one that is there already counts as written.
func (s *Store) insert(ctx context.Context, c *mongo.Collection, items []item) (refused []document.Refusal, err error) {
	for len(items) > 0 {
		var bodies []bson.Raw
		bytes := 0
		for _, x := range items[:min(len(items), maxInserts)] {
			if bytes += len(x.body); bytes > maxInsertBytes && len(bodies) > 0 {
				break
			}
			bodies = append(bodies, x.body)
		}
		_, err := c.InsertMany(ctx, bodies, options.InsertMany().SetOrdered(false))
		failed, err := writeErrors(err)
		if err != nil {
			return nil, err
		}
		r, err := s.judge(ctx, c, items, failed)
		if err != nil {
			return nil, err
		}
		refused, items = append(refused, r...), items[len(bodies):]
	}
	return refused, nil
}

// replace writes documents of which the highest version counts. The filter matches only a stored lower version; where none is stored the upsert
// inserts, and where the stored one is not lower the upsert fails on _id. That failure may also mean that another writer has just inserted a lower
// version, which the filter would match now: so it is believed only at the second time.
func (s *Store) replace(ctx context.Context, c *mongo.Collection, items []item) ([]document.Refusal, error) {
	failed, err := s.replaceOnce(ctx, c, items)
	if err != nil || len(failed) == 0 {
		return nil, err
	}
	var again []item
	var final []mongo.WriteError
	for _, e := range failed {
		if e.Code == duplicateKey {
			again = append(again, items[e.Index])
		} else {
			final = append(final, e)
		}
	}
	refused, err := s.judge(ctx, c, items, final)
	if err != nil || len(again) == 0 {
		return refused, err
	}
	if failed, err = s.replaceOnce(ctx, c, again); err != nil {
		return nil, err
	}
	more, err := s.judge(ctx, c, again, failed)
	return append(refused, more...), err
}

func (s *Store) replaceOnce(ctx context.Context, c *mongo.Collection, items []item) ([]mongo.WriteError, error) {
	models := make([]mongo.WriteModel, len(items))
	for i, x := range items {
		filter := bson.D{{Key: "_id", Value: x.id}, {Key: "version", Value: bson.D{{Key: "$lt", Value: x.version}}}}
		models[i] = mongo.NewReplaceOneModel().SetFilter(filter).SetReplacement(x.body).SetUpsert(true)
	}
	result, err := c.BulkWrite(ctx, models, options.BulkWrite().SetOrdered(false))
	failed, err := writeErrors(err)
	if err != nil || len(failed) == 0 || int(result.MatchedCount+result.UpsertedCount)+len(failed) == len(items) {
		return failed, err
	}
	// FerretDB ends a command at its first error, ordered or not, and does not say which of the others it has done: each alone, then.
	failed = nil
	for i := range items {
		_, err := c.BulkWrite(ctx, models[i:i+1])
		one, err := writeErrors(err)
		if err != nil {
			return nil, err
		}
		for _, e := range one {
			e.Index = i
			failed = append(failed, e)
		}
	}
	return failed, nil
}

// writeErrors separates what the server says of single documents from a failure of the whole, whose outcome is unknown.
func writeErrors(err error) ([]mongo.WriteError, error) {
	var bulk mongo.BulkWriteException
	if err == nil || !errors.As(err, &bulk) || bulk.WriteConcernError != nil {
		return nil, err
	}
	failed := make([]mongo.WriteError, len(bulk.WriteErrors))
	for i, e := range bulk.WriteErrors {
		if passing[e.Code] {
			return nil, err
		}
		failed[i] = e.WriteError
	}
	return failed, nil
}

const duplicateKey = 11000

// passing are the codes of errors that say something about the server's state and nothing about the document, as MongoDB's error_codes.yml has them.
var passing = map[int]bool{
	6: true, 7: true, 89: true, 9001: true, // HostUnreachable, HostNotFound, NetworkTimeout, SocketException
	13: true, 18: true, 8000: true, // Unauthorized, AuthenticationFailed, AtlasError
	24: true, 112: true, 146: true, 262: true, // LockTimeout, WriteConflict, ExceededMemoryLimit, ExceededTimeLimit
	50: true, 64: true, 79: true, 100: true, // MaxTimeMSExpired, WriteConcernFailed, UnknownReplWriteConcern, UnsatisfiableWriteConcern
	63: true, 91: true, 189: true, 13388: true, // StaleShardVersion, ShutdownInProgress, PrimarySteppedDown, StaleConfig
	10107: true, 13435: true, 13436: true, 11600: true, 11602: true, // not primary, recovering, interrupted
	14031: true, // OutOfDiskSpace
}

// judge decides which failed documents are refused: all, except those that are stored already.
func (s *Store) judge(ctx context.Context, c *mongo.Collection, items []item, failed []mongo.WriteError) (refused []document.Refusal, err error) {
	var unclear []string
	for _, e := range failed {
		if e.Code == duplicateKey && duplicated(e) == "" {
			unclear = append(unclear, items[e.Index].id)
		}
	}
	stored, err := s.stored(ctx, c, unclear)
	if err != nil {
		return nil, err
	}
	for _, e := range failed {
		x := items[e.Index]
		if e.Code == duplicateKey && (duplicated(e) == "_id_" || duplicated(e) == "" && stored[x.id]) {
			continue
		}
		refused = append(refused, document.Refusal{Index: x.index, Err: fmt.Errorf("mongo: %s (code %d)", e.Message, e.Code)})
	}
	return refused, nil
}

// duplicated names the index that a duplicate-key error is about, "_id_" for that of _id, "" when the server does not say.
func duplicated(e mongo.WriteError) string {
	if pattern, ok := e.Raw.Lookup("keyPattern").DocumentOK(); ok {
		keys, err := pattern.Elements()
		if err == nil && len(keys) == 1 && keys[0].Key() == "_id" {
			return "_id_"
		}
		return pattern.String()
	}
	if _, after, ok := strings.Cut(e.Message, " index: "); ok {
		name, _, _ := strings.Cut(after, " ")
		return name
	}
	return ""
}

// stored tells which of ids are in the collection.
func (s *Store) stored(ctx context.Context, c *mongo.Collection, ids []string) (map[string]bool, error) {
	found := map[string]bool{}
	if len(ids) == 0 {
		return found, nil
	}
	filter := bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: ids}}}}
	cursor, err := c.Find(ctx, filter, options.Find().SetProjection(bson.D{{Key: "_id", Value: 1}}))
	if err != nil {
		return nil, err
	}
	var rows []struct {
		ID string `bson:"_id"`
	}
	if err := cursor.All(ctx, &rows); err != nil {
		return nil, err
	}
	for _, row := range rows {
		found[row.ID] = true
	}
	return found, nil
}
