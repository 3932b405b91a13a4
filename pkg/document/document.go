// Package document is what output stores: the contract of a document store with its two kinds of write, insert-once and replace-by-higher-version.
// The output bolt writes through it and the tools read; pkg/mongo and pkg/sqlite implement it, documenttest.Run checks them.
// It never interprets a document's fields, except for _id and time.
package document

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"
)

// Document is one JSON object for a collection.
type Document struct {
	Collection string
	ID         string // also the body's "_id"
	Version    int64  // 0: inserted once, later ones of the same ID are ignored; otherwise it replaces a stored one of a lower version
	Body       []byte // a JSON object with "_id", and "version" when Version is not 0; a top-level "time" in RFC 3339 is stored as the database's time type
}

// MaxBody is the greatest size of a body in bytes: twice what a tuple can carry. Validation recurses into what is nested, and 8 MiB of brackets are more than
// a goroutine's stack can take.
const MaxBody = 2 << 20

// Check returns why no store can ever accept d, or nil.
func (d *Document) Check() error {
	switch {
	case d.Collection == "" || len(d.Collection) > 120 || strings.ContainsAny(d.Collection, "$\x00") || strings.HasPrefix(d.Collection, "system."):
		return fmt.Errorf("%q cannot be the name of a collection", d.Collection)
	case d.ID == "":
		return errors.New("the document has no id")
	case d.Version < 0:
		return fmt.Errorf("version %d is below 0", d.Version)
	case len(d.Body) > MaxBody:
		return fmt.Errorf("the document has %d bytes, at most %d can be stored", len(d.Body), MaxBody)
	}
	if !gjson.ValidBytes(d.Body) {
		return errors.New("the document is not JSON")
	}
	if id := gjson.GetBytes(d.Body, "_id"); id.Type != gjson.String || id.Str != d.ID {
		return fmt.Errorf("the document is not an object whose _id is %q", d.ID)
	}
	if d.Version > 0 { // otherwise "version" is a field like any other
		if v := gjson.GetBytes(d.Body, "version"); v.Raw != strconv.FormatInt(d.Version, 10) {
			return fmt.Errorf("the document's version is %q, not %d", v.Raw, d.Version)
		}
	}
	return nil
}

// Refusal is a document that the store will never accept, and why.
type Refusal struct {
	Index int // in the slice given to Write
	Err   error
}

// Index asks for an index on a collection. A leading "-" on a field means descending.
type Index struct {
	Collection string
	Fields     []string
	Unique     bool  // a document that would be the second of its kind is refused
	TTL        int64 // seconds after the field's time at which documents vanish; 0: never. Where the store has no TTL the error is ErrNoTTL
}

// ErrNoTTL is wrapped by the error of a store that cannot let documents vanish.
var ErrNoTTL = errors.New("the store has no TTL")

// Store keeps documents.
type Store interface {
	// Write stores docs in any order. A document whose ID is there already counts as stored. An error means that any of them may or may not
	// be stored: write all again. Refusals are final, and concern only the documents they name.
	Write(ctx context.Context, docs []Document) ([]Refusal, error)
	// Ensure creates the indexes that are missing.
	Ensure(ctx context.Context, indexes []Index) error
	// Collections lists the collections that hold documents, sorted.
	Collections(ctx context.Context) ([]string, error)
	// Count returns the number of documents in a collection.
	Count(ctx context.Context, collection string) (int64, error)
	// Each calls f with every document as JSON, in order of insertion where the store knows it, until f returns an error.
	Each(ctx context.Context, collection string, f func(body []byte) error) error
	// Drop deletes a collection.
	Drop(ctx context.Context, collection string) error
	Close() error
}
