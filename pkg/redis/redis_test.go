package redis_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/boltmesh/boltmesh/pkg/redis"
	"github.com/boltmesh/boltmesh/pkg/spout/spouttest"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/state/statetest"
	"github.com/boltmesh/boltmesh/pkg/tuple"
	"github.com/boltmesh/boltmesh/tests/servers"
)

func TestConformance(t *testing.T) {
	url := server(t, "--appendfsync", "no") // the suite makes thousands of commits and kills nothing
	options, err := goredis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	client := goredis.NewClient(options)
	defer client.Close()
	statetest.Run(t, func(t *testing.T) (state.Store, state.Logs) {
		if err := client.FlushAll(ctx).Err(); err != nil { // a walk looks at every key there is
			t.Fatal(err)
		}
		s := connect(t, url)
		return s, s
	})
}

// TestCalls: the log of calls.
func TestCalls(t *testing.T) {
	s := connect(t, server(t, "--appendfsync", "no"))
	spouttest.Run(t, func(*testing.T) state.Logs { return s })
}

func TestKeyNames(t *testing.T) {
	url := server(t)
	s := connect(t, url)
	task := state.Task{Topology: "machine-health", Node: "hourly", Index: 3}
	epoch, err := s.Claim(ctx, task)
	if err != nil {
		t.Fatal(err)
	}
	b := state.Batch{Set: []state.Entry{{Key: "cache-hourly-m1", Value: []byte("x")}}, Agenda: []state.Due{{Key: "m1", At: 1}}}
	if err := s.Commit(ctx, task, epoch, &b); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Raise(ctx, "machine-health", "tick"); err != nil {
		t.Fatal(err)
	}
	options, _ := goredis.ParseURL(url)
	client := goredis.NewClient(options)
	defer client.Close()
	for _, key := range []string{
		"bm:machine-health:{hourly.3}:cache-hourly-m1", "bm:machine-health:{hourly.3}.fence", "bm:machine-health:{hourly.3}.agenda",
		"bm:machine-health:{log:tick}.generation",
	} {
		if n, err := client.Exists(ctx, key).Result(); n != 1 {
			t.Errorf("key %s is not there (%v)", key, err)
		}
	}
}

func TestScriptsAreSentAgainAfterTheServerForgotThem(t *testing.T) {
	url := server(t)
	s := connect(t, url)
	task := state.Task{Topology: "t", Node: "n"}
	epoch, _ := s.Claim(ctx, task)
	options, _ := goredis.ParseURL(url)
	client := goredis.NewClient(options)
	defer client.Close()
	for range 2 {
		if err := s.Commit(ctx, task, epoch, &state.Batch{}); err != nil {
			t.Fatal(err)
		}
		if err := client.ScriptFlush(ctx).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDurable(t *testing.T) {
	for _, c := range []struct {
		fsync string
		want  bool
	}{{"always", true}, {"everysec", false}} {
		s := connect(t, server(t, "--appendfsync", c.fsync))
		if got, err := s.Durable(ctx); err != nil || got != c.want {
			t.Errorf("appendfsync %s: %t, %v, want %t", c.fsync, got, err, c.want)
		}
	}
}

func TestPasswordAndErrorsThatDoNotShowIt(t *testing.T) {
	url := server(t, "--requirepass", "s3cret")
	if s, err := redis.Open(ctx, redis.Options{URL: url}); err == nil {
		_ = s.Close()
		t.Error("connected without the password")
	}
	connect(t, strings.Replace(url, "redis://", "redis://:s3cret@", 1))
	for _, bad := range []string{"redis://:s3cret@127.0.0.1:bad", "http://:s3cret@h", "redis://u:s3cret@h:1/x"} {
		_, err := redis.Open(ctx, redis.Options{URL: bad})
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("error %v for a bad URL: want one without the password", err)
		}
	}
}

// TestSilentServer has a server that takes the commit and never answers: the outcome is unknown, so the error must not be ErrFenced.
func TestSilentServer(t *testing.T) {
	s := connect(t, server(t))
	task := state.Task{Topology: "t", Node: "n"}
	epoch, _ := s.Claim(ctx, task)
	ended, cancel := context.WithTimeout(ctx, time.Nanosecond)
	defer cancel()
	if err := s.Commit(ended, task, epoch, &state.Batch{}); err == nil || errors.Is(err, state.ErrFenced) {
		t.Errorf("commit past its deadline: %v, want an error other than ErrFenced", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	start := time.Now()
	_, err = redis.Open(ctx, redis.Options{URL: "redis://" + l.Addr().String(), Timeout: 50 * time.Millisecond})
	if err == nil || time.Since(start) > 5*time.Second {
		t.Errorf("opened a silent server: %v after %v", err, time.Since(start))
	}
}

// TestCommitsSurviveKill kills the server and expects of the same client that it goes on, with all that was acknowledged.
func TestCommitsSurviveKill(t *testing.T) {
	p := servers.Run(t, servers.Redis, servers.Options{})
	s := connect(t, p.URL)
	task := state.Task{Topology: "t", Node: "n"}
	epoch, err := s.Claim(ctx, task)
	if err != nil {
		t.Fatal(err)
	}
	for run := range 3 {
		b := state.Batch{Set: []state.Entry{{Key: "n", Value: fmt.Append(nil, run)}}, Apply: []state.Record{{ID: tuple.ByTask(int32(run))}}}
		if err := s.Commit(ctx, task, epoch, &b); err != nil {
			t.Fatal(err)
		}
		p.Kill()
		if err := s.Commit(ctx, task, epoch, &b); err == nil || errors.Is(err, state.ErrFenced) {
			t.Fatalf("commit to a dead server: %v, want an error other than ErrFenced", err)
		}
		if err := p.Restart(ctx); err != nil {
			t.Fatal(err)
		}
		// A connection that died with the server may be met once more.
		head, err := s.Head(ctx, task)
		if err != nil {
			head, err = s.Head(ctx, task)
		}
		values, loadErr := s.Load(ctx, task, []string{"n"})
		if err != nil || loadErr != nil || len(head.Applied) != run+1 || string(values[0]) != fmt.Sprint(run) {
			t.Fatalf("after kill %d: %d applied, value %q (%v, %v)", run, len(head.Applied), values[0], err, loadErr)
		}
	}
}

// batch is a commit as a stat node makes it: 256 tuples of 64 devices, each applied; the floor follows four commits behind.
func batch(n int) *state.Batch {
	b := &state.Batch{Floors: map[tuple.Origin]int64{1: int64(256 * (n - 4))}}
	for d := range 64 {
		b.Set = append(b.Set, state.Entry{Key: fmt.Sprintf("cache-hourly-device-%03d", d), Value: make([]byte, 120)})
	}
	for i := range 256 {
		p := tuple.Position{Origin: 1, Offset: int64(256*n + i)}
		b.Apply = append(b.Apply, state.Record{ID: tuple.RootID(p), Applied: state.Applied{Position: p}})
	}
	return b
}

// BenchmarkCommit measures commits of one tuple and of 256, from one task and from eight at once, as a durable server takes them.
func BenchmarkCommit(b *testing.B) {
	url := server(b)
	for _, tasks := range []int{1, 8} {
		for _, size := range []int{1, 256} {
			b.Run(fmt.Sprintf("tasks=%d/tuples=%d", tasks, size), func(b *testing.B) {
				s := connect(b, url)
				var wg sync.WaitGroup
				for i := range tasks {
					wg.Go(func() {
						task := state.Task{Topology: fmt.Sprintf("b%d-%d", tasks, size), Node: "n", Index: int32(i)}
						epoch, err := s.Claim(ctx, task)
						if err != nil {
							b.Error(err)
						}
						for n := range (b.N + tasks - 1) / tasks {
							x := batch(n)
							if size == 1 {
								x.Set, x.Apply = x.Set[:1], x.Apply[:1]
							}
							if err := s.Commit(ctx, task, epoch, x); err != nil {
								b.Error(err)
							}
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
			})
		}
	}
}
