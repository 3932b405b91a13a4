package call

import (
	"encoding/json"
	"fmt"

	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/trace"
)

// Subject is where the owner of a topology's calls is asked.
func Subject(topology string) string { return "bmctl." + topology + ".call" }

// FailedSubject is where the owner is told of dead letters in the tree of a call: a spout.Failed. It answers "ok", unless a later owner is to be told.
func FailedSubject(topology string) string { return "bmctl." + topology + ".callfailed" }

// What a request asks for.
const (
	OpCall   = ""       // take the call, unless it was taken before, and send its answer to the inbox
	OpWho    = "who"    // say who has not finished it
	OpForget = "forget" // the answer has come, or is not wanted any more
)

// Request is what a caller asks the owner.
type Request struct {
	Op      string          `json:"op,omitempty"`
	ID      string          `json:"id"`
	Payload json.RawMessage `json:"payload,omitempty"`
	Inbox   string          `json:"inbox,omitempty"` // "": nobody waits for the answer
}

// Taken is what the owner says to a request; the answer of the call comes to the inbox.
type Taken struct {
	Position int64          `json:"position"` // of the call in the log of calls
	New      bool           `json:"new"`      // it had not been made before
	Lost     bool           `json:"lost,omitempty"`
	Paused   bool           `json:"paused,omitempty"`
	Holders  []trace.Holder `json:"holders,omitempty"` // to OpWho
	Error    string         `json:"error,omitempty"`
}

// Part is one message to the caller's inbox: an answer too long for one message comes in several.
type Part struct {
	ID       string          `json:"id"`
	Position int64           `json:"position"`
	Part     int             `json:"part"` // from 0
	Parts    int             `json:"parts"`
	Replies  []spout.Reply   `json:"replies,omitempty"`
	Failures []spout.Failure `json:"failures,omitempty"` // the first 100
	Failed   int             `json:"failed,omitempty"`   // in the first: how many there are in all
	TooMany  bool            `json:"too_many,omitempty"`
}

// partBytes is how much of replies and failures one message holds, unless a single one is larger.
const partBytes = 256 << 10

// Parts divides an outcome into messages, each the JSON text of a Part. None is larger than partBytes, or than one reply, by more than 1 KiB.
func Parts(o spout.Outcome) (messages [][]byte, err error) {
	parts := []Part{{Failed: o.Failed, TooMany: o.TooMany}}
	size := 0
	fit := func(v any) (*Part, error) {
		b, err := spout.JSON(v)
		if err != nil {
			return nil, fmt.Errorf("what answers call %s: %w", o.ID, err)
		}
		if size > 0 && size+len(b)+1 > partBytes {
			parts, size = append(parts, Part{}), 0
		}
		size += len(b) + 1
		return &parts[len(parts)-1], nil
	}
	for _, f := range o.Failures {
		p, err := fit(f)
		if err != nil {
			return nil, err
		}
		p.Failures = append(p.Failures, f)
	}
	for _, r := range o.Replies {
		p, err := fit(r)
		if err != nil {
			return nil, err
		}
		p.Replies = append(p.Replies, r)
	}
	for i, p := range parts {
		p.ID, p.Position, p.Part, p.Parts = o.ID, o.Position, i, len(parts)
		b, err := spout.JSON(p)
		if err != nil {
			return nil, fmt.Errorf("what answers call %s: %w", o.ID, err)
		}
		messages = append(messages, b)
	}
	return messages, nil
}
