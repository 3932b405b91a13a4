package spout

import (
	"context"
	"fmt"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Failed is what the owner of the calls is told of a tuple of a call's tree that has a dead letter.
type Failed struct {
	Offset     int64   `json:"offset"`     // the call's position
	Generation uint32  `json:"generation"` // of the attempt
	Failure    Failure `json:"failure"`    // without Error when the tuple came again: the letter tells why
}

// CallLetters are a node's dead letters in a topology that takes calls: the owner of the calls is told of those that came of one before the tuple counts as handled, and
// so before the call can be complete. It is told at each delivery of such a tuple, for it may be another owner by then.
type CallLetters struct {
	bolt.Letters
	Origin tuple.Origin // of the log of calls
	// Tell returns nil when the owner of the attempt's generation, or of a later one, has heard it.
	Tell func(ctx context.Context, f Failed) error
}

// Announce implements bolt.Announced.
func (c CallLetters) Announce(ctx context.Context, l *tuple.Letter) error {
	if l.Origin != c.Origin {
		return nil
	}
	err := c.Tell(ctx, Failed{Offset: l.Offset, Generation: l.Generation, Failure: Failure{Node: l.Node, Worker: l.Worker, Letter: l.ID, Error: l.Error}})
	if err != nil {
		return fmt.Errorf("tell of a dead letter of a call: %w", err)
	}
	return nil
}
