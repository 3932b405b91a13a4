package service

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/boltmesh/boltmesh/pkg/observe"
)

var updateHelp = flag.Bool("update-help", false, "rewrite testdata/config_help.golden")

// configFile puts a configuration file into a directory of the test's own.
func configFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConfigPrecedence(t *testing.T) {
	const file = `
nats: {url: "nats://file:1", user: file, password: from-file}
redis:
  url: redis://file:1
topology: [from-file, other]
fetch: {frames: 1}
cache: {bytes: 64MiB}
sample_ratio: 0.25
log_level: warn
`
	for _, c := range []struct {
		name      string
		file      string
		env, args []string
		change    func(*Config) // from the defaults
	}{
		{name: "nothing", change: func(*Config) {}},
		{name: "an empty file", file: "# nothing\n", change: func(*Config) {}},
		{name: "an empty section", file: "nats:\n", change: func(*Config) {}},
		{name: "file", file: file, change: func(c *Config) {
			c.NATS.URL, c.NATS.User, c.NATS.Password, c.Redis.URL = "nats://file:1", "file", "from-file", "redis://file:1"
			c.Topologies, c.Fetch.Frames, c.Cache.Bytes, c.SampleRatio, c.LogLevel = []string{"from-file", "other"}, 1, 64<<20, 0.25, slog.LevelWarn
		}},
		{
			name: "the environment over the file", file: file,
			env: []string{"BOLTMESH_NATS_URL=nats://env:1", "BOLTMESH_TOPOLOGY=env-a, env-b", "BOLTMESH_FETCH_FRAMES=2", "BOLTMESH_REDIS_URL=", "HOME=/x", "BOLTMESH_KAFKA_BROKERS=k:1"},
			change: func(c *Config) {
				c.NATS.URL, c.NATS.User, c.NATS.Password, c.Redis.URL = "nats://env:1", "file", "from-file", "redis://file:1"
				c.Topologies, c.Fetch.Frames, c.Cache.Bytes, c.SampleRatio, c.LogLevel = []string{"env-a", "env-b"}, 2, 64<<20, 0.25, slog.LevelWarn
			},
		},
		{
			name: "flags over both", file: file, env: []string{"BOLTMESH_NATS_URL=nats://env:1", "BOLTMESH_TOPOLOGY=env", "BOLTMESH_FETCH_FRAMES=2"},
			args: []string{"--nats-url", "nats://flag:1", "--topology", "flag-a", "--topology=flag-b", "--fetch-frames=3", "--cache-bytes=2GiB", "--log-level=debug", "--drain-timeout=5s"},
			change: func(c *Config) {
				c.NATS.URL, c.NATS.User, c.NATS.Password, c.Redis.URL = "nats://flag:1", "file", "from-file", "redis://file:1"
				c.Topologies, c.Fetch.Frames, c.Cache.Bytes, c.SampleRatio, c.LogLevel = []string{"flag-a", "flag-b"}, 3, 2<<30, 0.25, slog.LevelDebug
				c.DrainTimeout = 5 * time.Second
			},
		},
		{name: "a flag that repeats the default still wins", env: []string{"BOLTMESH_FETCH_FRAMES=2"}, args: []string{"--fetch-frames=16"}, change: func(*Config) {}},
		{name: "sqlite takes over", args: []string{"--sqlite=/data/bm.db"}, change: func(c *Config) {
			c.SQLite, c.State, c.Documents = "/data/bm.db", BackendSQLite, BackendSQLite
		}},
		{name: "sqlite for documents only", args: []string{"--sqlite=/data/bm.db", "--state=redis"}, change: func(c *Config) {
			c.SQLite, c.State, c.Documents = "/data/bm.db", BackendRedis, BackendSQLite
		}},
		{name: "nothing served", env: []string{"BOLTMESH_HTTP=off"}, change: func(c *Config) { c.HTTP = "" }},
		{name: "OpenTelemetry's sampler", env: []string{"OTEL_TRACES_SAMPLER=parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG=0.5"}, change: func(c *Config) { c.SampleRatio = 0.5 }},
		{name: "and our own", env: []string{"OTEL_TRACES_SAMPLER=always_on"}, args: []string{"--sample-ratio=0"}, change: func(c *Config) { c.SampleRatio = 0 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := append([]string{"--worker=w"}, c.args...)
			if c.file != "" {
				args = append(args, "--config", configFile(t, c.file))
			}
			got, err := LoadConfig("stat", args, c.env)
			if err != nil {
				t.Fatal(err)
			}
			want := defaultConfig()
			want.Worker, want.State, want.Documents = "w", BackendRedis, BackendMongo
			c.change(&want)
			if len(got.Topologies) == 0 {
				got.Topologies = nil
			}
			if len(got.Nodes) == 0 {
				got.Nodes = nil
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestConfigFileFromTheEnvironment(t *testing.T) {
	a, b := configFile(t, "worker: a"), configFile(t, "worker: b")
	env := []string{"BOLTMESH_CONFIG=" + a}
	if c, err := LoadConfig("stat", nil, env); err != nil || c.Worker != "a" {
		t.Errorf("%q, %v", c.Worker, err)
	}
	if c, err := LoadConfig("stat", []string{"--config", b}, env); err != nil || c.Worker != "b" {
		t.Errorf("%q, %v", c.Worker, err)
	}
}

func TestConfigMistakes(t *testing.T) {
	for _, c := range []struct {
		name, file string
		env, args  []string
		want       []string // lines; FILE stands for the file's path
	}{
		{name: "unknown keys of a file", file: "nats:\n  ulr: x\nrediss: {url: y}\nnats_url: z\nquite: different\n", want: []string{
			"FILE:2:3: unknown key nats.ulr; did you mean nats.url?",
			"FILE:3:1: unknown key rediss; did you mean redis?",
			"FILE:4:1: unknown key nats_url; did you mean nats.url?",
			"FILE:5:1: unknown key quite; --help lists all",
		}},
		{name: "bad values of a file", file: "fetch: {frames: many}\ndrain_timeout: 30\nnats: text\nsqlite:\nhttp: [a, b]\ncache: {bytes: 1TiB}\n", want: []string{
			`FILE:1:9: fetch.frames: "many" is not a whole number`,
			`FILE:2:1: drain_timeout: "30" is not a duration such as 30s`,
			`FILE:3:7: a section with keys is expected here`,
			`FILE:4:1: sqlite: write a file`,
			`FILE:5:1: http: "a, b" is not an address`,
			`FILE:6:9: cache.bytes: "1TiB" is not a size such as 64MiB`,
		}},
		{name: "a list as a file", file: "- a\n", want: []string{"FILE:1:1: a section with keys is expected here"}},
		{name: "bad YAML", file: "nats: {url: x\n", want: []string{"FILE:1:"}},
		{name: "a key twice", file: "http: a:1\nhttp: a:2\n", want: []string{"FILE:2:1: mapping key \"http\" already defined"}},
		{name: "no file", args: []string{"--config=/nowhere/c.yaml"}, want: []string{"read configuration: open /nowhere/c.yaml"}},
		{name: "unknown variables", env: []string{"BOLTMESH_NATS_ULR=x", "BOLTMESH_ZEBRA=y"}, want: []string{
			"BOLTMESH_NATS_ULR: unknown variable; did you mean BOLTMESH_NATS_URL?", "BOLTMESH_ZEBRA: unknown variable; --help lists all",
		}},
		{name: "bad variable", env: []string{"BOLTMESH_NATS_TLS_INSECURE=perhaps"}, want: []string{`BOLTMESH_NATS_TLS_INSECURE: "perhaps" is not true or false`}},
		{name: "unknown flag", args: []string{"--nats-ulr=x"}, want: []string{"--nats-ulr: unknown flag; did you mean --nats-url?"}},
		{name: "bad flag", args: []string{"--log-level=loud"}, want: []string{`--log-level: "loud" is not debug, info, warn or error`}},
		{name: "a word", args: []string{"run"}, want: []string{`"run": a service takes flags only`}},
		{name: "values out of range", args: []string{"--fetch-frames=65", "--sample-ratio=NaN", "--state=etcd", "--worker=a.b", "--pprof=6060", "--nats-user=u", "--nats-token=t", "--redis-tls-cert=c", "--topology=Bad", "--drain-timeout=0s"}, want: []string{
			`drain_timeout (--drain-timeout, BOLTMESH_DRAIN_TIMEOUT): 0s; write more than 0s`,
			`fetch.frames (--fetch-frames, BOLTMESH_FETCH_FRAMES): 65; write 1 to 64`,
			`nats.creds (--nats-creds, BOLTMESH_NATS_CREDS): creds, user and token exclude each other`,
			`pprof (--pprof, BOLTMESH_PPROF): "6060"; write host:port`,
			`redis.tls.cert (--redis-tls-cert, BOLTMESH_REDIS_TLS_CERT): a certificate and its key come together`,
			`sample_ratio (--sample-ratio, BOLTMESH_SAMPLE_RATIO): NaN; write 0 to 1`,
			`state (--state, BOLTMESH_STATE): "etcd"; write redis or sqlite`,
			`topology (--topology, BOLTMESH_TOPOLOGY): "Bad" is no name of a topology`,
			`worker (--worker, BOLTMESH_WORKER): "a.b"; write at most 64 letters, digits, - and _`,
		}},
		{name: "sqlite without a file", args: []string{"--state=sqlite"}, want: []string{`sqlite (--sqlite, BOLTMESH_SQLITE): state or documents are to be in SQLite; name its file`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			args, path := c.args, ""
			if c.file != "" {
				path = configFile(t, c.file)
				args = append(args, "--config", path)
			}
			_, err := LoadConfig("stat", args, c.env)
			if err == nil {
				t.Fatal("no error")
			}
			got := strings.Split(err.Error(), "\n")
			for i, want := range c.want {
				if want = strings.ReplaceAll(want, "FILE", path); i >= len(got) || !strings.HasPrefix(got[i], want) {
					t.Errorf("line %d: want %s", i+1, want)
				}
			}
			if len(got) != len(c.want) || t.Failed() {
				t.Errorf("got:\n%s", err)
			}
		})
	}
}

func TestConfigHelp(t *testing.T) {
	for _, arg := range []string{"--help", "-h"} {
		if _, err := LoadConfig("stat", []string{"--nats-url=x", arg}, nil); !errors.Is(err, ErrHelp) {
			t.Errorf("%s: %v", arg, err)
		}
	}
	const golden = "testdata/config_help.golden"
	got := Help("stat")
	if *updateHelp {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Error(d)
	}
	c := defaultConfig()
	for _, k := range configKeys(&c) {
		if !strings.Contains(got, flagOf(k.name)+" ") || !strings.Contains(got, "variable "+envOf(k.name)) {
			t.Errorf("%s is missing", k.name)
		}
	}
}

func TestConfigExampleOfTheHelpLoads(t *testing.T) {
	c, err := LoadConfig("stat", []string{"--config", configFile(t, configExample)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Cache.Bytes != 1<<30 || c.NATS.TLS.CA == "" || c.NATS.Replicas != 3 {
		t.Errorf("%+v", c)
	}
}

func TestConfigHidesSecrets(t *testing.T) {
	c := defaultConfig()
	c.NATS.URL, c.NATS.Password, c.NATS.Token = "nats://u:hush@a:1,nats://u:hush@b:2", "hush", "hush"
	c.Redis.URL, c.Mongo.URI, c.OTLP = "redis://:hu/hush@h/0?password=hush", "mongodb://u:x@hush@a,b/db?tlsCertificateKeyFilePassword=hush", "http://hush@c:4318"
	var line bytes.Buffer
	slog.New(slog.NewJSONHandler(&line, nil)).Info("configured", "config", c)
	for _, s := range []string{fmt.Sprint(c), fmt.Sprintf("%+v", c), fmt.Sprintf("%#v", c), fmt.Sprintf("%v", &c), line.String()} {
		if strings.Contains(s, "hush") || !strings.Contains(s, "@h/0") {
			t.Error(s)
		}
	}
	if c.NATS.Password != "hush" {
		t.Error("the original has changed")
	}
	if got := (Config{HTTP: observe.Auto}).Redacted(); got.NATS.Token != "" || got.Redis.URL != "" {
		t.Errorf("what is absent should look absent: %+v", got)
	}
}

func TestWorkerNames(t *testing.T) {
	a, b := newWorker(), newWorker()
	if a == b || !workerName.MatchString(a) || !strings.Contains(a, fmt.Sprint(os.Getpid())) {
		t.Errorf("%s, %s", a, b)
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"url", "url", 0}, {"ulr", "url", 1}, {"ur", "url", 1}, {"uurl", "url", 1}, {"kitten", "sitting", 3}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("%q to %q: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestTLSConfig(t *testing.T) {
	if c, err := (TLS{}).Config(); c != nil || err != nil {
		t.Errorf("zero value: %v, %v", c, err)
	}
	if c, err := (TLS{Insecure: true}).Config(); err != nil || !c.InsecureSkipVerify {
		t.Errorf("insecure: %v, %v", c, err)
	}
	if _, err := (TLS{CA: configFile(t, "not a certificate")}).Config(); err == nil {
		t.Error("a file without certificates is accepted")
	}
	if _, err := (TLS{Cert: "/nowhere", Key: "/nowhere"}).Config(); err == nil {
		t.Error("a missing certificate is accepted")
	}
}
