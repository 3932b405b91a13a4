// Package floors is the import policy of boltmesh: which package may import what, with a reason on every rule.
// Its test holds every package of the module against it, so a dependency that would tie two parts together fails the
// build. It looks at the imports of the product only, never at those of tests.
package floors

import (
	"slices"
	"strings"
)

// rule says what one package may import beside the standard library, and why no more than that.
type rule struct {
	// pkg is a path below the module; "x/..." is x and everything below it. The first rule that fits counts.
	pkg string
	may imports
	why string
}

// imports are packages of this module, or other modules, whose packages are all allowed with them.
type imports []string

var (
	nothing  = imports{}
	anything = imports{"..."}
)

func allow(paths ...string) imports { return paths }

func (i imports) and(more ...string) imports { return slices.Concat(i, more) }

func (i imports) allows(path string) bool {
	return slices.ContainsFunc(i, func(allowed string) bool {
		if strings.HasPrefix(allowed, "pkg/") || strings.HasPrefix(allowed, "services/") || strings.Contains(allowed, "...") {
			return matches(allowed, path)
		}
		return matches(allowed+"/...", path)
	})
}

func (i imports) String() string {
	switch {
	case len(i) == 0:
		return "the standard library only"
	case slices.Contains(i, "..."):
		return "anything"
	}
	return "the standard library and " + strings.Join(i, ", ")
}

// matches tells whether a pattern, with or without "..." at its end, names a path.
func matches(pattern, path string) bool {
	tree, ok := strings.CutSuffix(pattern, "...")
	if !ok {
		return pattern == path
	}
	return strings.HasPrefix(path, tree) || path == strings.TrimSuffix(tree, "/")
}

// The floors. Each is what the next one up may stand on.
var (
	floor0 = allow("pkg/tuple", "pkg/ack", "pkg/topology", "pkg/partition", "pkg/member", "pkg/trace")
	floor1 = allow("pkg/bolt", "pkg/spout", "pkg/state", "pkg/script", "pkg/archive", "pkg/document")
	floor2 = allow("pkg/jetstream", "pkg/redis", "pkg/mongo", "pkg/sqlite", "pkg/observe", "pkg/webhook")

	engine = slices.Concat(floor0, floor1)
	suites = engine.and("github.com/google/go-cmp", "pgregory.net/rapid")
	picks  = engine.and("github.com/tidwall/gjson") // reads single fields of a payload
	below3 = slices.Concat(floor0, floor1, floor2)
)

const (
	words   = "words and arithmetic: a value that floors 0 to 3 share must not bring anything with it"
	engines = "the engine decides and sequences; who talks to the outside is handed to it as an interface"
	adapter = "one folder per technology: whoever replaces a vendor changes this folder and no other"
	logic   = "the reason a service exists computes on values; its main is what connects it"
	suite   = "a conformance suite, run by the tests of every implementation"
)

var policy = []rule{
	// Floor 0: no I/O, no vendor.
	{"pkg/tuple", nothing, "the value that moves is imported by everything, so it imports nothing"},
	{"pkg/ack", allow("pkg/tuple"), words},
	{"pkg/topology", allow("pkg/tuple", "github.com/goccy/go-yaml"), words + "; the YAML decoder gives faults their line and column"},
	{"pkg/partition", allow("pkg/tuple"), words},
	{"pkg/member", allow("pkg/tuple"), words},
	{"pkg/trace", allow("pkg/tuple"), words},

	// Floor 1: contracts and sequencing. Libraries that only compute are allowed by name; clients are not.
	{"pkg/bolt", engine, engines},
	{"pkg/bolt/bolttest", suites, suite},
	{"pkg/spout", engine.and("github.com/tidwall/gjson"), engines + "; gjson picks the key and the time out of a record"},
	{"pkg/spout/spouttest", suites, suite},
	{"pkg/state", engine.and("github.com/maypok86/otter/v2"), engines + "; otter is the cache in front of a store"},
	{"pkg/state/statetest", suites, suite},
	{"pkg/script", engine.and("github.com/dop251/goja", "github.com/expr-lang/expr", "github.com/tidwall/gjson", "github.com/tidwall/sjson"), engines + "; the user's language and its lazy documents"},
	{"pkg/archive", engine.and("github.com/maypok86/otter/v2"), engines + "; otter is the cache in front of a store"},
	{"pkg/archive/archivetest", suites, suite},
	{"pkg/document", engine.and("github.com/tidwall/gjson"), engines + "; gjson validates a body and picks out its id"},
	{"pkg/document/documenttest", suites, suite},

	// Floor 2: one vendor each, and never one another.
	{"pkg/jetstream", engine.and("github.com/nats-io/nats.go"), adapter},
	{"pkg/redis", engine.and("github.com/redis/go-redis/v9"), adapter},
	{"pkg/mongo", engine.and("go.mongodb.org/mongo-driver/v2", "github.com/tidwall/gjson"), adapter + "; gjson walks over the JSON that becomes BSON"},
	{"pkg/sqlite", engine.and("modernc.org/sqlite"), adapter},
	{"pkg/webhook", engine, adapter + "; HTTP needs no vendor"},
	{"pkg/observe", engine.and("go.opentelemetry.io/otel", "github.com/prometheus/client_golang"), adapter + "; traces and metrics are one noun here, since one event becomes both"},

	// Floor 3: assembly. The services never reach devstack: a production binary holds no broker.
	{"pkg/service", below3.and("pkg/control", "pkg/call", "github.com/knadh/koanf", "github.com/spf13/pflag", "github.com/spf13/cobra", "github.com/goccy/go-yaml", "github.com/tidwall/gjson", "github.com/cenkalti/backoff/v5"), "what every main shares; it knows the adapters, reads configuration, and reads the topologies that control writes"},
	{"pkg/call", below3, "what callers of a topology hold: the CLI, the HTTP endpoint, programs of the user's own"},
	{"pkg/tap", below3, "what operators see of tuples on their way, heard through the adapters"},
	{"pkg/control", below3, "operator questions, asked through the adapters"},
	{"pkg/feed", below3.and("services/spout/kafka", "github.com/segmentio/kafka-go", "golang.org/x/time/rate"), "the other end of the spout: it writes to Kafka what the spout reads, through the same connection settings"},
	{"pkg/devstack", allow("github.com/nats-io/nats-server/v2", "github.com/twmb/franz-go"), "two brokers in one process; what they carry is not their business"},
	{"pkg/rehearse/casefile", engine.and("pkg/service", "pkg/rehearse", "github.com/goccy/go-yaml", "github.com/tidwall/gjson"), "the files of tests of topologies, whose places the YAML parser knows"},
	{"pkg/rehearse", engine.and("pkg/service"), "a topology in memory, wired as pkg/service wires it; whoever rehearses names the bolts"},
	{"pkg/meshtest", engine.and("services/convert/normalize", "services/stat/window", "services/alarm/rule", "services/output/write"), "the mesh on memory transports: with an adapter in it a run would not be repeatable from its seed"},

	// Services: the sub-package is the reason, the main wires it.
	{"services/spout/kafka", engine.and("github.com/segmentio/kafka-go"), adapter},
	{"services/convert/normalize", picks, logic},
	{"services/stat/window", picks.and("github.com/DataDog/sketches-go", "github.com/axiomhq/hyperloglog"), logic + "; sketches are arithmetic"},
	{"services/alarm/rule", picks, logic},
	{"services/output/write", picks, logic},
	{"services/output/notify", picks, logic},
	{"services/...", anything, "a main connects everything"},

	// Whatever nothing else imports.
	{"cmd/...", anything, "a program connects everything"},
	{"examples/...", anything, "an example shows everything"},
	{"tests/...", anything, "a test reaches everything"},
}

// distance keeps a package out of everything that another one is built from, directly or not.
type distance struct{ from, to, why string }

var distances = []distance{
	{"services/...", "pkg/devstack", "a service that could start a broker of its own would hide that its broker is missing"},
	{"services/...", "github.com/nats-io/nats-server/v2", "a production binary holds no broker"},
	{"services/...", "github.com/twmb/franz-go/...", "a production binary holds one Kafka client"},
}

// quiet packages decide from what they are given: the same inputs give the same outputs, in a simulation as in
// production. So they use no clock, no network, no files and no log.
var quiet = slices.Concat(engine, imports{
	"services/convert/normalize", "services/stat/window", "services/alarm/rule", "services/output/write", "services/output/notify",
})

// noisy are the packages of the standard library that a quiet package does without.
var noisy = imports{"log/...", "net/...", "os/...", "database/...", "syscall", "crypto/rand", "math/rand/..."}

// clock names the functions of package time that read or follow the clock.
var clock = []string{"Now", "Since", "Until", "After", "AfterFunc", "NewTimer", "NewTicker", "Sleep", "Tick"}

// clockAllowed are the exceptions: package, function, reason.
var clockAllowed = []distance{
	{"pkg/script", "AfterFunc", "the deadline of a script: nothing else can interrupt an endless loop"},
}
