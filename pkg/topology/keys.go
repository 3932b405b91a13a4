package topology

// key is one key of a mapping: what the strict parser knows, and what the JSON Schema is made of.
type key struct {
	name  string
	of    string // the value's type: see schema_test.go, which turns each into JSON Schema
	about string
	need  bool
}

// Types whose values are one of a few words.
var (
	kinds      = []string{KindConvert, KindStat, KindAlarm, KindCustom}
	groupings  = []string{Fields, Shuffle, LocalOrShuffle, All, Global, Direct, None, PartialKey}
	decoders   = []string{"json", "csv", "raw"}
	timeUnits  = []string{"s", "ms", "us", "ns", "rfc3339"}
	fieldTypes = []string{TypeNumber, TypeString, TypeBool, TypeAny}
	mechanisms = []string{"plain", "scram-sha-256", "scram-sha-512"}
	functions  = []string{
		"count", "sum", "mean", "min", "max", "stddev", "first", "last", "delta", "rate", "distinct", "quantile", "topk", "ewma",
	}
)

// shapes holds the keys of every mapping of the document.
var shapes = map[string][]key{
	"topology": {
		{"topology", "id", "Name of the topology. Its streams, state keys and, unless output.database says otherwise, its database are called by it.", true},
		{"spout", "spout", "Where readings come from. A topology has exactly one spout.", true},
		{"bolts", "bolts", "What is done with the readings: nodes that receive from the spout or from each other, without cycles. At most 256.", true},
		{"output", "output", "Where documents go that nodes save.", false},
		{"params", "object", "Values that scripts read as ctx.params.", false},
		{"archive", "archive", "The archive with the profiles of devices, which expressions read as archive.<field> and scripts as ctx.archive: its name, or {name, unknown_device}. Default devices.", false},
	},
	"archive": {
		{"name", "archive name", "Name of the archive: lower-case letters, digits and _. Topologies may share one. Default devices.", false},
		{"unknown_device", "null|reject", "What a device without a profile is: null (the default: its archive is null) or reject (nodes that use the archive dead-letter its readings).", false},
	},
	"spout": {
		{"id", "id", "Name of the spout; bolts receive from it by this name.", true},
		{"kafka", "kafka", "The Kafka cluster and its topics. A spout that takes calls can do without.", false},
		{"calls", "bool", "Take calls: requests that come out on the stream call; what nodes emit on their stream reply is the answer. Default false.", false},
		{"stream", "string", "The data stream accepted: a record's header stream, else its topic's name. Without it every record is accepted.", false},
		{"fields", "fields", "Fields of a reading and their types. Declared fields are type-checked in expressions; others are dynamic.", false},
		{"decode", "json|csv|raw", "How a record is read: json (default), csv (with columns) or raw (one field, raw, holding the text).", false},
		{"columns", "strings", "Names of the columns of a CSV record, in order.", false},
		{"key", "field", "The field that names the device; nested fields as a.b. Without it the record's key does.", false},
		{"time", "time", "Where a reading's event time is. Without it the record's timestamp counts.", false},
		{"max_pending", "int", "How many offsets beyond the fully processed prefix of a partition may be on their way. Default 20000.", false},
		{"timeout", "duration", "When a reading that has not been fully processed is replayed. Default 30s.", false},
		{"retry", "retry", "How failed emissions are tried again.", false},
	},
	"kafka": {
		{"brokers", "string", "Addresses as host:port, comma separated. ${VAR:default} is resolved where the spout runs. Default ${BOLTMESH_KAFKA_BROKERS:localhost:9092}.", false},
		{"topics", "strings", "Topics to read.", true},
		{"start", "start", "Where to begin when nothing is committed: earliest (default), latest, committed (fail if there is none) or an RFC 3339 time.", false},
		{"group", "string", "Consumer group. Default boltmesh-<topology>.", false},
		{"incarnation", "string", "To be changed when a topic is created anew under its old name.", false},
		{"tls", "tls", "TLS to the brokers.", false},
		{"sasl", "sasl", "Login at the brokers.", false},
	},
	"tls": {
		{"ca", "string", "File of the certificate authority; the system's are used without it.", false},
		{"cert", "string", "File of the client certificate.", false},
		{"key", "string", "File of the client's private key.", false},
		{"server_name", "string", "Name expected in the broker's certificate.", false},
		{"insecure", "bool", "Skip verification: for tests only.", false},
	},
	"sasl": {
		{"mechanism", "plain|scram-sha-256|scram-sha-512", "How the login is made.", true},
		{"username", "string", "User name.", true},
		{"password", "string", "Password; write ${VAR}, so that it is never stored.", true},
	},
	"time": {
		{"field", "field", "The field that holds the event time; nested fields as a.b. Without it the record's timestamp counts.", false},
		{"unit", "s|ms|us|ns|rfc3339", "Unit of a numeric time, or rfc3339. Default ms.", false},
		{"lag", "duration0", "How far behind the greatest event time the watermark stays, so that readings out of order are in time. Default 0s.", false},
	},
	"retry": {
		{"attempts", "int", "How often a failing execution is tried before the tuple is dead-lettered. Default 5.", false},
		{"backoff", "duration", "First pause between two tries. Default 100ms.", false},
		{"ceiling", "duration", "Longest pause. Default 10s.", false},
	},
	"output": {
		{"database", "database", "Name of the database. Default: the topology's name.", false},
		{"batch", "int", "Most documents per bulk write. Default 1000.", false},
		{"linger", "duration0", "How long an incomplete batch waits for more. Default 20ms.", false},
		{"tasks", "tasks", "How many loops write at once in one worker. Default 8.", false},
	},
	"from": {
		{"node", "id", "The node to receive from.", true},
		{"stream", "stream", "Which of its outputs. Default: default.", false},
		{"grouping", "grouping", "How tuples are divided among tasks. Follows from the receiving node when not given.", false},
		{"by", "strings", "Key fields of a fields, partial_key or custom grouping: device, a field, archive.<field>.", false},
	},
	"grouping": {
		{"custom", "id", "The name of a grouping that the emitting node's service has, which must be one of yours: it divides what by names.", true},
	},
	"window": {
		{"tumbling", "duration", "Windows of this length, one after the other.", false},
		{"sliding", "duration", "Windows of this length, one beginning with each slide.", false},
		{"slide", "slide", "Distance between two windows: a duration with sliding, a number with count.", false},
		{"session", "duration", "A window ends when a group is silent for so long.", false},
		{"count", "int", "Windows of so many readings.", false},
		{"time", "event|processing", "Which time decides: event (default) is the reading's, processing is the clock's.", false},
		{"late", "stream", "Name of the stream that readings later than their window go to. Default late.", false},
		{"corrections", "duration", "How long after its end a tumbling window takes late readings; then its figures are emitted again on the stream corrections, and replace the stored document. Default: not at all.", false},
	},
	"save": {
		{"collection", "collection", "Collection that the emitted tuples are stored in.", true},
		{"fields", "stored fields", "Fields to store, as a list, or as a mapping of names in the document to fields of the tuple. Without it all are stored.", false},
		{"indexes", "indexes", "Indexes of the collection: lists of fields, each descending with a minus sign before it.", false},
		{"ttl", "duration", "After which time documents are deleted.", false},
	},
	"notify": {
		{"subject", "string", "Publish to bmnotice.<topology>.<subject>, which the JetStream stream BMN_<topology> keeps for a week.", false},
		{"webhook", "string", "POST to this http or https address. ${VAR:default} is resolved where the output service runs, and never stored.", false},
		{"secret", "string", "Signs the POSTs with HMAC-SHA256. Must be ${VAR}, so that it is never stored.", false},
		{"timeout", "duration", "How long one POST may take. Default 10s.", false},
		{"retry", "retry", "How a POST that was refused for now (408, 425 or 429) is tried again. Outages are waited out.", false},
	},
	"level": {
		{"severity", "string", "A word that events and episodes carry while this level is the highest that holds.", true},
		{"when", "expr", "The condition of the level. A reading without the fields that it needs changes nothing of it.", true},
		{"clear", "expr", "The condition that ends it. Default: that when is false.", false},
	},
	"escalate": {
		{"after", "duration", "How long after its raise, in processing time, an episode is escalated that was not acknowledged. At least 1s.", true},
		{"to", "string", "The severity that it gets.", true},
	},
	"flapping": {
		{"raises", "int", "Raises that make the alarm flap: 2 to 100.", true},
		{"within", "duration", "The event time within which they must come.", true},
		{"calm", "duration", "Event time without a raise that ends the flapping. Default: within.", false},
	},
	"bolt": {
		{"id", "id", "Name of the node; others receive from it by this name.", true},
		{"kind", "convert|stat|alarm|custom", "What the node does: convert (change or filter readings), stat (statistics), alarm (raise and clear) or custom (a service of yours).", true},
		{"from", "from", "What the node receives: a node's name, or {node, stream, grouping, by}, or a list of these.", true},
		{"tasks", "tasks", "Number of tasks: the most that workers can share out. Default 8, at most 16.", false},
		{"streams", "streams", "Outputs beside the default one, with their fields; an empty list means any fields. What is emitted on any other stream is a dead letter.", false},
		{"save", "save", "Store what the node emits: a collection's name, or {collection, fields, indexes, ttl}.", false},
		{"notify", "notify", "Tell others of what the node emits with notify: true, as alarms do: {subject, webhook, secret, timeout, retry}.", false},
		{"retry", "retry", "How a failing execution is tried again.", false},
		{"build", "string", "Only workers of this version run the node, as boltmesh ps shows it: a build that behaves differently takes over between two readings, when apply changes this. Default any; not regarded by dev and test.", false},
	},
	KindConvert: {
		{"where", "expr", "Only readings for which this is true go on.", false},
		{"set", "set", "Fields to set, each by an expression.", false},
		{"drop", "strings", "Fields to remove.", false},
		{"script", "script", "JavaScript with convert(t, ctx), returning nothing, one or many outputs: a file's name, or the text itself.", false},
	},
	KindStat: {
		{"where", "expr", "Only readings for which this is true count.", false},
		{"group", "group", "What statistics are kept per: device (default), a field, archive.<field>, a list of these, script for what the script's group(t) returns, or none.", false},
		{"window", "window", "What a statistic covers: lifetime, or one of tumbling, sliding, session, count.", false},
		{"every", "duration", "Output at this interval; without a window the statistics begin anew each time.", false},
		{"aggregates", "aggregates", "Statistics by name, such as count, mean(celsius), quantile(celsius, 0.95).", false},
		{"script", "script", "JavaScript with compute(t, state) and output(state, window), or beside aggregates with group(t): a file's name, or the text itself.", false},
	},
	KindAlarm: {
		{"where", "expr", "Only readings for which this is true are looked at.", false},
		{"group", "group", "What episodes are kept per: device (default), a field, archive.<field>, a list of these, or none.", false},
		{"when", "expr", "The condition that raises the alarm. A reading without the fields that it needs changes nothing.", false},
		{"clear", "expr", "The condition that clears the alarm. Default: that when is false.", false},
		{"levels", "levels", "Several conditions in rising order, each with its severity, instead of when, clear and severity: one episode moves between them.", false},
		{"raise_after", "int", "Consecutive readings that must fulfil when. Default 1.", false},
		{"clear_after", "int", "Consecutive readings that must fulfil clear. Default 1.", false},
		{"raise_for", "duration", "How long when must hold, instead of raise_after.", false},
		{"clear_for", "duration", "How long clear must hold, instead of clear_after.", false},
		{"severity", "string", "A word that events and episodes carry. Beside levels: that of no_data.", false},
		{"suppress", "duration", "Mutes notifications for so long after one; events and episodes are still stored.", false},
		{"no_data", "duration", "Raises when a group is silent for so long.", false},
		{"escalate", "escalate", "Gives a higher severity to episodes that nobody acknowledges: {after: 30m, to: critical}.", false},
		{"flapping", "flapping", "Mutes notifications of an alarm that is raised too often: {raises: 5, within: 1h}.", false},
		{"script", "script", "JavaScript with when(t, ctx) instead of the expression: a file's name, or the text itself.", false},
	},
	KindCustom: {
		{"service", "id", "Kind of service that runs the node.", true},
		{"group", "group", "What the node keeps state per; without it the node is stateless.", false},
		{"every", "duration", "With group: how often ticks come, in processing time. Without it they come when the watermark has moved.", false},
		{"where", "expr", "A filter for the service to apply: it is checked and handed over with the node.", false},
		{"config", "object", "Handed to the service as it is.", false},
	},
}

// keysOf returns the keys of a bolt of a kind.
func keysOf(kind string) []key {
	return append(append([]key(nil), shapes["bolt"]...), shapes[kind]...)
}

func namesOf(keys []key) []string {
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.name
	}
	return names
}
