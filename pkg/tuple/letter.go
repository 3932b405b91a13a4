package tuple

import "strings"

// MaxError is how much of an error's text is told, in bytes: of a bolt that fails, in a letter, to whoever made a call.
const MaxError = 1 << 10

// CutError cuts a text at MaxError bytes, at the end of a character, and says so.
func CutError(text string) string {
	if len(text) <= MaxError {
		return text
	}
	const more = " ..."
	return strings.ToValidUTF8(text[:MaxError-len(more)], "") + more
}

// Letter is a dead letter: a tuple, a record or a frame that could not be handled, with everything needed to understand and replay it.
type Letter struct {
	ID       ID     `json:"id"` // of the tuple; for a record that never became one, RootID of its position
	Topology string `json:"topology"`
	Node     string `json:"node"` // where it failed
	Task     int32  `json:"task"`
	Worker   string `json:"worker"`
	Revision uint32 `json:"revision"`

	Source  string `json:"source,omitempty"` // node it came from
	Stream  string `json:"stream,omitempty"`
	Key     string `json:"device,omitempty"`
	Time    int64  `json:"time,omitempty"`  // event time, ms
	Group   string `json:"group,omitempty"` // with N: the place in the gate that it takes; of a tick: the group that it failed for
	N       uint64 `json:"n,omitempty"`
	Payload []byte `json:"payload,omitempty"`
	Size    int    `json:"size,omitempty"`       // of the whole payload, where only its first 4 KiB were kept: such a letter cannot be replayed
	Record  []byte `json:"record_key,omitempty"` // key of a record that never became a tuple, as it was

	Origin     Origin `json:"origin,string"` // more than a JSON number holds
	Offset     int64  `json:"offset"`
	Generation uint32 `json:"generation"`
	Count      uint32 `json:"count"`
	Topic      string `json:"topic,omitempty"` // known to spouts
	Partition  int    `json:"partition"`

	Error    string `json:"error"` // MaxError bytes at most where a bolt failed; with script file:line:column where a script failed
	Tries    int    `json:"tries"`
	TraceID  string `json:"trace_id,omitempty"`
	FailedAt int64  `json:"failed_at"` // ms
}
