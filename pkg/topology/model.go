// Package topology is what a user declares: the graph of one spout and its bolts, parsed strictly from YAML, validated, and planned into nodes and
// edges that the engine can run. The CLI validates with it, every service plans with it, the JSON Schema is generated from it.
// It never opens a file, reads the environment or connects to anything: bytes, scripts and variables come in as values.
package topology

import "time"

// Kinds of nodes. A custom bolt has the kind KindCustom and names its service.
const (
	KindSpout   = "spout"
	KindConvert = "convert"
	KindStat    = "stat"
	KindAlarm   = "alarm"
	KindOutput  = "output"
	KindCustom  = "custom"
	KindNotify  = "notify" // planned where a bolt has a Notify; nobody declares it
)

// Groupings: how an edge divides tuples among tasks.
const (
	Fields         = "fields"
	Shuffle        = "shuffle"
	LocalOrShuffle = "local_or_shuffle"
	All            = "all"
	Global         = "global"
	Direct         = "direct"
	None           = "none"
	PartialKey     = "partial_key"
	Custom         = "custom" // a function of the emitting service
)

// DefaultTasks is the number of tasks of a partitioned node that names none; MaxTasks bounds it.
const (
	DefaultTasks = 8
	MaxTasks     = 16
)

// OutputNode is the id of the node that stores what other nodes save.
const OutputNode = "output"

// Types of fields.
const (
	TypeNumber = "number"
	TypeString = "string"
	TypeBool   = "bool"
	TypeAny    = "any" // checked when it is used, not before
)

// MaxBolts bounds a topology.
const MaxBolts = 256

// Topology is one parsed document.
type Topology struct {
	Name    string
	Spout   Spout
	Bolts   []Bolt
	Output  Output
	Params  map[string]any // handed to scripts as ctx.params
	Archive Archive

	Scripts map[string]string // file name as written -> text, for every script named

	Warnings Problems `json:"-"` // what is allowed and yet probably not meant
	Document Document `json:"-"` // what it was parsed from; see Encode
}

// Spout is the topology's source.
type Spout struct {
	ID         string
	Kafka      Kafka             // zero in a spout that only takes calls
	Calls      bool              // it takes calls: see CallStream
	Stream     string            // data stream accepted; "" accepts the topics' own names
	Fields     map[string]string // field -> number | string | bool | any; empty: everything is dynamic
	Decode     string            // json (default) | csv | raw
	Columns    []string          // of csv
	Key        string            // field that names the device; nested as a.b
	Time       TimeField
	MaxPending int           // span from the floor, in offsets of one partition; default 20000
	Timeout    time.Duration // default 30s
	Retry      Retry
}

// TimeField says where a reading's event time is.
type TimeField struct {
	Field string        // "" means the Kafka record's timestamp
	Unit  string        // s | ms | us | ns | rfc3339; default ms
	Lag   time.Duration // how far behind the greatest event time the watermark stays
}

// Kafka is how the spout reaches its topics. Its strings keep their ${VAR:default}, resolved where the spout runs: see Kafka.Resolve.
type Kafka struct {
	Brokers     string // host:port, comma separated
	Topics      []string
	Start       string // earliest (default) | latest | committed | an RFC 3339 time
	Group       string // default boltmesh-<topology>
	Incarnation string // to be changed when a topic is created anew under its old name
	TLS         *TLS
	SASL        *SASL
}

// TLS names the files of a TLS connection.
type TLS struct {
	CA, Cert, Key string
	ServerName    string
	Insecure      bool // skip verification: tests only
}

// SASL is a Kafka login.
type SASL struct {
	Mechanism string // plain | scram-sha-256 | scram-sha-512
	Username  string
	Password  string
}

// Bolt is one node as declared. Which of the kind-specific parts applies is told by Kind.
type Bolt struct {
	ID      string
	Kind    string
	Service string // of a custom bolt; one with a Group is stateful
	Build   string // version of the workers that run it; "": any
	From    []From
	Tasks   int                 // 0: DefaultTasks
	Streams map[string][]string // declared outputs beside the default one -> their fields
	Save    *Save
	Notify  *Notify
	Retry   Retry

	// convert, and filters of others
	Where  *Expr
	Set    []Assignment // in document order
	Drop   []string
	Script *Script // convert: convert(t, ctx); stat: compute, output, or group(t, ctx) beside aggregates; alarm: when

	// stat and alarm
	Group []string // fields: device, a payload field, archive.<field>; empty means the default (device); [none] is one group, [script] what the script says
	Stage Stage    `json:"-"` // of a planned statistic in two stages

	// stat
	Window     Window
	Every      time.Duration // of a custom bolt too: see Ticks
	Aggregates []Aggregate   // in document order

	// alarm
	When       *Expr
	Clear      *Expr // hysteresis; nil: not When
	RaiseAfter int   // consecutive readings; default 1
	ClearAfter int
	RaiseFor   time.Duration // or by duration
	ClearFor   time.Duration
	Severity   string
	Suppress   time.Duration // mutes notifications
	NoData     time.Duration // raise when a device is silent for so long
	Levels     []Level       // rising; instead of When and Clear
	Escalate   *Escalate
	Flapping   *Flapping

	Config map[string]any // of a custom bolt
}

// From is one incoming edge.
type From struct {
	Node     string
	Stream   string // "" means default
	Grouping string // "" means the default for the receiving node
	Custom   string // with the grouping Custom: the name of the function
	By       []string
}

// Expr is an expression with its place in the document.
type Expr struct {
	Source string
	At     Place `json:"-"`
}

// Assignment is one `set` entry.
type Assignment struct {
	Field string
	Expr  Expr
}

// Script is JavaScript, either in a file or inline.
type Script struct {
	File string // as written; "" for inline text
	Text string
	At   Place `json:"-"` // of the text's first line when inline
}

// Aggregate is one declared statistic: Func(Arg).
type Aggregate struct {
	Name  string
	Func  string    // count sum mean min max stddev first last rate ...
	Arg   *Expr     // nil for a bare count
	Param []float64 // further arguments, as in quantile(celsius, 0.95)
	At    Place     `json:"-"`
}

// Window kinds.
const (
	WindowNone     = ""         // accumulators live from one output to the next (with every)
	WindowTumbling = "tumbling" // [k*Size, (k+1)*Size)
	WindowSliding  = "sliding"
	WindowSession  = "session"
	WindowCount    = "count"
	WindowLifetime = "lifetime" // never reset
)

// Window says what a statistic covers.
type Window struct {
	Kind       string
	Size       time.Duration
	Slide      time.Duration
	Gap        time.Duration // of a session
	Count      int
	CountSlide int
	Time       string // event (default) | processing
	Late       string // stream that late readings go to; "" means "late"

	Corrections time.Duration // how long after its end a window is kept, and output again when a late reading comes; 0: it is not
}

// CorrectionStream is where a statistic with corrections emits the figures of a window that it has output before.
const CorrectionStream = "corrections"

// Save sends what a node emits to the output node.
type Save struct {
	Collection string
	Fields     []StoredField // what is stored of a tuple, in document order; none: all of it
	Indexes    [][]string
	TTL        time.Duration
	At         Place `json:"-"`
}

// StoredField is a field of the stored document, and the field of the tuple that it is taken from.
type StoredField struct {
	Name, From string
	At         Place `json:"-"`
}

// Notify hands what a node emits with `notify: true` to the outside. Its strings keep their ${VAR:default}, resolved where the output service runs: see
// Notify.Resolve.
type Notify struct {
	Subject string        // published below the subject of the topology's notices; "": not
	Webhook string        // an http or https address that gets a POST; "": none
	Secret  string        // signs the POSTs; "": they are not signed
	Timeout time.Duration // of one POST; default 10s
	Retry   Retry
	At      Place `json:"-"`
}

// Output configures where documents go.
type Output struct {
	Database string        // default: the topology's name
	Batch    int           // documents per bulk write; default 1000
	Linger   time.Duration // default 20ms
	Tasks    int
}

// Retry is how often and how patiently a failed execution is tried again.
type Retry struct {
	Attempts int           // default 5
	Backoff  time.Duration // first pause; default 100ms
	Ceiling  time.Duration // longest pause; default 10s
}

// Place is a position in a source text, from 1; File is empty for the topology document itself.
type Place struct {
	File         string
	Line, Column int
}

// Node is one planned node.
type Node struct {
	ID       string
	Kind     string
	Service  string // kind of service that runs it
	Build    string `json:",omitempty"` // version of the workers that run it; "": any
	Level    int    // longest distance from the spout, which has 0
	Tasks    int    // number of tasks; of a shared node, how many loops a worker runs at most: see Loops
	Shared   bool   // workers compete for one subject; otherwise each task has one owner
	Stateful bool
	Ticks    bool          // it wants tick entries
	Every    time.Duration // how often it wants them in processing time; 0: only watermarks and flushes
	After    string        // the node that handles each tick before it: a second stage gets ticks when all that its first emitted at them is applied
	Gated    bool          // it receives from a stateful node and so checks n
	Bolt     *Bolt         // nil for the spout and the output node
	In, Out  []Edge
}

// Edge is one planned edge.
type Edge struct {
	From, To string
	Stream   string
	Grouping string
	Custom   string   // the name of a custom grouping
	By       []string // key fields of a fields, partial_key or custom edge; empty with Global
	Local    bool     // both ends are without state and of one service: a worker that runs both runs them in one loop
	Gated    bool     // both ends are stateful: tuples carry n
	Save     *Save    // set on edges to the output node
	Revised  bool     // with Save: what comes replaces what was stored of the same window in a lower version
}

// Plan is a topology ready to run.
type Plan struct {
	Topology *Topology
	Nodes    []Node // the spout first, every node after all it receives from, the output node last
}
