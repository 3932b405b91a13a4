package call

import (
	"encoding/json"

	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/trace"
)

// Subject is where the owner of a topology's calls is asked.
func Subject(topology string) string { return "bmctl." + topology + ".call" }

// FailedSubject is where the owner is told of dead letters in the tree of a call.
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
	Failures []spout.Failure `json:"failures,omitempty"` // in the first
	TooMany  bool            `json:"too_many,omitempty"`
}

// partBytes is how much of replies one message holds, unless a single one is larger.
const partBytes = 256 << 10

// Parts divides an outcome into messages.
func Parts(o spout.Outcome) []Part {
	parts := []Part{{Failures: o.Failures, TooMany: o.TooMany}}
	size := 0
	for _, r := range o.Replies {
		one := len(r.Payload) + len(r.Key) + len(r.Node) + 80
		if size > 0 && size+one > partBytes {
			parts, size = append(parts, Part{}), 0
		}
		last := &parts[len(parts)-1]
		last.Replies = append(last.Replies, r)
		size += one
	}
	for i := range parts {
		p := &parts[i]
		p.ID, p.Position, p.Part, p.Parts = o.ID, o.Position, i, len(parts)
	}
	return parts
}

// Failed is what a worker tells the owner: a tuple of a call's tree became a dead letter.
type Failed struct {
	Offset  int64         `json:"offset"` // the call's position
	Failure spout.Failure `json:"failure"`
}
