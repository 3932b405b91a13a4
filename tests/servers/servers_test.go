package servers_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.uber.org/goleak"

	"github.com/boltmesh/boltmesh/tests/servers"
)

// orphanVar makes this test binary a program that starts a server and then waits to be killed.
const orphanVar = "SERVERS_TEST_ORPHAN"

func TestMain(m *testing.M) {
	if os.Getenv(orphanVar) != "" {
		p, err := servers.Redis(context.Background(), servers.Options{Dir: os.Getenv(orphanVar)})
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println("ready", p.PID())
		_, _ = io.Copy(io.Discard, os.Stdin) // until killed, or until the test is
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// survives starts a server, lets write leave something in it, then has check find it after a kill, after a stop, and
// after a start anew on the same directory.
func survives(t *testing.T, start servers.Starter, write, check func(ctx context.Context, url string) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	dir := t.TempDir()
	began := time.Now()
	p := servers.Run(t, start, servers.Options{Dir: dir})
	t.Logf("%s: started in %v", p.Name, time.Since(began).Round(time.Millisecond))
	if err := write(ctx, p.URL); err != nil {
		t.Fatalf("write: %v", err)
	}
	url, pid := p.URL, p.PID()

	p.Kill()
	if p.Running() {
		t.Error("runs after Kill")
	}
	restart(t, ctx, p, "after a kill")
	if p.URL != url || p.PID() == pid {
		t.Errorf("restart moved from %s to %s, pid %d to %d", url, p.URL, pid, p.PID())
	}
	if err := check(ctx, p.URL); err != nil {
		t.Errorf("after a kill: %v", err)
	}

	began = time.Now()
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	t.Logf("%s: stopped in %v", p.Name, time.Since(began).Round(time.Millisecond))
	restart(t, ctx, p, "after a stop")
	if err := check(ctx, p.URL); err != nil {
		t.Errorf("after a stop: %v", err)
	}
	p.Close()

	again := servers.Run(t, start, servers.Options{Dir: dir})
	if err := check(ctx, again.URL); err != nil {
		t.Errorf("started anew: %v", err)
	}
	again.Close()
}

func restart(t *testing.T, ctx context.Context, p *servers.Process, when string) {
	t.Helper()
	began := time.Now()
	if err := p.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: restarted %s in %v", p.Name, when, time.Since(began).Round(time.Millisecond))
}

func TestNATS(t *testing.T) {
	with := func(url string, do func(jetstream.JetStream) error) error {
		nc, err := nats.Connect(url)
		if err != nil {
			return err
		}
		defer nc.Close()
		js, err := jetstream.New(nc)
		if err != nil {
			return err
		}
		return do(js)
	}
	survives(t, servers.NATS, func(ctx context.Context, url string) error {
		return with(url, func(js jetstream.JetStream) error {
			if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
				return err
			}
			_, err := js.Publish(ctx, "s", []byte("kept"))
			return err
		})
	}, func(ctx context.Context, url string) error {
		return with(url, func(js jetstream.JetStream) error {
			s, err := js.Stream(ctx, "S")
			if err != nil {
				return err
			}
			m, err := s.GetMsg(ctx, 1)
			if err != nil {
				return err
			}
			return same(string(m.Data), "kept")
		})
	})
}

func TestKafka(t *testing.T) {
	survives(t, servers.Kafka, func(ctx context.Context, url string) error {
		tr := &kafka.Transport{}
		defer tr.CloseIdleConnections()
		w := &kafka.Writer{Addr: kafka.TCP(url), Topic: "t", RequiredAcks: kafka.RequireAll, AllowAutoTopicCreation: true, Transport: tr}
		defer w.Close()
		var err error
		for ctx.Err() == nil { // a new topic has no leader at first
			if err = w.WriteMessages(ctx, kafka.Message{Key: []byte("k"), Value: []byte("kept")}); err == nil {
				break
			}
		}
		return err
	}, func(ctx context.Context, url string) error {
		// A group, so that its coordinator is seen to be up again too.
		r := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{url}, GroupID: fmt.Sprint(time.Now().UnixNano()), Topic: "t", StartOffset: kafka.FirstOffset, MaxWait: 100 * time.Millisecond, JoinGroupBackoff: 100 * time.Millisecond})
		defer r.Close()
		m, err := r.FetchMessage(ctx)
		for passing := kafka.Error(0); errors.As(err, &passing) && passing.Temporary(); { // the coordinator takes its partitions, and reads its log, first
			m, err = r.FetchMessage(ctx)
		}
		if err != nil {
			return err
		}
		if err := r.CommitMessages(ctx, m); err != nil {
			return err
		}
		return same(string(m.Value), "kept")
	})
}

func TestRedis(t *testing.T) {
	with := func(url string, do func(*redis.Client) error) error {
		o, err := redis.ParseURL(url)
		if err != nil {
			return err
		}
		c := redis.NewClient(o)
		defer c.Close()
		return do(c)
	}
	survives(t, servers.Redis, func(ctx context.Context, url string) error {
		return with(url, func(c *redis.Client) error { return c.Set(ctx, "k", "kept", 0).Err() })
	}, func(ctx context.Context, url string) error {
		return with(url, func(c *redis.Client) error {
			got, err := c.Get(ctx, "k").Result()
			if err != nil {
				return err
			}
			return same(got, "kept")
		})
	})
}

func TestMongo(t *testing.T) {
	with := func(ctx context.Context, url string, do func(*mongo.Collection) error) error {
		c, err := mongo.Connect(options.Client().ApplyURI(url))
		if err != nil {
			return err
		}
		defer func() { _ = c.Disconnect(ctx) }()
		return do(c.Database("d").Collection("c"))
	}
	survives(t, servers.Mongo, func(ctx context.Context, url string) error {
		return with(ctx, url, func(c *mongo.Collection) error {
			_, err := c.InsertOne(ctx, bson.D{{Key: "_id", Value: "a"}, {Key: "v", Value: "kept"}})
			return err
		})
	}, func(ctx context.Context, url string) error {
		return with(ctx, url, func(c *mongo.Collection) error {
			var doc struct{ V string }
			if err := c.FindOne(ctx, bson.D{{Key: "_id", Value: "a"}}).Decode(&doc); err != nil {
				return err
			}
			return same(doc.V, "kept")
		})
	})
}

func TestJaeger(t *testing.T) {
	began := time.Now()
	p := servers.Run(t, servers.Jaeger, servers.Options{Config: []string{"--log-level=warn"}})
	t.Logf("jaeger: started in %v", time.Since(began).Round(time.Millisecond))
	now := time.Now().UnixNano()
	span := fmt.Sprintf(`{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"spout"}}]},
		"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"receive","kind":1,
		"startTimeUnixNano":"%d","endTimeUnixNano":"%d"}]}]}]}`, now, now+1000)
	post(t, p.URLs["otlp-http"]+"/v1/traces", span)
	var services struct{ Data []string }
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for len(services.Data) == 0 && ctx.Err() == nil { // its collector stores what it accepted a moment later
		get(t, p.URL+"/api/services", &services)
	}
	if len(services.Data) != 1 || services.Data[0] != "spout" {
		t.Fatalf("services = %v", services.Data)
	}
	var traces struct {
		Data []struct {
			Spans []struct{ OperationName string }
		}
	}
	get(t, p.URL+"/api/traces/5b8efff798038103d269b633813fc60c", &traces)
	if len(traces.Data) != 1 || traces.Data[0].Spans[0].OperationName != "receive" {
		t.Errorf("traces = %+v", traces)
	}
	p.Kill()
	restart(t, t.Context(), p, "after a kill")
	services.Data = nil
	get(t, p.URL+"/api/services", &services)
	if len(services.Data) != 0 {
		t.Errorf("kept %v in memory over a kill", services.Data)
	}
}

func TestPauseAndResume(t *testing.T) {
	p := servers.Run(t, servers.Redis, servers.Options{})
	o, err := redis.ParseURL(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	o.MaxRetries, o.ReadTimeout, o.ContextTimeoutEnabled = -1, 200*time.Millisecond, true
	c := redis.NewClient(o)
	defer c.Close()
	if err := c.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	p.Pause()
	if err := c.Ping(t.Context()).Err(); err == nil {
		t.Error("a paused server answered")
	}
	if !p.Running() {
		t.Error("a paused server is gone")
	}
	p.Resume()
	if err := c.Ping(t.Context()).Err(); err != nil {
		t.Error(err)
	}
	p.Pause()
	if err := p.Stop(); err != nil { // a paused server stops all the same
		t.Error(err)
	}
}

func TestWait(t *testing.T) {
	p := servers.Run(t, servers.Redis, servers.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("wait for a running server: %v", err)
	}
	go p.Kill()
	if err := p.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	dir := p.Dir()
	p.Close()
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("temporary directory after Close: %v", err)
	}
	if err := p.Restart(t.Context()); err == nil {
		t.Error("restarted after Close")
	}
}

func TestServerDiesWithItsParent(t *testing.T) {
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), orphanVar+"="+t.TempDir())
	stdin, err := parent.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	var pid int
	if _, scan := fmt.Sscanf(line, "ready %d", &pid); scan != nil {
		t.Fatalf("parent said %q, %v", line, err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // the error is the kill
	deadline := time.Now().Add(10 * time.Second)
	for alive(pid) {
		if time.Now().After(deadline) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Fatal("the server outlived its parent")
		}
		time.Sleep(10 * time.Millisecond) // between two looks; nothing reports an orphan's death
	}
}

// alive tells whether a process runs; one that is dead but not yet collected by init does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

func TestStartErrors(t *testing.T) {
	for name, tc := range map[string]struct {
		start servers.Starter
		o     servers.Options
		want  string
	}{
		"nats missing":     {servers.NATS, servers.Options{Tools: t.TempDir()}, "make tools"},
		"mongo missing":    {servers.Mongo, servers.Options{Tools: t.TempDir()}, "make tools"},
		"kafka missing":    {servers.Kafka, servers.Options{Tools: t.TempDir()}, "make tools"},
		"jaeger missing":   {servers.Jaeger, servers.Options{Tools: t.TempDir()}, "make tools"},
		"bad nats config":  {servers.NATS, servers.Options{Config: []string{"no_such_setting: 1"}}, "no_such_setting"},
		"bad redis config": {servers.Redis, servers.Options{Config: []string{"nosuchsetting 1"}}, "nosuchsetting"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := tc.start(t.Context(), tc.o)
			if err == nil {
				p.Close()
				t.Fatal("started")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %q does not say %q", err, tc.want)
			}
			if missing := strings.HasSuffix(name, "missing"); errors.Is(err, servers.ErrMissing) != missing {
				t.Errorf("ErrMissing = %t for %v", !missing, err)
			}
		})
	}
	t.Run("redis missing", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		if _, err := servers.Redis(t.Context(), servers.Options{}); !errors.Is(err, servers.ErrMissing) || !strings.Contains(err.Error(), "apt-get install redis-server") {
			t.Errorf("error = %v", err)
		}
	})
}

func same(got, want string) error {
	if got != want {
		return fmt.Errorf("got %q, want %q", got, want)
	}
	return nil
}

func post(t *testing.T, url, body string) {
	t.Helper()
	res, err := http.Post(url, "application/json", bytes.NewBufferString(body))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if res.StatusCode != http.StatusOK {
		t.Fatalf("POST %s: %s", url, res.Status)
	}
}

func get(t *testing.T, url string, into any) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(into); err != nil {
		t.Fatal(err)
	}
}
