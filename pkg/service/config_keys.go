package service

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// configKey is one entry of the configuration. The same table serves files, environment, flags and help, so that they cannot differ.
type configKey struct {
	name  string // as in a file, sections joined by points
	takes string // what a value looks like; completes "is not ..."
	doc   string
	bind  func(fs *pflag.FlagSet, flag string)
}

func flagOf(name string) string { return "--" + strings.NewReplacer(".", "-", "_", "-").Replace(name) }

const envPrefix = "BOLTMESH_"

func envOf(name string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(name, ".", "_"))
}

// configKeys lists everything that can be configured, in the order of the help, bound to c; what c holds are the defaults.
func configKeys(c *Config) []configKey {
	all := []configKey{
		{"nats.url", "a URL", "NATS servers, comma separated; tls:// for TLS", bindText(&c.NATS.URL)},
		{"nats.creds", "a file", "credentials file (JWT and seed)", bindText(&c.NATS.Creds)},
		{"nats.user", "text", "user name", bindText(&c.NATS.User)},
		{"nats.password", "text", "password; better given in a file or the environment", bindText(&c.NATS.Password)},
		{"nats.token", "text", "token, instead of user and password", bindText(&c.NATS.Token)},
		{"nats.replicas", "a whole number", "copies of each stream and bucket that is created", bindNumber(&c.NATS.Replicas)},
	}
	all = append(all, tlsKeys("nats", &c.NATS.TLS)...)
	all = append(all, configKey{"redis.url", "a URL", "Redis for state: redis://user:password@host:port/db; rediss:// for TLS", bindText(&c.Redis.URL)})
	all = append(all, tlsKeys("redis", &c.Redis.TLS)...)
	all = append(all,
		configKey{"mongo.uri", "a URI", "MongoDB for documents and archives", bindText(&c.Mongo.URI)},
		configKey{"mongo.database", "a name", "database of topologies that name none; their own names if empty", bindText(&c.Mongo.Database)})
	all = append(all, tlsKeys("mongo", &c.Mongo.TLS)...)
	return append(all, []configKey{
		{"sqlite", "a file", "SQLite file for state and documents, instead of Redis and MongoDB", bindText(&c.SQLite)},
		{"state", "redis or sqlite", "where state is kept; sqlite if a file is given, else redis", bindText(&c.State)},
		{"documents", "mongo or sqlite", "where documents and archives are kept; sqlite if a file is given, else mongo", bindText(&c.Documents)},
		{"topology", "names", "run only this topology; repeatable", bindList(&c.Topologies)},
		{"node", "ids", "run only this node; repeatable", bindList(&c.Nodes)},
		{"worker", "a name", "name of this process; made of host, process id and a random part if empty", bindText(&c.Worker)},
		{"http", "an address", "address of /metrics, /healthz and /readyz; auto is the first free port of 127.0.0.1 from 9464 on; off for none", bindText(&c.HTTP)},
		{"pprof", "an address", "loopback address of /debug/pprof; none if empty", bindText(&c.Pprof)},
		{"otlp", "a URL", "endpoint for traces: http://host:4318 or grpc://host:4317; as the OTEL_* variables say if empty", bindText(&c.OTLP)},
		{"sample_ratio", "a number from 0 to 1", "share of readings that are traced", func(fs *pflag.FlagSet, flag string) { fs.Float64Var(&c.SampleRatio, flag, c.SampleRatio, "") }},
		{"log_level", "debug, info, warn or error", "least level of the lines that are logged", func(fs *pflag.FlagSet, flag string) { fs.TextVar(&c.LogLevel, flag, c.LogLevel, "") }},
		{"drain_timeout", "a duration such as 30s", "how long SIGTERM waits for what is in flight", func(fs *pflag.FlagSet, flag string) { fs.DurationVar(&c.DrainTimeout, flag, c.DrainTimeout, "") }},
		{"cache.entries", "a whole number", "most entries of the local state cache", bindNumber(&c.Cache.Entries)},
		{"cache.bytes", "a size such as 64MiB", "most bytes of the local state cache", func(fs *pflag.FlagSet, flag string) { fs.Var((*byteSize)(&c.Cache.Bytes), flag, "") }},
		{"cache.ttl", "a duration such as 1h", "how long an unused entry stays; 0s for as long as there is room", func(fs *pflag.FlagSet, flag string) { fs.DurationVar(&c.Cache.TTL, flag, c.Cache.TTL, "") }},
		{"fetch.frames", "a whole number", "most frames that a bolt takes at once, 1 to 64", bindNumber(&c.Fetch.Frames)},
		{"fetch.records", "a whole number", "most records that a spout takes at once from one partition", bindNumber(&c.Fetch.Records)},
	}...)
}

func tlsKeys(section string, t *TLS) []configKey {
	return []configKey{
		{section + ".tls.ca", "a file", "certificates to trust (PEM)", bindText(&t.CA)},
		{section + ".tls.cert", "a file", "client certificate (PEM)", bindText(&t.Cert)},
		{section + ".tls.key", "a file", "key of the client certificate (PEM)", bindText(&t.Key)},
		{section + ".tls.insecure", "true or false", "accept any certificate: tests only", func(fs *pflag.FlagSet, flag string) { fs.BoolVar(&t.Insecure, flag, t.Insecure, "") }},
	}
}

func bindText(p *string) func(*pflag.FlagSet, string) {
	return func(fs *pflag.FlagSet, flag string) { fs.StringVar(p, flag, *p, "") }
}

func bindNumber(p *int) func(*pflag.FlagSet, string) {
	return func(fs *pflag.FlagSet, flag string) { fs.IntVar(p, flag, *p, "") }
}

func bindList(p *[]string) func(*pflag.FlagSet, string) {
	return func(fs *pflag.FlagSet, flag string) { fs.StringSliceVar(p, flag, *p, "") }
}

// byteSize is a number of bytes, written plainly or in KiB, MiB or GiB.
type byteSize int64

var sizeUnits = []struct {
	name  string
	shift int
}{{"GiB", 30}, {"MiB", 20}, {"KiB", 10}}

// Type names the type in pflag's terms.
func (*byteSize) Type() string { return "size" }

// String writes the size in the largest unit that divides it.
func (s *byteSize) String() string {
	for _, u := range sizeUnits {
		if *s != 0 && *s%(1<<u.shift) == 0 {
			return strconv.FormatInt(int64(*s)>>u.shift, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(*s), 10)
}

// Set reads what String writes.
func (s *byteSize) Set(v string) error {
	shift := 0
	for _, u := range sizeUnits {
		if digits, ok := strings.CutSuffix(v, u.name); ok {
			v, shift = strings.TrimSpace(digits), u.shift
			break
		}
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 || n > 1<<(62-shift) {
		return fmt.Errorf("%q is not a size", v)
	}
	*s = byteSize(n << shift)
	return nil
}
