// Package mongo stores documents in MongoDB: document.Store by unordered bulk writes that can be repeated as a whole.
// The output service writes through it and the tools read; pkg/sqlite is its embedded twin.
// It never updates what is inserted once, and never takes a failure that might pass for a document's own fault.
package mongo

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"github.com/boltmesh/boltmesh/pkg/document"
)

// Options say how to reach MongoDB.
type Options struct {
	URI          string        // mongodb://user:password@host:port/?options
	Database     string        // where the collections are
	TLS          *tls.Config   // certificates; nil: as the URI says
	WriteConcern string        // "majority", a number of members, or a tag; "": as the URI says, otherwise majority with journal
	Timeout      time.Duration // of one command with its retries, and of finding a server; 0: 30 s
}

// Store is document.Store on one database. It is safe for concurrent use.
type Store struct {
	client *mongo.Client
	db     *mongo.Database
}

var _ document.Store = (*Store)(nil)

// Open connects and asks the server for a sign of life.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.Database == "" {
		return nil, errors.New("mongo: the options name no database")
	}
	client, err := mongo.Connect(clientOptions(o))
	if err != nil {
		return nil, fmt.Errorf("connect to mongo: %w", err)
	}
	s := &Store{client: client, db: client.Database(o.Database)}
	if err := s.Ping(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("connect to mongo: %w", err), s.Close())
	}
	return s, nil
}

func clientOptions(o Options) *options.ClientOptions {
	if o.Timeout <= 0 {
		o.Timeout = 30 * time.Second
	}
	c := options.Client().SetAppName("boltmesh").SetTimeout(o.Timeout).SetServerSelectionTimeout(o.Timeout).ApplyURI(o.URI)
	if o.TLS != nil {
		c.SetTLSConfig(o.TLS)
	}
	if c.WriteConcern == nil || o.WriteConcern != "" {
		c.SetWriteConcern(concern(o.WriteConcern))
	}
	return c
}

func concern(w string) *writeconcern.WriteConcern {
	if w == "" || w == "majority" {
		journal := true
		return &writeconcern.WriteConcern{W: writeconcern.WCMajority, Journal: &journal}
	}
	if n, err := strconv.Atoi(w); err == nil {
		return &writeconcern.WriteConcern{W: n}
	}
	return writeconcern.Custom(w)
}

// Ping returns nil while the server answers.
func (s *Store) Ping(ctx context.Context) error {
	return s.db.RunCommand(ctx, bson.D{{Key: "ping", Value: 1}}).Err()
}

// Ensure implements document.Store. A TTL needs an index on "time" alone: no other field holds a date. An index on it that is there already, with another TTL or
// without one, gets this TTL; the error about any other that is there with other options says what to do.
func (s *Store) Ensure(ctx context.Context, indexes []document.Index) error {
	for _, x := range indexes {
		if err := s.ensure(ctx, x); err != nil {
			return fmt.Errorf("index on %s %v: %w", x.Collection, x.Fields, err)
		}
	}
	return nil
}

func (s *Store) ensure(ctx context.Context, x document.Index) error {
	o := options.Index()
	switch {
	case x.TTL != 0 && !slices.Equal(x.Fields, []string{"time"}):
		return errors.New("a TTL needs an index on time alone")
	case x.TTL > math.MaxInt32:
		return fmt.Errorf("a TTL of %d s: at most %d can be kept", x.TTL, math.MaxInt32)
	case x.TTL > 0:
		o.SetExpireAfterSeconds(int32(x.TTL))
	}
	if x.Unique {
		o.SetUnique(true)
	}
	var keys bson.D
	for _, field := range x.Fields {
		name, descending := strings.CutPrefix(field, "-")
		direction := int32(1)
		if descending {
			direction = -1
		}
		keys = append(keys, bson.E{Key: name, Value: direction})
	}
	_, err := s.db.Collection(x.Collection).Indexes().CreateOne(ctx, mongo.IndexModel{Keys: keys, Options: o})
	if !otherOptions(err) {
		return err
	}
	remedy := fmt.Sprintf("drop that index of %s.%s, or declare what it is", s.db.Name(), x.Collection)
	if x.TTL == 0 {
		return fmt.Errorf("%w: %s", err, remedy)
	}
	changed := s.db.RunCommand(ctx, bson.D{
		{Key: "collMod", Value: x.Collection},
		{Key: "index", Value: bson.D{{Key: "keyPattern", Value: keys}, {Key: "expireAfterSeconds", Value: x.TTL}}},
	}).Err()
	if changed != nil {
		return fmt.Errorf("%w; it cannot get the TTL: %w: %s", err, changed, remedy)
	}
	return nil
}

// otherOptions tells whether the server has an index of these fields, or of this name, that is otherwise.
func otherOptions(err error) bool {
	const optionsConflict, specsConflict = 85, 86
	var said mongo.ServerError
	return errors.As(err, &said) && (said.HasErrorCode(optionsConflict) || said.HasErrorCode(specsConflict))
}

// Collections implements document.Store.
func (s *Store) Collections(ctx context.Context) ([]string, error) {
	all, err := s.db.ListCollectionNames(ctx, bson.D{})
	if err != nil {
		return nil, fmt.Errorf("list collections: %w", err)
	}
	var names []string
	for _, name := range all {
		err := s.db.Collection(name).FindOne(ctx, bson.D{}, options.FindOne().SetProjection(bson.D{{Key: "_id", Value: 1}})).Err()
		switch {
		case err == nil && !strings.HasPrefix(name, "system."):
			names = append(names, name)
		case err != nil && !errors.Is(err, mongo.ErrNoDocuments):
			return nil, fmt.Errorf("look into collection %s: %w", name, err)
		}
	}
	slices.Sort(names)
	return names, nil
}

// Count implements document.Store.
func (s *Store) Count(ctx context.Context, collection string) (int64, error) {
	n, err := s.db.Collection(collection).CountDocuments(ctx, bson.D{})
	if err != nil {
		return 0, fmt.Errorf("count %s: %w", collection, err)
	}
	return n, nil
}

// Each implements document.Store, in the server's natural order, which need not be that of insertion.
func (s *Store) Each(ctx context.Context, collection string, f func(body []byte) error) error {
	err := s.each(ctx, collection, f)
	if err != nil {
		return fmt.Errorf("documents of %s: %w", collection, err)
	}
	return nil
}

func (s *Store) each(ctx context.Context, collection string, f func(body []byte) error) (err error) {
	cursor, err := s.db.Collection(collection).Find(ctx, bson.D{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cursor.Close(context.WithoutCancel(ctx))) }()
	for cursor.Next(ctx) {
		body, err := appendJSON(nil, cursor.Current)
		if err != nil {
			return err
		}
		if err := f(body); err != nil {
			return err
		}
	}
	return cursor.Err()
}

// Drop implements document.Store.
func (s *Store) Drop(ctx context.Context, collection string) error {
	if err := s.db.Collection(collection).Drop(ctx); err != nil {
		return fmt.Errorf("drop %s: %w", collection, err)
	}
	return nil
}

// Close ends the connections.
func (s *Store) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return s.client.Disconnect(ctx)
}
