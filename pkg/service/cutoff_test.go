//go:build netns

package service

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// netns gives every server of the cluster a host of its own: two networks, one to the clients and one to the other servers. It needs root.
func (c *cluster) netns() {
	c.t.Helper()
	const prefix = "boltmesh"
	run := func(command string, args ...any) {
		c.t.Helper()
		words := strings.Fields(fmt.Sprintf(command, args...))
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			c.t.Fatalf("%s: %v: %s\nthis test makes networks of its own: it needs root, and ip from Debian's iproute2", strings.Join(words, " "), err, out)
		}
	}
	clean := func() {
		for i := range servers {
			c.kill(i)
			for _, link := range []string{"bmc", "bmr"} {
				_ = exec.Command("ip", "link", "delete", fmt.Sprint(link, i+1)).Run()
			}
			_ = exec.Command("ip", "netns", "delete", fmt.Sprint(prefix, i+1)).Run()
		}
		_ = exec.Command("ip", "link", "delete", prefix).Run()
	}
	clean() // of a run that was killed
	c.t.Cleanup(clean)
	run("ip link add %s type bridge", prefix)
	run("ip link set %s up", prefix)
	for i := 1; i <= servers; i++ {
		run("ip netns add %s%d", prefix, i)
		run("ip -n %s%d link set lo up", prefix, i)
		run("ip link add bmc%d type veth peer name clients netns %s%d", i, prefix, i)
		run("ip addr add 10.231.%d.1/24 dev bmc%d", i, i)
		run("ip link set bmc%d up", i)
		run("ip -n %s%d addr add 10.231.%d.2/24 dev clients", prefix, i, i)
		run("ip -n %s%d link set clients up", prefix, i)
		run("ip link add bmr%d type veth peer name routes netns %s%d", i, prefix, i)
		run("ip link set bmr%d master %s", i, prefix)
		run("ip link set bmr%d up", i)
		run("ip -n %s%d addr add 10.232.0.%d/24 dev routes", prefix, i, i)
		run("ip -n %s%d link set routes up", prefix, i)
	}
	c.host, c.route, c.space = "10.231.#.2", "10.232.0.#", prefix+"#"
}

// cut takes a server from the others, and joins it with them again. Its clients keep it.
func (c *cluster) cut(i int, off bool) {
	c.t.Helper()
	how := map[bool]string{true: "down", false: "up"}[off]
	if out, err := exec.Command("ip", "link", "set", fmt.Sprint("bmr", i+1), how).CombinedOutput(); err != nil {
		c.t.Fatalf("%v: %s", err, out)
	}
}

// TestServerCutOff takes one of three NATS servers from the others, under load, while its clients keep it: these have to leave it, as it can store nothing. Every reading
// counts once, and what is due is done while the server is away.
func TestServerCutOff(t *testing.T) {
	for victim := range servers {
		t.Run(fmt.Sprint("n", victim), func(t *testing.T) {
			c := newCluster(t)
			c.netns()
			m := c.tallies(t)
			stop := m.trickle(64)
			m.until("all tasks are at work", m.settled)
			leads := c.leader("KV_BM_leases") == victim
			since := time.Now()
			c.cut(victim, true)
			sleep(t.Context(), 3*time.Second)
			n := stop()
			const limit = 60 * time.Second
			for !m.source.done() && time.Since(since) < 2*limit {
				sleep(t.Context(), 20*time.Millisecond)
			}
			took := time.Since(since)
			t.Logf("n%d (leader of the leases: %v) cut off under load, %d readings: all processed %.1f s later", victim, leads, n, took.Seconds())
			m.phases(since)
			c.cut(victim, false)
			m.until("all tasks are owned again", func() bool { return m.share("w1") == 4 && m.share("w2") == 4 })
			if got := m.totalOf(8); got != n {
				t.Errorf("counted %d readings, want %d", got, n)
			}
			if took > limit {
				t.Errorf("it took %s, want %s at most", took, limit)
			}
		})
	}
}
