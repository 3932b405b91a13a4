package service

import (
	"cmp"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/boltmesh/boltmesh/pkg/observe"
)

// Backends of Config.State and Config.Documents.
const (
	BackendRedis  = "redis"
	BackendMongo  = "mongo"
	BackendSQLite = "sqlite"
)

// Config is what every service is configured with. LoadConfig fills all of it; nothing is left to a default elsewhere.
type Config struct {
	NATS  NATS
	Redis Redis
	Mongo Mongo

	SQLite    string // file; when set, State and Documents default to it
	State     string // BackendRedis or BackendSQLite: state, generations, logs
	Documents string // BackendMongo or BackendSQLite: documents, archives

	Topologies []string // only these; empty means all
	Nodes      []string // only these; empty means all of the service's kind
	Worker     string   // name of this process among the workers of its nodes

	HTTP        string // address of /metrics, /healthz and /readyz, or observe.Auto; empty for none
	Pprof       string // loopback address of /debug/pprof; empty for none
	OTLP        string // endpoint for spans; empty leaves it to the OTEL_* variables
	SampleRatio float64
	LogLevel    slog.Level

	DrainTimeout time.Duration
	Cache        Cache
	Fetch        Fetch
}

// NATS says how to reach the servers. At most one of Creds, User and Token is set.
type NATS struct {
	URL            string // nats://host:port, comma separated
	Creds          string // credentials file
	User, Password string
	Token          string
	Replicas       int // of streams and buckets that are created
	TLS            TLS
}

// Redis says how to reach the state store.
type Redis struct {
	URL string // redis://user:password@host:port/db, rediss:// for TLS
	TLS TLS
}

// Mongo says how to reach the document store.
type Mongo struct {
	URI      string
	Database string // of topologies whose output names none; empty means the topology's name
	TLS      TLS
}

// TLS names the files of a connection. Its zero value leaves TLS to the URL's scheme.
type TLS struct {
	CA, Cert, Key string
	Insecure      bool // accept any certificate: tests only
}

// Cache bounds the local cache of committed state, per worker.
type Cache struct {
	Entries int
	Bytes   int64
	TTL     time.Duration // of an entry that is not used; 0 means none
}

// Fetch bounds what is taken from an input at once.
type Fetch struct {
	Frames  int // by a bolt's Step, from JetStream
	Records int // by a spout, from one Kafka partition
}

// defaultConfig returns the configuration of a service that is told nothing.
func defaultConfig() Config {
	return Config{
		NATS:  NATS{URL: "nats://127.0.0.1:4222", Replicas: 1},
		Redis: Redis{URL: "redis://127.0.0.1:6379/0"},
		Mongo: Mongo{URI: "mongodb://127.0.0.1:27017"},
		HTTP:  observe.Auto, SampleRatio: 0.01,
		DrainTimeout: 30 * time.Second,
		Cache:        Cache{Entries: 100_000, Bytes: 256 << 20, TTL: time.Hour},
		Fetch:        Fetch{Frames: 16, Records: 2000},
	}
}

// Config returns the client configuration that t describes, nil when it is the zero value. It reads the files.
func (t TLS) Config() (*tls.Config, error) {
	if t == (TLS{}) {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: t.Insecure} //nolint:gosec // the user asked for it
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("read CA: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read CA: no certificate in %s", t.CA)
		}
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("read client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// derive fills in what follows from the rest.
func (c *Config) derive() {
	state, documents := BackendRedis, BackendMongo
	if c.SQLite != "" {
		state, documents = BackendSQLite, BackendSQLite
	}
	c.State, c.Documents = cmp.Or(c.State, state), cmp.Or(c.Documents, documents)
	if c.HTTP == "off" {
		c.HTTP = ""
	}
	if c.Pprof == "off" {
		c.Pprof = ""
	}
	if c.Worker == "" {
		c.Worker = newWorker()
	}
}

// newWorker makes up a name that no other process has: leases are told apart by it.
func newWorker() string {
	host, _ := os.Hostname() // the name is unique without it
	host, _, _ = strings.Cut(host, ".")
	host = notWorker.ReplaceAllString(host, "-")
	return fmt.Sprintf("%.32s-%d-%s", cmp.Or(host, "worker"), os.Getpid(), strings.ToLower(rand.Text()[:6]))
}

var (
	nodeName   = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)
	workerName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`) // it becomes a part of a NATS key
	notWorker  = regexp.MustCompile(`[^A-Za-z0-9_-]`)
)

// check returns everything that is wrong with c.
func (c *Config) check() error {
	var all []error
	wrong := func(key, format string, args ...any) {
		all = append(all, fmt.Errorf("%s (%s, %s): %s", key, flagOf(key), envOf(key), fmt.Sprintf(format, args...)))
	}
	between := func(key string, v, low, high int64) {
		if v < low || v > high {
			wrong(key, "%d; write %d to %d", v, low, high)
		}
	}
	if c.State != BackendRedis && c.State != BackendSQLite {
		wrong("state", "%q; write redis or sqlite", c.State)
	}
	if c.Documents != BackendMongo && c.Documents != BackendSQLite {
		wrong("documents", "%q; write mongo or sqlite", c.Documents)
	}
	if c.SQLite == "" && (c.State == BackendSQLite || c.Documents == BackendSQLite) {
		wrong("sqlite", "state or documents are to be in SQLite; name its file")
	}
	if oneIf(c.NATS.Creds)+oneIf(c.NATS.User)+oneIf(c.NATS.Token) > 1 {
		wrong("nats.creds", "creds, user and token exclude each other")
	}
	for key, t := range map[string]TLS{"nats.tls": c.NATS.TLS, "redis.tls": c.Redis.TLS, "mongo.tls": c.Mongo.TLS} {
		if oneIf(t.Cert) != oneIf(t.Key) {
			wrong(key+".cert", "a certificate and its key come together")
		}
	}
	if !(c.SampleRatio >= 0 && c.SampleRatio <= 1) {
		wrong("sample_ratio", "%v; write 0 to 1", c.SampleRatio)
	}
	for key, addr := range map[string]string{"http": c.HTTP, "pprof": c.Pprof} {
		if _, _, err := net.SplitHostPort(addr); err != nil && addr != "" && (key != "http" || addr != observe.Auto) {
			wrong(key, "%q; write host:port", addr)
		}
	}
	for _, n := range c.Topologies {
		if !nodeName.MatchString(n) {
			wrong("topology", "%q is no name of a topology", n)
		}
	}
	for _, n := range c.Nodes {
		if !nodeName.MatchString(n) {
			wrong("node", "%q is no id of a node", n)
		}
	}
	if !workerName.MatchString(c.Worker) {
		wrong("worker", "%q; write at most 64 letters, digits, - and _", c.Worker)
	}
	if c.DrainTimeout <= 0 {
		wrong("drain_timeout", "%s; write more than 0s", c.DrainTimeout)
	}
	if c.Cache.TTL < 0 {
		wrong("cache.ttl", "%s; write 0s for none", c.Cache.TTL)
	}
	between("nats.replicas", int64(c.NATS.Replicas), 1, 5)
	between("cache.entries", int64(c.Cache.Entries), 1, 1<<31)
	between("cache.bytes", c.Cache.Bytes, 1<<20, 1<<44)
	between("fetch.frames", int64(c.Fetch.Frames), 1, 64) // deltas of one batch are bounded by it
	between("fetch.records", int64(c.Fetch.Records), 1, 10_000)
	return errors.Join(sortedErrors(all)...)
}

func oneIf(s string) int {
	if s == "" {
		return 0
	}
	return 1
}

const redacted = "[redacted]"

// Redacted returns a copy for logs: without passwords and tokens, and without what stands before the host or behind the path of a URL.
func (c Config) Redacted() Config {
	for _, s := range []*string{&c.NATS.Password, &c.NATS.Token} {
		if *s != "" {
			*s = redacted
		}
	}
	for _, s := range []*string{&c.NATS.URL, &c.Redis.URL, &c.Mongo.URI, &c.OTLP} {
		*s = redact(*s)
	}
	return c
}

// redact errs on the safe side: a password may hold any character, and there may be several hosts.
func redact(url string) string {
	scheme, rest, ok := strings.Cut(url, "://")
	if !ok {
		scheme, rest = "", url
	} else {
		scheme += "://"
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = redacted + rest[i:]
	}
	if i := strings.IndexByte(rest, '?'); i >= 0 {
		rest = rest[:i+1] + redacted
	}
	return scheme + rest
}

// String is safe to print: it is Redacted.
func (c Config) String() string {
	type plain Config
	return fmt.Sprintf("%+v", plain(c.Redacted()))
}

// GoString is safe to print.
func (c Config) GoString() string { return c.String() }

// LogValue is safe to log.
func (c Config) LogValue() slog.Value {
	type plain Config
	return slog.AnyValue(plain(c.Redacted()))
}
