package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/call"
	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/tests/servers"
)

// called is what calls need, and no more: NATS, Redis, a spout, and workers as processes of their own.
type called struct {
	*testing.T
	nats, redis, spout *servers.Process
	control            *control.Control
	*call.Client
}

func startCalled(t *testing.T) *called {
	t.Helper()
	c := &called{T: t}
	var err error
	if c.nats, err = servers.NATS(t.Context(), servers.Options{Dir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.nats.Close)
	if c.redis, err = servers.Redis(t.Context(), servers.Options{Dir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.redis.Close)
	conn, err := jetstream.Connect(t.Context(), jetstream.Options{URL: c.nats.URL, Name: "tests"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	if c.control, err = control.New(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	c.Client = call.New(conn)
	c.spout = c.worker("spout", "spout-1")
	return c
}

// worker starts a service, from the programs that were built.
func (c *called) worker(program, name string, flags ...string) *servers.Process {
	c.Helper()
	p, err := servers.Program{
		Name: name, Ready: "/readyz", Hide: "BOLTMESH_",
		Argv: func(addr string) []string {
			return append([]string{
				filepath.Join(binaries, program), "--worker", name, "--http", addr, "--nats-url", c.nats.URL, "--redis-url", c.redis.URL, "--log-level", "warn",
			}, flags...)
		},
	}.Start(c.Context(), servers.Options{Dir: c.TempDir()})
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() {
		if log, err := os.ReadFile(p.LogFile()); err == nil && c.Failed() {
			c.Logf("--- %s\n%s", name, log)
		}
		p.Close()
	})
	return p
}

// python starts the B that is written in Python.
func (c *called) python(name string) *exec.Cmd {
	c.Helper()
	var said bytes.Buffer
	p := exec.Command("python3", "../../examples/foreman/python/b.py", "--worker", name, "--nats-url", c.nats.URL)
	p.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	p.Stdout, p.Stderr = &said, &said
	if err := p.Start(); err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() {
		_ = p.Process.Kill() // it may have ended already
		_ = p.Wait()
		if c.Failed() {
			c.Logf("--- %s\n%s", name, said.String())
		}
	})
	return p
}

// cli runs the boltmesh command.
func (c *called) cli(args ...string) string {
	c.Helper()
	cmd := exec.CommandContext(c.Context(), filepath.Join(binaries, "boltmesh"), args...)
	cmd.Env = append(os.Environ(), "BOLTMESH_NATS_URL="+c.nats.URL)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		c.Fatalf("boltmesh %s: %v\n%s%s", strings.Join(args, " "), err, out, said.Bytes())
	}
	return string(out)
}

// until waits for the leases of a topology to say something.
func (c *called) until(what, topology string, ok func([]member.Member) bool) {
	c.Helper()
	deadline := time.After(time.Minute)
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		ms, err := c.control.Members(c.Context(), topology)
		if err == nil && ok(ms) {
			return
		}
		select {
		case <-look.C:
		case <-deadline:
			c.Fatalf("not in time: %s: %+v (%v)", what, ms, err)
		}
	}
}

// owners waits until just these workers own tasks of a node, each at least one.
func (c *called) owners(topology, node string, workers ...string) {
	c.Helper()
	c.until(fmt.Sprint(workers, " own the tasks of ", node), topology, func(ms []member.Member) bool {
		have := map[string]bool{}
		for _, m := range ms {
			if m.Node == node && len(m.Tasks) > 0 {
				have[m.Worker] = true
			}
		}
		return slices.Equal(slices.Sorted(maps.Keys(have)), workers)
	})
}

// foreman asks A and compares with what the foreman of the original prints.
func (c *called) foreman(i int) {
	c.Helper()
	began := time.Now()
	if err := c.hello(i); err != nil {
		c.Fatal(err)
	}
	c.Logf("call %d took %v", i, time.Since(began).Round(time.Millisecond))
}

func (c *called) hello(i int) error {
	a, err := c.Call(c.Context(), "foreman", fmt.Appendf(nil, `{"msg":"hello%d"}`, i), call.Options{Timeout: 40 * time.Second})
	if err != nil {
		return err
	}
	b := fmt.Sprintf(`{"msg":"hello%d,from StreamWorkerA,from StreamWorkerB"}`, i)
	if want := `{"B1":` + b + `,"B2":` + b + `}`; len(a.Replies) != 1 || string(a.Replies[0].Payload) != want {
		return fmt.Errorf("call %d: %s, want %s", i, a.Replies, want)
	}
	return nil
}

// TestForeman: A asks two Bs and answers with what both have said, ten times; then Bs die in the midst of calls, others join, and one is in Python.
func TestForeman(t *testing.T) {
	c := startCalled(t)
	c.worker("foreman-a", "a1", "--fetch-frames", "1")
	c.worker("foreman-a", "a2", "--fetch-frames", "1")
	b1, b2 := c.worker("foreman-b", "b1"), c.worker("foreman-b", "b2")
	c.cli("apply", "../../examples/foreman/workers.yaml", "../../examples/foreman/topology.yaml")
	c.owners("workers", "b", "b1", "b2")
	for i := range 10 {
		c.foreman(i)
	}
	in := func(node string) func([]member.Member) bool {
		return func(ms []member.Member) bool {
			n := int64(0)
			for _, m := range ms {
				if m.Node == node {
					n += m.In
				}
			}
			return n == map[string]int64{"a": 10, "b": 20}[node]
		}
	}
	c.until("A was asked 10 times", "foreman", in("a"))
	c.until("the Bs were asked 20 times", "workers", in("b"))

	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if err := c.hello(100 + i); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	c.until("both As were asked, 30 times in all", "foreman", func(ms []member.Member) bool {
		by := map[string]int64{}
		for _, m := range ms {
			if m.Node == "a" {
				by[m.Worker] = m.In
			}
		}
		return by["a1"] > 0 && by["a2"] > 0 && by["a1"]+by["a2"] == 30
	})

	// A B that is frozen does not answer in time, and is named. When it is dead its task is another's, and the call is answered all the same.
	b2.Pause()
	var late *call.UnansweredError
	if _, err := c.Call(t.Context(), "workers", json.RawMessage(`{"msg":"x"}`), call.Options{Timeout: 1500 * time.Millisecond}); !errors.As(err, &late) ||
		!slices.ContainsFunc(late.Holders, func(h trace.Holder) bool { return h.Node == "b" && h.Worker == "b2" }) {
		t.Errorf("a worker that is frozen: %v", err)
	} else {
		t.Log(err)
	}
	time.AfterFunc(500*time.Millisecond, b2.Kill)
	c.foreman(10)
	c.owners("workers", "b", "b1")

	// One in Python joins and has its share, then everything, as the last one in Go dies too.
	p := c.python("python-1")
	c.owners("workers", "b", "b1", "python-1")
	for i := 11; i < 14; i++ {
		c.foreman(i)
	}
	c.likeOthers("python-1")
	c.exchange("b1", "python-1")
	c.foreman(17)
	b1.Kill()
	c.foreman(14)
	c.owners("workers", "b", "python-1")
	var failed *call.FailedError
	if _, err := c.Call(t.Context(), "workers", json.RawMessage(`{"no":"message"}`), call.Options{Timeout: 20 * time.Second}); !errors.As(err, &failed) ||
		len(failed.Failures) == 0 || failed.Failures[0].Worker != "python-1" {
		t.Errorf("what Python cannot handle: %v", err)
	}
	c.worker("foreman-b", "b3")
	c.owners("workers", "b", "b3", "python-1")
	c.foreman(15)
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("the worker in Python was asked to stop: %v", err)
	}
	c.owners("workers", "b", "b3")
	c.foreman(16)
}

// TestReach: Storm's reach, with the answers that it gives.
func TestReach(t *testing.T) {
	c := startCalled(t)
	c.worker("convert", "convert-1")
	c.worker("convert", "convert-2")
	c.cli("apply", "../../examples/reach/topology.yaml")
	for link, want := range map[string]int{
		"foo.com/blog/1": 16, "engineering.twitter.com/blog/5": 14, "tech.backtype.com/blog/123": 7, "example.com": 0,
	} {
		if out := c.cli("call", "reach", `{"url":"`+link+`"}`, "--distinct"); strings.Count(out, "\n") != want {
			t.Errorf("%s has reached %d, want %d: %s", link, strings.Count(out, "\n"), want, out)
		}
	}
	answer, err := http.Post(c.spout.URL+"/call/reach", "application/json", strings.NewReader(`{"url":"foo.com/blog/1"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var a call.Answer
	if err := json.NewDecoder(answer.Body).Decode(&a); err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("over HTTP: %s (%v)", answer.Status, err)
	}
	if a.Distinct(); len(a.Replies) != 16 {
		t.Errorf("over HTTP: %d are reached, want 16: %s", len(a.Replies), a.Replies)
	}
}
