package service

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
)

// serverVar makes this test binary one NATS server of a cluster, which a test can kill: its number, where it is for clients and where the others are for it, the
// directory of all and their ports.
const serverVar = "BOLTMESH_TEST_CLUSTER"

func TestMain(m *testing.M) {
	if how := os.Getenv(serverVar); how != "" {
		serveNATS(strings.Split(how, ","))
	}
	goleak.VerifyTestMain(m)
}

// serveNATS runs a server until the process is killed or its input ends, which it does when the test dies.
func serveNATS(how []string) {
	host, routes, dir, numbers := how[1], how[2], how[3], []int{}
	for _, s := range append([]string{how[0]}, how[4:]...) {
		n, err := strconv.Atoi(s)
		if err != nil {
			panic(err)
		}
		numbers = append(numbers, n)
	}
	self, ports := numbers[0], numbers[1:]
	o := &server.Options{
		ServerName: fmt.Sprintf("n%d", self), Host: host, Port: ports[self], NoSigs: true, LogFile: serverLog(dir, self), Logtime: true,
		JetStream: true, StoreDir: filepath.Join(dir, strconv.Itoa(self)),
		Cluster: server.ClusterOpts{Name: "test", Host: numbered(routes, self), Port: ports[servers+self]},
	}
	for i := range servers {
		o.Routes = append(o.Routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("%s:%d", numbered(routes, i), ports[servers+i])})
	}
	s, err := server.NewServer(o)
	if err != nil {
		panic(err)
	}
	s.ConfigureLogger()
	s.Start()
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// numbered puts a server's number into its address, where that has a place for it.
func numbered(host string, i int) string { return strings.ReplaceAll(host, "#", strconv.Itoa(i+1)) }

func serverLog(dir string, i int) string { return filepath.Join(dir, fmt.Sprintf("n%d.log", i)) }

const servers = 3

// cluster is three NATS servers, each a process.
type cluster struct {
	t     *testing.T
	dir   string
	ports [2 * servers]int // of clients, then of routes
	host  string           // of a server for clients, with its number for #
	route string           // of a server for the others
	space string           // network namespace of a server; "": this process' own
	procs [servers]*exec.Cmd
}

// newCluster chooses where three servers will be. None runs yet.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: t.TempDir(), host: "127.0.0.1", route: "127.0.0.1"}
	for i := range c.ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // held until all are found, so that they differ
		c.ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	t.Cleanup(func() {
		for i := range c.procs {
			c.kill(i)
		}
	})
	return c
}

// start runs a server.
func (c *cluster) start(i int) {
	c.t.Helper()
	how := []string{strconv.Itoa(i), numbered(c.host, i), c.route, c.dir}
	for _, p := range c.ports {
		how = append(how, strconv.Itoa(p))
	}
	cmd := exec.Command(os.Args[0])
	if c.space != "" {
		cmd = exec.Command("ip", "netns", "exec", numbered(c.space, i), os.Args[0])
	}
	cmd.Env = append(os.Environ(), serverVar+"="+strings.Join(how, ","))
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil {
		c.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.procs[i] = cmd
}

func (c *cluster) kill(i int) {
	if cmd := c.procs[i]; cmd != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // the error is the kill
		c.procs[i] = nil
	}
}

// at is where a server is reached; a client learns of the others from it.
func (c *cluster) at(i int) string {
	return fmt.Sprintf("nats://%s:%d", numbered(c.host, i), c.ports[i])
}

func (c *cluster) urls() string {
	var all []string
	for i := range servers {
		all = append(all, c.at(i))
	}
	return strings.Join(all, ",")
}

// leader says which server leads a stream.
func (c *cluster) leader(stream string) (i int) {
	c.t.Helper()
	nc, err := nats.Connect(c.urls())
	if err != nil {
		c.t.Fatal(err)
	}
	defer nc.Close()
	js, err := natsjs.New(nc)
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	for {
		s, err := js.Stream(ctx, stream)
		if err == nil {
			_, err = fmt.Sscanf(s.CachedInfo().Cluster.Leader, "n%d", &i)
		}
		if err == nil {
			return i
		}
		if ctx.Err() != nil {
			c.t.Fatalf("leader of %s: %v", stream, err)
		}
		sleep(ctx, 100*time.Millisecond) // none is known where the server has just come back
	}
}

// elections lists which leaders were elected after a time, by the servers' logs, other than those of consumers, and when the last of all was.
func (c *cluster) elections(since time.Time) (said []string, last time.Duration) {
	c.t.Helper()
	for i := range servers {
		f, err := os.Open(serverLog(c.dir, i))
		if err != nil {
			c.t.Fatal(err)
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			_, what, found := strings.Cut(lines.Text(), "JetStream cluster new ")
			fields := strings.Fields(lines.Text())
			if !found || len(fields) < 3 {
				continue
			}
			at, err := time.ParseInLocation("2006/01/02 15:04:05.000000", fields[1]+" "+fields[2], time.Local)
			if err != nil {
				c.t.Fatal(err)
			}
			after := at.Sub(since)
			if after < 0 {
				continue
			}
			last = max(last, after)
			if !strings.HasPrefix(what, "consumer") {
				said = append(said, fmt.Sprintf("%.1f s: %s", after.Seconds(), what))
			}
		}
		_ = f.Close()
	}
	return said, last
}
