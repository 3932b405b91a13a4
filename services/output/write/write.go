// Package write is what the output node does: it turns what other nodes save into documents and stores them in bulk, each exactly once by its id.
// The output service and the single-process mode run one Bolt per loop, which batches between two calls of Finish.
// It never updates a document, alarm episodes excepted, and never gives up on a store that is down.
package write

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/document"
	"github.com/boltmesh/boltmesh/pkg/script"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Episodes ends the name of the collection that keeps the episodes of the alarm events in the collection before it.
const Episodes = "_episodes"

// DefaultBatch is the number of documents per bulk write where the topology names none.
const DefaultBatch = 1000

// Options of a Bolt. All but Output are required.
type Options struct {
	Topology string          // its name, for errors
	Output   topology.Output // Batch is used here
	Edges    []topology.Edge // into the output node, each with its Save
	Store    document.Store
}

// Bolt implements bolt.Bolt and bolt.Bulky.
type Bolt struct {
	Options
	collections map[source]string
	revised     map[source]bool // whose documents replace lower versions
	fields      map[source][]topology.StoredField

	doc   script.Doc
	batch *bolt.Collector // whose tuples docs are; a batch that was given up leaves documents behind, which the next one drops
	docs  []document.Document
	owner []int // of each document: its tuple's index in the batch
	next  int
}

// source is where a tuple comes from: a node and its stream.
type source struct{ node, stream string }

// New checks that every edge says where its documents go.
func New(o Options) (*Bolt, error) {
	if o.Output.Batch <= 0 {
		o.Output.Batch = DefaultBatch
	}
	if o.Store == nil {
		return nil, errors.New("the output node needs a document store")
	}
	b := &Bolt{Options: o, collections: map[source]string{}, revised: map[source]bool{}, fields: map[source][]topology.StoredField{}}
	for _, e := range o.Edges {
		if e.Save == nil || e.Save.Collection == "" {
			return nil, fmt.Errorf("the edge from %s to the output node names no collection", e.From)
		}
		s := source{e.From, streamOf(e)}
		if old, twice := b.collections[s]; twice && old != e.Save.Collection {
			return nil, fmt.Errorf("%s saves its stream %s into both %s and %s", e.From, s.stream, old, e.Save.Collection)
		}
		b.collections[s], b.revised[s] = e.Save.Collection, e.Revised
		b.fields[s] = e.Save.Fields
	}
	return b, nil
}

func streamOf(e topology.Edge) string {
	if e.Stream == "" {
		return tuple.DefaultStream
	}
	return e.Stream
}

// Execute implements bolt.Bolt: it adds the tuple's documents to the batch. A payload that is not a JSON object is rejected.
func (b *Bolt) Execute(_ context.Context, t *tuple.Tuple, c *bolt.Collector) (err error) {
	if b.batch != c {
		b.batch = c
		b.reset()
	}
	collection, ok := b.collections[source{c.Source(), t.Stream}]
	if !ok {
		return bolt.Reject(fmt.Errorf("node %s saves nothing of its stream %s", c.Source(), t.Stream))
	}
	b.doc.Reset(t.Payload)
	id, version := t.ID.String(), int64(0)
	if b.revised[source{c.Source(), t.Stream}] {
		if id, version, err = b.revision(c.Source()); err != nil {
			return bolt.Reject(err)
		}
	}
	episode, whole, err := b.episode(t, c.Source())
	if err != nil {
		return bolt.Reject(err)
	}
	if fields := b.fields[source{c.Source(), t.Stream}]; len(fields) > 0 && b.doc.Err() == nil {
		b.choose(t.Payload, fields, version)
	}
	body, err := b.body(t, id, c.Source())
	if err != nil {
		return bolt.Reject(err)
	}
	b.add(document.Document{Collection: collection, ID: id, Version: version, Body: body})
	if whole {
		episode.Collection = collection + Episodes
		b.add(episode)
	}
	b.next++
	return nil
}

func (b *Bolt) add(d document.Document) {
	b.docs, b.owner = append(b.docs, d), append(b.owner, b.next)
}

// Enough implements bolt.Bulky: a batch is one bulk write. In larger ones, which take several, the documents of the first are long stored when their tuples end.
func (b *Bolt) Enough() int { return b.Output.Batch }

// Patience implements bolt.Patient.
func (b *Bolt) Patience() time.Duration { return b.Output.Linger }

func (b *Bolt) reset() {
	clear(b.docs)
	b.docs, b.owner, b.next = b.docs[:0], b.owner[:0], 0
}

// Finish implements bolt.Finisher: it writes the batch. An error of the store leaves everything for another call; writing a document again
// changes nothing.
func (b *Bolt) Finish(ctx context.Context, _ *bolt.Collector) ([]bolt.Failure, error) {
	var failures []bolt.Failure
	failed := map[int]bool{}
	for from := 0; from < len(b.docs); from += b.Output.Batch {
		docs := b.docs[from:min(from+b.Output.Batch, len(b.docs))]
		refusals, err := b.Store.Write(ctx, docs)
		if err != nil {
			return nil, bolt.Unavailable(fmt.Errorf("store %d documents of %s: %w", len(docs), b.Topology, err))
		}
		for _, r := range refusals {
			if i := b.owner[from+r.Index]; !failed[i] {
				failed[i] = true
				failures = append(failures, bolt.Failure{Index: i, Err: fmt.Errorf("document %s of %s was refused: %w", docs[r.Index].ID, docs[r.Index].Collection, r.Err)})
			}
		}
	}
	b.reset()
	return failures, nil
}
